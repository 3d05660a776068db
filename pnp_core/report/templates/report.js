// ---- keys and start

function toggle(name, value = !view[name]) {
  view[name] = value;
  $(`view-${name}`).checked = $(`detail-${name}`).checked = value;
  redraw();
}

function redraw() {
  draw();
  if ($("detail").open) showPanes();
}

function setOpacity(value) {
  view.opacity = value;
  $("opacity").value = $("detail-opacity").value = Math.round(100 * value);
  for (const layer of document.querySelectorAll("img.layer")) layer.style.opacity = value;
  for (const canvas of document.querySelectorAll("canvas.heat")) canvas.style.opacity = Math.max(value, 0.6);
}

function turnLayer(by) {
  const name = $("detail").open ? "detail-layer" : "layer";
  const inputs = [...document.querySelectorAll(`input[name=${name}]`)];
  const at = inputs.findIndex((input) => input.checked);
  inputs[(at + by + inputs.length) % inputs.length].click();
}

function sideBySide(value = !detail.beside) {
  detail.beside = $("beside").checked = value;
  $("detail").classList.toggle("wide", value);
  showPanes();
}

function turnPass(by) {
  $("pass").value = Number($("pass").value) + by;
  showPanes();
}

addKeys(
  { where: "anywhere", keys: ["?"], what: "this list", run: help },
  { where: "anywhere", keys: ["l", "L"], what: "next or previous layer", run: (event) => turnLayer(event.key === "l" ? 1 : -1) },
  { where: "anywhere", keys: ["g"], what: "picture in grey or in colour", run: () => toggle("grey") },
  { where: "anywhere", keys: ["w"], what: "names (words) on regions", run: () => toggle("names") },
  { where: "anywhere", keys: ["o"], what: "outlines of regions", run: () => toggle("outlines") },
  { where: "gallery", keys: ["/"], what: "search", run: () => $("search").focus() },
  { where: "gallery", keys: ["x"], what: "clear all filters", run: clearFilters },
  { where: "gallery", keys: ["Enter"], what: "on a tile: open the picture" },
  { where: "gallery", keys: ["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "PageUp", "PageDown", "Home", "End"], what: "on a tile: go to another" },
  { where: "picture", keys: ["ArrowLeft", "ArrowRight"], what: "picture before, next picture", run: ({ key }) => step(key === "ArrowLeft" ? -1 : 1) },
  { where: "picture", keys: ["s"], what: "layers side by side", run: () => sideBySide() },
  { where: "picture", keys: ["+", "="], what: "closer (or the wheel, or two fingers)", run: () => zoomBy(1.5) },
  { where: "picture", keys: ["-"], what: "farther", run: () => zoomBy(1 / 1.5) },
  { where: "picture", keys: ["0"], what: "the whole picture", run: () => zoomTo(1) },
  { where: "picture", keys: ["1"], what: "one of its pixels on one of the screen", run: ownPixels },
  {
    where: "picture", keys: ["Shift+ArrowLeft", "Shift+ArrowRight", "Shift+ArrowUp", "Shift+ArrowDown"],
    what: "move what is shown closer (or drag)",
    run: ({ key }) => pan({ ArrowLeft: -0.2, ArrowRight: 0.2 }[key] ?? 0, { ArrowUp: -0.2, ArrowDown: 0.2 }[key] ?? 0),
  },
  { where: "picture", keys: ["[", "]"], what: "salience of the pass before, of the next", run: ({ key }) => turnPass(key === "[" ? -1 : 1) },
  { where: "picture", keys: ["Escape"], what: "back to the gallery", run: () => $("detail").close() },
);

function start() {
  for (const node of document.querySelectorAll(".swatch[data-label]")) node.style.backgroundColor = data.labels[node.dataset.label].colour;
  document.querySelectorAll("table.sortable").forEach(sortable);
  startFinding();
  startGrid();
  startPanes();
  linkClasses();
  for (const name of ["grey", "names", "outlines"]) {
    for (const where of ["view", "detail"]) $(`${where}-${name}`).addEventListener("change", (event) => toggle(name, event.target.checked));
  }
  $("layer").addEventListener("change", (event) => { view.layer = event.target.value; detail.layer = null; draw(); writeAddress(); });
  for (const slider of [$("opacity"), $("detail-opacity")]) slider.addEventListener("input", () => setOpacity(slider.value / 100));
  $("pass").addEventListener("input", showPanes);
  $("beside").addEventListener("change", (event) => sideBySide(event.target.checked));
  $("zoom-in").addEventListener("click", () => zoomBy(1.5));
  $("zoom-out").addEventListener("click", () => zoomBy(1 / 1.5));
  $("zoom-fit").addEventListener("click", () => zoomTo(1));
  $("zoom-own").addEventListener("click", ownPixels);
  $("detail-previous").addEventListener("click", () => step(-1));
  $("detail-next").addEventListener("click", () => step(1));
  for (const button of [$("close"), $("close-top")]) button.addEventListener("click", () => $("detail").close());
  $("detail").addEventListener("close", () => {
    if ($("detail").open) return; // another picture was opened since
    hideTip(); detail.close = null; goTo(detail.index); writeAddress(); });
  for (const button of document.querySelectorAll(".show-help")) button.addEventListener("click", help);
  $("close-help").addEventListener("click", () => $("help").close());
  document.addEventListener("keydown", pressed);
  setOpacity(view.opacity);
  review.start();
  if (location.hash.includes("=")) readAddress();
  else select();
  confusion();
}

start();
