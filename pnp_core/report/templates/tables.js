// ---- tables

function listButton(what, name, text = "pictures") {
  const button = make("button", { type: "button", className: "list", ariaLabel: name }, text);
  button.addEventListener("click", () => listPictures(what));
  return button;
}

// A class of the table leads to its pictures, where some are here.
function linkClasses() {
  const here = new Set([...$("class").options].map((option) => option.value));
  for (const node of document.querySelectorAll("#classes tbody th[data-label]")) {
    const { label } = node.dataset;
    if (!here.has(label)) continue;
    const text = node.querySelector(".text");
    text.replaceChildren(listButton({ label: Number(label) }, `pictures with ${nameOf(label)}`, text.textContent));
  }
}

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
  const list = () => { if (chosen) listPictures({ cell: chosen.map((i) => labels[i]) }); };
  canvas.addEventListener("click", (event) => {
    const place = (offset) => Math.floor((offset - margin) / cell);
    if (event.offsetX >= margin && event.offsetY >= margin) { choose(place(event.offsetY), place(event.offsetX)); list(); }
  });
  canvas.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && chosen) { event.preventDefault(); list(); return; }
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
    make("td", {}, listButton({ cell: [truth, prediction] }, `pictures in which ${nameOf(truth)} is taken for ${nameOf(prediction)}`)),
  )));
}
