// What speaks for and against the numbers: the self-proof, what was run where, warnings, failures.

function proofRows(proof) {
  return Object.values(proof).filter((one) => one && Array.isArray(one.methods)).flatMap((one) => one.methods.map((found) => [
    `${found.method && found.method.name ? found.method.name : JSON.stringify(found.method)}${found.queries ? ", " + found.queries.name : ""}`, String(one.document || ""),
    found.repeats === undefined ? "–" : found.repeats ? "yes" : "NO", found.budgets_differ === undefined ? "–" : found.budgets_differ ? "yes" : "NO",
    found.mean_kl === undefined ? "–" : number(found.mean_kl), found.token_agreement === undefined ? "–" : number(found.token_agreement)]));
}

views.push({
  id: "trust", title: "Trust", draw(parent) {
    parent.append(el("h2", {}, "Records"), el("p", {}, D.counts));
    for (const warning of D.warnings) parent.append(el("p", { class: "wrong", dir: "auto" }, `Warning: ${warning}`));
    parent.append(el("h2", {}, "Self-proof"));
    const said = [...new Set(D.provenance.map((one) => one.self_proof).filter(Boolean))];
    parent.append(el("p", {}, said.length ? `The records say: ${said.join("; ")}.` : "The records do not mention a self-proof."));
    if (D.self_proof) parent.append(table("What the self-proof found: the whole budget must reproduce the full cache (KL near 0), the same cell twice must agree, two budgets must give different caches", ["method", "document", "repeats", "budgets differ", "KL at the whole budget", "top tokens agree"], proofRows(D.self_proof), 2));
    parent.append(el("h2", {}, "Failed"));
    if (!D.failures.length) parent.append(el("p", {}, "Nothing failed."));
    for (const failure of D.failures.slice(0, 200)) parent.append(el("details", { class: "failure" }, el("summary", { dir: "auto" }, `${failure.label}, document ${failure.document_id}: ${failure.error.split("\n")[0].slice(0, 160)}`), words(failure.error, true)));
    if (D.failures.length > 200) parent.append(el("p", { class: "note" }, `The first 200 of ${D.failures.length}; all are in report.json.`));
    const left = D.tables.flatMap((t) => t.rows.flatMap((row) => row.cells.filter((cell) => cell.stopped).map((cell) => [row.label, tableTitle(t), targetText(cell.target), stoppedText(cell)])));
    if (left.length) parent.append(el("h2", {}, "Left early"), table("Cells that a rule (stop_when) measured on no further documents; their means have no interval, the loss has one that holds wherever it was looked at", ["method", "data set", "target", "why, and the loss"], left, 4));
    parent.append(el("h2", {}, "Provenance"));
    D.provenance.forEach((one, i) => parent.append(el("div", { class: "card" }, el("h3", {}, D.provenance.length > 1 ? `Run ${i + 1}` : "All records"), el("dl", {}, ...Object.entries(one).flatMap(([name, value]) => [el("dt", {}, name), el("dd", { dir: "auto" }, typeof value === "object" ? JSON.stringify(value) : String(value))])))));
    if (D.config) parent.append(behind("The sweep as it was understood", () => words(JSON.stringify(D.config, null, 2), true)));
  },
});
