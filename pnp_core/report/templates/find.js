// ---- finding pictures: words, class, confusion, and ranges of numbers with their histograms

const filter = { cell: null, ranges: {} };
const BARS = 24;

const ORDERS = {
  worst: [(p) => p.miou, 1],
  best: [(p) => p.miou, -1],
  unsure: [(p) => p.confidence, 1],
  sure: [(p) => p.confidence, -1],
};

const chosenClass = () => ($("class").value === "" ? null : Number($("class").value));
const classIn = (picture, label) => picture.classes.find((c) => c.id === label);

// Numbers of a picture, or of one class in it where one is chosen; null where there is none.
const MEASURES = {
  confidence: ["mean confidence of the picture", () => "mean confidence", (p) => p.confidence],
  area: ["share of the picture's pixels", (label) => (label === null ? "area with a class" : `area of ${nameOf(label)}`),
    (p, label) => (label === null ? p.classes.reduce((sum, c) => sum + c.share, 0) : classIn(p, label)?.share ?? null)],
  iou: ["overlap with the ground truth", (label) => (label === null ? "mIoU" : `IoU of ${nameOf(label)}`),
    (p, label) => (label === null ? p.miou : p.iou[label] ?? null)],
  itm: ["match of picture and class", (label) => (label === null ? "best match (ITM)" : `match (ITM) of ${nameOf(label)}`),
    (p, label) => {
      const scores = p.classes.filter((c) => c.itm !== null && (label === null || c.id === label)).map((c) => c.itm);
      return scores.length ? Math.max(...scores) : null;
    }],
};

function byName(a, b) {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

const confusedPixels = (picture, [truth, prediction]) =>
  picture.confused.find(([t, p]) => t === truth && p === prediction)?.[2] ?? 0;

function inCell(picture, [truth, prediction]) {
  if (truth !== prediction) return confusedPixels(picture, [truth, prediction]) > 0;
  return truth === 0 || (picture.truth_labels.includes(truth) && foundIn(picture).includes(truth));
}

function ordered(pictures, order) {
  const cell = filter.cell;
  if (cell && cell[0] !== cell[1]) return [...pictures].sort((a, b) => confusedPixels(b, cell) - confusedPixels(a, cell) || byName(a, b));
  const [value, sign] = ORDERS[order] ?? [];
  return [...pictures].sort((a, b) => {
    if (!value) return byName(a, b);
    const [x, y] = [value(a), value(b)];
    if (x === null || y === null) return (x === null) - (y === null) || byName(a, b); // what has no score comes last
    return sign * (x - y) || byName(a, b);
  });
}

const textOf = (p) => [p.key, p.source, p.comment, ...foundIn(p).map(nameOf), ...p.truth_labels.map(nameOf)].join("\n").toLowerCase();

function fitting(words, label) {
  return data.pictures.filter((p) =>
    review.fits(p) &&
    (!words || textOf(p).includes(words)) &&
    (label === null || foundIn(p).includes(label) || p.truth_labels.includes(label)) &&
    (!filter.cell || inCell(p, filter.cell)));
}

// Without a value a picture stays only where nothing is asked of the number.
function within(picture, name, label) {
  const range = filter.ranges[name];
  if (!range) return true;
  const value = MEASURES[name][2](picture, label);
  return value !== null && value >= range[0] - 1e-9 && value <= range[1] + 1e-9;
}

function select() {
  const label = chosenClass();
  const pictures = fitting($("search").value.trim().toLowerCase(), label);
  // Counting takes as long as everything else here: only where it is seen.
  for (const name of $("finder").open ? Object.keys(MEASURES) : []) {
    const others = pictures.filter((p) => Object.keys(MEASURES).every((other) => other === name || within(p, other, label)));
    histogram(name, others, label);
  }
  const looked = $("detail").open ? shown() : null;
  view.pictures = ordered(pictures.filter((p) => Object.keys(MEASURES).every((name) => within(p, name, label))), $("sort").value);
  if (looked) lookOn(looked);
  grid.current = 0;
  $("scroller").scrollTop = 0;
  const chosen = filter.cell;
  $("chosen-cell").hidden = !chosen;
  if (chosen) $("chosen-cell").textContent = `ground truth ${nameOf(chosen[0])}, predicted ${nameOf(chosen[1])} ×`;
  $("clear").disabled = !chosen && label === null && !$("search").value && !Object.keys(filter.ranges).length && !review.filtering();
  draw();
  writeAddress();
}

// The open picture is at another place among those that fit, or not among them.
function lookOn(picture) {
  const index = view.pictures.indexOf(picture);
  if (index >= 0) detail.index = index;
  else $("detail").close();
}

function clearFilters() {
  Object.assign(filter, { cell: null, ranges: {} });
  $("search").value = $("class").value = "";
  review.clear();
  select();
}

// List pictures: those with a class, or those in which one is taken for another.
function listPictures({ label = null, cell = null }) {
  Object.assign(filter, { cell, ranges: {} });
  $("search").value = "";
  $("class").value = label === null ? "" : label;
  select();
  $("gallery").scrollIntoView();
  goTo(0);
}

// ---- histograms: sliders for its ends; a click takes a bar, a drag several

function buildHistogram(name) {
  const [what, title] = MEASURES[name];
  const bars = make("div", { className: "bars", title: `${what}: click or drag to choose` }, ...Array.from({ length: BARS }, () => make("span")));
  const ends = ["from", "to"].map((end, i) => {
    const slider = make("input", { type: "range", min: 0, max: 1, step: 0.001, value: i, ariaLabel: `${title(null)} ${end}` });
    slider.addEventListener("input", () => {
      const values = ends.map((e) => Number(e.value));
      if (values[0] > values[1]) values[1 - i] = values[i];
      setRange(name, values);
    });
    return slider;
  });
  const label = make("span", { className: "measure" });
  const node = make("div", { className: "histogram", role: "group" }, label, bars, ...ends);
  node.dataset.measure = name;
  $("histograms").append(node);
  let from = null;
  const place = (event) => {
    const box = bars.getBoundingClientRect();
    return Math.min(BARS - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * BARS)));
  };
  const brush = (event) => {
    const [low, high] = boundsOf(name, chosenClass());
    const value = (bar) => low + ((high - low) * bar) / BARS;
    setRange(name, [value(Math.min(from, place(event))), value(Math.max(from, place(event)) + 1)]);
  };
  bars.addEventListener("pointerdown", (event) => { from = place(event); bars.setPointerCapture(event.pointerId); brush(event); });
  bars.addEventListener("pointermove", (event) => { if (from !== null) brush(event); });
  bars.addEventListener("pointerup", () => { from = null; });
}

// Least and greatest value of any picture, in hundredths; what all pictures have in common needs no room.
function boundsOf(name, label) {
  let [low, high] = [1, 0];
  for (const picture of data.pictures) {
    const value = MEASURES[name][2](picture, label);
    if (value !== null) [low, high] = [Math.min(low, value), Math.max(high, value)];
  }
  if (low > high) return [0, 1];
  [low, high] = [Math.max(0, Math.floor(low * 100) / 100), Math.min(1, Math.ceil(high * 100) / 100)];
  return low < high ? [low, high] : [Math.max(0, low - 0.01), Math.min(1, high + 0.01)];
}

function setRange(name, [low, high]) {
  const [least, most] = boundsOf(name, chosenClass());
  if (low <= least + 1e-9 && high >= most - 1e-9) delete filter.ranges[name];
  else filter.ranges[name] = [low, high].map((value) => Math.round(value * 1000) / 1000);
  select();
}

function histogram(name, pictures, label) {
  const node = $("histograms").querySelector(`[data-measure="${name}"]`);
  if (!node) return;
  const counts = new Array(BARS).fill(0);
  const [least, greatest] = boundsOf(name, label);
  for (const picture of pictures) {
    const value = MEASURES[name][2](picture, label);
    if (value !== null) counts[Math.min(BARS - 1, Math.max(0, Math.floor(((value - least) / (greatest - least)) * BARS)))]++;
  }
  const most = Math.max(1, ...counts);
  const [low, high] = filter.ranges[name] ?? [least, greatest];
  [...node.querySelectorAll(".bars span")].forEach((bar, i) => {
    bar.style.height = `${counts[i] ? Math.max(6, 100 * Math.sqrt(counts[i] / most)) : 0}%`;
    const middle = least + ((greatest - least) * (i + 0.5)) / BARS;
    bar.classList.toggle("out", middle < low || middle > high);
  });
  const title = MEASURES[name][1](label);
  node.setAttribute("aria-label", title);
  node.querySelector(".measure").replaceChildren(title, make("output", {}, `${low.toFixed(3)} – ${high.toFixed(3)}`));
  node.querySelectorAll("input").forEach((slider, i) => {
    Object.assign(slider, { min: least, max: greatest, step: greatest - least > 0.2 ? 0.01 : 0.001, value: [low, high][i] });
    slider.ariaLabel = `${title} ${["from", "to"][i]}`;
  });
}

// ---- the address: what is looked at, so that it can be handed on

function address(key) {
  const parts = new URLSearchParams();
  if (key !== null) parts.set("key", key);
  for (const id of ["search", "class"]) if ($(id).value) parts.set(id, $(id).value);
  if ($("sort").value !== $("sort").options[0].value) parts.set("sort", $("sort").value);
  if (view.layer !== "prediction") parts.set("show", view.layer);
  if (filter.cell) parts.set("cell", filter.cell.join("-"));
  for (const [name, value] of Object.entries(review.chosen())) if (value) parts.set(name, value);
  for (const [name, range] of Object.entries(filter.ranges)) parts.set(name, range.join("-"));
  return `#${parts}`;
}

function writeAddress() {
  const wanted = address($("detail").open ? view.pictures[detail.index]?.key ?? null : null);
  if (wanted === "#" && !location.hash.includes("=")) return;
  if (wanted !== location.hash) history.replaceState(null, "", wanted);
}

const numbersOf = (text) => (text ?? "").split("-").map(Number);

function readAddress() {
  if (!location.hash.includes("=")) return;
  const parts = new URLSearchParams(location.hash.slice(1));
  $("search").value = parts.get("search") ?? "";
  $("class").value = parts.get("class") ?? "";
  if ($("class").selectedIndex < 0) $("class").value = "";
  const orders = [...$("sort").options].map((option) => option.value);
  $("sort").value = orders.includes(parts.get("sort")) ? parts.get("sort") : orders[0];
  const layers = [...document.querySelectorAll("input[name=layer]")];
  const layer = layers.find((input) => input.value === parts.get("show")) ?? layers[0];
  layer.checked = true;
  if (view.layer !== layer.value) Object.assign(detail, { layer: null });
  view.layer = layer.value;
  review.choose({ decision: parts.get("decision") ?? "", tag: parts.get("tag") ?? "" });
  const cell = numbersOf(parts.get("cell"));
  filter.cell = cell.length === 2 && cell.every((label) => Number.isInteger(label) && data.labels[label]) ? cell : null;
  filter.ranges = {};
  for (const name of Object.keys(MEASURES)) {
    const range = numbersOf(parts.get(name));
    if (parts.get(name) && range.length === 2 && range.every((n) => n >= 0 && n <= 1) && range[0] <= range[1]) filter.ranges[name] = range;
  }
  const key = parts.get("key");
  if (Object.keys(filter.ranges).length) $("finder").open = true;
  select();
  const placeOf = () => view.pictures.findIndex((picture) => picture.key === key);
  if (placeOf() < 0 && review.filtering() && data.pictures.some((picture) => picture.key === key)) {
    review.clear(); // it was decided on since, or elsewhere otherwise
    select();
  }
  if (placeOf() >= 0) open(placeOf());
  else if ($("detail").open) $("detail").close();
}

function startFinding() {
  const present = new Set(data.pictures.flatMap((p) => [...foundIn(p), ...p.truth_labels]));
  const classes = [...present].sort((a, b) => nameOf(a).localeCompare(nameOf(b)));
  $("class").append(...classes.map((label) => make("option", { value: label }, nameOf(label))));
  for (const [name, [, , value]] of Object.entries(MEASURES)) {
    if (data.pictures.some((picture) => value(picture, null) !== null)) buildHistogram(name);
  }
  for (const id of ["search", "class", "sort"]) $(id).addEventListener(id === "search" ? "input" : "change", select);
  $("finder").addEventListener("toggle", () => { if ($("finder").open) select(); });
  $("clear").addEventListener("click", clearFilters);
  $("chosen-cell").addEventListener("click", () => { filter.cell = null; select(); });
  addEventListener("hashchange", () => {
    if (review.newToken()) writeAddress(); // it was in the place of what is looked at
    else readAddress();
  });
}
