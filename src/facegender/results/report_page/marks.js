// Answers marked as wrong: file -> the corrected label.
const marksKey = `facegender-marks:${about.id}`;
const marks = new Map();
let isKept = true;

function readMarks() {
  let kept = {};
  try { kept = JSON.parse(memory.get(marksKey)) ?? {}; } catch { /* damaged: as none */ }
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
