// A picture with its boxes and answers: in a card, in the table, and larger.

import { number, percent, reason, say } from "./words.js";

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// What a picture's row says: "female 97.3 %", "no face", "waiting"
export function said(rows) {
  if (!rows) return say("waiting");
  const [row] = rows;
  if (!row.label) return say(row.status);
  if (row.status === "unknown") return `${say("unknown")}, ${say("guess", { x: answerOf(row) })}`;
  return answerOf(row);
}

export function kindOf(rows) {
  if (!rows) return "waiting";
  return rows[0].status === "ok" ? rows[0].label : rows[0].status;
}

function answerOf(row) {
  return `${say(row.label)} ${percent(row.probability)}`;
}

// The picture with a box for each face; says so where the browser cannot show it.
// isSaidBeside: its name and answer stand beside it in words
export function shot(picture, rows, isSaidBeside = false) {
  const { width, height } = rows?.[0] ?? {};
  const alt = isSaidBeside ? "" : say("imageOf", { file: picture.name, x: said(rows) });
  const image = make("img", { alt, decoding: "async" });
  const holder = make("span", { className: "shot" }, image);
  const size = (wide, high) => {
    holder.style.setProperty("--wide", wide);
    holder.style.setProperty("--high", high);
  };
  size(width || 1, height || 1);
  const url = URL.createObjectURL(picture.file);
  image.addEventListener("load", () => {
    if (!width) size(image.naturalWidth, image.naturalHeight);
    URL.revokeObjectURL(url);
  });
  image.addEventListener("error", () => {
    URL.revokeObjectURL(url);
    holder.replaceWith(make("span", { className: "not-shown", textContent: say("notShown") }));
  });
  image.src = url;
  const faces = (rows ?? []).filter((row) => row.box);
  faces.forEach((row, at) => holder.append(boxOf(row, faces.length > 1 ? at + 1 : 0)));
  return holder;
}

// place: among several faces, whose answers stand under the picture in this order; small ones have
// room for no more than that
function boxOf(row, place) {
  const { box, width, height } = row;
  const element = make("span", { className: `box of-${row.status === "ok" ? row.label : "unknown"}` });
  element.ariaHidden = "true"; // the same is said in words
  const share = (value, whole) => `${(100 * value) / whole}%`;
  element.style.left = share(box.x, width);
  element.style.top = share(box.y, height);
  element.style.width = share(box.width, width);
  element.style.height = share(box.height, height);
  const isLow = box.y < 0.12 * height; // no room above it
  element.classList.toggle("below", isLow && box.y + box.height < 0.85 * height);
  element.classList.toggle("inside", isLow && box.y + box.height >= 0.85 * height);
  element.classList.toggle("right", box.x > 0.5 * width);
  element.classList.toggle("of-several", place > 0);
  const words = make("span", { className: "words", textContent: answerOf(row) });
  element.append(make("span", { className: "tag" }, ...(place ? [`${place} `] : []), words));
  return element;
}

export function card(picture, onOpen) {
  const frame = make("span", { className: "frame" });
  if (picture.rows?.[0].status !== "unreadable") frame.append(shot(picture, picture.rows, true));
  else frame.append(reason(picture.rows[0].error));
  const button = make(
    "button",
    { type: "button", className: "open", onclick: () => onOpen(picture) },
    frame,
    make("span", { className: "name", textContent: picture.name, title: picture.name }),
    make("span", { className: `said ${kindOf(picture.rows)}`, textContent: said(picture.rows) }),
  );
  return make("li", { className: "card" }, button);
}

export function tableRow(picture) {
  const { rows } = picture;
  const [row] = rows ?? [{}];
  const faces = rows ? rows.filter((one) => one.face_index !== null).length : "";
  return make(
    "tr",
    {},
    make("td", { textContent: picture.name }),
    make("td", { className: kindOf(rows), textContent: row.status === "ok" ? say(row.label) : rows ? say(row.status) : say("waiting") }),
    make("td", { className: "number", textContent: row.probability ? percent(row.probability) : "" }),
    make("td", { className: "number", textContent: faces === "" ? "" : number(faces) }),
    make("td", { textContent: row.error ? reason(row.error) : (row.status === "unknown" ? say("guess", { x: say(row.label) }) : "") }),
  );
}

// A line for each face, for the larger view
export function facesOf(rows) {
  const error = rows?.[0].error;
  if (!rows?.[0].label) return [make("li", { textContent: error ? reason(error) : said(rows) })];
  return rows.map((row) => {
    const how = row.crop === "none" ? say("whole") : say("detector", { x: number(row.detection_score, 2) });
    return make("li", { textContent: `${said([row])} (${how})` });
  });
}
