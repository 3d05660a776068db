// ---- what lies over a picture: labels read from colours, outlines, names

const VOID = 65535;
const LABEL_OF = new Map(data.labels.map(({ colour }, label) => [parseInt(colour.slice(1), 16), label]));
LABEL_OF.set(0xffffff, VOID);
// Kinds of error are told apart as labels are; they have outlines, but no name of a class.
Object.values(data.errors).forEach((colour, i) => LABEL_OF.set(parseInt(colour.slice(1), 16), VOID - 1 - i));
// One kind alone is half clear, and a canvas does not give the colour of such pixels back exactly.
const HALF_CLEAR = -2;
LABEL_OF.set(HALF_CLEAR, VOID - 1 - Object.keys(data.errors).indexOf("not scored"));

const SVG = "http://www.w3.org/2000/svg";

function drawn(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

async function loaded(src) {
  const image = new Image();
  image.src = src;
  await image.decode();
  return image;
}

// The label of every pixel of one part of a sheet of layers, which lie below each other.
function labelMap(image, part = 0, parts = 1) {
  const [width, height] = [image.naturalWidth, image.naturalHeight / parts];
  const context = make("canvas", { width, height }).getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, -part * height);
  const { data: rgba } = context.getImageData(0, 0, width, height);
  const labels = new Uint16Array(width * height);
  for (let i = 0, at = 0, last = -1, label = 0; i < labels.length; i++, at += 4) {
    const opacity = rgba[at + 3];
    const colour = !opacity ? 0 : opacity < 255 ? HALF_CLEAR : (rgba[at] << 16) | (rgba[at + 1] << 8) | rgba[at + 2];
    if (colour !== last) [last, label] = [colour, LABEL_OF.get(colour) ?? 0];
    labels[i] = label;
  }
  return { labels, width, height };
}

// The edges between pixels of different labels as an SVG path, runs joined.
function outline({ labels, width, height }) {
  const path = [];
  for (let y = 1; y < height; y++) {
    for (let x = 0, start = -1; x <= width; x++) {
      const edge = x < width && labels[y * width + x] !== labels[(y - 1) * width + x];
      if (edge && start < 0) start = x;
      if (!edge && start >= 0) { path.push(`M${start} ${y}H${x}`); start = -1; }
    }
  }
  for (let x = 1; x < width; x++) {
    for (let y = 0, start = -1; y <= height; y++) {
      const edge = y < height && labels[y * width + x] !== labels[y * width + x - 1];
      if (edge && start < 0) start = y;
      if (!edge && start >= 0) { path.push(`M${x} ${start}V${y}`); start = -1; }
    }
  }
  return path.join("");
}

// A dark line with a light one in it: one of them is seen on anything.
function outlined({ width, height }, path) {
  const image = drawn("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", class: "outline", "aria-hidden": "true" });
  image.append(drawn("path", { d: path, class: "dark" }), drawn("path", { d: path, class: "light" }));
  return image;
}

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

// What was read of thumbnails lately.
const READ = new Map();

async function readOf(picture, layer) {
  const id = `${layer} ${picture.key}`;
  let found = READ.get(id);
  if (!found) {
    const map = labelMap(await loaded(picture[layer]));
    found = { map, path: outline(map) };
    READ.set(id, found);
    if (READ.size > 240) READ.delete(READ.keys().next().value);
  }
  return found;
}

// Whose regions have names where a layer is shown; outlines are the layer's own.
const regionsOf = (layer) => (layer === "truth" || layer === "errors" ? "truth" : layer === "prediction" ? "prediction" : null);

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

// From clear over purple and orange to pale yellow, evenly lighter: readable by colour-blind people.
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function heat(value) {
  const at = (value / 255) * (HEAT.length - 1);
  const low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((c, i) => Math.round(c + (HEAT[low + 1][i] - c) * (at - low)));
}

const LUT = Array.from({ length: 256 }, (_, value) => heat(value));

// A part of a grey image, smoothed, in colours of heat.
function paintHeat(canvas, image, [left, top, width, height], [w, h]) {
  const scale = 480 / Math.max(w, h);
  Object.assign(canvas, { width: Math.max(1, Math.round(w * scale)), height: Math.max(1, Math.round(h * scale)) });
  // The part alone first: smoothing would let its neighbours in.
  const alone = make("canvas", { width, height });
  alone.getContext("2d").drawImage(image, -left, -top);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(alone, 0, 0, canvas.width, canvas.height);
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2]] = LUT[pixels.data[i]];
    pixels.data[i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
}
