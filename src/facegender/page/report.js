// The report page: counts, filters, cards, the larger view, marks. Text goes in as text, never as HTML.
"use strict";
const PER_PAGE = 96; // cards in the document at any time
const REASONS = 100;
const BINS = 25;

const byId = (id) => document.getElementById(id);
const about = JSON.parse(byId("data-about").textContent);
const blocks = document.querySelectorAll("script.thumbnails");
const pictures = [];
for (const block of document.querySelectorAll("script.pictures")) {
  for (const picture of JSON.parse(block.textContent)) {
    const first = picture.rows[0];
    pictures.push({
      index: pictures.length, file: String(first.file ?? ""), first, ...picture,
      faces: picture.rows.filter((row) => row.box), search: String(first.file ?? "").toLowerCase(),
    });
  }
  block.remove();
}

const memory = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); return true; } catch { return false; } },
};

let language = memory.get("facegender-language")
  ?? (navigator.language?.startsWith("ru") ? "ru" : "en");
const word = (key, values = {}) =>
  (WORDS[language] ?? WORDS.en)[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const number = (value, digits = 0) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const percent = (value) => `${number(100 * value, 1)} %`;

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A name in any script keeps its direction to itself.
const isolated = (text) => make("bdi", { textContent: text });

// Small copies are taken out of their block when they are shown; one block is at hand.
let atHand = { block: null, lines: [] };
function thumbnail(picture) {
  const block = blocks[Math.floor(picture.index / about.per_block)];
  if (atHand.block !== block) atHand = { block, lines: block.textContent.split("\n") };
  const line = atHand.lines[picture.index % about.per_block];
  return line === "-" ? null : `data:image/jpeg;base64,${line}`;
}

// ---- marks: file -> the corrected label -------------------------------------------------------

const marksKey = `facegender-marks:${about.id}`;
const marks = new Map();
let isKept = true;

function readMarks() {
  let kept = {};
  try { kept = JSON.parse(memory.get(marksKey) ?? "{}"); } catch { /* damaged: as none */ }
  for (const picture of pictures) {
    if (corrected(picture) && kept[picture.file] === corrected(picture)) {
      marks.set(picture.file, kept[picture.file]);
    }
  }
}

const corrected = (picture) => ({ male: "female", female: "male" })[picture.first.label] ?? null;

function keepMarks() {
  isKept = memory.set(marksKey, JSON.stringify(Object.fromEntries(marks)));
}

function toggleMark(picture) {
  if (!corrected(picture)) return;
  if (!marks.delete(picture.file)) marks.set(picture.file, corrected(picture));
  keepMarks();
  const right = marks.get(picture.file);
  say(word(right ? "saidMarked" : "saidUnmarked", { file: picture.file, x: right && word(right) }));
  showMarks();
}

function saveMarks() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const isText = (text) => !/\p{Surrogate}/u.test(text); // lone ones have no UTF-8
  const chosen = pictures.filter((picture) => marks.has(picture.file));
  const lines = chosen.filter((picture) => isText(picture.file))
    .map((picture) => `${quoted(picture.file)},${marks.get(picture.file)}\n`);
  const url = URL.createObjectURL(new Blob(["file,gender\n", ...lines], { type: "text/csv" }));
  const link = make("a", { href: url, download: "facegender-marks.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  const left = chosen.length - lines.length;
  say([word("saved", { file: link.download, x: number(lines.length) }),
    left ? word("leftOut", { x: number(left) }) : ""].join(". "));
}

function showMarks() {
  byId("marks").textContent = word("marked", { x: number(marks.size) })
    + (isKept || !marks.size ? "" : `. ${word("notKept")}`);
  byId("save").disabled = byId("clear").disabled = !marks.size;
  for (const card of byId("cards").children) dressCard(card);
  if (byId("larger").open) dressMark(byId("mark"), shownPictures[at]);
}

function dressMark(button, picture) {
  const right = marks.get(picture.file);
  button.hidden = !corrected(picture);
  button.setAttribute("aria-pressed", String(Boolean(right)));
  button.replaceChildren(
    right ? word("isMarked", { x: word(right) }) : word("mark"),
    make("span", { className: "unseen" }, ` ${picture.file}`),
  );
}

// Told to screen readers; what lies behind an open dialog is silent, so that has a place of its own.
let saidLast = 0;
function say(text) {
  const place = byId(byId("larger").open ? "said-here" : "said");
  place.textContent = text;
  clearTimeout(saidLast);
  saidLast = setTimeout(() => { place.textContent = ""; }, 8000);
}

// ---- counts and histogram ----------------------------------------------------------------------

const hasAnswer = (picture) => picture.first.probability != null;
const kindOf = (row) => (row.status === "ok" ? row.label : row.status);

function countAll() {
  const counts = { countPictures: pictures.length, countFaces: 0 };
  for (const kind of ["female", "male", "unknown", "no_face", "unreadable"]) counts[kind] = 0;
  const bins = Array.from({ length: BINS }, () => ({ female: 0, male: 0, unknown: 0 }));
  for (const picture of pictures) {
    const { first } = picture;
    counts.countFaces += picture.rows.filter((row) => row.face != null).length;
    counts[kindOf(first)] = (counts[kindOf(first)] ?? 0) + 1;
    if (hasAnswer(picture)) {
      const bin = Math.floor((first.probability - 0.5) * 2 * BINS + 1e-9);
      bins[Math.min(BINS - 1, Math.max(0, bin))][kindOf(first)] += 1;
    }
  }
  return { counts, bins };
}
const { counts, bins } = countAll();
const sure = pictures.filter(hasAnswer).map((picture) => picture.first.probability).sort((a, b) => a - b);

function showOverview() {
  byId("counts").replaceChildren(...Object.entries(counts)
    .filter(([kind]) => kind in WORDS.en)
    .map(([kind, count]) => make("div",
      { className: kind === "unreadable" && count ? "bad" : kind, id: `count-${kind}` },
      make("dt", {}, word(kind)), make("dd", {}, number(count)))));
  byId("certainty").hidden = !sure.length;
  if (!sure.length) return;
  const totals = bins.map((bin) => bin.female + bin.male + bin.unknown);
  const most = Math.max(...totals);
  const edge = (index) => 50 + index * 50 / BINS;
  byId("bars").replaceChildren(...bins.map((bin, index) => {
    const bar = make("div", { title: `${edge(index)}–${edge(index + 1)} %: ${number(totals[index])}` });
    for (const kind of ["unknown", "male", "female"]) {
      if (!bin[kind]) continue;
      const part = make("i", { className: kind });
      part.style.height = `${100 * bin[kind] / most}%`;
      bar.append(part);
    }
    return bar;
  }));
  const middle = sure[Math.floor(sure.length / 2)];
  byId("bars").setAttribute("aria-label", word("bars", {
    count: number(sure.length), x: number(100 * middle, 1), y: number(totals.at(-1)),
  }));
  byId("bins").replaceChildren(...bins.map((bin, index) => make("tr", {},
    make("th", { scope: "row" }, `${edge(index)}–${edge(index + 1)} %`),
    ...["female", "male", "unknown"].map((kind) =>
      make("td", { className: "count" }, number(bin[kind]))))));
}

function showRange() {
  const [from, to] = [Number(byId("from").value), Number(byId("to").value)];
  byId("chosen").style.left = `${2 * (from - 50)}%`;
  byId("chosen").style.width = `${2 * (to - from)}%`;
  byId("range").textContent = word("rangeShown", { x: from, y: to });
  [...byId("bars").children].forEach((bar, index) => {
    const [low, high] = [50 + index * 50 / BINS, 50 + (index + 1) * 50 / BINS];
    bar.classList.toggle("out", high <= from || low >= to && to < 100);
  });
}

function moveRange(event) {
  const [from, to] = [byId("from"), byId("to")];
  if (Number(from.value) > Number(to.value)) {
    if (event.target === from) from.value = to.value; else to.value = from.value;
  }
  // Where both lie at the right end, the one that can still move must be on top.
  from.style.zIndex = Number(from.value) > 75 ? "1" : "";
  applyFilters();
}

// ---- gallery -----------------------------------------------------------------------------------

let shownPictures = pictures;
let page = 0;

function fits(picture, wanted) {
  const { first } = picture;
  if (wanted.text && !picture.search.includes(wanted.text)) return false;
  if (wanted.label && first.label !== wanted.label) return false;
  if (wanted.status === "several" ? picture.faces.length < 2
    : wanted.status === "wrong" ? !marks.has(picture.file)
      : wanted.status && first.status !== wanted.status) return false;
  if (wanted.from === 50 && wanted.to === 100) return true;
  return hasAnswer(picture) && 100 * first.probability >= wanted.from - 1e-9
    && 100 * first.probability <= wanted.to + 1e-9;
}

function applyFilters() {
  const wanted = {
    text: byId("text").value.trim().toLowerCase(), label: byId("label").value,
    status: byId("status").value, from: Number(byId("from").value), to: Number(byId("to").value),
  };
  shownPictures = pictures.filter((picture) => fits(picture, wanted));
  const way = { up: 1, down: -1 }[byId("order").value];
  if (way) {
    const last = way > 0 ? 2 : -1; // those without an answer come last
    const key = (picture) => picture.first.probability ?? last;
    shownPictures.sort((a, b) => way * (key(a) - key(b)));
  }
  showRange();
  showPage(0);
}

function showPage(wanted) {
  const pages = Math.max(1, Math.ceil(shownPictures.length / PER_PAGE));
  page = Math.min(Math.max(0, wanted), pages - 1);
  const start = page * PER_PAGE;
  const part = shownPictures.slice(start, start + PER_PAGE);
  byId("cards").replaceChildren(...part.map((picture, index) => makeCard(picture, start + index)));
  byId("shown").textContent = part.length
    ? word("shown", { x: number(start + 1), y: number(start + part.length), count: number(shownPictures.length) })
    : word("none");
  byId("pager").hidden = pages < 2;
  byId("page").replaceChildren(...Array.from({ length: pages }, (_, index) =>
    make("option", { value: index, selected: index === page }, number(index + 1))));
  byId("pages").textContent = word("pages", { x: number(pages) });
  byId("back").disabled = page === 0;
  byId("on").disabled = page === pages - 1;
}

function turnPage(wanted) {
  showPage(wanted);
  byId("gallery").scrollIntoView();
  byId("cards").querySelector(".open")?.focus({ preventScroll: true });
}

function answerOf(row) {
  const label = row.label && make("b", { className: row.status === "ok" ? row.label : "unknown" },
    word(row.label), row.status === "ok" ? "" : "?");
  if (label) return [label, row.probability == null ? "" : ` ${percent(row.probability)}`];
  return [make("span", {}, word(row.status in WORDS.en ? row.status : "unknown"))];
}

function makeCard(picture, place) {
  const source = thumbnail(picture);
  const frame = make("span", { className: "frame" },
    source ? make("img", { src: source, alt: "", decoding: "async" }) : word(kindOf(picture.first)));
  if (picture.faces.length > 1) {
    frame.append(make("small", {}, word("facesCount", { x: number(picture.faces.length) })));
  }
  const open = make("button", { type: "button", className: "open", title: picture.file }, frame,
    make("span", { className: "name" }, isolated(picture.file)),
    make("span", { className: "said" }, ...answerOf(picture.first)));
  const card = make("li", { className: "card" }, open,
    make("button", { type: "button", className: "mark" }));
  card.dataset.place = place;
  dressCard(card);
  return card;
}

const pictureOf = (card) => shownPictures[Number(card.dataset.place)];

function dressCard(card) {
  card.classList.toggle("wrong", marks.has(pictureOf(card).file));
  dressMark(card.querySelector(".mark"), pictureOf(card));
}

function moveInCards(event) {
  const card = event.target.closest(".card");
  if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...byId("cards").children];
  const columns = cards.filter((one) => one.offsetTop === cards[0].offsetTop).length;
  const step = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    Home: -cards.length, End: cards.length,
  }[event.key];
  if (step !== undefined) {
    const wanted = cards.indexOf(card) + step;
    const next = Math.abs(step) === cards.length ? (step < 0 ? 0 : cards.length - 1) : wanted;
    cards[next]?.querySelector(".open").focus();
    event.preventDefault();
  } else if (isMarkKey(event)) {
    toggleMark(pictureOf(card));
  }
}

// KeyW by its place on the keyboard, so that it works with Russian letters too.
const isMarkKey = (event) => (event.code === "KeyW" || event.key === "w")
  && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;

// ---- the larger view ---------------------------------------------------------------------------

let at = 0;

function showLarger(place) {
  at = place;
  const picture = shownPictures[place];
  const { first } = picture;
  byId("larger-name").replaceChildren(isolated(picture.file));
  byId("answer").replaceChildren(...answerOf(first));
  byId("faces").hidden = !picture.faces.length;
  byId("faces").replaceChildren(...picture.faces.map((row) => {
    const more = [
      row.score == null ? null : word("detector", { x: number(row.score, 2) }),
      row.crop === "whole" ? word("whole") : null,
    ].filter(Boolean).join(", ");
    return make("li", {}, ...answerOf(row), more ? make("span", { className: "quiet" }, ` (${more})`) : "");
  }));
  byId("mark-note").textContent = corrected(picture) && picture.faces.length > 1 ? word("markNote") : "";
  byId("place").textContent = word("place", { x: number(place + 1), count: number(shownPictures.length) });
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === shownPictures.length - 1;
  dressMark(byId("mark"), picture);
  showImage(picture);
  const dialog = byId("larger");
  if (!dialog.open) dialog.showModal();
  // A button that just became disabled would keep the keys to itself.
  if (!dialog.contains(document.activeElement) || document.activeElement.disabled
    || document.activeElement === dialog) byId("larger-name").focus();
}

function showImage(picture) {
  const [shot, image, note] = [byId("shot"), byId("picture"), byId("note")];
  const { first } = picture;
  const small = thumbnail(picture);
  const told = (row) => [...answerOf(row)].map((part) => part.textContent ?? part).join("");
  image.alt = word("imageOf", { file: picture.file, x: picture.rows.map(told).join("; ") });
  note.textContent = first.error ?? "";
  shot.style.setProperty("--wide", first.width || 1);
  shot.style.setProperty("--high", first.height || 1);
  byId("boxes").replaceChildren(...picture.faces.map((row) => makeBox(row, picture, told(row))));

  const useSmall = (reason) => {
    image.onerror = image.onload = null;
    shot.hidden = !small;
    if (small) image.src = small; else image.removeAttribute("src");
    if (!first.error) note.textContent = small ? reason : word("nothing");
  };
  const hasSameShape = () => Math.abs(
    Math.log(image.naturalWidth * first.height / (image.naturalHeight * first.width))) < 0.02;
  // An original of another shape was changed since, or turned otherwise: its boxes would be wrong.
  image.onload = () => { if (!hasSameShape()) useSmall(word("small")); };
  image.onerror = () => useSmall(word("small"));
  shot.hidden = false;
  if (picture.source && first.width) image.src = picture.source; else useSmall(word("small"));
}

function makeBox(row, picture, text) {
  const { x, y, width, height } = row.box;
  const [wide, high] = [picture.first.width, picture.first.height];
  const [left, top] = [Math.max(0, x / wide), Math.max(0, y / high)];
  const [right, bottom] = [Math.min(1, (x + width) / wide), Math.min(1, (y + height) / high)];
  const tag = picture.faces.length > 1 // of many faces a small one shows its number alone
    ? [String(picture.faces.indexOf(row) + 1), make("em", {}, ` · ${text}`)] : [text];
  const box = make("div", { className: `box ${row.status === "ok" ? row.label : "unknown"}` },
    make("span", {}, ...tag));
  box.classList.toggle("low", top < 0.1);
  box.classList.toggle("right", left > 0.6);
  Object.assign(box.style, {
    left: `${100 * left}%`, top: `${100 * top}%`,
    width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
  });
  return box;
}

function step(by) {
  const place = at + by;
  if (place < 0 || place >= shownPictures.length) return;
  showLarger(place);
  say(`${byId("picture").alt}. ${byId("place").textContent}`);
}

function returnToCards() {
  const wanted = Math.floor(at / PER_PAGE);
  if (wanted !== page) showPage(wanted);
  byId("cards").querySelector(`[data-place="${at}"] .open`)?.focus();
}

// ---- what could not be read, about, words ------------------------------------------------------

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

// ---- events ------------------------------------------------------------------------------------

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
