// Tabs, theme, and the first drawing.

const main = document.getElementById("view"), tabs = document.getElementById("tabs");
document.getElementById("title").textContent = D.name;
document.getElementById("counts").textContent = D.counts;
document.getElementById("about").open = innerWidth > 640;
for (const line of D.summary) document.getElementById("summary").append(el("li", {}, line));

function show(id, focusTab) {
  hideTip();
  const view = views.find((one) => one.id === id) || views[0];
  for (const tab of tabs.querySelectorAll("[role=tab]")) {
    const chosen = tab.id === `tab-${view.id}`;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen && focusTab) tab.focus();
  }
  document.getElementById("about").hidden = view !== views[0] || !D.summary.length;
  main.replaceChildren();
  main.setAttribute("role", "tabpanel");
  main.setAttribute("aria-labelledby", `tab-${view.id}`);
  view.draw(main);
}

// What a tab chose does not leak into another: only names that all share are kept.
function turnTo(id, focusTab) {
  const kept = new Set(["tab", "theme", "table"]);
  for (const name of [...state.keys()]) if (!kept.has(name)) state.delete(name);
  set({ tab: id });
  show(id, focusTab);
}

for (const view of views) {
  tabs.append(el("button", { role: "tab", id: `tab-${view.id}`, "aria-controls": "view", onclick: () => turnTo(view.id),
    onkeydown: (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) turnTo(views[(views.indexOf(view) + by + views.length) % views.length].id, true);
    } }, view.title));
}
function theme(name) {
  if (name) document.documentElement.dataset.theme = name;
  else delete document.documentElement.dataset.theme;
}
tabs.append(el("button", { class: "theme", "aria-label": "dark or light", title: "dark or light", onclick: () => {
  const dark = get("theme") ? get("theme") === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  set({ theme: dark ? "light" : "dark" });
  theme(get("theme"));
} }, "◐"));
addEventListener("hashchange", () => {
  if (location.hash === written) return;
  for (const name of [...state.keys()]) state.delete(name);
  for (const [name, value] of new URLSearchParams(location.hash.slice(1))) state.set(name, value);
  written = location.hash;
  theme(get("theme"));
  show(get("tab"));
});
theme(get("theme"));
show(get("tab"));
document.body.dataset.ready = performance.now().toFixed(0);
