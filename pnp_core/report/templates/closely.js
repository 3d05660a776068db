// ---- one picture: its layers one by one or side by side, down to its own pixels

const detail = { index: 0, salienceClass: 0, beside: false, zoom: 1, x: 0.5, y: 0.5, close: null, missing: new Set() };

const shown = () => view.pictures[detail.index];
const layersOf = (picture) => ["prediction", "truth", "errors", "certainty", "salience", "none"].filter((l) => l === "none" || picture[l]);

function open(index) {
  const again = $("detail").open;
  detail.index = index;
  Object.assign(detail, { zoom: 1, x: 0.5, y: 0.5, close: null });
  if (!again) $("detail").showModal();
  show();
  writeAddress();
  loadClose(shown());
}

function step(by) {
  const index = detail.index + by;
  if (index >= 0 && index < view.pictures.length) open(index);
}

function show() {
  const picture = shown();
  detail.salienceClass = 0;
  $("detail-title").textContent = fileOf(picture);
  const [width, height] = picture.size;
  $("detail-source").textContent = `${picture.source} · ${width} × ${height} pixels · key ${picture.key} · mask in ${picture.mask}`;
  $("detail-links").replaceChildren(...linksOf(picture));
  const layers = layersOf(picture);
  if (!layers.includes(detail.layer)) detail.layer = layers.includes(view.layer) ? view.layer : "prediction";
  radios($("detail-layers"), "detail-layer", layers.map((l) => [l, TITLES[l]]), detail.layer, (value) => { detail.layer = value; showPanes(); });
  radios(
    $("salience-classes"), "salience-class", picture.salience_classes.map((label, i) => [i, nameOf(label)]), 0,
    (value) => { detail.salienceClass = Number(value); showPanes(); },
  );
  $("pass").max = Math.max(1, picture.passes);
  $("pass").value = Math.min($("pass").value, $("pass").max);
  classTable(picture);
  const notes = [picture.chosen && `Candidate classes: ${picture.chosen}`, ...picture.notes, picture.comment && `The file says: ${picture.comment}`];
  $("detail-notes").replaceChildren(...notes.filter(Boolean).map((text) => make("li", {}, text)));
  $("detail-previous").disabled = detail.index === 0;
  $("detail-next").disabled = detail.index === view.pictures.length - 1;
  review.detail(picture);
  showPanes();
}

// Addresses that begin with http are links; of everything else there is the text alone.
function linksOf(picture) {
  const link = (href, text) => make("a", { href, rel: "noopener noreferrer", target: "_blank" }, text);
  const links = [make("a", { href: address(picture.key) }, "link to this view")];
  if (/^https?:\/\//i.test(picture.source)) links.push(link(picture.source, "source"));
  if (picture.beside && !detail.missing.has(picture)) links.push(link(picture.beside.photo, "picture"), link(picture.beside.layers, "layers"));
  return links;
}

function radios(fieldset, name, options, chosen, changed) {
  const labels = options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => changed(value));
    return make("label", {}, input, text);
  });
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...labels);
}

// ---- panes

function panesOf(picture) {
  if (!detail.beside) return [[detail.layer, Number($("pass").value)]];
  const layers = ["none", ...layersOf(picture).filter((l) => l !== "none" && l !== "salience")];
  return [...layers.map((l) => [l, 1]), ...Array.from({ length: picture.passes }, (_, k) => ["salience", k + 1])];
}

function showPanes() {
  const picture = shown();
  const chosen = picture.salience_classes.length > 0 && (detail.beside || detail.layer === "salience");
  $("salience-controls").hidden = !chosen;
  $("pass").parentElement.hidden = detail.beside;
  $("pass-label").textContent = `Pass ${$("pass").value} of ${picture.passes}`;
  $("panes").classList.toggle("several", detail.beside);
  $("panes").replaceChildren(...panesOf(picture).map(([layer, pass]) => pane(picture, layer, pass)));
  legend($("detail-legend"), detail.beside && picture.errors ? "errors" : detail.layer);
  place();
}

function pane(picture, layer, pass) {
  const close = detail.close?.picture === picture ? detail.close : null;
  const labels = layer === "truth" ? picture.truth_labels : foundIn(picture);
  const names = labels.map(nameOf).join(", ") || "background alone";
  const title = layer === "salience" ? `salience of ${nameOf(picture.salience_classes[detail.salienceClass])}, pass ${pass}` : layer === "none" && detail.beside ? "picture" : TITLES[layer];
  const photo = make("img", { className: "photo", alt: `${fileOf(picture)}; ${title}: ${names}`, src: close ? close.photo.src : picture.photo, draggable: false });
  const stack = make("span", { className: "stack" }, photo);
  stack.classList.toggle("grey", view.grey);
  const [w, h] = picture.thumbnail;
  if (layer === "salience" || layer === "certainty") stack.append(heatOf(picture, layer, pass));
  else if (layer !== "none") stack.append(layerOf(picture, layer, close));
  dressClosely(stack, picture, layer, close);
  const frame = make("div", { className: "pane" }, stack);
  frame.style.aspectRatio = `${w} / ${h}`;
  if (!detail.beside) frame.style.maxWidth = `min(100%, ${(w / h) * 75}vh)`;
  frame.addEventListener("pointermove", (event) => { if (!event.buttons) pointAt(event, picture, layer, $("detail")); });
  frame.addEventListener("pointerleave", hideTip);
  return make("figure", {}, frame, make("figcaption", {}, title));
}

function layerOf(picture, layer, close) {
  const parts = ["prediction", "truth", "errors"].filter((l) => picture[l]);
  const image = make("img", { className: "layer", alt: "", src: close ? close.layers.src : picture[layer], draggable: false });
  image.style.opacity = view.opacity;
  if (!close) return image;
  // Layers lie below each other in one file; the pane shows one of them.
  image.style.height = `${100 * parts.length}%`;
  image.style.top = `${-100 * parts.indexOf(layer)}%`;
  return make("span", { className: "clip" }, image);
}

async function dressClosely(stack, picture, layer, close) {
  const of = regionsOf(layer);
  const read = of && close?.read[layer];
  if (!read) return dress(stack, picture, layer);
  if (view.outlines) stack.append(outlined(read.map, read.path));
  if (view.names) stack.append(...namesIn((await readOf(picture, of)).map));
}

function heatOf(picture, layer, pass) {
  const canvas = make("canvas", { className: "heat", role: "img" });
  const label = layer === "salience" ? `Salience of ${nameOf(picture.salience_classes[detail.salienceClass])}, pass ${pass} of ${picture.passes}` : "Confidence of each pixel, brighter is surer";
  canvas.setAttribute("aria-label", label);
  canvas.style.opacity = Math.max(view.opacity, 0.6);
  const chosen = detail.salienceClass;
  loaded(picture[layer]).then((image) => {
    const [width, height] = layer === "salience"
      ? [image.width / picture.salience_classes.length, image.height / picture.passes] : [image.width, image.height];
    const [left, top] = layer === "salience" ? [chosen * width, (pass - 1) * height] : [0, 0];
    paintHeat(canvas, image, [left, top, width, height], picture.thumbnail);
  });
  return canvas;
}

// ---- numbers of pixels in colours of heat

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

// ---- the picture's own pixels, from the files beside the page

const PATH_BYTES = 3_000_000;

async function loadClose(picture) {
  if (!picture.beside || detail.missing.has(picture)) { noteClose(picture); return; }
  let images;
  try {
    images = await Promise.all([loaded(picture.beside.photo), loaded(picture.beside.layers)]);
  } catch {
    detail.missing.add(picture); // the page is alone, or one of its files is gone
    noteClose(picture);
    if (shown() === picture) $("detail-links").replaceChildren(...linksOf(picture));
    return;
  }
  if (!$("detail").open || shown() !== picture) return;
  const [photo, layers] = images;
  detail.close = { picture, photo, layers, read: readClose(picture, layers) };
  showPanes();
  noteClose(picture);
}

// A page that is opened as a file may show the pictures beside it but not read them: then outlines are the thumbnail's.
function readClose(picture, layers) {
  const parts = ["prediction", "truth", "errors"].filter((l) => picture[l]);
  const read = {};
  try {
    for (const of of parts) {
      const map = labelMap(layers, parts.indexOf(of), parts.length);
      const path = outline(map);
      if (path.length < PATH_BYTES) read[of] = { map, path };
    }
  } catch (error) {
    if (error.name !== "SecurityError") throw error;
  }
  return read;
}

function noteClose(picture) {
  const text = detail.close?.picture === picture
    ? picture.beside.size[0] < picture.size[0] ? `shown with ${Math.round((100 * picture.beside.size[0]) / picture.size[0])} % of its pixels a side` : ""
    : "thumbnail: the folder “pictures” is not beside this page, or had no room for this one";
  $("close-note").textContent = text;
}

// ---- zoom and pan, the same in all panes

const ownWidth = (picture) => (detail.close?.picture === picture ? picture.beside.size[0] : picture.thumbnail[0]);

function place() {
  const frame = document.querySelector(".pane");
  if (!frame) return;
  const picture = shown();
  const [width, height] = [frame.clientWidth, frame.clientHeight];
  const half = Math.min(0.5, 0.5 / detail.zoom);
  detail.x = Math.min(Math.max(detail.x, half), 1 - half);
  detail.y = Math.min(Math.max(detail.y, half), 1 - half);
  const scale = (width * detail.zoom) / picture.size[0];
  for (const stack of document.querySelectorAll(".pane .stack")) {
    Object.assign(stack.style, {
      width: `${width * detail.zoom}px`, height: `${height * detail.zoom}px`,
      left: `${width / 2 - detail.x * width * detail.zoom}px`, top: `${height / 2 - detail.y * height * detail.zoom}px`,
    });
    stack.classList.toggle("pixels", detail.zoom > 1 && (width * detail.zoom) / ownWidth(picture) > 1.5);
  }
  for (const one of document.querySelectorAll(".pane")) one.classList.toggle("movable", detail.zoom > 1);
  $("zoom").textContent = `${Math.round(100 * scale)} % of its pixels`;
  $("zoom-out").disabled = detail.zoom <= leastZoom();
}

const ownZoom = () => shown().size[0] / (document.querySelector(".pane")?.clientWidth || 1);
const mostZoom = () => Math.max(4, 16 * ownZoom());
const leastZoom = () => Math.min(1, ownZoom());

// Zoom so that the place (x, y) of the picture, given as shares, stays where it is on the screen.
function zoomTo(zoom, x = detail.x, y = detail.y) {
  const wanted = Math.min(Math.max(zoom, leastZoom()), mostZoom());
  const kept = detail.zoom / wanted;
  Object.assign(detail, { x: x + (detail.x - x) * kept, y: y + (detail.y - y) * kept, zoom: wanted });
  place();
}

const zoomBy = (factor) => zoomTo(detail.zoom * factor);
const ownPixels = () => zoomTo(ownZoom());

function pan(dx, dy) {
  detail.x += dx / detail.zoom;
  detail.y += dy / detail.zoom;
  place();
}

const touches = new Map();

function startPanes() {
  const panes = $("panes");
  const shareAt = (event) => {
    const box = event.target.closest(".pane")?.querySelector(".stack").getBoundingClientRect();
    return box ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [detail.x, detail.y];
  };
  panes.addEventListener("wheel", (event) => {
    if (!event.target.closest(".pane")) return;
    event.preventDefault();
    zoomTo(detail.zoom * Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.002)), ...shareAt(event));
  }, { passive: false });
  panes.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".pane")) return;
    touches.set(event.pointerId, [event.clientX, event.clientY]);
    hideTip();
  });
  panes.addEventListener("pointermove", (event) => {
    const before = touches.get(event.pointerId);
    if (!before) return;
    const now = [event.clientX, event.clientY];
    const other = [...touches].find(([id]) => id !== event.pointerId)?.[1];
    const { clientWidth, clientHeight } = document.querySelector(".pane");
    if (other) {
      const apart = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]) || 1;
      zoomTo((detail.zoom * apart(now)) / apart(before), ...shareAt(event));
    } else pan((before[0] - now[0]) / clientWidth, (before[1] - now[1]) / clientHeight);
    touches.set(event.pointerId, now);
  });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, (event) => touches.delete(event.pointerId));
  panes.addEventListener("dblclick", (event) => zoomTo(detail.zoom > 1 ? 1 : Math.max(2, ownZoom()), ...shareAt(event)));
  new ResizeObserver(() => { if ($("detail").open) place(); }).observe(panes);
}

function classTable(picture) {
  const scored = Object.keys(picture.iou).length > 0;
  const labels = new Set([...picture.classes.map((c) => c.id), ...Object.keys(picture.iou).map(Number)]);
  const titles = ["class", ...(scored ? ["IoU"] : []), "of the picture", "match"];
  $("detail-classes").tHead.replaceChildren(make("tr", {}, ...titles.map((text) => make("th", { scope: "col" }, text))));
  const rows = [...labels].map((label) => {
    const found = classIn(picture, label);
    const cells = scored ? [rounded(picture.iou[label])] : [];
    cells.push(found ? percent(found.share) : "–", found && found.itm !== null ? rounded(found.itm) : "–");
    return make("tr", {}, make("th", { scope: "row" }, chipOf(label)), ...cells.map((text) => make("td", {}, text)));
  });
  $("detail-classes").tBodies[0].replaceChildren(...rows);
  if (picture.asked > picture.classes.length) {
    const rest = make("td", { colSpan: titles.length }, `and ${picture.asked - picture.classes.length} more classes asked about`);
    $("detail-classes").tBodies[0].append(make("tr", {}, rest));
  }
}
