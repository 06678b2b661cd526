// Every question: what was right, what the full cache said and what each method said. Values stand in the page; answers are packed by
// document and unpacked when a question is opened.

// A question's values of one cell as numbers: a text of 0, 1 and - for shares, a list otherwise.
function unpackValues(t, r, c) {
  const packed = t.questions.values[r] && t.questions.values[r][c];
  t.unpacked = t.unpacked || new Map();
  const key = `${r}.${c}`;
  if (!t.unpacked.has(key)) {
    const values = new Float64Array(t.questions.id.length).fill(NaN);
    if (typeof packed === "string") for (let i = 0; i < packed.length; ++i) { if (packed[i] !== "-") values[i] = packed.charCodeAt(i) - 48; }
    else if (packed) packed.forEach((value, i) => { values[i] = value === null ? NaN : value; });
    t.unpacked.set(key, values);
  }
  return t.unpacked.get(key);
}

const blocks = new Map();
async function unpackBlock(table, doc) {
  const id = `block-${table}-${doc}`;
  if (blocks.has(id)) return blocks.get(id);
  const script = document.getElementById(id);
  if (!script) return null;
  if (typeof DecompressionStream === "undefined") throw new Error("This browser cannot unpack the answers (no DecompressionStream): take one of 2023 or later, or `kvc export`.");
  const packed = Uint8Array.from(atob(script.textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const block = await new Response(stream).json();
  blocks.set(id, block);
  return block;
}

function cellName(t, r, c) {
  const row = t.rows[r], cell = row.cells[c];
  return `${row.label}${cell.target === null ? "" : " at " + targetText(cell.target)}`;
}

function cellsOf(t) {
  return t.rows.flatMap((row, r) => row.cells.map((cell, c) => [`${r}.${c}`, cellName(t, r, c), row, cell, r, c])).filter(([, , , , r, c]) => t.questions.values[r][c] !== null);
}

function defaults(t, cells) {
  const full = cells.find(([, , row]) => row.role === "ceiling") || cells[0];
  const methods = cells.filter(([, , row]) => row.role === "method");
  const best = methods.filter(([, , row]) => styleOf(row.label).colour >= 0);
  const from = best.length ? best : methods;
  return [full[0], (from[Math.floor(from.length / 2)] || cells[cells.length - 1])[0]];
}

// Which questions are shown, in which order; `lost`: how many methods at B's target are worse than A.
function select(t, view) {
  const metric = t.metrics[0], n = t.questions.id.length;
  const a = unpackValues(t, ...view.a.split(".").map(Number)), b = unpackValues(t, ...view.b.split(".").map(Number));
  const [br, bc] = view.b.split(".").map(Number), target = t.rows[br].cells[bc].target;
  const sign = metric.higher_is_better ? 1 : -1;
  const lost = new Uint16Array(n);
  t.rows.forEach((row, r) => {
    if (row.role !== "method") return;
    row.cells.forEach((cell, c) => {
      if (JSON.stringify(cell.target) !== JSON.stringify(target) || t.questions.values[r][c] === null) return;
      const own = unpackValues(t, r, c);
      for (let i = 0; i < n; ++i) if (sign * (own[i] - a[i]) < 0) ++lost[i];
    });
  });
  if (!t.questions.lower) t.questions.lower = t.questions.id.map((id, i) => `${t.questions.documents[t.questions.doc[i]]} ${id} ${t.questions.prompt[i]} ${t.questions.gold[i]}`.toLowerCase());
  const find = view.find.toLowerCase();
  const show = {
    all: () => true,
    lost: (i) => sign * (b[i] - a[i]) < 0,
    won: (i) => sign * (b[i] - a[i]) > 0,
    differ: (i) => a[i] !== b[i],
    both: (i) => (metric.share ? !(a[i] > 0.5) && !(b[i] > 0.5) : true),
  }[view.show] || (() => true);
  const list = [];
  for (let i = 0; i < n; ++i) {
    if (find && !t.questions.lower[i].includes(find)) continue;
    if (view.show !== "all" && (Number.isNaN(a[i]) || Number.isNaN(b[i]))) continue;
    if (show(i)) list.push(i);
  }
  const loss = (i) => (Number.isNaN(a[i] - b[i]) ? -Infinity : sign * (a[i] - b[i]));
  if (view.sort === "lost") list.sort((i, j) => lost[j] - lost[i] || i - j);
  if (view.sort === "loss") list.sort((i, j) => loss(j) - loss(i) || i - j);
  return { list, lost, a, b };
}

const kClip = 4000;
function words(text, mono) {
  const node = el(mono ? "pre" : "div", { class: "words", dir: "auto" }, text.length > kClip ? text.slice(0, kClip) + "…" : text);
  if (text.length <= kClip) return node;
  const more = el("button", { onclick: () => { node.textContent = text; more.remove(); } }, `Show all ${text.length.toLocaleString("en")} characters`);
  return el("div", {}, node, more);
}

function mark(value, metric) {
  if (Number.isNaN(value)) return ["–", ""];
  if (!metric.share) return [number(value), ""];
  return value === 1 ? ["✓ right", "right"] : value === 0 ? ["✗ wrong", "wrong"] : [share(value), ""];
}

// What an answer consists of beside its text: numbers by option, tokens, why it stopped.
function detailLine(details) {
  return Object.entries(details).map(([name, value]) => `${name}: ${typeof value === "object" ? JSON.stringify(value) : value}`).join("\n");
}

// Why a method lost an answer: the cause, and the text whose entries bring it back.
function explained(t, key, i) {
  const e = t.explained && t.explained[key] && t.explained[key][i];
  if (!e) return null;
  const numbers = { margin: e.tie.margin_full === null ? null : `${number(e.tie.margin_full)} → ${number(e.tie.margin_compact)} nats`, "right under noise": `${e.tie.right} of ${e.tie.draws} draws`, "entries of the text kept": e.pieces.length ? share(e.kept_share) : null };
  return el("div", { class: "why" }, el("p", {}, el("b", {}, `${e.cause}${e.repair ? ` (${e.repair})` : ""}: `), e.sentence),
    ...e.pieces.map((piece) => el("p", { class: "words", dir: "auto" }, "…" + piece.before, el("mark", {}, piece.text), piece.after + "…", el("span", { class: "note" }, ` token ${piece.first_token}`))),
    behind("Numbers and heads", () => words([...Object.entries(numbers).filter(([, value]) => value !== null).map(([name, value]) => `${name}: ${value}`),
      ...e.heads.map((h) => `L${h.layer}H${h.kv_head}: weight on the text ${number(h.weight_full)} → ${number(h.weight_compact)}, mass ${number(h.mass_error)} nats, output error ${number(h.output_error)}`),
      ...e.assumed.map((line) => `assumed: ${line}`)].join("\n"), true)));
}

function causes(t) {
  if (!t.causes) return null;
  return behind("Why answers were lost", () => el("div", { class: "scroll" }, el("table", { id: "causes" },
    el("caption", {}, "Answers that the full cache has right and the method has not, as far as kvc explain looked into them; the text stands with each question."),
    el("thead", {}, el("tr", {}, ...t.causes.header.map((title) => el("th", { scope: "col" }, title)))),
    el("tbody", {}, ...t.causes.rows.map((row) => el("tr", {}, ...row.map((value, c) => el(c ? "td" : "th", c ? {} : { scope: "row" }, value))))))));
}

async function drawQuestion(t, index, i, view, parent) {
  const q = t.questions, metric = t.metrics[0];
  parent.replaceChildren(el("p", { class: "note" }, "Unpacking …"));
  let block;
  try {
    block = await unpackBlock(index, q.doc[i]);
  } catch (error) {
    parent.replaceChildren(el("p", { class: "wrong" }, error.message));
    return;
  }
  const place = i - q.doc.indexOf(q.doc[i]);  // questions of a document stand together
  const text = (number) => (block && number >= 0 ? block.texts[number] : null);
  const [prompt, rendered, reference, gold] = block ? block.questions[place].map(text) : [null, null, null, null];
  const seed = q.seed ? `, seed ${q.seed[i]}` : "";
  const card = el("section", { class: "card", id: "question", "aria-label": "The chosen question" },
    el("h3", { dir: "auto" }, `${q.documents[q.doc[i]]} · ${q.id[i]}${seed}`), words(prompt || q.prompt[i]),
    el("dl", {}, el("dt", {}, "right answer"), el("dd", {}, el("span", { class: "words", dir: "auto" }, gold || q.gold[i] || "none given"))),
    reference ? el("div", {}, el("p", { class: "note" }, "The full cache said"), words(reference)) : null,
    rendered ? behind("Rendered prompt", () => words(rendered, true)) : null);
  const [br, bc] = view.b.split(".").map(Number), target = JSON.stringify(t.rows[br].cells[bc].target);
  const everything = view.every;
  const list = el("div", { class: "answers" });
  for (const [key, name, row, cell, r, c] of cellsOf(t)) {
    if (!everything && row.role === "method" && JSON.stringify(cell.target) !== target && key !== view.a) continue;
    const value = unpackValues(t, r, c)[i];
    const [said, details] = block && block.answers[key] && block.answers[key][place] ? block.answers[key][place].map(text) : [null, null];
    const [verdict, kind] = mark(value, metric);
    const shownDetails = details ? JSON.parse(details) : null;
    list.append(el("div", { class: `answer ${kind}`, "data-cell": key },
      el("div", { class: "who" }, el("b", {}, name), el("span", { class: kind }, metric.share ? verdict : `${shortTitle(metric)} ${verdict}`)),
      said !== null ? words(said) : null, explained(t, key, i),
      shownDetails ? (said === null ? words(detailLine(shownDetails), true) : behind("More", () => words(detailLine(shownDetails), true))) : said === null ? el("span", { class: "note" }, "no answer kept") : null));
  }
  card.append(list);
  parent.replaceChildren(card);
}

views.push({
  id: "questions", title: "Questions", draw(parent) {
    const list = tablesWith((t) => t.questions && t.questions.id.length);
    if (!list.length) { parent.append(el("p", {}, "No answer was kept.")); return; }
    const again = () => { parent.replaceChildren(); this.draw(parent); };
    const fresh = () => { set({ a: null, b: null, q: null, page: null }); again(); };
    const [t, index, tables] = pickTable(list, fresh);
    const cells = cellsOf(t), [a0, b0] = defaults(t, cells), known = new Set(cells.map(([key]) => key));
    const view = {};
    const read = () => Object.assign(view, { a: known.has(get("a")) ? get("a") : a0, b: known.has(get("b")) ? get("b") : b0, show: get("show", "all"), sort: get("sort", t.metrics[0].share ? "lost" : "loss"), find: get("find", ""), every: get("every", "0") === "1" });
    read();
    const options = cells.map(([key, name]) => [key, name]);
    const results = el("div", {}), detail = el("div", { class: "stay" });
    const update = () => { read(); set({ page: null }); fill(); };
    const detailAgain = () => { update(); open(Number(get("q", -1))); };
    const find = el("input", { type: "search", name: "find", value: view.find, placeholder: "words, id, document", oninput: () => { set({ find: find.value }); update(); } });
    parent.append(el("div", { class: "controls" }, tables, choice("before", "a", options, view.a, detailAgain), choice("after", "b", options, view.b, detailAgain),
      choice("show", "show", t.metrics[0].share ? [["all", "all questions"], ["lost", "right → wrong"], ["won", "wrong → right"], ["differ", "changed"], ["both", "wrong in both"]] : [["all", "all questions"], ["lost", "worse after"], ["won", "better after"], ["differ", "changed"]], view.show, update),
      choice("sort by", "sort", [["order", "document"], ["lost", "how many methods lose it"], ["loss", "loss from before to after"]], view.sort, update),
      el("label", {}, "find", find), check("answers at every target", "every", view.every, detailAgain)),
    causes(t) || "", el("div", { class: "split" }, results, detail));

    const kPage = 50;
    const open = (i) => {
      for (const row of results.querySelectorAll("tr.pick")) row.setAttribute("aria-current", String(Number(row.dataset.q) === i));
      if (i >= 0 && i < t.questions.id.length) drawQuestion(t, index, i, view, detail);
    };
    const fill = () => {
      const start = performance.now();
      const { list: found, lost, a, b } = select(t, view);
      const pages = Math.max(1, Math.ceil(found.length / kPage)), page = Math.min(Math.max(0, Number(get("page", 0)) || 0), pages - 1);
      const body = el("tbody", {});
      for (const i of found.slice(page * kPage, (page + 1) * kPage)) {
        const pick = () => { set({ q: i }); open(i); if (innerWidth < 960) detail.scrollIntoView(); };
        const [before, beforeKind] = mark(a[i], t.metrics[0]), [after, afterKind] = mark(b[i], t.metrics[0]);
        body.append(el("tr", { class: "pick", tabindex: 0, "data-q": i, "aria-current": String(String(i) === get("q")), onclick: pick, onkeydown: (event) => { if (event.key === "Enter") pick(); } },
          el("th", { scope: "row" }, el("span", { class: "note", dir: "auto" }, `${t.questions.documents[t.questions.doc[i]]} · ${t.questions.id[i]}`), el("div", { class: "words", dir: "auto" }, t.questions.prompt[i])),
          el("td", { class: beforeKind }, before), el("td", { class: afterKind }, after), el("td", {}, String(lost[i]))));
      }
      const turn = (by) => () => { set({ page: page + by }); fill(); };
      results.replaceChildren(
        el("p", { class: "note", id: "found", role: "status" }, `${found.length.toLocaleString("en")} of ${t.questions.id.length.toLocaleString("en")} questions`),
        el("div", { class: "scroll" }, el("table", { id: "list" }, el("caption", {}, `${tableTitle(t)}; before: ${cellName(t, ...view.a.split(".").map(Number))}; after: ${cellName(t, ...view.b.split(".").map(Number))}`),
          el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "text" }, "question"), el("th", { scope: "col" }, "before"), el("th", { scope: "col" }, "after"), el("th", { scope: "col" }, "methods worse"))), body)),
        pages > 1 ? el("div", { class: "pager" }, el("button", { disabled: page === 0, onclick: turn(-1) }, "previous"), `page ${page + 1} of ${pages}`, el("button", { disabled: page + 1 === pages, onclick: turn(1) }, "next")) : "");
      results.dataset.ms = (performance.now() - start).toFixed(1);
    };
    fill();
    const chosen = get("q");
    if (chosen !== undefined) open(Number(chosen));
    else detail.append(el("p", { class: "note" }, "Choose a question to read what each method answered."));
  },
});
