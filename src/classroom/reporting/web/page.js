"use strict";

const data = JSON.parse(document.getElementById("data").textContent);

/* Sorting and choosing rows ------------------------------------------------------------------------------------- */

const collator = new Intl.Collator("en", { numeric: true });

/* The sort key of a cell: a number, or undefined without one. */
function numberOf(cell, by) {
  const text = cell.dataset[by] ?? (cell.dataset.paper === undefined && by !== "value" ? undefined : cell.dataset.value);
  return text === undefined ? undefined : Number(text);
}

for (const box of document.querySelectorAll("main .table")) {
  const table = box.querySelector("table");
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const heads = [...table.tHead.rows[0].cells];
  const form = box.querySelector(".choose");
  let sorted = null;

  const arrange = () => {
    let shown = rows;
    if (sorted) {
      const { column, direction } = sorted;
      const by = form?.querySelector("[data-by]")?.value ?? "value";
      const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
      const keyed = rows.map((row, at) => {
        const cell = row.cells[column];
        return { row, at, key: numeric ? numberOf(cell, by) : cell.dataset.text };
      });
      keyed.sort((a, b) => {
        if (a.key === undefined || b.key === undefined) return (a.key === undefined) - (b.key === undefined) || a.at - b.at;
        const order = numeric ? a.key - b.key : collator.compare(a.key, b.key);
        return direction === "ascending" ? order || a.at - b.at : -order || a.at - b.at;
      });
      shown = keyed.map((one) => one.row);
    }
    body.append(...shown);
    const chosen = [...(form?.querySelectorAll("[data-column]") ?? [])].filter((select) => select.value);
    for (const row of rows) {
      row.hidden = chosen.some((select) => row.cells[select.dataset.column].dataset.text !== select.value);
    }
    const strategy = form?.querySelector("[data-strategy]")?.value ?? "";
    for (const cell of table.querySelectorAll("[data-group]")) {
      cell.hidden = Boolean(strategy && cell.dataset.group && cell.dataset.group !== strategy);
    }
    table.classList.toggle("flat", Boolean(sorted || chosen.length));
    rove(table);
    pin(table);
  };

  heads.forEach((head, column) => {
    head.querySelector(".sort")?.addEventListener("click", () => {
      const numeric = rows.some((row) => row.cells[column].dataset.value !== undefined);
      const order = numeric ? ["descending", "ascending"] : ["ascending", "descending"];
      const next = sorted?.column === column ? order[order.indexOf(sorted.direction) + 1] : order[0];
      sorted = next ? { column, direction: next } : null;
      for (const other of heads) other.removeAttribute("aria-sort");
      if (sorted) head.setAttribute("aria-sort", next);
      arrange();
      say(sorted ? `sorted by ${head.textContent.trim()}, ${next}` : "in its original order");
    });
  });
  if (form) {
    form.hidden = false;
    form.addEventListener("change", arrange);
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  pin(table);
}

function say(text) {
  document.getElementById("said").textContent = text;
}

/* The leading columns stay in sight, each next to the one before it. */
function pin(table) {
  let left = 0;
  let pinned = 0;
  const count = table.querySelectorAll("tbody tr:first-child > th").length;
  const room = table.parentElement.clientWidth * 0.55;
  for (let column = 0; column < count; column += 1) {
    const width = table.tHead.rows[0].cells[column].getBoundingClientRect().width;
    const fits = column === 0 || left + width <= room;
    for (const row of table.rows) {
      row.cells[column].classList.toggle("pinned", fits);
      row.cells[column].style.left = fits ? `${left}px` : "";
    }
    left += width;
    if (fits) pinned = left;
  }
  table.parentElement.style.scrollPaddingLeft = `${pinned}px`; // keeps a focused cell from being hidden behind them
}

addEventListener("resize", () => document.querySelectorAll("main table").forEach(pin));

/* Numbers: one stop of the Tab key a table, arrow keys within --------------------------------------------------- */

function rove(table) {
  const seen = [...table.querySelectorAll(".cell")].filter((button) => button.offsetParent);
  if (!seen.some((button) => button.tabIndex === 0) && seen.length) {
    table.querySelectorAll(".cell[tabindex='0']").forEach((button) => (button.tabIndex = -1));
    seen[0].tabIndex = 0;
  }
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

document.addEventListener("keydown", (event) => {
  const button = event.target.closest?.(".cell");
  const step = STEPS[event.key];
  if (!button || !step || event.altKey || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const table = button.closest("table");
  const rows = [...table.tBodies[0].rows].filter((row) => !row.hidden);
  let row = rows.indexOf(button.closest("tr"));
  let column = button.closest("td").cellIndex;
  for (;;) {
    row += step[0];
    column += step[1];
    const cell = rows[row]?.cells[column];
    if (!cell) return;
    const next = cell.querySelector(".cell");
    if (next && !cell.hidden) return focusOn(next);
  }
});

function focusOn(button) {
  for (const other of button.closest("table").querySelectorAll(".cell[tabindex='0']")) other.tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}

/* Where a number is from ---------------------------------------------------------------------------------------- */

const provenance = document.getElementById("provenance");

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  parent?.append(made);
  return made;
}

function inUnit(value, unit) {
  if (value === null) return "–";
  return value.toFixed(unit === "%" ? 2 : 3).replace("-", "−") + (unit ? ` ${unit}` : "");
}

function time(seconds) {
  if (seconds < 100) return `${seconds.toFixed(1)} s`;
  return seconds < 6000 ? `${(seconds / 60).toFixed(1)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/* The best epoch of the network, of both students for their ensemble, of all for no network in particular. */
function epoch(run, network) {
  const best = run.best_epoch ?? {};
  const names = { ensemble: ["S1", "S2"], "": Object.keys(best) }[network] ?? [network];
  const known = names.filter((name) => name in best);
  if (!known.length) return "–";
  return known.length === 1 ? `${best[known[0]]}` : known.map((name) => `${name} ${best[name]}`).join(", ");
}

/* If all are of one method, their seeds distinguish them. */
function columnsOf(source, folders) {
  return [
    folders.size === 1 ? ["seed", (path) => path.split("/seed-").pop()] : ["run", (path) => path, "code"],
    ["value", (path) => inUnit(source.values[path], source.unit), "number"],
    ["run time", (path, run) => time(run.seconds), "number"],
    ["spec hash", (path, run) => run.identity?.slice(0, 12) ?? "not recorded", "code"],
    ["best epoch", (path, run) => epoch(run, source.network)],
    ["device", (path, run) => run.device],
    ["code version", (path, run) => run.code_version ?? "not recorded", "code"],
  ];
}

function showSource(source, parent) {
  const folders = new Set(Object.keys(source.values).map((path) => path.split("/seed-")[0]));
  const title = element("h3", source.what, parent);
  if (folders.size === 1) {
    title.append(", ");
    element("code", [...folders][0], title);
  }
  const scroll = element("div", undefined, parent);
  scroll.className = "scroll";
  scroll.tabIndex = 0;
  const table = element("table", undefined, scroll);
  const columns = columnsOf(source, folders);
  const head = element("tr", undefined, element("thead", undefined, table));
  for (const [name, , kind] of columns) {
    const cell = element("th", name, head);
    cell.scope = "col";
    if (kind === "number") cell.className = "number";
  }
  const body = element("tbody", undefined, table);
  for (const path of Object.keys(source.values)) {
    const row = element("tr", undefined, body);
    for (const [, of, kind] of columns) {
      const cell = element("td", kind === "code" ? undefined : of(path, data.runs[path]), row);
      if (kind === "code") element("code", of(path, data.runs[path]), cell);
      if (kind === "number") cell.className = "number";
    }
  }
  const details = element("details", undefined, parent);
  element("summary", "Full hashes, and the commands that make these runs", details);
  const list = element("ul", undefined, details);
  for (const path of Object.keys(source.values)) {
    const item = element("li", undefined, list);
    element("code", data.runs[path].command ?? path, item);
    if (data.runs[path].identity) {
      item.append(": ");
      element("code", data.runs[path].identity, item);
    }
  }
}

function whereFrom(button) {
  const cell = button.closest("td");
  const row = cell.parentElement;
  const names = [...row.querySelectorAll("th")].map((head) => head.dataset.text);
  const column = cell.closest("table").tHead.rows[0].cells[cell.cellIndex].textContent.trim();
  const title = cell.closest("article, section").querySelector("h3, h2").textContent;
  document.getElementById("provenance-title").textContent = [...names, column].join(" · ");
  const shown = provenance.querySelector(".shown");
  shown.replaceChildren();
  element("b", button.querySelector(".ours").textContent, shown);
  const paper = button.querySelector(".paper");
  shown.append(paper ? `, ${paper.textContent}. ${title}` : `. ${title}`);
  const sources = provenance.querySelector(".sources");
  sources.replaceChildren();
  for (const at of button.dataset.sources.split(" ")) showSource(data.sources[at], sources);
  element("p", "The spec hash covers everything that determines a run: its command, its settings, and the content of all code and data that it reads.", sources).className = "note";
  provenance.showModal();
  provenance.scrollTop = 0;
}

document.addEventListener("click", (event) => {
  const button = event.target.closest(".cell");
  if (!button) return;
  focusOn(button);
  whereFrom(button);
});

for (const dialog of document.querySelectorAll("dialog")) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

/* Enlarging a picture ------------------------------------------------------------------------------------------- */

const zoom = document.getElementById("zoom");
const stage = zoom.querySelector(".stage");
const image = stage.querySelector("img");
const view = { scale: 1, x: 0, y: 0, fit: 1 };
const held = new Map();

function draw() {
  image.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.scale})`;
  zoom.dataset.scale = (view.scale / view.fit).toFixed(2);
}

function fit() {
  const { clientWidth: width, clientHeight: height } = stage;
  view.fit = Math.min(width / image.naturalWidth, height / image.naturalHeight, 2);
  view.scale = view.fit;
  view.x = (width - image.naturalWidth * view.scale) / 2;
  view.y = (height - image.naturalHeight * view.scale) / 2;
  draw();
}

/* By a factor around a point of the stage, its middle if none is given. */
function scaleBy(factor, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const scale = Math.min(Math.max(view.scale * factor, view.fit / 2), view.fit * 32);
  view.x = x - ((x - view.x) * scale) / view.scale;
  view.y = y - ((y - view.y) * scale) / view.scale;
  view.scale = scale;
  draw();
}

function moveBy(x, y) {
  view.x += x;
  view.y += y;
  draw();
}

for (const button of document.querySelectorAll(".enlarge")) {
  button.addEventListener("click", () => {
    const shown = button.querySelector("img");
    document.getElementById("zoom-title").textContent = button.closest("article").querySelector("h3").textContent;
    image.src = shown.src;
    image.alt = shown.alt;
    zoom.showModal();
    image.decode().then(fit);
  });
}

const ACTIONS = { in: () => scaleBy(1.5), out: () => scaleBy(1 / 1.5), fit };
const KEYS = {
  "+": ACTIONS.in, "=": ACTIONS.in, "-": ACTIONS.out, "0": ACTIONS.fit,
  ArrowLeft: () => moveBy(60, 0), ArrowRight: () => moveBy(-60, 0),
  ArrowUp: () => moveBy(0, 60), ArrowDown: () => moveBy(0, -60),
};

zoom.addEventListener("click", (event) => ACTIONS[event.target.dataset.zoom]?.());
zoom.addEventListener("keydown", (event) => {
  if (!KEYS[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  KEYS[event.key]();
});
addEventListener("resize", () => zoom.open && fit());

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const { left, top } = stage.getBoundingClientRect();
  scaleBy(Math.exp(-event.deltaY / 400), event.clientX - left, event.clientY - top);
}, { passive: false });
stage.addEventListener("dblclick", (event) => {
  const { left, top } = stage.getBoundingClientRect();
  if (view.scale > view.fit * 1.01) fit();
  else scaleBy(3, event.clientX - left, event.clientY - top);
});

/* One pointer drags; two pinch. */
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  held.set(event.pointerId, event);
  stage.classList.add("held");
});
stage.addEventListener("pointermove", (event) => {
  const before = held.get(event.pointerId);
  if (!before) return;
  const other = [...held.values()].find((one) => one.pointerId !== event.pointerId);
  if (other) {
    const { left, top } = stage.getBoundingClientRect();
    const distance = (from) => Math.hypot(from.clientX - other.clientX, from.clientY - other.clientY);
    const middle = [(event.clientX + other.clientX) / 2 - left, (event.clientY + other.clientY) / 2 - top];
    scaleBy(distance(event) / Math.max(distance(before), 1), ...middle);
  } else {
    moveBy(event.clientX - before.clientX, event.clientY - before.clientY);
  }
  held.set(event.pointerId, event);
});
for (const end of ["pointerup", "pointercancel"]) {
  stage.addEventListener(end, (event) => {
    held.delete(event.pointerId);
    stage.classList.toggle("held", held.size > 0);
  });
}
