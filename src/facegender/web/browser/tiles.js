// Search a large image for small faces at finer scales, in tiles: the browser's version of faces/tiles.py.

import { enlarge, nms, scaledSize } from "./faces.js";
import { crop, resize, round } from "./pixels.js";

export const TILES = {
  side: 640,
  smallFace: 32, // a face of fewer pixels at the last scale is a sign of smaller ones
  shortSide: 240, // of a panorama at the last scale
  overlap: 160, // of tiles; larger faces are found at the scale before
  maxTiles: 25,
  minScore: 0.7,
  minGain: 1.5, // a finer scale has at least so many times the pixels along a side
  edge: 2, // a box nearer to an inner edge of its tile may be a part of a face
};

/** Add the faces at finer scales while there is a sign of smaller faces; `full` has more pixels. */
export async function addSmallFaces(found, image, full, detector) {
  let faces = found;
  const [longest, shortest] = [Math.max, Math.min].map((pick) => pick(image.width, image.height));
  const fullSide = Math.max(full.width, full.height);
  let side = Math.min(longest, TILES.side);
  while (fullSide >= TILES.minGain * side) {
    const isWide = shortest * side < TILES.shortSide * longest;
    const smallest = faces.length ? Math.min(...faces.map((face) => face.width)) : 0;
    if (!isWide && smallest * side >= TILES.smallFace * longest) break;
    side = Math.min(2 * side, fullSide);
    const height = Math.max(1, round((shortest * side) / longest));
    if (tilesOf({ width: side, height }).length > TILES.maxTiles) break;
    const finer = await detectInTiles(full, side, detector);
    faces = nms([...faces, ...finer.map(enlarge(full, image))]);
  }
  return faces;
}

/** Detect faces no larger than the overlap of the tiles, in an image with this long side. */
async function detectInTiles(image, side, detector) {
  const scale = side / Math.max(image.width, image.height);
  const resized = resize(image, ...scaledSize(image, scale));
  const faces = [];
  for (const [left, top, right, bottom] of tilesOf(resized)) {
    const tile = crop(resized, left, top, right, bottom);
    const longSide = Math.max(tile.width, tile.height);
    const isWhole = ({ x, y, width, height }) =>
      Math.max(width, height) <= TILES.overlap &&
      (!left || x >= TILES.edge) &&
      (!top || y >= TILES.edge) &&
      (right === resized.width || x + width <= tile.width - TILES.edge) &&
      (bottom === resized.height || y + height <= tile.height - TILES.edge);
    const detected = await detector.detect(tile, TILES.minScore, [[longSide, 0]]);
    faces.push(...detected.filter(isWhole).map((face) => moved(face, left, top)));
  }
  return faces.map(enlarge(resized, image));
}

function moved(face, left, top) {
  const landmarks = face.landmarks.map(([x, y]) => [x + left, y + top]);
  return { ...face, x: face.x + left, y: face.y + top, landmarks };
}

/** Left, top, right and bottom of the tiles that cover an image. */
export function tilesOf({ width, height }) {
  return starts(height).flatMap((top) =>
    starts(width).map((left) => [
      left,
      top,
      Math.min(left + TILES.side, width),
      Math.min(top + TILES.side, height),
    ]),
  );
}

/** Where the tiles along a side start, evenly spaced. */
function starts(length) {
  const count = Math.max(1, Math.ceil((length - TILES.overlap) / (TILES.side - TILES.overlap)));
  const step = (length - TILES.side) / Math.max(1, count - 1);
  return Array.from({ length: count }, (_, at) => round(at * step));
}
