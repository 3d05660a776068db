// ---- the gallery: of all tiles only those on the screen exist

const grid = { columns: 1, width: 0, height: 0, current: 0, nodes: new Map() };
const GAP = 12;
// Value and name, two lines of classes, a decision: in heights of the page's letters (see .caption in report.css).
const CAPTION = 5.75;

function measureGrid() {
  const room = $("tiles").clientWidth;
  grid.columns = Math.max(2, Math.floor((room + GAP) / (168 + GAP)));
  grid.width = Math.floor((room - GAP * (grid.columns - 1)) / grid.columns);
  grid.height = grid.width + Math.ceil(CAPTION * parseFloat(getComputedStyle(document.documentElement).fontSize));
}

const rowsOf = () => Math.ceil(view.pictures.length / grid.columns);

function draw() {
  measureGrid();
  grid.current = Math.min(Math.max(grid.current, 0), Math.max(0, view.pictures.length - 1));
  for (const node of grid.nodes.values()) node.remove();
  grid.nodes.clear();
  $("tiles").style.height = `${Math.max(0, rowsOf() * (grid.height + GAP) - GAP)}px`;
  $("count").textContent = !view.pictures.length ? "No picture fits."
    : view.pictures.length === data.pictures.length ? `${data.pictures.length} pictures`
    : `${view.pictures.length} of ${data.pictures.length} pictures`;
  legend($("legend"), view.layer);
  fill();
}

// Make the tiles that are to be seen, and a row more on both sides; drop the others.
function fill() {
  const pitch = grid.height + GAP;
  const { scrollTop, clientHeight } = $("scroller");
  const first = Math.max(0, Math.floor(scrollTop / pitch) - 1) * grid.columns;
  const last = Math.min(view.pictures.length, (Math.ceil((scrollTop + clientHeight) / pitch) + 1) * grid.columns);
  for (const [index, node] of grid.nodes) {
    if (index < first || index >= last) { node.remove(); grid.nodes.delete(index); }
  }
  let after = null;
  for (let index = last - 1; index >= first; index--) {
    let node = grid.nodes.get(index);
    if (!node) {
      node = tile(view.pictures[index], index);
      grid.nodes.set(index, node);
      $("tiles").insertBefore(node, after);
    }
    after = node;
  }
  const reachable = grid.nodes.has(grid.current) ? grid.current : Math.min(first + grid.columns, last - 1);
  for (const [index, node] of grid.nodes) node.firstChild.tabIndex = index === reachable ? 0 : -1;
}

function tile(picture, index) {
  const photo = make("img", { className: "photo", src: picture.photo, alt: "" });
  const stack = make("span", { className: "stack" }, photo);
  const [width, height] = picture.thumbnail;
  stack.style.aspectRatio = `${width} / ${height}`;
  stack.style[width >= height ? "width" : "height"] = "100%";
  stack.classList.toggle("grey", view.grey);
  const layer = view.layer === "none" ? null : picture[view.layer];
  if (layer) {
    const over = make("img", { className: "layer", src: layer, alt: "" });
    over.style.opacity = view.opacity;
    stack.append(over);
    dress(stack, picture, view.layer);
  }
  const labels = view.layer === "truth" ? picture.truth_labels : foundIn(picture);
  photo.alt = `${fileOf(picture)}; ${TITLES[view.layer]}: ${labels.map(nameOf).join(", ") || "background alone"}`;
  const value = picture.miou === null ? `${rounded(picture.confidence)} conf.` : `${rounded(picture.miou)} mIoU`;
  const chips = make("span", { className: "chips" }, ...labels.slice(0, 4).flatMap((label) => [chipOf(label), " "]));
  if (labels.length > 4) chips.append(`+ ${labels.length - 4}`);
  if (!labels.length) chips.append("background alone");
  const caption = make(
    "span", { className: "caption" },
    make("span", { className: "value" }, value),
    make("span", { className: "name", title: picture.source }, fileOf(picture)),
    chips,
  );
  const frame = make("span", { className: "frame" }, stack);
  const button = make("button", { type: "button", className: "tile" }, frame, caption);
  button.addEventListener("click", () => { grid.current = index; open(index); });
  frame.addEventListener("pointermove", (event) => pointAt(event, picture, view.layer, document.body));
  frame.addEventListener("pointerleave", hideTip);
  review.tile(button, picture);
  const item = make("div", { className: "item", role: "listitem" }, button);
  item.setAttribute("aria-setsize", view.pictures.length);
  item.setAttribute("aria-posinset", index + 1);
  const [row, column] = [Math.floor(index / grid.columns), index % grid.columns];
  Object.assign(item.style, {
    left: `${column * (grid.width + GAP)}px`, top: `${row * (grid.height + GAP)}px`,
    width: `${grid.width}px`, height: `${grid.height}px`,
  });
  return item;
}

function legend(node, layer) {
  node.hidden = layer !== "errors";
  node.replaceChildren(...(layer === "errors" ? Object.entries(data.errors).map(([name, colour]) => chip(colour, name)) : []));
}

function goTo(index) {
  grid.current = Math.min(Math.max(index, 0), view.pictures.length - 1);
  const top = Math.floor(grid.current / grid.columns) * (grid.height + GAP);
  const scroller = $("scroller");
  if (top < scroller.scrollTop) scroller.scrollTop = top;
  if (top + grid.height > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = top + grid.height - scroller.clientHeight;
  fill();
  grid.nodes.get(grid.current)?.firstChild.focus({ preventScroll: true });
}

function moveInGrid(event) {
  const page = Math.max(1, Math.floor($("scroller").clientHeight / (grid.height + GAP))) * grid.columns;
  const by = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -grid.columns, ArrowDown: grid.columns, PageUp: -page, PageDown: page,
    Home: -view.pictures.length, End: view.pictures.length,
  }[event.key];
  if (!by || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  goTo(grid.current + by);
}

function startGrid() {
  $("scroller").addEventListener("scroll", () => { hideTip(); fill(); }, { passive: true });
  $("tiles").addEventListener("keydown", moveInGrid);
  $("tiles").addEventListener("focusin", (event) => {
    for (const [index, node] of grid.nodes) if (node.contains(event.target)) grid.current = index;
  });
  new ResizeObserver(() => { if ($("tiles").clientWidth && grid.room !== $("tiles").clientWidth) { grid.room = $("tiles").clientWidth; draw(); } }).observe($("tiles"));
}

// ---- what a tile or a pane has over its layer: outlines, names, the name under the pointer

const readOf = (picture, layer) => readLayer(picture[layer]);

// Whose regions have names where a layer is shown; outlines are the layer's own.
const regionsOf = (layer) => (layer === "truth" || layer === "errors" ? "truth" : layer === "prediction" ? "prediction" : null);

// Of each label a pixel of its largest connected region, near the middle of that.
function namePlaces({ labels, width, height }) {
  const seen = new Uint8Array(labels.length);
  const best = new Map();
  const stack = new Int32Array(labels.length);
  for (let start = 0; start < labels.length; start++) {
    const label = labels[start];
    if (seen[start] || !label) continue;
    let [top, size] = [1, 0];
    const region = [];
    stack[0] = start;
    seen[start] = 1;
    while (top) {
      const at = stack[--top];
      region[size++] = at;
      const x = at % width;
      for (const next of [x ? at - 1 : -1, x < width - 1 ? at + 1 : -1, at - width, at + width]) {
        if (next >= 0 && next < labels.length && !seen[next] && labels[next] === label) { seen[next] = 1; stack[top++] = next; }
      }
    }
    if (size > (best.get(label)?.length ?? 0)) best.set(label, region);
  }
  return [...best].map(([label, region]) => {
    const mean = (of) => region.reduce((sum, at) => sum + of(at), 0) / region.length;
    const [cx, cy] = [mean((at) => at % width), mean((at) => Math.floor(at / width))];
    const far = (at) => (at % width - cx) ** 2 + (Math.floor(at / width) - cy) ** 2;
    const at = region.reduce((a, b) => (far(b) < far(a) ? b : a));
    return { label, x: (at % width + 0.5) / width, y: (Math.floor(at / width) + 0.5) / height };
  });
}

async function dress(stack, picture, layer) {
  const of = regionsOf(layer);
  if (!of || !picture[of]) return;
  const { map, path } = await readOf(picture, layer);
  if (view.outlines) stack.append(outlined(map, path));
  if (view.names) stack.append(...namesIn((await readOf(picture, of)).map));
}

function namesIn(map) {
  return namePlaces(map).map(({ label, x, y }) => {
    const node = make("span", { className: "region", ariaHidden: "true" }, nameOf(label));
    // At the left edge it begins there, at the right one it ends there: it never leaves the picture.
    Object.assign(node.style, { left: `${100 * x}%`, top: `${100 * y}%`, transform: `translate(${-100 * x}%, ${-100 * y}%)` });
    return node;
  });
}

// The name of the region under the pointer.
async function pointAt(event, picture, layer, container) {
  const box = event.currentTarget.querySelector(".stack").getBoundingClientRect();
  const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  const said = [];
  if (x >= 0 && x < 1 && y >= 0 && y < 1) {
    for (const of of ["prediction", "truth"]) {
      if (!picture[of] || (layer !== "errors" && layer !== "certainty" && of !== (regionsOf(layer) ?? "prediction"))) continue;
      const { labels, width, height } = (await readOf(picture, of)).map;
      said.push([of, labels[Math.floor(y * height) * width + Math.floor(x * width)]]);
    }
  }
  const names = said.map(([of, label]) => `${said.length > 1 ? `${TITLES[of]}: ` : ""}${nameOf(label)}`);
  showTip(event, names.join(" · "), container);
}

function showTip(event, text, container) {
  const tip = $("tip");
  if (tip.parentElement !== container) container.append(tip);
  tip.hidden = !text;
  tip.textContent = text;
  tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, innerHeight - tip.offsetHeight - 8)}px`;
}

const hideTip = () => { $("tip").hidden = true; };
