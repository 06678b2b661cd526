"use strict";
// The report's data, the state of the view (which stands in the URL's fragment) and what makes elements. Text from records only ever becomes
// text nodes.
const D = JSON.parse(document.getElementById("data").textContent);

const state = new URLSearchParams(location.hash.slice(1));
const views = [];  // {id, title, draw(parent)}: one per tab

function get(name, otherwise) {
  return state.has(name) ? state.get(name) : otherwise;
}

let written = location.hash;
function set(changes) {
  for (const [name, value] of Object.entries(changes)) {
    if (value === null || value === undefined || value === "") state.delete(name);
    else state.set(name, value);
  }
  written = "#" + state.toString();
  try {
    history.replaceState(null, "", written);
  } catch (error) {  // where a browser forbids it for local files
    location.hash = written;
  }
}

function el(name, properties, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function svg(name, properties, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(properties || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else node.setAttribute(key, value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

function choice(label, name, options, chosen, then) {
  const select = el("select", { name, onchange: () => { set({ [name]: select.value }); then(); } });
  for (const [value, text] of options) select.append(el("option", { value, selected: String(value) === String(chosen) }, text));
  return el("label", {}, label, select);
}

function check(label, name, on, then) {
  const box = el("input", { type: "checkbox", name, onchange: () => { set({ [name]: box.checked ? "1" : "0" }); then(); } });
  box.checked = on;
  return el("label", { class: "check" }, box, label);
}

// rows: arrays of texts or nodes; the first `nText` columns are words.
function table(caption, header, rows, nText) {
  const words = (i) => (i < nText ? "text" : null);
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    el("table", {}, el("caption", {}, caption),
      el("thead", {}, el("tr", {}, ...header.map((text, i) => el("th", { scope: "col", class: words(i) }, text)))),
      el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((cell, i) =>
        i === 0 ? el("th", { scope: "row" }, cell) : el("td", { class: words(i) }, cell)))))));
}

// A table that is only made when somebody opens it.
function behind(title, make) {
  const node = el("details", {}, el("summary", {}, title));
  node.addEventListener("toggle", () => { if (node.open && node.children.length === 1) node.append(make()); });
  return node;
}

// ---- numbers

function number(value, digits = 3) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1000) return value.toFixed(0);
  if (size !== 0 && size < 1e-3) return value.toExponential(1);
  return String(Number(value.toPrecision(digits)));
}

function bytes(value) {
  if (value === null || value === undefined) return "–";
  let unit = 0;
  while (value >= 1024 && unit < 4) { value /= 1024; ++unit; }
  return `${unit === 0 ? value.toFixed(0) : value.toFixed(1)} ${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function share(value) {
  return value === null || value === undefined ? "–" : value.toFixed(2);
}

function valueText(value, metric) {
  return metric && metric.share ? share(value) : number(value);
}

// Intervals by document say nothing with very few documents; then the interval over questions stands for them.
const kFewDocuments = 5;
function intervalOf(estimate) {
  if (!estimate) return null;
  const few = estimate.n_documents < kFewDocuments;
  return (few && estimate.interval_by_question) || estimate.interval || null;
}

function estimateText(estimate, metric) {
  if (!estimate) return "–";
  const interval = intervalOf(estimate);
  const value = valueText(estimate.mean, metric);
  return interval ? `${value} [${valueText(interval.low, metric)}, ${valueText(interval.high, metric)}]` : value;
}

// Of a cell that a rule (stop_when) measured on no further documents: why, and the loss with the interval that holds.
function stoppedText(cell) {
  const s = cell.stopped;
  if (!s) return "";
  const loss = (value) => (value === null || value === undefined ? "–" : s.metric === "kl" ? number(value) : `${number(100 * value)} %`);
  const documents = `${s.documents} document${s.documents === 1 ? "" : "s"}`;
  return `${String(s.state || "stopped").replace(/_/g, " ")} after ${documents}${s.low === undefined ? "" : `; loss ${loss(s.loss)}, ${loss(s.low)} to ${loss(s.high)}`}`;
}

// ---- tables of the report

function tableTitle(t) {
  const models = new Set(D.tables.map((other) => other.labels.model));
  return `${models.size > 1 ? t.labels.model + ": " : ""}${t.labels.dataset}, ${t.labels.task}`;
}

function metricOf(t, name) {
  return t.metrics.find((metric) => metric.name === name) || null;
}

function targetText(target) {
  return target === null || target === undefined ? "" : String(target);
}

function styleOf(label) {
  return D.styles[label] || { colour: -1, marker: 0 };
}

function colourOf(label) {
  const { colour } = styleOf(label);
  return colour < 0 ? "var(--grey)" : `var(--c${colour})`;
}

function tablesWith(test) {
  return D.tables.map((t, i) => [i, t]).filter(([, t]) => test(t));
}

function pickTable(list, then) {
  const chosen = list.some(([i]) => String(i) === get("table")) ? Number(get("table")) : list[0][0];
  return [D.tables[chosen], chosen, choice("data set and task", "table", list.map(([i, t]) => [i, tableTitle(t)]), chosen, then)];
}

// ---- what hangs at the pointer

const tip = document.getElementById("tip");
function showTip(title, text, near) {
  tip.replaceChildren(el("b", {}, title), text);
  tip.hidden = false;
  const box = near.getBoundingClientRect(), own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, box.right + 10), innerWidth - own.width - 8);
  const above = box.top - own.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : Math.min(box.bottom + 8, innerHeight - own.height - 4)}px`;
}
function hideTip() { tip.hidden = true; }
addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
addEventListener("scroll", hideTip, true);

// van der Walt & Smith's viridis, 2015: its lightness grows evenly, so it survives grey print and colour blindness.
const kViridis = [[68, 1, 84], [71, 44, 122], [59, 81, 139], [44, 113, 142], [33, 144, 141], [39, 173, 129], [92, 200, 99], [170, 220, 50], [253, 231, 37]];
function viridis(part) {
  const place = Math.min(Math.max(part, 0), 1) * (kViridis.length - 1);
  const low = Math.min(Math.floor(place), kViridis.length - 2), rest = place - low;
  const mix = kViridis[low].map((value, i) => Math.round(value + rest * (kViridis[low + 1][i] - value)));
  return `rgb(${mix.join(",")})`;
}
