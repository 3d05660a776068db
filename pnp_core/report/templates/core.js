"use strict";
// Everything that comes from data becomes a text node or an attribute value, never markup.
const data = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const TITLES = { prediction: "prediction", truth: "ground truth", errors: "errors", certainty: "confidence", salience: "salience", none: "picture alone" };
const KINDS = Object.values(data.errors);
const nameOf = (label) => data.labels[label]?.name ?? "void";

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

// What is looked at, and how: filters are in find.js.
const view = { layer: "prediction", opacity: 0.45, grey: false, names: false, outlines: true, pictures: [] };

// Keys: { where: "gallery" | "picture" | "anywhere", keys: [...], what: text for people, run: (event) => ... }.
// Without `run` what has the focus takes them itself: they are listed only.
const KEYS = [];
const addKeys = (...more) => KEYS.push(...more);

function keyOf(event) {
  return event.shiftKey && event.key.startsWith("Arrow") ? `Shift+${event.key}` : event.key;
}

// Links and buttons are pressed, and tables scrolled, by keys that are not ours there.
function takesItself({ key, target }) {
  if (["Enter", " "].includes(key)) return Boolean(target.closest?.("a, button, summary"));
  return key.startsWith("Arrow") && Boolean(target.matches?.(".scroll"));
}

function pressed(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
  const field = event.target.closest?.("input, select, textarea, canvas");
  if (field && !(["radio", "checkbox"].includes(field.type) && event.key.length === 1 && event.key !== " ")) return;
  if ($("help").open || takesItself(event)) return;
  const here = $("detail").open ? "picture" : "gallery";
  const found = KEYS.find((k) => k.run && (k.where === here || k.where === "anywhere") && k.keys.includes(keyOf(event)));
  if (!found) return;
  event.preventDefault();
  found.run(event);
}

const SHOWN_KEYS = { ArrowLeft: "←", ArrowRight: "→", ArrowUp: "↑", ArrowDown: "↓", Escape: "Esc" };
const shownKey = (key) => (key.length === 1 ? key : key.split("+").map((part) => SHOWN_KEYS[part] ?? part).join(" "));

function help() {
  const rows = [
    ["anywhere", "everywhere"], ["gallery", "in the gallery"], ["picture", "on a picture"],
  ].flatMap(([where, title]) => [
    make("tr", {}, make("th", { scope: "colgroup", colSpan: 2 }, title)),
    ...KEYS.filter((k) => k.where === where).map((k) => {
      const caps = k.keys.map((key) => make("kbd", {}, shownKey(key)));
      return make("tr", {}, make("td", {}, ...caps.flatMap((cap) => [cap, " "])), make("td", {}, k.what));
    }),
  ]);
  $("help-keys").replaceChildren(...rows);
  $("help").showModal();
}
