"use strict";
// Everything that comes from data becomes a text node or an attribute value, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PER_PAGE = 24;
const TITLES = { prediction: "prediction", truth: "ground truth", errors: "errors", salience: "salience", none: "picture alone" };
const nameOf = (label) => data.labels[label].name;

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function swatch(colour) {
  const node = make("span", { className: "swatch" });
  node.style.backgroundColor = colour;
  return node;
}

const chip = (colour, text) => make("span", { className: "chip" }, swatch(colour), text);
const chipOf = (label) => chip(data.labels[label].colour, nameOf(label));
const rounded = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));
const percent = (share) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`);
const fileOf = (picture) => (data.named ? picture.source.split("/").pop() || picture.key : picture.key);
const foundIn = (picture) => picture.classes.filter((c) => c.share > 0).map((c) => c.id);

// ---- gallery

const view = { page: 0, layer: "prediction", opacity: 0.6, pictures: [] };

const ORDERS = {
  worst: [(p) => p.miou, 1],
  best: [(p) => p.miou, -1],
  unsure: [(p) => p.confidence, 1],
  sure: [(p) => p.confidence, -1],
};

function byName(a, b) {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

function ordered(pictures, order) {
  const [value, sign] = ORDERS[order] ?? [];
  return [...pictures].sort((a, b) => {
    if (!value) return byName(a, b);
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || byName(a, b); // what has no score comes last
    return sign * (x - y) || byName(a, b);
  });
}

function select() {
  const words = $("search").value.trim().toLowerCase();
  const label = $("class").value === "" ? null : Number($("class").value);
  const textOf = (p) => [p.key, p.source, p.comment, ...foundIn(p).map(nameOf), ...p.truth_labels.map(nameOf)].join("\n");
  const fits = (p) =>
    review.fits(p) &&
    (!words || textOf(p).toLowerCase().includes(words)) &&
    (label === null || foundIn(p).includes(label) || p.truth_labels.includes(label));
  view.pictures = ordered(data.pictures.filter(fits), $("sort").value);
  view.page = 0;
  draw();
}

function layerOf(picture) {
  return view.layer === "none" ? null : picture[view.layer];
}

function tile(picture, index) {
  const photo = make("img", { className: "photo", src: picture.photo, alt: "" });
  const stack = make("span", { className: "stack" }, photo);
  const [width, height] = picture.thumbnail;
  stack.style.aspectRatio = `${width} / ${height}`;
  stack.style[width >= height ? "width" : "height"] = "100%";
  const layer = layerOf(picture);
  if (layer) stack.append(make("img", { className: "layer", src: layer, alt: "" }));
  stack.classList.toggle("covered", Boolean(layer));
  const labels = view.layer === "truth" ? picture.truth_labels : foundIn(picture);
  const names = labels.map(nameOf).join(", ") || "background alone";
  photo.alt = `${fileOf(picture)}; ${TITLES[view.layer]}: ${names}`;
  const value = picture.miou === null ? `${rounded(picture.confidence)} conf.` : `${rounded(picture.miou)} mIoU`;
  const chips = make("span", { className: "chips" }, ...labels.slice(0, 4).map(chipOf));
  if (labels.length > 4) chips.append(`+ ${labels.length - 4}`);
  if (!labels.length) chips.append("background alone");
  const caption = make(
    "span", { className: "caption" },
    make("span", { className: "value" }, value),
    make("span", { className: "name", title: picture.source }, fileOf(picture)),
    chips,
  );
  const button = make("button", { type: "button", className: "tile" }, make("span", { className: "frame" }, stack), caption);
  button.addEventListener("click", () => open(index));
  review.tile(button, picture);
  return button;
}

function legend(node, layer) {
  node.hidden = layer !== "errors";
  node.replaceChildren(...(layer === "errors" ? Object.entries(data.errors).map(([name, colour]) => chip(colour, name)) : []));
}

function draw() {
  const pages = Math.max(1, Math.ceil(view.pictures.length / PER_PAGE));
  view.page = Math.min(Math.max(view.page, 0), pages - 1);
  const start = view.page * PER_PAGE;
  const shown = view.pictures.slice(start, start + PER_PAGE);
  $("tiles").replaceChildren(...shown.map((picture, i) => tile(picture, start + i)));
  $("count").textContent = shown.length
    ? `${start + 1}–${start + shown.length} of ${view.pictures.length} pictures`
    : "No picture fits.";
  $("page").textContent = `page ${view.page + 1} of ${pages}`;
  $("previous").disabled = view.page === 0;
  $("next").disabled = view.page === pages - 1;
  legend($("legend"), view.layer);
  opacity();
}

function opacity() {
  for (const layer of document.querySelectorAll("img.layer, #detail-layer, #detail-salience")) layer.style.opacity = view.opacity;
  $("opacity").value = $("detail-opacity").value = Math.round(100 * view.opacity);
}

function turn(step) {
  view.page += step;
  draw();
  $("gallery").scrollIntoView();
}

// ---- one picture

const detail = { index: 0, salienceClass: 0 };

function open(index) {
  detail.index = index;
  show();
  if (!$("detail").open) $("detail").showModal();
}

function step(by) {
  const index = detail.index + by;
  if (index < 0 || index >= view.pictures.length) return;
  view.page = Math.floor(index / PER_PAGE);
  open(index);
}

function show() {
  const picture = view.pictures[detail.index];
  detail.salienceClass = 0;
  $("detail-title").textContent = fileOf(picture);
  const [width, height] = picture.size;
  $("detail-source").textContent = `${picture.source} · ${width} × ${height} pixels · key ${picture.key}`;
  $("detail-photo").src = picture.photo;
  const [w, h] = picture.thumbnail;
  $("stage").style.aspectRatio = `${w} / ${h}`;
  $("stage").style.maxWidth = `min(100%, ${(w / h) * 75}vh)`;
  const layers = ["prediction", "truth", "errors", "salience", "none"].filter((l) => l === "none" || picture[l]);
  if (!layers.includes(detail.layer)) detail.layer = layers.includes(view.layer) ? view.layer : "prediction";
  radios($("detail-layers"), "detail-layer", layers.map((l) => [l, TITLES[l]]), detail.layer, (value) => { detail.layer = value; showLayer(); });
  radios(
    $("salience-classes"), "salience-class", picture.salience_classes.map((label, i) => [i, nameOf(label)]), 0,
    (value) => { detail.salienceClass = Number(value); showLayer(); },
  );
  $("pass").max = Math.max(1, picture.passes);
  $("pass").value = Math.min($("pass").value, $("pass").max);
  classTable(picture);
  const notes = [picture.chosen && `Candidate classes: ${picture.chosen}`, ...picture.notes, picture.comment && `The file says: ${picture.comment}`];
  $("detail-notes").replaceChildren(...notes.filter(Boolean).map((text) => make("li", {}, text)));
  $("detail-previous").disabled = detail.index === 0;
  $("detail-next").disabled = detail.index === view.pictures.length - 1;
  review.detail(picture);
  showLayer();
}

function radios(fieldset, name, options, chosen, changed) {
  const labels = options.map(([value, text]) => {
    const input = make("input", { type: "radio", name, value, checked: value === chosen });
    input.addEventListener("change", () => changed(value));
    return make("label", {}, input, text);
  });
  fieldset.replaceChildren(fieldset.querySelector("legend"), ...labels);
}

function showLayer() {
  const picture = view.pictures[detail.index];
  const salience = detail.layer === "salience";
  $("salience-controls").hidden = $("detail-salience").hidden = !salience;
  const layer = salience || detail.layer === "none" ? null : picture[detail.layer];
  $("detail-layer").hidden = !layer;
  if (layer) $("detail-layer").src = layer;
  $("stage").classList.toggle("covered", Boolean(layer) || salience);
  const labels = detail.layer === "truth" ? picture.truth_labels : foundIn(picture);
  $("detail-photo").alt = `${fileOf(picture)}; ${TITLES[detail.layer]}: ${labels.map(nameOf).join(", ") || "background alone"}`;
  legend($("detail-legend"), detail.layer);
  if (salience) drawSalience(picture);
  opacity();
}

function classTable(picture) {
  const scored = Object.keys(picture.iou).length > 0;
  const labels = new Set([...picture.classes.map((c) => c.id), ...Object.keys(picture.iou).map(Number)]);
  const titles = ["class", ...(scored ? ["IoU"] : []), "of the picture", "match"];
  $("detail-classes").tHead.replaceChildren(make("tr", {}, ...titles.map((text) => make("th", { scope: "col" }, text))));
  const rows = [...labels].map((label) => {
    const found = picture.classes.find((c) => c.id === label);
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

// ---- salience

// From clear over purple and orange to pale yellow, evenly lighter: readable by colour-blind people.
const HEAT = [[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]];

function heat(value) {
  const at = (value / 255) * (HEAT.length - 1);
  const low = Math.min(Math.floor(at), HEAT.length - 2);
  return HEAT[low].map((c, i) => Math.round(c + (HEAT[low + 1][i] - c) * (at - low)));
}

const LUT = Array.from({ length: 256 }, (_, value) => heat(value));

async function drawSalience(picture) {
  const [pass, chosen] = [Number($("pass").value), detail.salienceClass];
  $("pass-label").textContent = `Pass ${pass} of ${picture.passes}`;
  const sprite = new Image();
  sprite.src = picture.salience;
  await sprite.decode();
  // Something else was chosen meanwhile.
  if (view.pictures[detail.index] !== picture || pass !== Number($("pass").value) || chosen !== detail.salienceClass) return;
  const canvas = $("detail-salience");
  const [width, height] = picture.thumbnail.map((side) => Math.max(1, Math.round((side * 480) / Math.max(...picture.thumbnail))));
  Object.assign(canvas, { width, height });
  const [tileWidth, tileHeight] = [sprite.width / picture.salience_classes.length, sprite.height / picture.passes];
  // One tile alone first: smoothing would let its neighbours in.
  const alone = make("canvas", { width: tileWidth, height: tileHeight });
  alone.getContext("2d").drawImage(sprite, -chosen * tileWidth, -(pass - 1) * tileHeight);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingQuality = "high";
  context.drawImage(alone, 0, 0, width, height);
  const pixels = context.getImageData(0, 0, width, height);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const strength = pixels.data[i];
    [pixels.data[i], pixels.data[i + 1], pixels.data[i + 2]] = LUT[strength];
    pixels.data[i + 3] = 255;
  }
  context.putImageData(pixels, 0, 0);
  const name = nameOf(picture.salience_classes[chosen]);
  canvas.setAttribute("aria-label", `Salience of ${name}, pass ${pass} of ${picture.passes}`);
}

// ---- tables

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const numeric = heading.dataset.kind === "number";
      const first = numeric ? "descending" : "ascending";
      const other = { ascending: "descending", descending: "ascending" };
      const direction = other[heading.getAttribute("aria-sort")] ?? first;
      headings.forEach((h) => h.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", direction);
      const sign = direction === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const rows = [...table.tBodies[0].rows].sort((a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === "" || y === "") return (x === "") - (y === "");
        return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
      });
      table.tBodies[0].append(...rows);
    });
  });
}

// ---- confusion

function confusion() {
  const canvas = $("matrix");
  if (!canvas) return;
  const labels = [...new Set(data.matrix.flatMap(([truth, prediction]) => [truth, prediction]))].sort((a, b) => a - b);
  const at = new Map(labels.map((label, i) => [label, i]));
  const share = new Map(data.matrix.map(([t, p, n]) => [`${t},${p}`, n / data.totals[t]]));
  const named = labels.length <= 64;
  const cell = named ? 18 : Math.max(3, Math.floor(900 / labels.length));
  const font = "12px system-ui, sans-serif";
  const context = canvas.getContext("2d");
  context.font = font;
  const margin = named ? Math.min(160, 8 + Math.max(...labels.map((l) => context.measureText(nameOf(l)).width))) : 0;
  const size = margin + labels.length * cell;
  let chosen = null;

  function paint() {
    const scale = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: size * scale, height: size * scale });
    canvas.style.width = canvas.style.height = `${size}px`;
    context.scale(scale, scale);
    const style = getComputedStyle(document.body);
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    context.font = font;
    context.fillStyle = style.color;
    if (named) labels.forEach((label, i) => {
      context.textAlign = "right";
      context.textBaseline = "middle";
      context.fillText(nameOf(label), margin - 6, margin + (i + 0.5) * cell, margin - 8);
      context.save();
      context.translate(margin + (i + 0.5) * cell, margin - 6);
      context.rotate(-Math.PI / 2);
      context.textAlign = "left";
      context.fillText(nameOf(label), 0, 0, margin - 8);
      context.restore();
    });
    context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--shade");
    context.fillRect(margin, margin, labels.length * cell, labels.length * cell);
    for (const [truth, prediction] of data.matrix) {
      const value = share.get(`${truth},${prediction}`) ** 0.5; // small confusions are to be seen
      const hue = truth === prediction ? 215 : 22;
      context.fillStyle = `hsl(${hue} 85% ${dark ? 18 + 50 * value : 94 - 52 * value}%)`;
      context.fillRect(margin + at.get(prediction) * cell, margin + at.get(truth) * cell, cell - (cell > 6), cell - (cell > 6));
    }
    if (chosen) {
      context.strokeStyle = style.color;
      context.lineWidth = 2;
      context.strokeRect(margin + chosen[1] * cell, margin + chosen[0] * cell, cell, cell);
    }
  }

  function choose(row, column) {
    const last = labels.length - 1;
    chosen = [Math.min(Math.max(row, 0), last), Math.min(Math.max(column, 0), last)];
    const [truth, prediction] = chosen.map((i) => labels[i]);
    $("cell").textContent = data.totals[truth]
      ? `${percent(share.get(`${truth},${prediction}`) ?? 0)} of ${nameOf(truth)} is ${truth === prediction ? "right" : `taken for ${nameOf(prediction)}`}`
      : `${nameOf(truth)} is not in the ground truth`;
    paint();
  }

  canvas.addEventListener("mousemove", (event) => {
    const place = (offset) => Math.floor((offset - margin) / cell);
    if (event.offsetX >= margin && event.offsetY >= margin) choose(place(event.offsetY), place(event.offsetX));
  });
  canvas.addEventListener("keydown", (event) => {
    const move = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (!move) return;
    event.preventDefault();
    choose(...(chosen ? chosen.map((i, axis) => i + move[axis]) : [0, 0]));
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  paint();
  const wrong = data.matrix.filter(([truth, prediction]) => truth !== prediction);
  wrong.sort(([t, , n], [u, , m]) => m / data.totals[u] - n / data.totals[t]);
  $("confusions").tBodies[0].replaceChildren(...wrong.slice(0, 20).map(([truth, prediction, pixels]) => make(
    "tr", {},
    make("td", {}, chipOf(truth)), make("td", {}, chipOf(prediction)),
    make("td", {}, percent(pixels / data.totals[truth])), make("td", {}, pixels.toLocaleString("en")),
  )));
}

// ---- start

function start() {
  const present = new Set(data.pictures.flatMap((p) => [...foundIn(p), ...p.truth_labels]));
  const classes = [...present].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  $("class").append(...classes.map((label) => make("option", { value: label }, nameOf(label))));
  for (const node of document.querySelectorAll(".swatch[data-label]")) node.style.backgroundColor = data.labels[node.dataset.label].colour;
  document.querySelectorAll("table.sortable").forEach(sortable);
  $("search").addEventListener("input", select);
  $("class").addEventListener("change", select);
  $("sort").addEventListener("change", select);
  $("layer").addEventListener("change", (event) => { view.layer = event.target.value; detail.layer = null; draw(); });
  for (const slider of [$("opacity"), $("detail-opacity")]) {
    slider.addEventListener("input", () => { view.opacity = slider.value / 100; opacity(); });
  }
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("pass").addEventListener("input", () => showLayer());
  $("detail-previous").addEventListener("click", () => step(-1));
  $("detail-next").addEventListener("click", () => step(1));
  for (const button of [$("close"), $("close-top")]) button.addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => {
    draw();
    $("tiles").children[detail.index % PER_PAGE]?.focus();
  });
  $("detail").addEventListener("keydown", (event) => {
    if (event.target.matches("input, textarea")) return; // arrows move sliders and radio buttons there
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) { event.preventDefault(); step(by); }
  });
  review.start();
  select();
  confusion();
}

start();
