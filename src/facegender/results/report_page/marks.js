// Predictions marked as wrong: file -> the other label. Saved as CSV for --metadata.
const MARKS_KEY = `facegender-marks:${info.id}`;
const ANNOUNCEMENT_MILLISECONDS = 8000;
const marks = new Map();
let areMarksStored = true;

function loadMarks() {
  let stored = {};
  try { stored = JSON.parse(storage.get(MARKS_KEY)) ?? {}; } catch { /* damaged: start without marks */ }
  for (const image of images) {
    const label = otherLabel(image);
    if (label && stored[image.file] === label) marks.set(image.file, label);
  }
}

const otherLabel = (image) => ({ male: "female", female: "male" })[image.first.label] ?? null;

function storeMarks() {
  areMarksStored = storage.set(MARKS_KEY, JSON.stringify(Object.fromEntries(marks)));
}

function toggleMark(image) {
  if (!otherLabel(image)) return;
  if (!marks.delete(image.file)) marks.set(image.file, otherLabel(image));
  storeMarks();
  const label = marks.get(image.file);
  announce(message(label ? "saidMarked" : "saidUnmarked", { file: image.file, label: label && message(label) }));
  showMarks();
}

function saveMarks() {
  const quoted = (text) => `"${text.replaceAll('"', '""')}"`;
  const isValidText = (text) => !/\p{Surrogate}/u.test(text); // a lone surrogate has no UTF-8 form
  const marked = images.filter((image) => marks.has(image.file));
  const lines = marked.filter((image) => isValidText(image.file))
    .map((image) => `${quoted(image.file)},${marks.get(image.file)}\n`);
  const url = URL.createObjectURL(new Blob(["file,label\n", ...lines], { type: "text/csv" }));
  const link = make("a", { href: url, download: "facegender-marks.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
  const leftOut = marked.length - lines.length;
  announce([message("saved", { file: link.download, count: formatNumber(lines.length) }),
    leftOut ? message("leftOut", { count: formatNumber(leftOut) }) : ""].join(". "));
}

function showMarks() {
  byId("mark-count").textContent = message("marked", { count: formatNumber(marks.size) })
    + (areMarksStored || !marks.size ? "" : `. ${message("notStored")}`);
  byId("save-marks").disabled = byId("clear-marks").disabled = !marks.size;
  for (const card of byId("cards").children) updateCard(card);
  if (byId("lightbox").open) updateMarkButton(byId("lightbox-mark"), visibleImages[lightboxIndex]);
}

function updateMarkButton(button, image) {
  const label = marks.get(image.file);
  button.hidden = !otherLabel(image);
  button.setAttribute("aria-pressed", String(Boolean(label)));
  button.replaceChildren(
    label ? message("isMarked", { label: message(label) }) : message("mark"),
    make("span", { className: "visually-hidden" }, ` ${image.file}`),
  );
}

// Announces a text to screen readers. What is behind an open dialog is not read, so the dialog has its own place.
let announcementTimer = 0;
function announce(text) {
  const place = byId(byId("lightbox").open ? "lightbox-announcement" : "announcement");
  place.textContent = text;
  clearTimeout(announcementTimer);
  announcementTimer = setTimeout(() => { place.textContent = ""; }, ANNOUNCEMENT_MILLISECONDS);
}
