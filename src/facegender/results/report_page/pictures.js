// The data of the page, and what all of its parts use. Text goes in as text, never as HTML.
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
