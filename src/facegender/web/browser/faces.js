// Find the faces in an image and align one by the model's crop rule: the browser's version of
// faces/yunet.py, faces/detection.py, faces/alignment.py and faces/face_aligner.py. The search for small
// faces is in tiles.js. Functions and constants
// have the names of the Python ones; tests compare the constants and the results.
//
// A face is {x, y, width, height, score, landmarks}; landmarks are five [x, y].

import { GRAY, affineTransform, crop, filledImage, paste, resize, rotate90, round } from "./pixels.js";
import { addSmallFaces } from "./tiles.js";

export const RULES = {
  minScore: 0.5,
  confidentScore: 0.9,
  minRotationGain: 0.03,
  rotatedMinScore: 0.7,
  smallScaleFace: 0.2, // from this fraction of the long side on, rotations are searched at the small scale
  mainFaceMinArea: 0.7,
  closeUpFraction: 0.5,
  nmsIou: 0.4,
  nmsContained: 0.7, // of the smaller box
  nmsAreaRatio: 0.2, // a smaller box than that is a face of its own
  maxStride: 32, // sides of the canvas are multiples of it
  detectionSide: 640, // minimum long side in pixels to which a large JPEG is reduced for detection
  strides: [8, 16, 32],
  smallSide: 160,
  largeSide: 640,
  margin: 0.3, // around the small scale
  padding: 0.6, // around an image without a detection
  template: [[0.344, 0.385], [0.656, 0.385], [0.5, 0.563], [0.371, 0.745], [0.629, 0.745]],
};

/** The face detector; `run` maps an image to the outputs of the network, one per stride. */
export class YuNet {
  constructor(run) {
    this.run = run;
  }

  /** Find all faces at the given scales, all of searchScales by default, sorted by descending score. */
  async detect(image, minScore = RULES.minScore, scales = searchScales(image)) {
    const small = shrink(image);
    const faces = [];
    for (const [size, margin] of scales) {
      faces.push(...(await this.detectAtScale(small, size, margin, minScore)));
    }
    return nms(faces).map(enlarge(small, image));
  }

  async detectAtScale(image, size, margin, minScore) {
    const canvas = letterbox(image, size, margin);
    const outputs = await this.run(canvas.pixels);
    return RULES.strides
      .flatMap((stride, index) => decode(outputs[index], stride, minScore))
      .map((face) => toImageCoords(face, canvas));
  }
}

/** The scales at which an image is searched: long side in pixels, margin as a fraction of it. */
export function searchScales({ width, height }) {
  const longSide = Math.max(width, height);
  const large = [Math.min(longSide, RULES.largeSide), 0];
  const small = [RULES.smallSide, RULES.margin];
  return longSide > 2 * RULES.smallSide ? [small, large] : [small];
}

/** Downscale an image to the long side of the large scale; a smaller one is returned as it is. */
function shrink(image) {
  const scale = RULES.largeSide / Math.max(image.width, image.height);
  return scale >= 1 ? image : resize(image, ...scaledSize(image, scale));
}

/** A function that maps faces of a downscaled image to the image. */
export function enlarge(small, image) {
  const [scaleX, scaleY] = [image.width / small.width, image.height / small.height];
  return (face) => mapFace(face, ([x, y]) => [x * scaleX, y * scaleY], 1);
}

/** Downscale an image to a long side of `size`, on a gray canvas whose sides are multiples of 32. */
function letterbox(image, size, margin) {
  const scale = size / Math.max(image.width, image.height);
  const small = resize(image, ...scaledSize(image, scale));
  const border = round(margin * size);
  const [columns, rows] = [small.width, small.height].map(
    (side) => RULES.maxStride * Math.max(1, Math.ceil((side + 2 * border) / RULES.maxStride)),
  );
  const pixels = filledImage(columns, rows, GRAY);
  const left = Math.floor((columns - small.width) / 2);
  const top = Math.floor((rows - small.height) / 2);
  paste(pixels, small, left, top);
  const scaleX = image.width / small.width;
  return { pixels, left, top, scaleX, scaleY: image.height / small.height };
}

/** Map a face from the canvas to the image. */
function toImageCoords(face, { left, top, scaleX, scaleY }) {
  const x = (value) => (value - left) * scaleX;
  const y = (value) => (value - top) * scaleY;
  return {
    x: x(face.x),
    y: y(face.y),
    width: face.width * scaleX,
    height: face.height * scaleY,
    score: face.score,
    landmarks: face.landmarks.map(([u, v]) => [x(u), y(v)]),
  };
}

export function scaledSize({ width, height }, scale) {
  return [width, height].map((side) => Math.max(1, round(side * scale)));
}

/** Decode one output [1, rows, columns, 15] of the network. */
function decode({ data, dims }, stride, minScore) {
  const [, rows, columns, values] = dims;
  const faces = [];
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = (row * columns + column) * values;
      if (!(data[at] > minScore)) continue;
      const [width, height] = [3, 4].map((k) => Math.exp(Math.min(data[at + k], 10)) * stride);
      faces.push({
        x: (data[at + 1] + column) * stride - width / 2,
        y: (data[at + 2] + row) * stride - height / 2,
        width,
        height,
        score: data[at],
        landmarks: [5, 7, 9, 11, 13].map((k) => [
          (data[at + k] + column) * stride,
          (data[at + k + 1] + row) * stride,
        ]),
      });
    }
  }
  return faces;
}

/** Greedy non-maximum suppression: of boxes on one face, the best remains. */
export function nms(faces) {
  const kept = [];
  let rest = [...faces].sort((one, other) => other.score - one.score);
  while (rest.length) {
    const [first] = rest;
    kept.push(first);
    rest = rest.filter((face) => face !== first && !isSameFace(first, face));
  }
  return kept;
}

/** Boxes are on one face if they overlap, or if one lies mostly within the other and is not much smaller. */
function isSameFace(one, other) {
  const overlap = (start, length) => {
    const end = Math.min(one[start] + one[length], other[start] + other[length]);
    return Math.max(0, end - Math.max(one[start], other[start]));
  };
  const intersection = overlap("x", "width") * overlap("y", "height");
  const areas = [one, other].map((face) => face.width * face.height);
  const [smaller, larger] = [Math.min(...areas), Math.max(...areas)];
  const isInside = intersection > RULES.nmsContained * smaller && smaller > RULES.nmsAreaRatio * larger;
  return isInside || !(intersection < RULES.nmsIou * (smaller + larger - intersection));
}

/**
 * Find the faces to classify by the face mode `auto`, `detect` or `whole`: the main face first, none
 * where no face was detected; a single null stands for the full image.
 */
export async function findFaces(image, detector, cropRule, mode = "auto", full = image) {
  if (mode === "whole") return [null];
  const { width, height } = image;
  const isCloseUp = (face) => face && cropFraction(face, image) >= RULES.closeUpFraction;
  const isEnough = (faces) => mode === "auto" && isCloseUp(selectMainFace(faces, width, height));
  const faces = await detectMultiOrientation(image, detector, isEnough, full);
  const main = selectMainFace(faces, width, height);
  if (!main) return mode === "auto" && cropRule === "none" ? [null] : [];
  if (mode === "auto" && isCloseUp(main)) return [cropRule === "aligned" ? main : null];
  return [main, ...faces.filter((face) => face !== main)];
}

/**
 * Detect faces; where none is confident, try again with padding and with the image rotated. `isEnough`
 * tells from the faces at the small scale that the large one needs no search; `full` is the image with
 * more pixels.
 */
async function detectMultiOrientation(image, detector, isEnough, full) {
  const small = shrink(image);
  const toImage = enlarge(small, image);
  const [first, ...others] = searchScales(image);
  let faces = await detector.detect(small, RULES.minScore, [first]);
  if (others.length) {
    const enlarged = faces.map(toImage);
    if (maxScore(faces) >= RULES.confidentScore && isEnough(enlarged)) return enlarged;
    faces = nms([...faces, ...(await detector.detect(small, RULES.minScore, others))]);
  }
  if (maxScore(faces) < RULES.confidentScore) {
    const rotated = await detectRotated(small, faces, detector);
    if (!rotated.isUpright) return rotated.faces.map(toImage);
    faces = rotated.faces;
  }
  return addSmallFaces(faces.map(toImage), image, full, detector);
}

/** Detect faces in the image with padding, if none was found in it, and rotated. */
async function detectRotated(image, found, detector) {
  let faces = found;
  if (!faces.length) {
    const border = round(RULES.padding * Math.max(image.width, image.height));
    const padded = filledImage(image.width + 2 * border, image.height + 2 * border, GRAY);
    paste(padded, image, border, border);
    const detected = await detector.detect(padded);
    faces = detected.map((face) => mapFace(face, ([x, y]) => [x - border, y - border], 1));
  }
  const first = faces.reduce((best, face) => (best && best.score >= face.score ? best : face), null);
  const isLarge = first && first.width >= RULES.smallScaleFace * Math.max(image.width, image.height);
  const scales = searchScales(image).slice(0, isLarge ? 1 : 2);
  let best = faces;
  let rotated = image;
  for (let rotations = 1; rotations <= 3; rotations++) {
    rotated = rotate90(rotated);
    const detected = await detector.detect(rotated, RULES.rotatedMinScore, scales);
    const rotateBack = inverseRotation(rotations, image);
    const candidates = detected.map((face) => mapFace(face, rotateBack, 1));
    if (maxScore(candidates) > maxScore(best)) best = candidates;
  }
  const isRotated = maxScore(best) >= maxScore(faces) + RULES.minRotationGain;
  return isRotated ? { faces: best, isUpright: false } : { faces, isUpright: true };
}

/** Map points of an image that was rotated by so many quarter turns back to the image. */
function inverseRotation(rotations, { width, height }) {
  const maps = [
    null,
    ([x, y]) => [width - y, x],
    ([x, y]) => [width - x, height - y],
    ([x, y]) => [y, height - x],
  ];
  return maps[rotations];
}

function mapFace(face, map, scale) {
  const point = (at) => map(at).map((value) => value * scale);
  const one = point([face.x, face.y]);
  const other = point([face.x + face.width, face.y + face.height]);
  return {
    x: Math.min(one[0], other[0]),
    y: Math.min(one[1], other[1]),
    width: Math.abs(one[0] - other[0]),
    height: Math.abs(one[1] - other[1]),
    score: face.score,
    landmarks: face.landmarks.map(point),
  };
}

/** Scale a face with its image. */
export function scaled(face, factor) {
  return factor === 1 ? face : mapFace(face, (point) => point, factor);
}

function maxScore(faces) {
  return Math.max(0, ...faces.map((face) => face.score));
}

/** Select the main face: among the largest ones, the most central. */
export function selectMainFace(faces, width, height) {
  const area = (face) => face.width * face.height;
  const maxArea = Math.max(0, ...faces.map(area));
  const distance = (face) =>
    Math.hypot((face.x + face.width / 2) / width - 0.5, (face.y + face.height / 2) / height - 0.5);
  return faces
    .filter((face) => area(face) >= RULES.mainFaceMinArea * maxArea)
    .reduce((best, face) => (best && distance(best) <= distance(face) ? best : face), null);
}

/** The area of a face's aligned crop as a fraction of the image; may exceed 1. */
function cropFraction(face, { width, height }) {
  const [[a, b], [c, d]] = estimateSimilarity(face.landmarks, RULES.template);
  return Math.abs(a * d - b * c) / (width * height);
}

/**
 * Estimate the similarity that maps a template to landmarks by least squares. It maps (u, v, 1), 0 to
 * 1 across and down the crop, to the image.
 */
export function estimateSimilarity(landmarks, template) {
  const mean = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const center = [mean(template, 0), mean(template, 1)];
  const target = [mean(landmarks, 0), mean(landmarks, 1)];
  let [real, imaginary, variance] = [0, 0, 0]; // the rotation and scale as a complex number
  template.forEach(([u, v], index) => {
    const [p, q] = [u - center[0], v - center[1]];
    const [x, y] = landmarks[index];
    real += p * x + q * y;
    imaginary += p * y - q * x;
    variance += p * p + q * q;
  });
  const [cos, sin] = [real / variance, imaginary / variance];
  if (!(Math.hypot(cos, sin) > 1e-6)) throw new Error("the landmarks are one point");
  return [
    [cos, -sin, target[0] - (cos * center[0] - sin * center[1])],
    [sin, cos, target[1] - (sin * center[0] + cos * center[1])],
  ];
}

/** The side of a face's crop in pixels of the image. */
export function cropSide(face, template) {
  const [[cos], [sin]] = estimateSimilarity(face.landmarks, template);
  return Math.hypot(cos, sin);
}

/** Crop a face, aligned to the template, at the network's size; edges are replicated beyond the image. */
export function alignCrop(image, landmarks, template, size) {
  const matrix = estimateSimilarity(landmarks, template);
  const extent = matrix.map(([a, b, c]) => {
    const corners = [c, a + c, b + c, a + b + c];
    return { low: Math.min(...corners), high: Math.max(...corners) };
  });
  // The part of the image under the crop, downscaled to the crop's scale (antialiasing)
  const [horizontal, vertical] = [image.width, image.height].map((side, axis) => {
    const first = clip(Math.floor(extent[axis].low), 0, side - 1);
    return { first, end: clip(Math.ceil(extent[axis].high), first + 1, side) };
  });
  let part = crop(image, horizontal.first, vertical.first, horizontal.end, vertical.end);
  const scale = Math.min(1, Math.max(size.width, size.height) / Math.hypot(matrix[0][0], matrix[1][0]));
  const [columns, rows] = scaledSize(part, scale);
  const scaleX = columns / part.width;
  const scaleY = rows / part.height;
  part = resize(part, columns, rows, size.interpolation);
  // ... with replicated edges, as far as the crop extends
  const low = [(extent[0].low - horizontal.first) * scaleX, (extent[1].low - vertical.first) * scaleY];
  const high = [
    (extent[0].high - horizontal.first) * scaleX,
    (extent[1].high - vertical.first) * scaleY,
  ];
  const [left, top] = low.map((value) => Math.max(0, 1 - Math.floor(value)));
  const right = Math.max(0, Math.ceil(high[0]) + 1 - columns);
  const bottom = Math.max(0, Math.ceil(high[1]) + 1 - rows);
  const [[a, b, c], [d, e, f]] = matrix;
  const map = [
    (a * scaleX) / size.width,
    (b * scaleX) / size.height,
    (c - horizontal.first) * scaleX + left,
    (d * scaleY) / size.width,
    (e * scaleY) / size.height,
    (f - vertical.first) * scaleY + top,
  ];
  return affineTransform(part, size.width, size.height, map, { left, top, right, bottom });
}

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
