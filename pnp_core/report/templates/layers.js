// ---- labels read from the colours of a layer, and the outlines of their regions: in the report and in comparisons
//
// The page gives `data.labels` and KINDS, the colours of what else a layer tells apart. Nothing runs before it is asked.

const VOID = 65535;
// One kind of error alone is half clear, and a canvas does not give the colour of such pixels back exactly.
const HALF_CLEAR = -1;
let labelOf = null;

function labelsByColour() {
  const number = (colour) => parseInt(colour.slice(1), 16);
  // Kinds are told apart as labels are; they have outlines, but no name of a class.
  const kinds = KINDS.map((colour, i) => [number(colour), VOID - 2 - i]);
  return new Map([...data.labels.map(({ colour }, label) => [number(colour), label]), [0xffffff, VOID], ...kinds, [HALF_CLEAR, VOID - 1]]);
}

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
  labelOf ??= labelsByColour();
  for (let i = 0, at = 0, last = null, label = 0; i < labels.length; i++, at += 4) {
    const opacity = rgba[at + 3];
    const colour = !opacity ? 0 : opacity < 255 ? HALF_CLEAR : (rgba[at] << 16) | (rgba[at + 1] << 8) | rgba[at + 2];
    if (colour !== last) [last, label] = [colour, labelOf.get(colour) ?? 0];
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

// What was read of layers lately, by their address.
const READ = new Map();

async function readLayer(src) {
  let found = READ.get(src);
  if (!found) {
    const map = labelMap(await loaded(src));
    found = { map, path: outline(map) };
    READ.set(src, found);
    if (READ.size > 240) READ.delete(READ.keys().next().value);
  }
  return found;
}
