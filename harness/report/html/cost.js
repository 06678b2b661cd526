// Seconds by stage, and of every method.

const kStages = [["prefill_s", "prefill", 5], ["queries_s", "queries", 0], ["compaction_s", "compaction", 1], ["reference_s", "reference answers", 4], ["ask_s", "questions", 2]];

function stacked(parts, most) {
  const bar = el("div", { class: "bar", role: "img", "aria-label": parts.map(([name, value]) => `${name} ${number(value)} s`).join(", ") });
  for (const [name, value, colour] of parts) {
    const piece = el("i", { style: `width:${(100 * value) / most}%;background:var(--c${colour})` });
    piece.addEventListener("mouseenter", () => showTip(name, `${number(value)} s per document`, piece));
    piece.addEventListener("mouseleave", hideTip);
    bar.append(piece);
  }
  return bar;
}

function legendOf(parts) {
  return el("p", { class: "note" }, ...parts.flatMap(([, name, colour]) => [el("span", { class: "key", style: `background:var(--c${colour})` }), name + "   "]));
}

views.push({
  id: "cost", title: "Cost", draw(parent) {
    const stages = D.seconds_per_document;
    parent.append(el("h2", {}, "Seconds per document for the whole grid"), el("p", { class: "note" }, "What several cells share is counted once."), legendOf(kStages));
    const most = Math.max(...stages.map((cost) => cost.total_s), 1e-9);
    parent.append(table("Whole grid", ["data set", "seconds", "", "documents", ...kStages.map(([, name]) => name)], stages.map((cost) => [`${cost.model}: ${cost.dataset}`, number(cost.total_s), stacked(kStages.map(([key, name, colour]) => [name, cost[key], colour]), most), String(cost.n_documents), ...kStages.map(([key]) => number(cost[key]))]), 1));
    parent.append(behind("Every stage", () => el("div", {}, ...stages.map((cost) => table(`${cost.model}: ${cost.dataset}`, ["stage", "seconds per document"], Object.entries(cost.parts).sort((a, b) => b[1] - a[1]).map(([name, value]) => [name, number(value)]), 1)))));
    const seen = new Set(), lines = [];
    for (const t of D.tables.filter((t) => !t.parts)) {
      for (const row of t.rows) {
        for (const cell of row.cells) {
          const key = JSON.stringify([t.model, t.dataset, row.method, row.queries, cell.target]);
          if (row.role !== "method" || cell.seconds.compaction_s === null || seen.has(key)) continue;
          seen.add(key);
          lines.push({ dataset: t.labels.dataset, label: row.label, target: targetText(cell.target), shared: cell.seconds.compaction_shared_s || 0, own: cell.seconds.compaction_s, sizes: cell.sizes });
        }
      }
    }
    if (!lines.length) return;
    const parts = [["", "shared by all targets", 0], ["", "this target alone", 1]], longest = Math.max(...lines.map((line) => line.shared + line.own), 1e-9);
    lines.sort((a, b) => b.shared + b.own - a.shared - a.own);
    parent.append(el("h2", {}, "Compaction by method and target"), legendOf(parts), table("Slowest first", ["method", "data set", "target", "seconds", "", "shared", "own", "cache before", "after"],
      lines.map((line) => [line.label, line.dataset, line.target, number(line.shared + line.own), stacked([["shared by all targets", line.shared, 0], ["this target alone", line.own, 1]], longest), number(line.shared), number(line.own), bytes(line.sizes.bytes_before), bytes(line.sizes.bytes_after)]), 2));
  },
});
