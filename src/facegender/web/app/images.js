// Elements that show an image with its boxes and predictions: card, table row, lightbox.

import { cutInTheMiddle, keepTagsInside } from "./fit.js";
import { formatNumber, formatPercent, message, translateError } from "./i18n.js";

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The result of an image as text: "female 97.3 %", "no face", "waiting…"
export function describe(rows) {
  if (!rows) return message("waiting");
  const [row] = rows;
  if (!row.label) return message(row.status);
  if (row.status === "unknown") return `${message("unknown")}, ${message("guess", { label: prediction(row) })}`;
  return prediction(row);
}

// One of female, male, unknown, no_face, unreadable, waiting
export function outcome(rows) {
  if (!rows) return "waiting";
  return rows[0].status === "ok" ? rows[0].label : rows[0].status;
}

function prediction(row) {
  return `${message(row.label)} ${formatPercent(row.probability)}`;
}

// The image with a box per face. isDescribed: the text beside it has its name and its result.
export function annotatedImage(image, rows, isDescribed = false) {
  const { width, height } = rows?.[0] ?? {};
  const alt = isDescribed ? "" : message("imageAlt", { file: image.name, prediction: describe(rows) });
  const element = make("img", { alt, decoding: "async" });
  const holder = make("span", { className: "annotated" }, element);
  const setSize = (columns, lines) => {
    holder.style.setProperty("--width", columns);
    holder.style.setProperty("--height", lines);
  };
  setSize(width || 1, height || 1);
  const url = URL.createObjectURL(image.file);
  element.addEventListener("load", () => {
    if (!width) setSize(element.naturalWidth, element.naturalHeight);
    URL.revokeObjectURL(url);
  });
  element.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    holder.replaceWith(make("span", { className: "not-shown", textContent: message("notShown") }));
  });
  element.src = url;
  const faces = (rows ?? []).filter((row) => row.box);
  faces.forEach((row, index) => holder.append(faceBox(row, faces.length > 1 ? index + 1 : 0)));
  return keepTagsInside(holder);
}

// number: of the face in the list below the image, 0 for a single face; a small box shows its number only
function faceBox(row, number) {
  const { box, width, height } = row;
  const element = make("span", { className: `box of-${row.status === "ok" ? row.label : "unknown"}` });
  element.ariaHidden = "true"; // the text beside it says the same
  const percent = (value, whole) => `${(100 * value) / whole}%`;
  element.style.left = percent(box.x, width);
  element.style.top = percent(box.y, height);
  element.style.width = percent(box.width, width);
  element.style.height = percent(box.height, height);
  const isAtTop = box.y < 0.12 * height; // no room for the tag above it
  element.classList.toggle("tag-below", isAtTop && box.y + box.height < 0.85 * height);
  element.classList.toggle("tag-inside", isAtTop && box.y + box.height >= 0.85 * height);
  element.classList.toggle("tag-right", box.x > 0.5 * width);
  element.classList.toggle("numbered", number > 0);
  const text = make("span", { className: "tag-text", textContent: prediction(row) });
  element.append(make("span", { className: "tag" }, ...(number ? [`${number} `] : []), text));
  return element;
}

export function card(image, onOpen) {
  const thumbnail = make("span", { className: "thumbnail" });
  if (image.rows?.[0].status === "unreadable") thumbnail.append(translateError(image.rows[0].error));
  else thumbnail.append(annotatedImage(image, image.rows, true));
  const button = make(
    "button",
    { type: "button", className: "open", onclick: () => onOpen(image) },
    thumbnail,
    cutInTheMiddle(make("span", { className: "name", dir: "auto", textContent: image.name, title: image.name })),
    make("span", { className: `result ${outcome(image.rows)}`, textContent: describe(image.rows) }),
  );
  return make("li", { className: "card" }, button);
}

export function tableRow(image) {
  const { rows } = image;
  const [row] = rows ?? [{}];
  const faces = rows ? formatNumber(rows.filter((one) => one.face_index !== null).length) : "";
  const guess = row.status === "unknown" ? message("guess", { label: message(row.label) }) : "";
  return make(
    "tr",
    {},
    make("td", { textContent: image.name }),
    make("td", { className: outcome(rows), textContent: message(outcome(rows)) }),
    make("td", { className: "number", textContent: row.probability ? formatPercent(row.probability) : "" }),
    make("td", { className: "number", textContent: faces }),
    make("td", { textContent: row.error ? translateError(row.error) : guess }),
  );
}

// A list item per face, for the lightbox
export function faceList(rows) {
  const error = rows?.[0].error;
  if (!rows?.[0].label) return [make("li", { textContent: error ? translateError(error) : describe(rows) })];
  return rows.map((row) => {
    const source = row.crop === "none"
      ? message("fullImage")
      : message("detectionScore", { score: formatNumber(row.detection_score, 2) });
    return make("li", { textContent: `${describe([row])} (${source})` });
  });
}
