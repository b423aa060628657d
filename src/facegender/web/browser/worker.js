// The worker in which pictures are decoded and answered, so that the page stays alive.

import { decode, formatOf, UnreadableError } from "./decode.js";
import { cut, Detector, find, RULES, scaled, side } from "./faces.js";
import { load } from "./network.js";
import { reduce, resize } from "./pixels.js";

const BATCH = 16;

const loading = load((share) => postMessage({ loaded: share })).then((network) => ({
  ...network,
  detector: new Detector(network.detect),
}));
loading.catch((error) => postMessage({ failed: error.message }));

let work = Promise.resolve(); // one picture after the other: memory stays that of one

addEventListener("message", ({ data: { id, file } }) => {
  work = work.then(async () => postMessage({ id, rows: await answer(file) }));
});

/** Answer for one file; whatever is wrong with it is a row that says so. */
async function answer(file) {
  const network = await loading;
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    return await read(file, bytes, network);
  } catch (error) {
    const isKnown = error instanceof UnreadableError;
    const reason = isKnown ? error.message : `cannot be read here: ${error.message}`;
    return [row(file, { status: "unreadable", error: reason })];
  }
}

async function read(file, bytes, { model, detector, classify }) {
  const whole = await decode(bytes);
  const { width, height } = whole;
  const isJPEG = formatOf(bytes) === "JPEG";
  let picture = isJPEG ? reduced(whole, RULES.look) : whole;
  let scale = Math.max(width, height) / Math.max(picture.width, picture.height);
  let faces = await find(picture, detector, model.crop.rule);
  if (!faces.length) return [row(file, { status: "no_face", width, height })];
  const points = model.crop.rule === "aligned" ? model.crop.template : RULES.aligned;
  const needed = Math.max(model.resize.width, model.resize.height);
  const smallest = Math.min(...faces.map((face) => (face ? side(face, points) : needed)));
  if (scale > 1 && smallest < needed) {
    // A face so small that at this scale the network would see less than there is
    const longest = Math.max(picture.width, picture.height);
    const larger = reduced(whole, Math.ceil((longest * needed) / smallest));
    const largerScale = Math.max(width, height) / Math.max(larger.width, larger.height);
    faces = faces.map((face) => face && scaled(face, scale / largerScale));
    picture = larger;
    scale = largerScale;
  }
  const rows = [];
  for (let start = 0; start < faces.length; start += BATCH) {
    const some = faces.slice(start, start + BATCH);
    const frames = some.map((face) => frame(picture, face, points, model.resize));
    const found = await classify(frames);
    some.forEach((face, index) => {
      const here = face && scaled(face, scale);
      rows.push(answered(file, rows.length, here, found[index], model, width, height));
    });
  }
  return rows;
}

function frame(picture, face, points, size) {
  if (face) return cut(picture, face.landmarks, points, size);
  return resize(picture, size.width, size.height, size.filter);
}

/** Make a picture smaller by the largest of 8, 4, 2, 1 that keeps `look` of its longer side. */
function reduced(whole, look) {
  const { width, height } = whole;
  const share = look / Math.max(width, height);
  if (share >= 1) return whole;
  const times = [width, height].map((full) => Math.floor(full / Math.ceil(full * share)));
  const factor = [8, 4, 2, 1].find((one) => one <= Math.min(...times)) ?? 1;
  return factor > 1 ? reduce(whole, factor) : whole;
}

/** A row of the details file; see details.py. */
function row(file, values) {
  const nothing = { label: null, probability: null, box: null, detection_score: null, crop: null };
  const unknown = { width: null, height: null, error: null };
  return { file: file.name ?? null, face_index: null, status: "", ...nothing, ...unknown, ...values };
}

function answered(file, index, face, both, model, width, height) {
  const best = both[1] > both[0] ? 1 : 0;
  const probability = Math.min(1, Math.max(0.5, Math.round(both[best] * 1e4) / 1e4));
  const isKnown = probability >= model.min_confidence && both[0] !== both[1];
  return row(file, {
    face_index: index,
    status: isKnown ? "ok" : "unknown",
    label: model.labels[best],
    probability,
    box: boxOf(face, width, height),
    detection_score: face && Math.round(face.score * 100) / 100,
    crop: face ? "aligned" : "none",
    width,
    height,
  });
}

/** Where an answer was read from, within the picture. */
function boxOf(face, width, height) {
  if (!face) return { x: 0, y: 0, width, height };
  const [left, right] = span(face.x, face.width, width);
  const [top, bottom] = span(face.y, face.height, height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

function span(start, length, full) {
  const low = Math.min(Math.max(0, Math.round(start)), full - 1);
  return [low, Math.min(Math.max(low + 1, Math.round(start + length)), full)];
}
