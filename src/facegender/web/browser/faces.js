// Find faces in a picture, and cut one out by the model's crop rule: faces.py, for the browser.
// A test holds the numbers below against faces.py, and the answers against those of `predict`.
//
// A face is {x, y, width, height, score, landmarks}: landmarks are five [x, y].

import { GREY, lay, part, resize, round, surface, transform, turned } from "./pixels.js";

export const RULES = {
  minScore: 0.5,
  sure: 0.9,
  gain: 0.03,
  turnedScore: 0.7,
  nearly: 0.7,
  filled: 0.5,
  overlap: 0.4,
  step: 32,
  look: 640, // long side in pixels that a large JPEG has at least when it is looked at
  strides: [8, 16, 32],
  close: 160,
  far: 640,
  margin: 0.3, // around the first look
  around: 0.6, // of the picture, where nothing was found
  aligned: [[0.344, 0.385], [0.656, 0.385], [0.5, 0.563], [0.371, 0.745], [0.629, 0.745]],
};

/** Finds faces; `run` takes a picture and gives the network's outputs, one for each stride. */
export class Detector {
  constructor(run) {
    this.run = run;
  }

  /** Find all faces, the surest first. */
  async detect(picture, minScore = RULES.minScore) {
    const longest = Math.max(picture.width, picture.height);
    const found = await this.look(picture, RULES.close, RULES.margin, minScore);
    if (longest > 2 * RULES.close) {
      found.push(...(await this.look(picture, Math.min(longest, RULES.far), 0, minScore)));
    }
    return withoutOverlaps(found);
  }

  async look(picture, size, margin, minScore) {
    const canvas = setIn(picture, size, margin);
    const outputs = await this.run(canvas.pixels);
    return RULES.strides
      .flatMap((stride, index) => decode(outputs[index], stride, minScore))
      .map((face) => {
        const x = (value) => (value - canvas.left) * canvas.across;
        const y = (value) => (value - canvas.top) * canvas.down;
        return {
          x: x(face.x),
          y: y(face.y),
          width: face.width * canvas.across,
          height: face.height * canvas.down,
          score: face.score,
          landmarks: face.landmarks.map(([u, v]) => [x(u), y(v)]),
        };
      });
  }
}

/** Make a picture smaller and set it into grey, its long side at `size`. */
function setIn(picture, size, margin) {
  const scale = size / Math.max(picture.width, picture.height);
  const small = resize(picture, ...sizeAt(picture, scale));
  const border = round(margin * size);
  const [columns, rows] = [small.width, small.height].map(
    (side) => RULES.step * Math.max(1, Math.ceil((side + 2 * border) / RULES.step)),
  );
  const pixels = surface(columns, rows, GREY);
  const left = Math.floor((columns - small.width) / 2);
  const top = Math.floor((rows - small.height) / 2);
  lay(pixels, small, left, top);
  const across = picture.width / small.width;
  return { pixels, left, top, across, down: picture.height / small.height };
}

function sizeAt({ width, height }, scale) {
  return [width, height].map((side) => Math.max(1, round(side * scale)));
}

/** Read one output [1, rows, columns, 15] of the network. */
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

/** Keep the surest of each pile of boxes. */
function withoutOverlaps(faces) {
  const kept = [];
  let rest = [...faces].sort((one, other) => other.score - one.detection_score);
  while (rest.length) {
    const [first] = rest;
    kept.push(first);
    rest = rest.filter((face) => face !== first && overlap(first, face) < RULES.overlap);
  }
  return kept;
}

function overlap(one, other) {
  const shared = (start, length) => {
    const end = Math.min(one[start] + one[length], other[start] + other[length]);
    return Math.max(0, end - Math.max(one[start], other[start]));
  };
  const both = shared("x", "width") * shared("y", "height");
  return both / (one.width * one.height + other.width * other.height - both);
}

/**
 * Find what a picture shows, as `--faces auto|detect|whole`: the face that it shows first; nothing
 * where there is none; a single null stands for the whole picture.
 */
export async function find(picture, detector, rule, faces = "auto") {
  if (faces === "whole") return [null];
  const found = await search(picture, detector);
  const shown = largest(found, picture.width, picture.height);
  if (!shown) return faces === "auto" && rule === "whole" ? [null] : [];
  if (faces === "auto" && filled(shown, picture) >= RULES.filled) {
    return [rule === "aligned" ? shown : null];
  }
  return [shown, ...found.filter((face) => face !== shown)];
}

/** Find all faces; look again with more around where there are none, and at the four turns. */
async function search(picture, detector) {
  let found = await detector.detect(picture);
  if (surest(found) >= RULES.sure) return found;
  const longest = Math.max(picture.width, picture.height);
  const scale = Math.max(1, longest / RULES.far);
  const [width, height] = [picture.width, picture.height].map((side) => round(side / scale));
  const small = resize(picture, Math.max(1, width), Math.max(1, height));
  if (!found.length) {
    const border = round(RULES.around * Math.max(small.width, small.height));
    const padded = surface(small.width + 2 * border, small.height + 2 * border, GREY);
    lay(padded, small, border, border);
    const seen = await detector.detect(padded);
    found = seen.map((face) => mapped(face, ([x, y]) => [x - border, y - border], scale));
  }
  let best = found;
  let view = small;
  for (let turns = 1; turns <= 3; turns++) {
    view = turned(view);
    const seen = await detector.detect(view, RULES.turnedScore);
    const back = quartersBack(turns, small);
    const faces = seen.map((face) => mapped(face, back, scale));
    if (surest(faces) > surest(best)) best = faces;
  }
  return surest(best) >= surest(found) + RULES.gain ? best : found;
}

/** Give what brings a point of a picture turned so many quarters back to the picture. */
function quartersBack(turns, { width, height }) {
  const back = [
    null,
    ([x, y]) => [width - y, x],
    ([x, y]) => [width - x, height - y],
    ([x, y]) => [y, height - x],
  ];
  return back[turns];
}

function mapped(face, way, scale) {
  const point = (at) => way(at).map((value) => value * scale);
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

/** Give the same face in the same picture of another size. */
export function scaled(face, factor) {
  return factor === 1 ? face : mapped(face, (at) => at, factor);
}

function surest(faces) {
  return Math.max(0, ...faces.map((face) => face.score));
}

/** Choose the face that a picture shows: the largest, where near in size the more central one. */
export function largest(faces, width, height) {
  const area = (face) => face.width * face.height;
  const most = Math.max(0, ...faces.map(area));
  const aside = (face) =>
    Math.hypot((face.x + face.width / 2) / width - 0.5, (face.y + face.height / 2) / height - 0.5);
  return faces
    .filter((face) => area(face) >= RULES.nearly * most)
    .reduce((best, face) => (best && aside(best) <= aside(face) ? best : face), null);
}

/** How much of the picture a face's aligned crop would take, as a share; may be over 1. */
function filled(face, { width, height }) {
  const [[a, b], [c, d]] = place(face.landmarks, RULES.aligned);
  return Math.abs(a * d - b * c) / (width * height);
}

/**
 * Find where a crop lies in its picture: the similarity that fits the landmarks best. It takes
 * (u, v, 1), 0 to 1 across and down the crop, to the picture.
 */
export function place(landmarks, points) {
  const middle = (list, axis) => list.reduce((sum, at) => sum + at[axis], 0) / list.length;
  const wanted = [middle(points, 0), middle(points, 1)];
  const given = [middle(landmarks, 0), middle(landmarks, 1)];
  let [along, athwart, size] = [0, 0, 0]; // of the turn as a complex number, and what it is of
  points.forEach(([u, v], index) => {
    const [p, q] = [u - wanted[0], v - wanted[1]];
    const [x, y] = landmarks[index];
    along += p * x + q * y;
    athwart += p * y - q * x;
    size += p * p + q * q;
  });
  const [cos, sin] = [along / size, athwart / size];
  if (!(Math.hypot(cos, sin) > 1e-6)) throw new Error("the landmarks are one point");
  return [
    [cos, -sin, given[0] - (cos * wanted[0] - sin * wanted[1])],
    [sin, cos, given[1] - (sin * wanted[0] + cos * wanted[1])],
  ];
}

/** How many pixels of its picture a face's crop is wide. */
export function side(face, points) {
  const [[cos], [sin]] = place(face.landmarks, points);
  return Math.hypot(cos, sin);
}

/** Cut a face out, upright, at the network's size; beyond the picture its edge is repeated. */
export function cut(picture, landmarks, points, size) {
  const matrix = place(landmarks, points);
  const reach = matrix.map(([a, b, c]) => {
    const ends = [c, a + c, b + c, a + b + c];
    return { low: Math.min(...ends), high: Math.max(...ends) };
  });
  // The part of the picture that the crop touches, made smaller where the crop is
  const [horizontal, vertical] = [picture.width, picture.height].map((full, axis) => {
    const first = clip(Math.floor(reach[axis].low), 0, full - 1);
    return { first, end: clip(Math.ceil(reach[axis].high), first + 1, full) };
  });
  let piece = part(picture, horizontal.first, vertical.first, horizontal.end, vertical.end);
  const wide = Math.hypot(matrix[0][0], matrix[1][0]);
  const scale = Math.min(1, Math.max(size.width, size.height) / wide);
  const [columns, rows] = sizeAt(piece, scale);
  const across = columns / piece.width;
  const down = rows / piece.height;
  piece = resize(piece, columns, rows, size.filter);
  // ... and with its edges repeated as far as the crop reaches
  const low = [(reach[0].low - horizontal.first) * across, (reach[1].low - vertical.first) * down];
  const high = [
    (reach[0].high - horizontal.first) * across,
    (reach[1].high - vertical.first) * down,
  ];
  const [left, top] = low.map((value) => Math.max(0, 1 - Math.floor(value)));
  const right = Math.max(0, Math.ceil(high[0]) + 1 - columns);
  const bottom = Math.max(0, Math.ceil(high[1]) + 1 - rows);
  const [[a, b, c], [d, e, f]] = matrix;
  const map = [
    (a * across) / size.width,
    (b * across) / size.height,
    (c - horizontal.first) * across + left,
    (d * down) / size.width,
    (e * down) / size.height,
    (f - vertical.first) * down + top,
  ];
  return transform(piece, size.width, size.height, map, { left, top, right, bottom });
}

function clip(value, low, high) {
  return Math.min(Math.max(value, low), high);
}
