// Heads: the error of every head's output. Depth: where in the document a fact must stand to survive.

function scaleKey(low, high, text) {
  const stops = [0, 0.25, 0.5, 0.75, 1].map((part) => viridis(part)).join(",");
  return el("p", { class: "note" }, `${text(low)} `, el("span", { style: `display:inline-block;width:9rem;height:.7em;background:linear-gradient(to right,${stops})`, "aria-hidden": "true" }), ` ${text(high)}`);
}

function grid(values, top, cell, name) {  // values[y][x]
  const height = values.length, width = Math.max(...values.map((row) => row.length));
  const picture = svg("svg", { viewBox: `0 0 ${width * cell} ${height * cell}`, style: `width:${width * cell}px`, role: "img", "aria-label": "A map; the table below has the numbers." });
  values.forEach((row, y) => row.forEach((value, x) => {
    const box = svg("rect", { x: x * cell, y: y * cell, width: cell - 0.5, height: cell - 0.5, fill: value === null ? "var(--raised)" : viridis(value / top) });
    box.addEventListener("mouseenter", () => showTip(...name(x, y, value), box));
    box.addEventListener("mouseleave", hideTip);
    picture.append(box);
  }));
  return picture;
}

const kHeadMetrics = { output_relative: "relative error of the output", cosine: "1 − cosine of the output", mass_relative: "relative error of the attention mass", bias_at_bound: "share of biases at their bound" };

views.push({
  id: "heads", title: "Heads", draw(parent) {
    const list = tablesWith((t) => t.rows.some((row) => row.cells.some((cell) => cell.heads)));
    if (!list.length) { parent.append(el("p", {}, "This sweep has no task head_errors, so nothing is known of single heads. Add it to the sweep file: task: [head_errors].")); return; }
    const again = () => { parent.replaceChildren(); this.draw(parent); };
    const [t, , tables] = pickTable(list, again);
    const cells = t.rows.flatMap((row) => row.cells.filter((cell) => cell.heads && row.role === "method").map((cell) => [row, cell]));
    const kinds = Object.keys(kHeadMetrics).filter((name) => cells.some(([, cell]) => cell.heads[name]));
    const kind = kinds.includes(get("heads")) ? get("heads") : kinds[0];
    const of = (cell) => (cell.heads[kind] || []).map((row) => row.map((value) => (value === null ? null : kind === "cosine" ? 1 - value : value)));
    const top = Math.max(...cells.flatMap(([, cell]) => of(cell).flat()).filter((v) => v !== null), 1e-9), ceiling = kind === "output_relative" ? Math.min(top, 1) : top;
    parent.append(el("div", { class: "controls" }, tables, choice("show", "heads", kinds.map((name) => [name, kHeadMetrics[name]]), kind, again)), scaleKey(0, ceiling, (v) => number(v)), el("p", { class: "note" }, "Layers from top to bottom, KV heads from left to right."));
    const maps = el("div", { class: "maps" });
    for (const [row, cell] of cells) {
      const values = of(cell), name = `${row.label} at ${targetText(cell.target)}`;
      maps.append(el("div", { class: "map" }, el("h3", {}, name), grid(values, ceiling, Math.max(7, Math.min(16, 110 / (values[0] || [1]).length)), (x, y, value) => [`layer ${y}, KV head ${x}`, `${name}\n${kHeadMetrics[kind]}: ${number(value)}`])));
    }
    parent.append(maps, behind("The worst heads as a table", () => table("Largest values first", ["cell", "layer", "KV head", kHeadMetrics[kind]],
      cells.flatMap(([row, cell]) => of(cell).flatMap((layer, y) => layer.map((value, x) => [`${row.label} at ${targetText(cell.target)}`, y, x, value]))).sort((a, b) => b[3] - a[3]).slice(0, 200).map((line) => [line[0], String(line[1]), String(line[2]), number(line[3])]), 1)));
  },
});

// Documents whose lengths are 1.2 times apart or more stand in different bands.
function lengthBands(q) {
  const lengths = [...new Set((q.tokens || []).filter((v) => v !== null))].sort((a, b) => a - b);
  const bands = [];
  for (const length of lengths) if (bands.length && length < 1.2 * bands[bands.length - 1][0]) bands[bands.length - 1][1] = length; else bands.push([length, length]);
  return bands.length ? bands : [[0, Infinity]];
}

views.push({
  id: "depth", title: "Depth", draw(parent) {
    const list = tablesWith((t) => t.questions && t.questions.depth && t.questions.depth.some((d) => d !== null));
    if (!list.length) { parent.append(el("p", {}, "No question says where in its document the answer stands (data set needle does).")); return; }
    const again = () => { parent.replaceChildren(); this.draw(parent); };
    const [t, , tables] = pickTable(list, again), q = t.questions, metric = t.metrics[0], bands = lengthBands(q);
    const band = bands[Math.min(Number(get("band", 0)) || 0, bands.length - 1)];
    const within = q.id.map((_, i) => i).filter((i) => q.depth[i] !== null && (!q.tokens || q.tokens[i] === null || (q.tokens[i] >= band[0] && q.tokens[i] <= band[1])));
    const bins = Math.max(1, Math.min(10, Math.floor(within.length / 3)));
    const rows = t.rows.filter((row) => row.role !== "floor" && row.cells.length);
    const maps = el("div", { class: "maps" }), lines = [];
    let top = metric.share ? 1 : 0;
    const made = rows.map((row) => {
      const r = t.rows.indexOf(row), cells = row.cells.map((cell, c) => [cell, c]).filter(([, c]) => t.questions.values[r][c] !== null);
      const values = Array.from({ length: bins }, () => cells.map(() => null)), counts = Array.from({ length: bins }, () => cells.map(() => 0));
      cells.forEach(([, c], x) => {
        const own = unpackValues(t, r, c);
        for (const i of within) {
          if (Number.isNaN(own[i])) continue;
          const y = Math.min(bins - 1, Math.floor(q.depth[i] * bins));
          values[y][x] = (values[y][x] || 0) + own[i];
          ++counts[y][x];
        }
        for (let y = 0; y < bins; ++y) if (counts[y][x]) { values[y][x] /= counts[y][x]; top = Math.max(top, metric.share ? 1 : values[y][x]); }
      });
      return { row, cells, values, counts };
    });
    for (const { row, cells, values, counts } of made) {
      if (!cells.length) continue;
      const depth = (y) => `${Math.round((100 * y) / bins)} to ${Math.round((100 * (y + 1)) / bins)} %`;
      maps.append(el("div", { class: "map" }, el("h3", {}, row.label), grid(values, top || 1, 26, (x, y, value) => [`${row.label}${cells[x][0].target === null ? "" : " at " + targetText(cells[x][0].target)}`, `depth ${depth(y)}\n${metric.name} ${valueText(value, metric)}, ${counts[y][x]} questions`]),
        el("p", { class: "note" }, cells.map(([cell]) => targetText(cell.target) || "all").join(" · "))));
      values.forEach((line, y) => line.forEach((value, x) => lines.push([row.label, targetText(cells[x][0].target), depth(y), valueText(value, metric), String(counts[y][x])])));
    }
    parent.append(el("div", { class: "controls" }, tables, bands.length > 1 ? choice("documents", "band", bands.map(([low, high], i) => [i, low === high ? `${low} tokens` : `${low} to ${high} tokens`]), bands.indexOf(band), again) : ""),
      el("p", { class: "note" }, `${metric.title}. From the start of the document (top) to its end (bottom); columns are targets.`), scaleKey(0, top, (v) => (metric.share ? `${number(100 * v)} %` : number(v))), maps,
      behind("The numbers", () => table("By depth", ["method", "target", "depth", metric.name, "questions"], lines, 1)));
  },
});
