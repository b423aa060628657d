// Counts, and the histogram of certainty with its range.
const BINS = 25; // of two points each

const hasAnswer = (picture) => picture.first.probability != null;
const kindOf = (row) => (row.status === "ok" ? row.label : row.status);

function countAll() {
  const counts = { countPictures: pictures.length, countFaces: 0 };
  for (const kind of ["female", "male", "unknown", "no_face", "unreadable"]) counts[kind] = 0;
  const bins = Array.from({ length: BINS }, () => ({ female: 0, male: 0, unknown: 0 }));
  for (const picture of pictures) {
    const { first } = picture;
    counts.countFaces += picture.rows.filter((row) => row.face_index != null).length;
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
