// What a cache is worth against what is left of it: a panel per data set and task, methods switched on and off by the legend.

const kAxes = {
  kept: { title: "KV cache kept (%)", of: (cell) => cell.sizes.kept_fraction, text: (x) => number(100 * x), flip: true, less: true },
  ratio: { title: "compaction ratio", of: (cell) => cell.sizes.compaction_ratio, text: (x) => `${number(x)}x`, less: false },
  bytes: { title: "bytes of the cache afterwards", of: (cell) => cell.sizes.bytes_after, text: bytes, less: true },
  seconds: {
    title: "seconds of compaction per document", less: true, text: (x) => `${number(x)} s`,
    of: (cell) => (cell.seconds.compaction_s === null ? null : cell.seconds.compaction_s + (cell.seconds.compaction_shared_s || 0)),
  },
};

// Shapes of about equal area around (x, y), so that lines are told apart without colour.
function marker(kind, x, y, properties) {
  const corners = [
    null,
    [[-3.6, -3.6], [3.6, -3.6], [3.6, 3.6], [-3.6, 3.6]],
    [[0, -4.9], [4.6, 3.2], [-4.6, 3.2]],
    [[0, -5.1], [5.1, 0], [0, 5.1], [-5.1, 0]],
    [[0, 4.9], [4.6, -3.2], [-4.6, -3.2]],
    [[-1.6, -4.6], [1.6, -4.6], [1.6, -1.6], [4.6, -1.6], [4.6, 1.6], [1.6, 1.6], [1.6, 4.6], [-1.6, 4.6], [-1.6, 1.6], [-4.6, 1.6], [-4.6, -1.6], [-1.6, -1.6]],
    [[0, -4.8], [4.6, -1.5], [2.8, 3.9], [-2.8, 3.9], [-4.6, -1.5]],
    [[-4.9, 0], [3.2, -4.6], [3.2, 4.6]],
  ][kind % 8];
  if (!corners) return svg("circle", { cx: x, cy: y, r: 3.9, ...properties });
  return svg("polygon", { points: corners.map(([dx, dy]) => `${(x + dx).toFixed(1)},${(y + dy).toFixed(1)}`).join(" "), ...properties });
}

function niceTicks(low, high, n, log) {
  if (log) {
    const ticks = [];
    const decades = Math.log10(high / low);
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); ++power) {
      for (const factor of decades > 3 ? [1] : decades > 1.2 ? [1, 3] : [1, 2, 5]) {
        const tick = factor * 10 ** power;
        if (tick >= low * 0.999 && tick <= high * 1.001) ticks.push(tick);
      }
    }
    return ticks;
  }
  const raw = (high - low) / n, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= raw * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + 1e-9 * step; tick += step) ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

// All that is drawn of one table: points by row, and the lines of full cache and no context.
function seriesOf(t, index, metric, axis) {
  const lines = [], references = [];
  t.rows.forEach((row, r) => {
    const points = [];
    row.cells.forEach((cell, c) => {
      const estimate = cell.metrics[metric.name];
      if (!estimate) return;
      if (row.role !== "method") { references.push([row.role === "ceiling" ? "full cache" : "no context", estimate.mean, estimate]); return; }
      const x = axis.of(cell);
      if (x === null || x === undefined || !(x > 0)) return;
      const interval = intervalOf(estimate);
      points.push({ x, y: estimate.mean, low: interval ? interval.low : null, high: interval ? interval.high : null, cell, row, estimate, key: `${index}.${r}.${c}` });
    });
    points.sort((a, b) => a.x - b.x);
    if (points.length) lines.push({ row, points });
  });
  return { lines, references };
}

function spansDecades(lines, references) {
  const values = lines.flatMap((line) => line.points.map((p) => p.y)).filter((y) => y > 0);
  return values.length > 1 && Math.max(...values) / Math.min(...values) > 30;
}

function frontOf(points, axis, metric) {
  const better = (a, b) => (metric.higher_is_better ? a > b : a < b);
  const cheap = [...points].sort((a, b) => (axis.less ? a.x - b.x : b.x - a.x) || (better(a.y, b.y) ? -1 : 1));
  const front = [];
  for (const point of cheap) if (!front.length || better(point.y, front[front.length - 1].y)) front.push(point);
  return front;
}

function pointTitle(point) {
  return `${point.row.label}${point.cell.target === null ? "" : " at " + targetText(point.cell.target)}`;
}

function pointText(point, metric) {
  const { cell, estimate } = point, s = cell.sizes;
  const interval = intervalOf(estimate);
  const lines = [`${metric.title}: ${estimateText(estimate, metric)}`,
    `${estimate.n_questions} questions, ${estimate.n_documents} document${estimate.n_documents === 1 ? "" : "s"}${interval ? `; 95 % interval ${String(interval.kind).startsWith("documents") ? "by document" : "over questions"}` : ""}`,
    `kept ${number(100 * s.kept_fraction)} % (${number(s.compaction_ratio)}x), ${bytes(s.bytes_before)} → ${bytes(s.bytes_after)}`,
    `compaction ${number(kAxes.seconds.of(cell))} s per document`];
  const options = Object.entries(point.row.method).filter(([name]) => name !== "name").map(([name, value]) => `${name}=${typeof value === "object" ? JSON.stringify(value) : value}`);
  if (options.length) lines.push(options.join(", "));
  if (cell.n_failed + cell.n_missing > 0) lines.push(`${cell.n_failed} failed, ${cell.n_missing} missing`);
  if (cell.stopped) lines.push(`left early: ${stoppedText(cell)}`);
  return lines.join("\n");
}

function scale(low, high, from, to, log) {
  const f = log ? Math.log : (v) => v;
  return (v) => from + ((f(v) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
}

function yRange(lines, references, metric, log) {
  const means = [...lines.flatMap((line) => line.points.map((p) => p.y)), ...references.map((r) => r[1])];
  const most = Math.max(...means);
  const reach = metric.share ? [0, 1] : [log ? 0 : -Infinity, most + 0.25 * Math.abs(most)];
  const bars = lines.flatMap((line) => line.points.flatMap((p) => (p.low === null ? [] : [p.low, p.high]))).map((y) => Math.min(Math.max(y, reach[0]), reach[1]));
  const all = log ? means.filter((y) => y > 0) : means.concat(bars);
  let low = Math.min(...all), high = Math.max(...all);
  if (log) return [low / 1.3, high * 1.3];
  if (!metric.share && low > 0) low = 0;
  const room = 0.04 * (high - low || 0.1);
  low = metric.share ? Math.max(0, low - room) : low === 0 ? 0 : low - room;
  high = metric.share ? Math.min(1, high + room) : high + room;
  return high - low < 1e-9 ? [low - 0.05, high + 0.05] : [low, high];
}

function drawPanel(t, index, metric, view, pick) {
  const axis = kAxes[view.x];
  const { lines, references } = seriesOf(t, index, metric, axis);
  const caption = el("h3", {}, tableTitle(t));
  const shown = lines.filter((line) => !view.hidden.has(line.row.label));
  if (!shown.length) return el("figure", {}, caption, el("p", { class: "note" }, "Nothing to draw here: no visible method has this metric."));
  const xs = shown.flatMap((line) => line.points.map((p) => p.x));
  const positive = shown.some((line) => line.points.some((p) => p.y > 0));
  const logY = (positive && view.logy === "1") || (view.logy === "auto" && !metric.share && spansDecades(shown));
  const narrow = innerWidth < 640;  // a phone shows the same letters in a smaller picture
  const W = narrow ? 380 : 600, H = narrow ? 300 : 370, L = narrow ? 48 : 58, R = narrow ? 76 : 92, T = 14, B = 48;
  const wide = Math.max(...xs) / Math.min(...xs) < 1.05;
  const xLow = wide ? Math.min(...xs) / 1.5 : Math.min(...xs), xHigh = wide ? Math.max(...xs) * 1.5 : Math.max(...xs);
  const margin = axis.flip ? [W - R - 14, L + 14] : [L + 14, W - R - 14];
  const atX = scale(view.logx ? xLow : 0, xHigh, margin[0], margin[1], view.logx);
  const [low, high] = yRange(shown, references, metric, logY);
  const atYRaw = scale(low, high, H - B, T, logY);
  const atY = (y) => Math.min(Math.max(atYRaw(logY ? Math.max(y, low) : y), T), H - B);
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "group", tabindex: 0, "aria-label": `${tableTitle(t)}: ${metric.title} against ${axis.title}. Arrow keys move between points; the table below has the numbers.` });

  for (const tick of niceTicks(low, high, 5, logY)) {
    picture.append(svg("line", { class: "grid", x1: L, x2: W - R, y1: atY(tick), y2: atY(tick) }),
      svg("text", { class: "soft", x: L - 7, y: atY(tick) + 4, "text-anchor": "end" }, metric.share ? number(100 * tick) : number(tick)));
  }
  let last = -Infinity;
  const asked = [...new Set(shown.flatMap((line) => line.points.map((p) => (typeof p.cell.target === "number" ? p.cell.target : 0))))].filter((v) => v > 0);
  const ticks = (view.x === "kept" && asked.length > 1 ? asked : view.x === "ratio" && asked.length > 1 ? asked.map((v) => 1 / v) : niceTicks(view.logx ? xLow : 0, xHigh, 5, view.logx))
    .map((tick) => [atX(tick), tick]).filter(([x]) => x > L - 1 && x < W - R + 1).sort((a, b) => a[0] - b[0]);
  for (const [x, tick] of ticks) {
    const text = axis.text(tick);
    picture.append(svg("line", { class: "grid", x1: x, x2: x, y1: T, y2: H - B }));
    if (x - last < 7 * text.length + 4) continue;
    last = x;
    picture.append(svg("text", { class: "soft", x, y: H - B + 17, "text-anchor": "middle" }, text));
  }
  picture.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }),
    svg("text", { x: (L + W - R) / 2, y: H - 8, "text-anchor": "middle" }, axis.title + (view.logx ? "" : ", linear")),
    svg("text", { x: 14, y: (T + H - B) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(T + H - B) / 2})` }, (metric.share ? metric.name + " (%)" : shortTitle(metric)) + (logY ? ", log" : "")));

  const named = references.map(([name, y, estimate]) => ({ name, y: atY(y), estimate, at: atY(y) })).sort((a, b) => a.y - b.y);
  for (let i = 1; i < named.length; ++i) if (named[i].at - named[i - 1].at < 14) named[i].at = named[i - 1].at + 14;
  for (const one of named) {
    picture.append(svg("line", { class: "reference", x1: L, x2: W - R, y1: one.y, y2: one.y, "stroke-dasharray": one.name === "full cache" ? "7 3" : "2 3" }, svg("title", {}, `${one.name}: ${estimateText(one.estimate, metric)}`)),
      svg("text", { class: "soft", x: W - R + 6, y: Math.min(one.at + 4, H - B) }, one.name));
  }

  // Muted lines first, so that the named ones lie on top.
  for (const line of [...shown].sort((a, b) => styleOf(a.row.label).colour - styleOf(b.row.label).colour)) {
    const label = line.row.label, colour = colourOf(label), style = styleOf(label);
    const group = svg("g", { class: `series${style.colour < 0 ? " muted" : ""}`, "data-label": label });
    const barred = line.points.filter((p) => p.low !== null);
    if (view.bands && barred.length > 1) {
      group.append(svg("path", { class: "band", fill: colour, d: "M" + barred.map((p) => `${atX(p.x).toFixed(1)},${atY(p.high).toFixed(1)}`).join("L") + "L" + [...barred].reverse().map((p) => `${atX(p.x).toFixed(1)},${atY(p.low).toFixed(1)}`).join("L") + "Z" }));
    } else if (view.bands) {
      for (const p of barred) group.append(svg("line", { class: "whisker", stroke: colour, x1: atX(p.x), x2: atX(p.x), y1: atY(p.low), y2: atY(p.high) }));
    }
    group.append(svg("path", { class: "line", stroke: colour, d: "M" + line.points.map((p) => `${atX(p.x).toFixed(1)},${atY(p.y).toFixed(1)}`).join("L") }));
    line.points.forEach((p, i) => {
      const x = atX(p.x), y = atY(p.y), left = Boolean(p.cell.stopped), partial = left || p.cell.n_failed + p.cell.n_missing > 0;
      const show = () => { focus(label); showTip(pointTitle(p), pointText(p, metric), node); };
      const leave = () => { focus(null); hideTip(); };
      const node = svg("g", { class: "point", tabindex: -1, role: "button", "data-key": p.key, "data-left": left ? "early" : null, "data-line": shown.indexOf(line), "data-place": i, "aria-label": `${pointTitle(p)}. ${pointText(p, metric)}`,
        onmouseenter: show, onmouseleave: leave, onfocus: show, onblur: leave, onclick: () => pick(p.key), onkeydown: (event) => { if (event.key === "Enter" || event.key === " ") { event.preventDefault(); pick(p.key); } } },
        marker(style.marker, x, y, { fill: partial ? "var(--page)" : colour, stroke: partial ? colour : "var(--page)", "stroke-width": partial ? 1.4 : 0.8, "stroke-dasharray": left ? "2 1.6" : null }), svg("circle", { class: "hit", cx: x, cy: y, r: 8 }));
      group.append(node);
    });
    picture.append(group);
  }
  if (view.pareto) {
    const front = frontOf(shown.flatMap((line) => line.points), axis, metric);
    picture.append(svg("path", { class: "front", "pointer-events": "none", "stroke-dasharray": "1 3", d: "M" + front.map((p) => `${atX(p.x).toFixed(1)},${atY(p.y).toFixed(1)}`).join("L") }),
      ...front.map((p) => svg("circle", { class: "front", "pointer-events": "none", cx: atX(p.x), cy: atY(p.y), r: 7.5 })));
  }
  picture.addEventListener("keydown", (event) => moveBetween(event, picture));
  const numbers = behind("The numbers", () => table(`${tableTitle(t)}: ${metric.title}, 95 % intervals`,
    ["method", "target", "kept", "ratio", metric.name, "questions", "seconds"],
    t.rows.flatMap((row) => row.cells.filter((cell) => cell.metrics[metric.name]).map((cell) => [row.label, targetText(cell.target) + (cell.stopped ? " (left early)" : ""), number(cell.sizes.kept_fraction), cell.sizes.compaction_ratio ? number(cell.sizes.compaction_ratio) + "x" : "–", estimateText(cell.metrics[metric.name], metric), String(cell.metrics[metric.name].n_questions), number(kAxes.seconds.of(cell))])), 1));
  return el("figure", {}, caption, picture, numbers);
}

function shortTitle(metric) {
  return metric.name === "kl" ? "KL (nats per token)" : metric.title.length > 40 ? metric.name : metric.title;
}

function moveBetween(event, picture) {
  const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
  if (!step) return;
  event.preventDefault();
  const nodes = [...picture.querySelectorAll(".point")];
  const here = document.activeElement.closest ? document.activeElement.closest(".point") : null;
  if (!here || !picture.contains(here)) { nodes[0].focus(); return; }
  const nLines = 1 + Math.max(...nodes.map((node) => Number(node.dataset.line)));
  const line = (Number(here.dataset.line) + step[0] + nLines) % nLines;
  const own = nodes.filter((node) => Number(node.dataset.line) === line).sort((a, b) => a.dataset.place - b.dataset.place);
  own[Math.min(Math.max(Number(here.dataset.place) + step[1], 0), own.length - 1)].focus();
}

function focus(label) {
  for (const picture of document.querySelectorAll("figure > svg")) {
    picture.classList.toggle("focusing", label !== null);
    for (const group of picture.querySelectorAll(".series")) group.classList.toggle("hot", group.dataset.label === label);
  }
}

function legend(labels, hidden, redraw) {
  const write = (next) => { set({ hide: [...next].join("\n") }); redraw(); };
  const list = el("ul", { class: "legend", "aria-label": "Methods: switch on and off" });
  for (const label of labels) {
    const style = styleOf(label);
    const toggle = el("button", { "aria-pressed": String(!hidden.has(label)), onmouseenter: () => focus(label), onmouseleave: () => focus(null), onfocus: () => focus(label), onblur: () => focus(null),
      onclick: () => { const next = new Set(hidden); if (!next.delete(label)) next.add(label); write(next); } },
      svg("svg", { viewBox: "0 0 26 14", "aria-hidden": "true" }, svg("line", { x1: 1, x2: 25, y1: 7, y2: 7, stroke: colourOf(label), "stroke-width": style.colour < 0 ? 1.2 : 2.2 }), marker(style.marker, 13, 7, { fill: colourOf(label) })), label);
    const alone = labels.every((other) => hidden.has(other) !== (other === label));
    list.append(el("li", {}, toggle, el("button", { class: "only", "aria-label": alone ? "show all methods" : `show ${label} alone`, onclick: () => write(alone ? new Set() : new Set(labels.filter((other) => other !== label))) }, alone ? "all" : "only")));
  }
  return list;
}

function cellCard(key) {
  const [i, r, c] = key.split(".").map(Number);
  const t = D.tables[i], row = t && t.rows[r], cell = row && row.cells[c];
  if (!cell) return null;
  const entries = [["data set, task", tableTitle(t)], ["method", JSON.stringify(row.method)], ["queries", row.queries ? JSON.stringify(row.queries) : "none"], ["target", targetText(cell.target) || "none"],
    ...t.metrics.filter((metric) => cell.metrics[metric.name]).map((metric) => [metric.name, `${estimateText(cell.metrics[metric.name], metric)}, ${cell.metrics[metric.name].n_questions} questions`]),
    ["cell", cell.cell_ids.join(", ")], ["records", `${cell.n_done} done, ${cell.n_failed} failed, ${cell.n_missing} missing`]];
  if (cell.stopped) entries.push(["left early", stoppedText(cell)]);
  if (cell.first_error) entries.push(["error", cell.first_error]);
  return el("section", { class: "card", id: "cell", "aria-label": "The chosen cell" }, el("h3", {}, `${row.label}${cell.target === null ? "" : " at " + targetText(cell.target)}`),
    el("dl", {}, ...entries.flatMap(([name, text]) => [el("dt", {}, name), el("dd", { dir: "auto" }, text)])),
    t.questions ? el("a", { href: "#" + new URLSearchParams({ tab: "questions", table: i, b: `${r}.${c}` }) }, "Read its answers") : null);
}

views.push({
  id: "frontier", title: "Frontier", draw(parent) {
    const redraw = () => { const y = scrollY; parent.replaceChildren(); this.draw(parent); scrollTo(0, y); };
    const names = new Map();
    for (const t of D.tables) for (const metric of t.metrics) if (t.rows.some((row) => row.cells.some((cell) => cell.metrics[metric.name]))) names.set(metric.name, metric.name);
    if (!names.size) { parent.append(el("p", {}, "No record has an answer that can be scored.")); return; }
    const wanted = get("metric", ""), only = get("panel", "");
    const view = { x: kAxes[get("x")] ? get("x") : "kept", logx: get("logx", "1") === "1", logy: get("logy", "auto"), bands: get("bands", "1") === "1", pareto: get("pareto", "1") === "1", hidden: new Set(get("hide", "").split("\n").filter(Boolean)) };
    parent.append(el("div", { class: "controls" },
      choice("metric", "metric", [["", "each task's own"], ...names], wanted, redraw),
      choice("against", "x", Object.entries(kAxes).map(([key, axis]) => [key, axis.title]), view.x, redraw),
      choice("panels", "panel", [["", "all"], ...D.tables.map((t, i) => [i, tableTitle(t)])], only, redraw),
      choice("y axis", "logy", [["auto", "as it fits"], ["0", "linear"], ["1", "log"]], view.logy, redraw),
      check("log x", "logx", view.logx, redraw), check("95 % intervals", "bands", view.bands, redraw), check("Pareto front", "pareto", view.pareto, redraw)));
    const panels = el("div", { class: "panels" });
    const labels = new Set();
    const card = el("div", {});
    const pick = (key) => { set({ cell: key }); card.replaceChildren(cellCard(key) || ""); card.scrollIntoView({ block: "nearest" }); };
    D.tables.forEach((t, i) => {
      const metric = wanted ? metricOf(t, wanted) : t.metrics[0];
      if (!metric || (only !== "" && String(i) !== only)) return;
      for (const row of t.rows) if (row.role === "method") labels.add(row.label);
      panels.append(drawPanel(t, i, metric, view, pick));
    });
    if (panels.children.length === 1) panels.classList.add("one");
    const order = [...labels].sort((a, b) => (styleOf(a).colour < 0) - (styleOf(b).colour < 0));
    parent.append(legend(order, view.hidden, redraw), panels, card,
      el("p", { class: "note" }, "Coloured: the best few by mean rank over all panels; the rest is grey and lights up under the pointer. Rings: no other visible point is both cheaper and better. Hollow markers: documents failed or are missing." + (D.tables.some((t) => t.rows.some((row) => row.cells.some((cell) => cell.stopped))) ? " Dashed markers: a rule (stop_when) left the cell before the last document; such means have no interval." : "") + " With fewer than 5 documents intervals are over questions and say nothing about other documents."));
    if (get("cell")) card.append(cellCard(get("cell")) || "");
  },
});
