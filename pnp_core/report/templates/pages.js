"use strict";
// Everything that comes from data becomes a text node or an attribute value, never markup.
const $ = (id) => document.getElementById(id);

function make(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function chip(colour, text) {
  const swatch = make("span", { className: "swatch" });
  swatch.style.backgroundColor = colour;
  return make("span", { className: "chip" }, swatch, text);
}

const percent = (share, digits = 1) => (share > 0 && share < 0.0005 ? "< 0.1 %" : `${(100 * share).toFixed(digits)} %`);
const rounded = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));

function sortable(table) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button")?.addEventListener("click", () => {
    const numeric = heading.dataset.kind === "number";
    const other = { ascending: "descending", descending: "ascending" };
    const direction = other[heading.getAttribute("aria-sort")] ?? (numeric ? "descending" : "ascending");
    headings.forEach((h) => h.removeAttribute("aria-sort"));
    heading.setAttribute("aria-sort", direction);
    const sign = direction === "ascending" ? 1 : -1;
    const value = (row) => row.cells[column].dataset.value;
    table.tBodies[0].append(...[...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return (x === "") - (y === "");
      return sign * (numeric ? Number(x) - Number(y) : x.localeCompare(y));
    }));
  }));
}
