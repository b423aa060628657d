// The data of the report, and how elements are made. Data become text nodes, never HTML.
const byId = (id) => document.getElementById(id);
const info = JSON.parse(byId("data-about").textContent);
const thumbnailBlocks = document.querySelectorAll("script.thumbnails");
const images = [];
for (const block of document.querySelectorAll("script.images")) {
  for (const image of JSON.parse(block.textContent)) {
    const first = image.rows[0];
    const file = String(first.file ?? "");
    images.push({
      index: images.length, file, first, ...image,
      faces: image.rows.filter((row) => row.box), searchText: file.toLowerCase(),
    });
  }
  block.remove();
}

const hasPrediction = (image) => image.first.probability != null;
const outcome = (row) => (row.status === "ok" ? row.label : row.status);

function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// A file name in any script, isolated from the text direction around it.
const isolated = (text) => make("bdi", { textContent: text });

// Only the block of the last thumbnail is split into lines.
let openBlock = { block: null, lines: [] };
function thumbnail(image) {
  const block = thumbnailBlocks[Math.floor(image.index / info.per_block)];
  if (openBlock.block !== block) openBlock = { block, lines: block.textContent.split("\n") };
  const line = openBlock.lines[image.index % info.per_block];
  return line === "-" ? null : `data:image/jpeg;base64,${line}`;
}
