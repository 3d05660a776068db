// What a person decides on the masks: kept in the browser, saved by `pnp-ovss view`, or as a file.
//
// A review comes from anybody: all of it is checked, and reaches the page as text nodes and values only. report.js
// calls tile, fits, detail, clear and start; `data`, `$`, `make` and the rest are its own.

const review = (() => {
  const FORMAT = 1;
  const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/;
  const [FIRST, LAST] = ["0001-01-01T00:00:00.000Z", "9999-12-31T23:59:59.999Z"].map((time) => Date.parse(time));
  const KEY = /^[A-Za-z0-9_-]{1,200}$/;
  const STATES = ["accepted", "rejected", "open"];
  const MARKS = { accepted: "✓ accepted", rejected: "✗ rejected" };
  const NOTHING = { decision: null, tags: [], note: "", time: "" };
  const verdicts = new Map();
  let current = null; // the picture that the detail shows
  let [saving, changes] = [0, 0];
  let told = ""; // what is to be said of what was loaded, until the next change

  const UNSAVED = "The review in the run folder is neither read nor written here: open the address that `pnp-ovss view` printed.";

  // `pnp-ovss view` hands its token over in the fragment; it is taken out of the address at once.
  function tokenOfAddress() {
    const found = /^#token=([A-Za-z0-9_-]{20,100})$/.exec(location.hash)?.[1] ?? null;
    if (found === null) return null;
    history.replaceState(null, "", location.pathname + location.search);
    try { sessionStorage.setItem("pnp-ovss token", found); } catch { /* a browser that keeps nothing */ }
    return location.protocol === "http:" ? found : null;
  }

  function tokenOfBefore() {
    try {
      return location.protocol === "http:" ? sessionStorage.getItem("pnp-ovss token") : null;
    } catch {
      return null; // a browser that keeps nothing
    }
  }

  let token = tokenOfAddress() ?? tokenOfBefore();

  const place = () => `pnp-ovss review ${data.run}`;
  const of = (key) => verdicts.get(key) ?? NOTHING;
  const stateOf = (picture) => of(picture.key).decision ?? "open";
  // What acts or hides in a text, but the joiners that scripts and emoji need, is spelled out: pnp_core/text/visible.py.
  const visible = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Cs}\p{Zl}\p{Zp}]/gu, (c) => ("\u200c\u200d".includes(c) ? c : `\\u${c.codePointAt(0).toString(16).padStart(4, "0")}`));
  const cut = (text, most) => text.slice(0, most).replace(/\p{Cs}/gu, "\ufffd");
  const say = (text) => { $("review-state").textContent = `${told} ${text}`.trim(); };

  // ---- reading: the same rules as pnp_core/runs/review.py

  const isObject = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const hasOnly = (value, allowed) => Object.keys(value).every((name) => Object.hasOwn(allowed, name));
  // Characters are counted, not halves of them; a lone half is no text.
  const isText = (value, most) => typeof value === "string" && value.length <= 2 * most && [...value].length <= most && !/\p{Cs}/u.test(value);

  // A day that no month has would be taken for one of the next month: it does not come back as it was.
  function isTime(value) {
    const at = typeof value === "string" && TIME.test(value) ? Date.parse(value) : NaN;
    return at >= FIRST && at <= LAST && new Date(at).toISOString() === value;
  }

  // What is missing is as in NOTHING; null is there, and only a decision may be that.
  function isVerdict(value) {
    if (!isObject(value) || !hasOnly(value, NOTHING)) return false;
    const { decision, tags, note, time } = { ...NOTHING, ...value };
    return [null, "accepted", "rejected"].includes(decision)
      && Array.isArray(tags) && tags.length <= data.review.tags && tags.every((tag) => isText(tag, data.review.tag) && tag)
      && isText(note, data.review.note)
      && isTime(time);
  }

  // Throws a text for people.
  function read(json) {
    if (json.length > data.review.bytes) throw "it is too large for a review";
    let value;
    try { value = JSON.parse(json); } catch { throw "it is no JSON"; }
    const nothing = { format: FORMAT, run: null, pictures: {} };
    const known = isObject(value) && hasOnly(value, nothing);
    value = { ...nothing, ...value };
    if (!known || value.format !== FORMAT || !isObject(value.pictures)) throw "it is no review that this page can read";
    if (value.run !== data.run) throw "it is the review of another run: other settings or another source made its masks";
    const entries = Object.entries(value.pictures);
    const wrong = entries.find(([key, verdict]) => !KEY.test(key) || !isVerdict(verdict));
    if (wrong) throw `what it says of '${wrong[0].slice(0, 100)}' cannot be read`;
    return entries.map(([key, verdict]) => [key, { ...NOTHING, ...verdict }]);
  }

  // The later verdict on a picture holds.
  function take(entries) {
    for (const [key, verdict] of entries) if (verdict.time >= of(key).time) verdicts.set(key, verdict);
    const here = new Set(data.pictures.map((picture) => picture.key));
    return entries.filter(([key]) => !here.has(key)).length;
  }

  const json = () => JSON.stringify({ format: FORMAT, run: data.run, pictures: Object.fromEntries([...verdicts].sort()) }, null, 1);

  // ---- keeping

  function keep(what = "") {
    changes += 1;
    told = what;
    try {
      localStorage.setItem(place(), json());
      if (!token) say(`Kept in this browser. ${location.protocol === "http:" ? UNSAVED : "Download review.json to use it elsewhere."}`);
    } catch {
      say("This browser keeps nothing: download review.json before you leave.");
    }
    if (token) {
      clearTimeout(saving);
      say("Saving ...");
      saving = setTimeout(save, 300);
    }
  }

  async function ask(method, body) {
    const headers = { "X-PnP-OVSS-Token": token, ...(body ? { "Content-Type": "application/json" } : {}) };
    const answer = await fetch("review.json", { method, headers, body, cache: "no-store" });
    const text = await answer.text();
    if (!answer.ok) throw text.slice(0, 500) || `the answer was ${answer.status}`;
    return text;
  }

  const reason = (error) => (typeof error === "string" ? error : "pnp-ovss view does not answer");

  async function save() {
    const [sent, keys] = [changes, [...verdicts.keys()]];
    try {
      const held = read(await ask("PUT", json()));
      take(held);
      const there = new Set(held.map(([key]) => key));
      const left = keys.filter((key) => !there.has(key)).length;
      if (sent === changes) say(`Saved in the run folder: report/review.json.${left ? ` ${left} verdicts are on pictures that the run has no mask of: left out.` : ""}`);
      shown();
    } catch (error) {
      if (sent === changes) say(`Not saved, but kept in this browser: ${reason(error)}`);
    }
  }

  async function restore() {
    let kept = null;
    try { kept = localStorage.getItem(place()); } catch { /* a browser that keeps nothing */ }
    try {
      if (kept) take(read(kept));
    } catch (error) {
      // Once is enough: it would be met again at each visit.
      kept = null;
      try { localStorage.removeItem(place()); } catch { /* a browser that keeps nothing */ }
      told = `What this browser kept is left out: ${typeof error === "string" ? error : "it cannot be read"}.`;
      say("");
    }
    if (!token) {
      if (location.protocol === "http:") say(UNSAVED);
      return;
    }
    try {
      take(read(await ask("GET")));
      if (kept) keep();
      select();
      shown();
    } catch (error) {
      say(`The saved review is not read: ${reason(error)}`);
    }
  }

  function download() {
    const url = URL.createObjectURL(new Blob([`${json()}\n`], { type: "application/json" }));
    make("a", { href: url, download: "review.json" }).click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }

  async function load(file) {
    try {
      if (file.size > data.review.bytes) throw "it is too large for a review";
      const entries = read(new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
      const elsewhere = take(entries);
      keep(`${entries.length} verdicts loaded${elsewhere ? `, ${elsewhere} of them on pictures that are not on this page` : ""}.`);
      select();
      shown();
    } catch (error) {
      told = "";
      say(`${file.name} is not loaded: ${typeof error === "string" ? error : "it cannot be read"}`);
    }
  }

  // ---- deciding

  function change(picture, what) {
    const before = of(picture.key);
    const now = new Date().toISOString();
    // Never before what it replaces, whatever the clock says.
    const time = now > before.time ? now : new Date(Math.min(Date.parse(before.time) + 1, LAST)).toISOString();
    verdicts.set(picture.key, { ...before, ...what, time });
    keep();
    shown(picture);
  }

  const decide = (picture, decision) => { if (of(picture.key).decision !== decision) change(picture, { decision }); };

  function addTag(picture, text) {
    const typed = cut(text.trim(), data.review.tag);
    // A known tag is offered as it can be seen, which may be longer than a tag.
    const tag = knownTags().find((known) => cut(visible(known), data.review.tag) === typed) ?? typed;
    const { tags } = of(picture.key);
    if (tags.length >= data.review.tags) return say(`A picture has ${data.review.tags} tags at most.`);
    if (tag && !tags.includes(tag)) change(picture, { tags: [...tags, tag] });
  }

  // ---- showing

  function mark(button, picture) {
    const { decision, tags, note } = of(picture.key);
    button.dataset.key = picture.key;
    if (decision) button.dataset.decision = decision;
    else delete button.dataset.decision;
    button.querySelector(".verdict")?.remove();
    const words = [MARKS[decision], ...tags, note && "note"].filter(Boolean).join(" · ");
    if (words) button.querySelector(".caption").append(make("bdi", { className: `verdict ${decision ?? ""}`, title: visible(note) }, visible(words)));
  }

  const knownTags = () => [...new Set([...verdicts.values()].flatMap((verdict) => verdict.tags))].sort();

  // What is chosen stays, also where no picture has it.
  function tags(chosen = $("review-tag").value) {
    const all = knownTags();
    $("review-known").replaceChildren(...all.map((tag) => make("option", { value: visible(tag) })));
    const any = $("review-tag").options[0];
    const offered = chosen && !all.includes(chosen) ? [chosen, ...all] : all;
    $("review-tag").replaceChildren(any, ...offered.map((tag) => make("option", { value: tag }, visible(tag))));
    $("review-tag").value = chosen;
  }

  function counts() {
    const all = { accepted: 0, rejected: 0, open: 0 };
    const classes = new Map();
    for (const picture of data.pictures) {
      const state = stateOf(picture);
      all[state] += 1;
      for (const label of foundIn(picture)) {
        if (!classes.has(label)) classes.set(label, { accepted: 0, rejected: 0, open: 0 });
        classes.get(label)[state] += 1;
      }
    }
    $("review-counts").textContent = STATES.map((state) => `${all[state]} ${state}`).join(", ");
    const rows = [...classes].sort(([a], [b]) => nameOf(a).localeCompare(nameOf(b)));
    $("review-classes").tBodies[0].replaceChildren(...rows.map(([label, number]) => make(
      "tr", {}, make("th", { scope: "row" }, chipOf(label)), ...STATES.map((state) => make("td", {}, String(number[state]))),
    )));
  }

  // After a change: of one picture, or of any.
  function shown(picture) {
    for (const button of document.querySelectorAll(".tile[data-key]")) {
      if (!picture || button.dataset.key === picture.key) mark(button, picture ?? { key: button.dataset.key });
    }
    tags();
    counts();
    if (current) detail(current);
  }

  function detail(picture) {
    const other = current?.key !== picture.key;
    current = picture;
    const verdict = of(picture.key);
    for (const button of document.querySelectorAll("#review-detail [data-decision]")) {
      if (button.dataset.decision) button.setAttribute("aria-pressed", String(button.dataset.decision === verdict.decision));
    }
    $("review-tags").replaceChildren(...verdict.tags.map((tag) => {
      const button = make("button", { type: "button", ariaLabel: `Remove the tag ${visible(tag)}` }, make("bdi", {}, `${visible(tag)} ×`));
      button.addEventListener("click", () => change(current, { tags: of(current.key).tags.filter((t) => t !== tag) }));
      return button;
    }));
    // What is being typed stays.
    if (other) $("review-add").value = "";
    if (other || document.activeElement !== $("review-note")) $("review-note").value = verdict.note;
  }

  // The picture that keys are meant for: of the open detail, or of the tile that has the focus.
  function chosen() {
    if ($("detail").open) return current;
    const key = document.activeElement?.closest?.(".tile")?.dataset.key;
    return key === undefined ? null : data.pictures.find((picture) => picture.key === key);
  }

  function focusOn(field) {
    if (!$("detail").open) document.activeElement.click(); // the tile opens its picture
    $(field).focus();
  }

  // Out of a field, so that letters are keys again.
  const leave = () => document.querySelector("#detail .detail").focus();

  function startKeys() {
    const key = (name, what, run) => addKeys({ where: "anywhere", keys: [name], what, run: () => { const picture = chosen(); if (picture) run(picture); } });
    key("a", "accept (a picture, or the tile that has the focus)", (picture) => decide(picture, "accepted"));
    key("r", "reject", (picture) => decide(picture, "rejected"));
    key("u", "take the decision back", (picture) => decide(picture, null));
    key("t", "add a tag (Esc leaves it)", () => focusOn("review-add"));
    key("n", "write a note (Esc leaves it)", () => focusOn("review-note"));
  }

  const filters = ["review-decision", "review-tag"];
  const filterValues = () => ({ decision: $("review-decision").value, tag: $("review-tag").value });

  // As an address says; a tag may become known later, with the saved review.
  function choose({ decision, tag }) {
    $("review-decision").value = STATES.includes(decision) ? decision : "";
    tags(isText(tag, data.review.tag) ? tag : "");
  }

  const filtering = () => filters.some((name) => $(name).value);
  const clear = () => { for (const name of filters) $(name).value = ""; };

  function fits(picture) {
    const [decision, tag] = [$("review-decision").value, $("review-tag").value];
    return (!decision || stateOf(picture) === decision) && (!tag || of(picture.key).tags.includes(tag));
  }

  function start() {
    startKeys();
    for (const name of filters) $(name).addEventListener("change", () => select());
    for (const button of document.querySelectorAll("#review-detail [data-decision]")) {
      button.addEventListener("click", () => decide(current, button.dataset.decision || null));
    }
    $("review-note").maxLength = data.review.note;
    $("review-add").maxLength = data.review.tag;
    $("review-note").addEventListener("input", () => change(current, { note: cut($("review-note").value, data.review.note) }));
    $("review-add").addEventListener("keydown", (event) => {
      if (event.key !== "Enter") return;
      event.preventDefault();
      addTag(current, $("review-add").value);
      $("review-add").value = "";
      leave();
    });
    for (const field of ["review-add", "review-note"]) {
      $(field).addEventListener("keydown", (event) => {
        if (event.key !== "Escape") return;
        event.preventDefault(); // the picture stays open
        leave();
      });
    }
    $("review-download").addEventListener("click", download);
    $("review-load").addEventListener("click", () => $("review-file").click());
    $("review-file").addEventListener("change", (event) => {
      if (event.target.files[0]) load(event.target.files[0]);
      event.target.value = "";
    });
    restore();
    shown();
  }

  // An address of `view` that is opened in the tab of the page: whether it was one.
  function newToken() {
    const found = tokenOfAddress();
    if (found === null) return false;
    token = found;
    say("");
    restore();
    return true;
  }

  return { tile: mark, fits, filtering, clear, detail, start, newToken, chosen: filterValues, choose };
})();
