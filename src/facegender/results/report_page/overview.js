// Counts, and the histogram of the confidence with its range filter.
const BINS = 25; // of two percentage points each
const binStart = (index) => 50 + index * 50 / BINS;

function countImages() {
  const counts = { countImages: images.length, countFaces: 0 };
  for (const key of ["female", "male", "unknown", "no_face", "unreadable"]) counts[key] = 0;
  const bins = Array.from({ length: BINS }, () => ({ female: 0, male: 0, unknown: 0 }));
  for (const image of images) {
    const { first } = image;
    counts.countFaces += image.rows.filter((row) => row.face_index != null).length;
    counts[outcome(first)] = (counts[outcome(first)] ?? 0) + 1;
    if (hasPrediction(image)) {
      const bin = Math.floor((first.probability - 0.5) * 2 * BINS + 1e-9);
      bins[Math.min(BINS - 1, Math.max(0, bin))][outcome(first)] += 1;
    }
  }
  return { counts, bins };
}
const { counts, bins } = countImages();
const confidences = images.filter(hasPrediction).map((image) => image.first.probability).sort((a, b) => a - b);

// The smallest 1, 2 or 5 times a power of ten that is not below a count
function axisEnd(count) {
  const power = 10 ** Math.floor(Math.log10(count));
  return [1, 2, 5, 10].map((digit) => digit * power).find((end) => end >= count);
}

function showAxes(end) {
  const counts = end > 1 ? [0, end / 2, end] : [0, end];
  byId("count-axis").replaceChildren(make("em", {}, message("countImages")),
    ...counts.filter(Number.isInteger).map((count) => {
      const line = make("span", {}, make("b", {}, formatNumber(count)));
      line.style.bottom = `${100 * count / end}%`;
      return line;
    }));
  byId("percent-axis").replaceChildren(...[50, 60, 70, 80, 90, 100].map((percent) => {
    const tick = make("span", {}, `${percent} %`);
    tick.style.left = `${2 * (percent - 50)}%`;
    return tick;
  }));
}

function showOverview() {
  byId("counts").replaceChildren(...Object.entries(counts)
    .filter(([key]) => key in MESSAGES.en)
    .map(([key, count]) => make("div",
      { className: ["unreadable", "unsupported"].includes(key) && count ? "has-errors" : key, id: `count-${key}` },
      make("dt", {}, message(key)), make("dd", {}, formatNumber(count)))));
  byId("confidence").hidden = !confidences.length;
  if (!confidences.length) return;
  const totals = bins.map((bin) => bin.female + bin.male + bin.unknown);
  const end = axisEnd(Math.max(...totals));
  showAxes(end);
  byId("bars").replaceChildren(...bins.map((bin, index) => {
    const bar = make("div", { title: `${binStart(index)}–${binStart(index + 1)} %: ${formatNumber(totals[index])}` });
    for (const key of ["unknown", "male", "female"]) {
      if (!bin[key]) continue;
      const segment = make("i", { className: key });
      segment.style.height = `${100 * bin[key] / end}%`;
      bar.append(segment);
    }
    return bar;
  }));
  const median = confidences[Math.floor(confidences.length / 2)];
  byId("bars").setAttribute("aria-label", message("histogram", {
    count: formatNumber(confidences.length), median: formatNumber(100 * median, 1), top: formatNumber(totals.at(-1)),
  }));
  byId("bins").replaceChildren(...bins.map((bin, index) => make("tr", {},
    make("th", { scope: "row" }, `${binStart(index)}–${binStart(index + 1)} %`),
    ...["female", "male", "unknown"].map((key) =>
      make("td", { className: "count" }, formatNumber(bin[key]))))));
}

function showRange() {
  const [from, to] = [Number(byId("from").value), Number(byId("to").value)];
  byId("range-fill").style.left = `${2 * (from - 50)}%`;
  byId("range-fill").style.width = `${2 * (to - from)}%`;
  byId("range").textContent = message("range", { from, to });
  [...byId("bars").children].forEach((bar, index) => {
    bar.classList.toggle("outside", binStart(index + 1) <= from || binStart(index) >= to && to < 100);
  });
}

function moveRange(event) {
  const [from, to] = [byId("from"), byId("to")];
  if (Number(from.value) > Number(to.value)) {
    if (event.target === from) from.value = to.value; else to.value = from.value;
  }
  // When both are at the right end, the one that can still move must be on top.
  from.style.zIndex = Number(from.value) > 75 ? "1" : "";
  applyFilters();
}
