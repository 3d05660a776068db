// ---- pictures of several runs, side by side

const data = JSON.parse($("data").textContent);
const KINDS = data.kinds.map((kind) => kind.colour);
const PER_PAGE = 12;
const nameOf = (label) => data.labels[label].name;
const chipOf = (label) => chip(data.labels[label].colour, nameOf(label));
const view = { page: 0, opacity: 0.65, pictures: [] };
const RUNS = data.runs.map((run, i) => i);
const foundBy = (picture, run) => Object.keys(picture.shares[run]).map(Number);
const inTruth = (picture) => Object.keys(picture.truth_shares ?? {}).map(Number);
const allLabels = (picture) => [...new Set([...RUNS.flatMap((run) => foundBy(picture, run)), ...inTruth(picture)])];

function layersOf(picture) {
  const of = [{ id: "photo", title: "picture", layer: null, labels: [] }];
  for (const run of RUNS) of.push({ id: `run${run}`, run, title: data.runs[run].name, layer: picture.masks[run], labels: foundBy(picture, run) });
  of.push({ id: "difference", title: "what differs", layer: picture.difference, labels: null });
  if (picture.truth) of.push({ id: "truth", title: "ground truth", layer: picture.truth, labels: inTruth(picture) });
  return of;
}

function letter(run) {
  return make("span", { className: `letter r${run % 6}` }, data.runs[run].letter);
}

// ---- order and filters

const byName = (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : 0);

function ahead(picture, run) {
  if (picture.miou[run] === null) return null;
  return picture.miou[run] - Math.max(...RUNS.filter((other) => other !== run).map((other) => picture.miou[other]));
}

function valueFor(order) {
  if (order === "differ") return (p) => -p.differ;
  if (order === "same") return (p) => p.differ;
  if (order === "worst") return (p) => (p.miou[0] === null ? null : Math.min(...p.miou));
  if (order.startsWith("best")) return (p) => { const by = ahead(p, Number(order.slice(4))); return by === null ? null : -by; };
  return () => 0;
}

function ordered(pictures, order) {
  const value = valueFor(order);
  return [...pictures].sort((a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || byName(a, b);
    return x - y || byName(a, b);
  });
}

function finders(picture, label) {
  return RUNS.filter((run) => label in picture.shares[run]);
}

function fitsClass(picture, label, by) {
  const found = finders(picture, label);
  if (by === "any") return found.length > 0 || label in (picture.truth_shares ?? {});
  if (by === "all") return found.length === RUNS.length;
  if (by === "some") return found.length > 0 && found.length < RUNS.length;
  return found.length === 1 && found[0] === Number(by.slice(4));
}

function select() {
  const words = $("search").value.trim().toLowerCase();
  const label = $("class").value === "" ? null : Number($("class").value);
  const by = $("by").value;
  const textOf = (p) => [p.key, p.source, ...allLabels(p).map(nameOf)].join("\n").toLowerCase();
  const fits = (p) => {
    if (words && !textOf(p).includes(words)) return false;
    if (label !== null) return fitsClass(p, label, by);
    return by === "any" || allLabels(p).some((one) => fitsClass(p, one, by));
  };
  view.pictures = ordered(data.pictures.filter(fits), $("sort").value);
  view.page = 0;
  draw();
}

// ---- the list

function altOf(picture, shown) {
  if (shown.id === "photo") return `${picture.key}, picture`;
  if (shown.id === "difference") return `${picture.key}, what differs: ${percent(picture.differ)} of the pixels`;
  return `${picture.key}, ${shown.title}: ${shown.labels.map(nameOf).join(", ") || "background alone"}`;
}

function cell(picture, shown, index) {
  const photo = make("img", { className: "photo", src: picture.photo, alt: altOf(picture, shown) });
  [photo.width, photo.height] = picture.thumbnail;
  const stack = make("span", { className: "stack" }, photo);
  if (shown.layer) {
    stack.append(make("img", { className: "layer", src: shown.layer, alt: "" }));
    readLayer(shown.layer).then(({ map, path }) => stack.append(outlined(map, path)));
  }
  const under = make("span", { className: "under" });
  if (shown.run !== undefined) under.append(letter(shown.run), ` ${shown.title}`);
  else under.append(shown.title);
  if (shown.run !== undefined && picture.miou[shown.run] !== null) under.append(` · ${rounded(picture.miou[shown.run])} mIoU`);
  if (shown.id === "difference") under.append(` · ${percent(picture.differ)}`);
  const button = make("button", { type: "button", className: "cell" }, make("span", { className: "frame" }, stack), under);
  button.addEventListener("click", () => open(index, shown.id));
  return button;
}

function tile(picture, index) {
  const chips = make("span", { className: "legend" }, ...allLabels(picture).slice(0, 6).map(chipOf));
  const more = allLabels(picture).length - 6;
  if (more > 0) chips.append(`+ ${more}`);
  const heading = make("h3", {}, make("span", { className: "value" }, `${percent(picture.differ)} differ`), make("span", { title: picture.source }, picture.key), chips);
  const cells = make("div", { className: "cells" }, ...layersOf(picture).map((shown) => cell(picture, shown, index)));
  return make("article", { className: "tile" }, heading, cells);
}

function draw() {
  const pages = Math.max(1, Math.ceil(view.pictures.length / PER_PAGE));
  view.page = Math.min(Math.max(view.page, 0), pages - 1);
  const start = view.page * PER_PAGE;
  const shown = view.pictures.slice(start, start + PER_PAGE);
  $("tiles").replaceChildren(...shown.map((picture, i) => tile(picture, start + i)));
  $("count").textContent = shown.length ? `${start + 1}–${start + shown.length} of ${view.pictures.length} pictures` : "No picture fits.";
  $("page").textContent = `page ${view.page + 1} of ${pages}`;
  $("previous").disabled = view.page === 0;
  $("next").disabled = view.page === pages - 1;
  opacity();
}

function opacity() {
  for (const layer of document.querySelectorAll("img.layer, #detail-layer")) layer.style.opacity = view.opacity;
  $("opacity").value = $("detail-opacity").value = Math.round(100 * view.opacity);
}

function turn(step) {
  view.page += step;
  draw();
  $("gallery").scrollIntoView();
}

// ---- one picture

const detail = { index: 0, shown: "photo", opener: null };

function open(index, shown) {
  Object.assign(detail, { index, shown });
  show();
  if (!$("detail").open) $("detail").showModal();
}

function step(by) {
  const index = detail.index + by;
  if (index < 0 || index >= view.pictures.length) return;
  view.page = Math.floor(index / PER_PAGE);
  open(index, detail.shown);
}

function show() {
  const picture = view.pictures[detail.index];
  const layers = layersOf(picture);
  if (!layers.some((one) => one.id === detail.shown)) detail.shown = "difference";
  $("detail-title").textContent = picture.key;
  const [width, height] = picture.size;
  $("detail-source").textContent = `${picture.source} · ${width} × ${height} pixels · ${percent(picture.differ)} differ`;
  $("detail-photo").src = picture.photo;
  const [w, h] = picture.thumbnail;
  [$("detail-photo").width, $("detail-photo").height] = picture.thumbnail;
  $("stage").style.maxWidth = `min(100%, ${(w / h) * 75}vh)`;
  const radios = layers.map((one, place) => {
    const input = make("input", { type: "radio", name: "detail-layer", value: one.id, checked: one.id === detail.shown });
    input.addEventListener("change", () => { detail.shown = one.id; showLayer(); });
    const label = make("label", {}, input, `${place + 1} `);
    if (one.run !== undefined) label.append(letter(one.run), ` ${one.title}`);
    else label.append(one.title);
    return label;
  });
  $("detail-layers").replaceChildren($("detail-layers").querySelector("legend"), ...radios);
  classTable(picture);
  $("detail-previous").disabled = detail.index === 0;
  $("detail-next").disabled = detail.index === view.pictures.length - 1;
  showLayer();
}

function showLayer() {
  const picture = view.pictures[detail.index];
  const shown = layersOf(picture).find((one) => one.id === detail.shown);
  $("detail-layer").hidden = !shown.layer;
  if (shown.layer) $("detail-layer").src = shown.layer;
  outlineStage(shown.layer);
  $("detail-photo").alt = altOf(picture, shown);
  kinds($("detail-legend"), shown.id === "difference");
  opacity();
}

async function outlineStage(layer) {
  $("stage").querySelector(".outline")?.remove();
  if (!layer) return;
  const { map, path } = await readLayer(layer);
  const current = !$("detail-layer").hidden && $("detail-layer").getAttribute("src") === layer;
  if (current && !$("stage").querySelector(".outline")) $("stage").append(outlined(map, path));
}

function kinds(node, wanted) {
  node.hidden = !wanted;
  if (wanted) node.replaceChildren(make("span", {}, "What differs:"), ...data.kinds.map((kind) => chip(kind.colour, kind.name)));
}

function classTable(picture) {
  const heads = ["class", ...RUNS.map((run) => data.runs[run].letter), ...(picture.truth ? ["ground truth"] : [])];
  $("detail-classes").tHead.replaceChildren(make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text))));
  const share = (shares, label) => (label in shares ? percent(shares[label]) : "–");
  const rows = allLabels(picture).map((label) => {
    const of = [...picture.shares, ...(picture.truth ? [picture.truth_shares] : [])];
    return make("tr", {}, make("th", { scope: "row" }, chipOf(label)), ...of.map((shares) => make("td", {}, share(shares, label))));
  });
  $("detail-classes").tBodies[0].replaceChildren(...rows);
}

function key(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input[type=range]")) return;
  const picture = view.pictures[detail.index];
  const chosen = layersOf(picture)[Number(event.key) - 1];
  if (chosen) { detail.shown = chosen.id; show(); return; }
  if (event.target.matches("input, .scroll")) return; // arrows move radio buttons and tables there
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
}

function start() {
  const present = new Set(data.pictures.flatMap(allLabels));
  const classes = [...present].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  $("class").append(...classes.map((label) => make("option", { value: label }, nameOf(label))));
  for (const node of document.querySelectorAll(".swatch[data-label]")) node.style.backgroundColor = data.labels[node.dataset.label].colour;
  document.querySelectorAll("table.sortable").forEach(sortable);
  for (const id of ["class", "by", "sort"]) $(id).addEventListener("change", select);
  $("search").addEventListener("input", select);
  for (const slider of [$("opacity"), $("detail-opacity")]) {
    slider.addEventListener("input", () => { view.opacity = slider.value / 100; opacity(); });
  }
  $("previous").addEventListener("click", () => turn(-1));
  $("next").addEventListener("click", () => turn(1));
  $("detail-previous").addEventListener("click", () => step(-1));
  $("detail-next").addEventListener("click", () => step(1));
  for (const button of [$("close"), $("close-top")]) button.addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => {
    draw();
    $("tiles").children[detail.index % PER_PAGE]?.querySelector("button").focus();
  });
  $("detail").addEventListener("keydown", key);
  kinds($("legend"), true);
  select();
}

start();
