// The gallery: filters, order, pages of cards.
const PAGE_SIZE = 96;
let visibleImages = images; // that pass the filters, in order
let page = 0;

function passesFilters(image, filters) {
  const { first } = image;
  if (filters.text && !image.searchText.includes(filters.text)) return false;
  if (filters.label && first.label !== filters.label) return false;
  if (filters.status === "several" ? image.faces.length < 2
    : filters.status === "wrong" ? !marks.has(image.file)
      : filters.status && first.status !== filters.status) return false;
  if (filters.from === 50 && filters.to === 100) return true;
  return hasPrediction(image) && 100 * first.probability >= filters.from - 1e-9
    && 100 * first.probability <= filters.to + 1e-9;
}

function applyFilters() {
  const filters = {
    text: byId("text").value.trim().toLowerCase(), label: byId("label").value,
    status: byId("status").value, from: Number(byId("from").value), to: Number(byId("to").value),
  };
  visibleImages = images.filter((image) => passesFilters(image, filters));
  const direction = { up: 1, down: -1 }[byId("order").value];
  if (direction) {
    const last = direction > 0 ? 2 : -1; // images without a prediction come last
    const key = (image) => image.first.probability ?? last;
    visibleImages.sort((a, b) => direction * (key(a) - key(b)));
  }
  showRange();
  showPage(0);
}

function showPage(requested) {
  const pages = Math.max(1, Math.ceil(visibleImages.length / PAGE_SIZE));
  page = Math.min(Math.max(0, requested), pages - 1);
  const start = page * PAGE_SIZE;
  const shown = visibleImages.slice(start, start + PAGE_SIZE);
  byId("cards").replaceChildren(...shown.map((image, offset) => makeCard(image, start + offset)));
  byId("shown").textContent = shown.length
    ? message("shown", {
      from: formatNumber(start + 1), to: formatNumber(start + shown.length), count: formatNumber(visibleImages.length),
    })
    : message("noMatch");
  byId("pager").hidden = pages < 2;
  byId("page").replaceChildren(...Array.from({ length: pages }, (_, index) =>
    make("option", { value: index, selected: index === page }, formatNumber(index + 1))));
  byId("pages").textContent = message("pages", { count: formatNumber(pages) });
  byId("page-previous").disabled = page === 0;
  byId("page-next").disabled = page === pages - 1;
}

function turnPage(requested) {
  showPage(requested);
  byId("gallery").scrollIntoView();
  byId("cards").querySelector(".open")?.focus({ preventScroll: true });
}

// The result of a row as nodes and texts: label and probability, or the status
function describe(row) {
  const isKnown = row.status === "ok";
  const label = row.label && make("b", { className: isKnown ? row.label : "unknown" },
    message(row.label), isKnown ? "" : "?");
  if (label) return [label, row.probability == null ? "" : ` ${formatPercent(row.probability)}`];
  return [make("span", {}, message(row.status in MESSAGES.en ? row.status : "unknown"))];
}

function makeCard(image, index) {
  const source = thumbnail(image);
  const frame = make("span", { className: "thumbnail" },
    source ? make("img", { src: source, alt: "", decoding: "async" }) : message(outcome(image.first)));
  if (image.faces.length > 1) {
    frame.append(make("small", {}, message("faces", { count: formatNumber(image.faces.length) })));
  }
  const open = make("button", { type: "button", className: "open", title: image.file }, frame,
    cutInTheMiddle(make("span", { className: "name", dir: "auto" }, image.file)),
    make("span", { className: "result" }, ...describe(image.first)));
  const card = make("li", { className: "card" }, open,
    make("button", { type: "button", className: "mark" }));
  card.dataset.index = index;
  updateCard(card);
  return card;
}

const imageOf = (card) => visibleImages[Number(card.dataset.index)];

function updateCard(card) {
  card.classList.toggle("wrong", marks.has(imageOf(card).file));
  updateMarkButton(card.querySelector(".mark"), imageOf(card));
}

function handleCardKey(event) {
  const card = event.target.closest(".card");
  if (!card || event.ctrlKey || event.metaKey || event.altKey) return;
  const cards = [...byId("cards").children];
  const columns = cards.filter((one) => one.offsetTop === cards[0].offsetTop).length;
  const step = {
    ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns,
    Home: -cards.length, End: cards.length,
  }[event.key];
  if (step !== undefined) {
    const target = cards.indexOf(card) + step;
    const next = Math.abs(step) === cards.length ? (step < 0 ? 0 : cards.length - 1) : target;
    cards[next]?.querySelector(".open").focus();
    event.preventDefault();
  } else if (isMarkKey(event)) {
    toggleMark(imageOf(card));
  }
}

// KeyW is the position on the keyboard, so that it also works with a Russian layout.
const isMarkKey = (event) => (event.code === "KeyW" || event.key === "w")
  && !event.ctrlKey && !event.metaKey && !event.altKey && !event.repeat;
