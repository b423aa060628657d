// What could not be read, facts, the two languages, and what happens when.
const REASONS = 100; // unreadable files that are shown at a time
const unread = pictures.filter((picture) => picture.first.status === "unreadable");

function showReasons(count) {
  byId("unread").hidden = !unread.length;
  byId("unread-count").textContent = number(unread.length);
  byId("reasons").replaceChildren(...unread.slice(0, count).map((picture) => make("tr", {},
    make("td", {}, isolated(picture.file)), make("td", {}, isolated(picture.first.error ?? "")))));
  byId("more").hidden = count >= unread.length;
}

function showAbout() {
  const rate = about.seconds ? pictures.length / about.seconds : 0;
  const facts = {
    model: about.model, fingerprint: about.fingerprint, version: about.version,
    created: about.created, input: about.input,
    time: about.seconds == null ? "" : word("took", { x: number(about.seconds, 1), y: number(rate, 1) }),
    terms: about.terms, limits: about.caveat,
  };
  byId("about").replaceChildren(...Object.entries(facts).filter(([, text]) => text)
    .flatMap(([key, text]) => [make("dt", {}, word(key)), make("dd", {}, isolated(text))]));
  byId("input").textContent = about.input;
  const created = new Date(about.created);
  const when = Number.isNaN(created.valueOf()) ? about.created
    : created.toLocaleString(language, { dateStyle: "long", timeStyle: "short" });
  byId("made").textContent = word("made", { created: when, count: number(pictures.length) });
  byId("caveat").textContent = word("caveat");
  document.title = word("documentTitle", { x: about.input });
}

function speak(wanted) {
  language = wanted in WORDS ? wanted : "en";
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = word(element.dataset.word);
  }
  const other = language === "ru" ? "en" : "ru";
  Object.assign(byId("language"), { textContent: other.toUpperCase(), lang: other });
  byId("language").setAttribute("aria-label", other === "ru" ? "RU Русский" : "EN English");
  byId("from").setAttribute("aria-label", word("from"));
  byId("to").setAttribute("aria-label", word("to"));
  byId("pager").setAttribute("aria-label", word("pagerName"));
  showAbout();
  showOverview();
  showReasons(Math.max(REASONS, byId("reasons").childElementCount));
  applyFilters();
  showMarks();
}

for (const id of ["text", "label", "status", "order"]) byId(id).addEventListener("input", applyFilters);
for (const id of ["from", "to"]) byId(id).addEventListener("input", moveRange);
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("filters").addEventListener("reset", () => {
  [byId("from").value, byId("to").value] = [50, 100];
  setTimeout(applyFilters);
});
byId("cards").addEventListener("click", (event) => {
  const card = event.target.closest(".card");
  if (event.target.closest(".mark")) toggleMark(pictureOf(card));
  else if (event.target.closest(".open")) showLarger(Number(card.dataset.place));
});
byId("cards").addEventListener("keydown", moveInCards);
byId("back").addEventListener("click", () => turnPage(page - 1));
byId("on").addEventListener("click", () => turnPage(page + 1));
byId("page").addEventListener("input", () => showPage(Number(byId("page").value)));
byId("save").addEventListener("click", saveMarks);
byId("clear").addEventListener("click", () => {
  if (!confirm(word("sureToClear"))) return;
  marks.clear();
  keepMarks();
  showMarks();
});
byId("more").addEventListener("click", () => showReasons(byId("reasons").childElementCount + REASONS));
byId("larger").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (isMarkKey(event)) toggleMark(shownPictures[at]);
});
byId("larger").addEventListener("close", returnToCards);
byId("larger").addEventListener("click", (event) => {
  if (event.target === byId("larger")) byId("larger").close(); // beside it
});
byId("mark").addEventListener("click", () => toggleMark(shownPictures[at]));
byId("close").addEventListener("click", () => byId("larger").close());
byId("previous").addEventListener("click", () => step(-1));
byId("next").addEventListener("click", () => step(1));
byId("language").addEventListener("click", () => {
  const wanted = language === "ru" ? "en" : "ru";
  memory.set("facegender-language", wanted);
  speak(wanted);
});
addEventListener("beforeunload", (event) => { if (marks.size && !isKept) event.preventDefault(); });

readMarks();
speak(language);
