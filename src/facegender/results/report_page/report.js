// Unreadable images, facts about the run, the language switch, event handlers.
const REASONS_STEP = 100; // images to show at a time, of those that were not read
const unreadableImages = images.filter((image) => image.first.error != null);

function showReasons(count) {
  byId("unreadable").hidden = !unreadableImages.length;
  byId("unreadable-count").textContent = formatNumber(unreadableImages.length);
  byId("reasons").replaceChildren(...unreadableImages.slice(0, count).map((image) => make("tr", {},
    make("td", {}, isolated(image.file)), make("td", {}, isolated(image.first.error ?? "")))));
  byId("more-reasons").hidden = count >= unreadableImages.length;
}

function showAbout() {
  const facts = {
    model: info.model, fingerprint: info.fingerprint, version: info.version,
    created: info.created, input: info.input,
    terms: info.terms, limitations: info.caveat,
  };
  byId("about").replaceChildren(...Object.entries(facts).filter(([, text]) => text)
    .flatMap(([key, text]) => [make("dt", {}, message(key)), make("dd", {}, isolated(text))]));
  byId("input").textContent = info.input;
  const date = new Date(info.created);
  const created = Number.isNaN(date.valueOf()) ? info.created
    : date.toLocaleString(language, { dateStyle: "long", timeStyle: "short" });
  byId("summary").textContent = message("summary", { created, count: formatNumber(images.length) });
  byId("caveat").textContent = message("caveat");
  document.title = message("documentTitle", { input: info.input });
}

function setLanguage(requested) {
  language = requested in MESSAGES ? requested : "en";
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-message]")) {
    element.textContent = message(element.dataset.message);
  }
  const other = language === "ru" ? "en" : "ru";
  Object.assign(byId("language"), { textContent: other.toUpperCase(), lang: other });
  byId("language").setAttribute("aria-label", other === "ru" ? "RU Русский" : "EN English");
  byId("from").setAttribute("aria-label", message("from"));
  byId("to").setAttribute("aria-label", message("to"));
  byId("pager").setAttribute("aria-label", message("pagerName"));
  showAbout();
  showOverview();
  showReasons(Math.max(REASONS_STEP, byId("reasons").childElementCount));
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
  if (event.target.closest(".mark")) toggleMark(imageOf(card));
  else if (event.target.closest(".open")) openLightbox(Number(card.dataset.index));
});
byId("cards").addEventListener("keydown", handleCardKey);
byId("page-previous").addEventListener("click", () => turnPage(page - 1));
byId("page-next").addEventListener("click", () => turnPage(page + 1));
byId("page").addEventListener("input", () => showPage(Number(byId("page").value)));
byId("save-marks").addEventListener("click", saveMarks);
byId("clear-marks").addEventListener("click", () => {
  if (!confirm(message("confirmClear"))) return;
  marks.clear();
  storeMarks();
  showMarks();
});
byId("more-reasons").addEventListener("click", () => showReasons(byId("reasons").childElementCount + REASONS_STEP));
byId("lightbox").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") moveLightbox(-1);
  else if (event.key === "ArrowRight") moveLightbox(1);
  else if (isMarkKey(event)) toggleMark(visibleImages[lightboxIndex]);
});
byId("lightbox").addEventListener("close", returnToCards);
byId("lightbox").addEventListener("click", (event) => {
  if (event.target === byId("lightbox")) byId("lightbox").close(); // a click on the backdrop
});
byId("lightbox-mark").addEventListener("click", () => toggleMark(visibleImages[lightboxIndex]));
byId("close").addEventListener("click", () => byId("lightbox").close());
byId("previous").addEventListener("click", () => moveLightbox(-1));
byId("next").addEventListener("click", () => moveLightbox(1));
byId("language").addEventListener("click", () => {
  const requested = language === "ru" ? "en" : "ru";
  storage.set(LANGUAGE_KEY, requested);
  setLanguage(requested);
});
addEventListener("beforeunload", (event) => { if (marks.size && !areMarksStored) event.preventDefault(); });

loadMarks();
setLanguage(language);
