// The worker that decodes and classifies images, so that the page stays responsive.

import { decode, formatOf, UnreadableError } from "./decode.js";
import { alignCrop, cropSide, findFaces, RULES, scaled, YuNet } from "./faces.js";
import { loadModels } from "./network.js";
import { reduce, resize } from "./pixels.js";

const BATCH_SIZE = 16;

const loading = loadModels((fraction) => postMessage({ loaded: fraction })).then((network) => ({
  ...network,
  detector: new YuNet(network.detect),
}));
loading.catch((error) => postMessage({ failed: error.message }));

let queue = Promise.resolve(); // one image at a time bounds the memory

addEventListener("message", ({ data: { id, file } }) => {
  queue = queue.then(async () => postMessage({ id, rows: await classifyFile(file) }));
});

/** Classify one file; an error becomes a row. */
async function classifyFile(file) {
  const network = await loading;
  try {
    const bytes = new Uint8Array(await file.arrayBuffer());
    return await classifyBytes(file, bytes, network);
  } catch (error) {
    const isKnown = error instanceof UnreadableError;
    const reason = isKnown ? error.message : `cannot be read here: ${error.message}`;
    return [makeRow(file, { status: "unreadable", error: reason })];
  }
}

/** The browser's version of inference/preprocess.py, and the rows. */
async function classifyBytes(file, bytes, { model, detector, classify }) {
  const full = await decode(bytes);
  const { width, height } = full;
  const isJpeg = formatOf(bytes) === "JPEG";
  let image = isJpeg ? downscale(full, RULES.detectionSide) : full;
  let scale = Math.max(width, height) / Math.max(image.width, image.height);
  let faces = await findFaces(image, detector, model.crop.rule, "auto", full);
  if (!faces.length) return [makeRow(file, { status: "no_face", width, height })];
  const template = model.crop.rule === "aligned" ? model.crop.template : RULES.template;
  const needed = Math.max(model.resize.width, model.resize.height);
  const smallest = Math.min(...faces.map((face) => (face ? cropSide(face, template) : needed)));
  if (scale > 1 && smallest < needed) {
    // At this scale the smallest face has fewer pixels than the network's input
    const longSide = Math.max(image.width, image.height);
    const larger = downscale(full, Math.ceil((longSide * needed) / smallest));
    const largerScale = Math.max(width, height) / Math.max(larger.width, larger.height);
    faces = faces.map((face) => face && scaled(face, scale / largerScale));
    image = larger;
    scale = largerScale;
  }
  const rows = [];
  for (let start = 0; start < faces.length; start += BATCH_SIZE) {
    const batch = faces.slice(start, start + BATCH_SIZE);
    const inputs = batch.map((face) => preprocessFace(image, face, template, model.resize));
    const probabilities = await classify(inputs);
    batch.forEach((face, index) => {
      const fullFace = face && scaled(face, scale);
      rows.push(faceRow(file, rows.length, fullFace, probabilities[index], model, width, height));
    });
  }
  return rows;
}

function preprocessFace(image, face, template, size) {
  if (face) return alignCrop(image, face.landmarks, template, size);
  return resize(image, size.width, size.height, size.interpolation);
}

/** Downscale by the largest of 8, 4, 2, 1 whose result has at least this long side. */
function downscale(image, minLongSide) {
  const { width, height } = image;
  const fraction = minLongSide / Math.max(width, height);
  if (fraction >= 1) return image;
  const factors = [width, height].map((side) => Math.floor(side / Math.ceil(side * fraction)));
  const factor = [8, 4, 2, 1].find((one) => one <= Math.min(...factors)) ?? 1;
  return factor > 1 ? reduce(image, factor) : image;
}

/** A row of the details file, with the columns of results/details.py. */
function makeRow(file, values) {
  const noFace = { label: null, probability: null, box: null, detection_score: null, crop: null };
  const noSize = { width: null, height: null, error: null };
  return { file: file.name ?? null, face_index: null, status: "", ...noFace, ...noSize, ...values };
}

function faceRow(file, index, face, probabilities, model, width, height) {
  const best = probabilities[1] > probabilities[0] ? 1 : 0;
  const probability = Math.min(1, Math.max(0.5, Math.round(probabilities[best] * 1e4) / 1e4));
  const isTie = probabilities[0] === probabilities[1];
  return makeRow(file, {
    face_index: index,
    status: probability >= model.min_confidence && !isTie ? "ok" : "unknown",
    label: model.labels[best],
    probability,
    box: faceBox(face, width, height),
    detection_score: face && Math.round(face.score * 100) / 100,
    crop: face ? "aligned" : "none",
    width,
    height,
  });
}

/** The box of a face, clipped to the image; the full image for null. */
function faceBox(face, width, height) {
  if (!face) return { x: 0, y: 0, width, height };
  const [left, right] = clippedSpan(face.x, face.width, width);
  const [top, bottom] = clippedSpan(face.y, face.height, height);
  return { x: left, y: top, width: right - left, height: bottom - top };
}

function clippedSpan(start, length, side) {
  const low = Math.min(Math.max(0, Math.round(start)), side - 1);
  return [low, Math.min(Math.max(low + 1, Math.round(start + length)), side)];
}
