// The gallery: filters, order, pages of cards.
const PER_PAGE = 96; // cards in the document at any time
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
