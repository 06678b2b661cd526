// Every two methods at the same target: difference, interval, p, and whether this run decides between them.

function verdictOf(pair, rows) {
  if (pair.better === "first") return `${rows[pair.first].label} is better`;
  if (pair.better === "second") return `${rows[pair.second].label} is better`;
  if (pair.p_equivalence !== null && pair.p_equivalence <= 0.05) return "equivalent";
  if (pair.better_bh && pair.better_bh !== "undecided") return `${rows[pair[pair.better_bh]].label} is better (false discovery rate)`;
  return "undecided";
}

function turned(better) {
  return { first: "second", second: "first" }[better] || better;
}

function pairsOf(t) {
  if (!t.pairs) t.pairs = t.comparison.pairs.rows.map((row) => Object.fromEntries(t.comparison.pairs.columns.map((name, i) => [name, row[i]])));
  return t.pairs;
}

// Differences with their intervals, one line a pair.
function forest(pairs, rows) {
  const known = pairs.filter((pair) => pair.low !== null && pair.low !== undefined);
  if (!known.length) return null;
  const W = 900, L = 430, R = 20, T = 8, H = T + known.length * 20 + 34;
  const reach = Math.max(...known.map((pair) => Math.max(Math.abs(pair.low), Math.abs(pair.high)))) || 1;
  const clip = Math.min(reach, 4 * Math.max(...known.map((pair) => Math.abs(pair.difference)), reach / 8));
  const at = scale(-clip, clip, L, W - R, false), held = (v) => at(Math.min(Math.max(v, -clip), clip));
  const picture = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img", "aria-label": "Differences with 95 % intervals; the table below has the numbers." }, svg("line", { class: "axis", x1: at(0), x2: at(0), y1: T, y2: H - 28 }));
  for (const tick of niceTicks(-clip, clip, 6, false)) picture.append(svg("line", { class: "grid", x1: at(tick), x2: at(tick), y1: T, y2: H - 28 }), svg("text", { class: "soft", x: at(tick), y: H - 12, "text-anchor": "middle" }, number(tick)));
  known.forEach((pair, i) => {
    const y = T + 10 + i * 20, decided = pair.better !== "undecided", colour = decided ? "var(--accent)" : "var(--grey)";
    const name = `${rows[pair.first].label} − ${rows[pair.second].label}`;
    picture.append(svg("text", { x: L - 10, y: y + 4, "text-anchor": "end" }, name.length > 62 ? name.slice(0, 61) + "…" : name, svg("title", {}, name)),
      svg("line", { x1: held(pair.low), x2: held(pair.high), y1: y, y2: y, stroke: colour, "stroke-width": decided ? 2.4 : 1.4 }),
      svg("circle", { cx: held(pair.difference), cy: y, r: 4, fill: decided ? colour : "var(--page)", stroke: colour, "stroke-width": 1.5 }, svg("title", {}, `${number(pair.difference)} [${number(pair.low)}, ${number(pair.high)}]`)));
  });
  return picture;
}

views.push({
  id: "pairs", title: "Pairs", draw(parent) {
    const list = tablesWith((t) => t.comparison && t.comparison.pairs.rows.length);
    if (!list.length) { parent.append(el("p", {}, "There are no two methods to compare.")); return; }
    const again = () => { parent.replaceChildren(); this.draw(parent); };
    const [t, , tables] = pickTable(list, again), rows = t.rows, metric = metricOf(t, t.comparison.metric) || t.metrics[0];
    const targets = [...new Set(pairsOf(t).map((pair) => targetText(pair.target)))];
    const names = [...new Set(pairsOf(t).flatMap((pair) => [rows[pair.first].label, rows[pair.second].label]))].sort();
    const target = targets.includes(get("target")) ? get("target") : targets[targets.length - 1];
    const method = names.includes(get("method")) ? get("method") : "", decided = get("decided", "0") === "1", find = get("pair", "");
    parent.append(el("div", { class: "controls" }, tables, choice("target", "target", targets.map((x) => [x, x === "area" ? "area under the curve" : x]), target, again),
      choice("with method", "method", [["", "any"], ...names.map((x) => [x, x])], method, again), check("decided only", "decided", decided, again)));
    let pairs = pairsOf(t).filter((pair) => targetText(pair.target) === target && (!decided || pair.better !== "undecided"));
    if (method) {  // the chosen method stands first
      pairs = pairs.filter((pair) => rows[pair.first].label === method || rows[pair.second].label === method).map((pair) => (rows[pair.first].label === method ? pair
        : { ...pair, first: pair.second, second: pair.first, difference: -pair.difference, low: pair.high === null ? null : -pair.high, high: pair.low === null ? null : -pair.low, wins: pair.losses, losses: pair.wins, better: turned(pair.better), better_bh: turned(pair.better_bh) }));
    }
    pairs.sort((a, b) => (a.p_holm === null ? 1 : a.p_holm) - (b.p_holm === null ? 1 : b.p_holm) || (a.p_bh || 0) - (b.p_bh || 0) || Math.abs(b.difference) - Math.abs(a.difference));
    const n = pairs.filter((pair) => pair.better !== "undecided").length;
    parent.append(el("p", {}, `${pairs.length} pairs, ${n} decided at 5 % over all pairs of this table. ${metric.title}, first − second${metric.higher_is_better ? "" : "; lower is better"}.`));
    const shown = pairs.slice(0, 40), picture = forest(shown, rows);
    if (picture) parent.append(el("figure", { class: "forest" }, picture, pairs.length > 40 ? el("p", { class: "note" }, "The 40 pairs of least p are drawn; the table has all.") : null));
    parent.append(table(`Pairs at ${target}`, ["first", "second", "difference", "95 % interval", "wins / losses / ties", "p", "p over the family", "detectable", "decision"],
      pairs.map((pair) => [rows[pair.first].label, rows[pair.second].label, number(pair.difference), pair.low === null ? "–" : `[${number(pair.low)}, ${number(pair.high)}]`, `${pair.wins} / ${pair.losses} / ${pair.ties}`, number(pair.p, 2), number(pair.p_holm === null ? pair.p_bh : pair.p_holm, 2), number(pair.detectable, 2), verdictOf(pair, rows)]), 2));
  },
});
