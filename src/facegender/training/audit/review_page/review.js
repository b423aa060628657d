// Language of the page, and decisions on labels: stored in the browser, saved as a table.
const store = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); } catch { /* private window */ } },
};
const LANGUAGE = "facegender-language";
const english = new Map();  // text node -> its English text
let language = store.get(LANGUAGE) ?? (navigator.language?.startsWith("ru") ? "ru" : "en");

function translate(text) {
  const found = language === "ru" && RUSSIAN.find(([pattern]) => pattern.test(text));
  if (!found) return text;
  return text.replace(...found).replace("undefined", "").replace("below ", "до ").replace("and more ", "и больше ");
}

function showLanguage() {
  document.documentElement.lang = language;
  document.getElementById("language").textContent = language === "ru" ? "English" : "Русский";
  const walker = document.createTreeWalker(document.querySelector("main"), NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (!node.data.trim() || node.parentElement.closest("[translate=no]")) continue;
    if (!english.has(node)) english.set(node, node.data);
    const text = english.get(node);
    node.data = text.replace(text.trim(), () => translate(text.trim()));
  }
}

function setText(element, text) {
  const node = element.firstChild ?? element.appendChild(document.createTextNode(""));
  english.set(node, text);
  node.data = translate(text);
}

const table = JSON.parse(document.getElementById("review-data").textContent);
const cards = [...document.querySelectorAll(".review > li")];
const STORED = `facegender-review-${table.key}`;
const decisions = JSON.parse(store.get(STORED) ?? "{}");
const OTHER = { male: "female", female: "male" };

function decide(card, decision) {
  const { sha } = card.dataset;
  if (!decision || decisions[sha] === decision) delete decisions[sha];
  else decisions[sha] = decision;
  store.set(STORED, JSON.stringify(decisions));
  showDecisions();
  if (decisions[sha]) move(card, 1);
}

function move(card, step) {
  cards[Math.min(cards.length - 1, Math.max(0, cards.indexOf(card) + step))]?.focus();
}

function showDecisions() {
  for (const card of cards) {
    const decision = decisions[card.dataset.sha];
    if (decision) card.dataset.decision = decision; else delete card.dataset.decision;
    for (const button of card.querySelectorAll("[data-decide]")) {
      button.setAttribute("aria-pressed", String(button.dataset.decide === decision));
    }
  }
  if (!cards.length) return;
  const done = cards.filter((card) => decisions[card.dataset.sha]).length;
  setText(document.getElementById("reviewed"), `${done} of ${cards.length} reviewed`);
  document.getElementById("save-review").disabled = done === 0;
}

function cell(value) {
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function reviewedTable() {
  const lines = table.lines.map((line) => {
    const decision = decisions[line.sha256];
    if (!decision) return line;
    const label = { keep: line.given, flip: OTHER[line.given], drop: "" }[decision];
    return { ...line, label, reviewed: "yes" };
  });
  return [table.columns, ...lines.map((line) => table.columns.map((name) => line[name]))]
    .map((line) => `${line.map(cell).join(",")}\n`).join("");
}

function save() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([reviewedTable()], { type: "text/csv" }));
  link.download = "reviewed_labels.csv";
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const KEYS = { KeyK: "keep", KeyF: "flip", KeyD: "drop" };  // by place, so in Russian layouts too
for (const card of cards) {
  card.addEventListener("click", (event) => {
    const button = event.target.closest("[data-decide]");
    if (button) decide(card, button.dataset.decide); else card.focus();
  });
  card.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const columns = getComputedStyle(card.parentElement).gridTemplateColumns.split(" ").length;
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.code];
    if (step) move(card, step);
    else if (KEYS[event.code]) { if (decisions[card.dataset.sha] !== KEYS[event.code]) decide(card, KEYS[event.code]); else move(card, 1); }
    else if (event.code === "KeyU") decide(card, null);
    else return;
    event.preventDefault();
  });
}
document.getElementById("save-review")?.addEventListener("click", save);
document.getElementById("language").addEventListener("click", () => {
  language = language === "ru" ? "en" : "ru";
  store.set(LANGUAGE, language);
  showLanguage();
});
showDecisions();
showLanguage();
