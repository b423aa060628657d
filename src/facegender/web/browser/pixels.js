// Image operations with the results of Pillow, to the last bit: the network was trained on images that
// Pillow had resized.
//
// An image is {width, height, data}; data is a Uint8Array of rows of R, G, B.

export const GRAY = 128;

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const PRECISION = 2 ** 22; // of Pillow's fixed-point weights for 8 bits

/** Make an image of one gray level. */
export function filledImage(width, height, level) {
  return { width, height, data: new Uint8Array(width * height * 3).fill(level) };
}

/** Python's round(): half to even. */
export function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/**
 * Resize an image as Pillow's Image.resize: a horizontal and a vertical pass, the filter widened by
 * the scale, rounded to 8 bits after each pass.
 */
export function resize(image, width, height, interpolation = "bilinear") {
  const horizontal = ({ width: from, height: rows, data }) =>
    from === width ? data : resizeHorizontal(data, from, rows, filterWeights(from, width, interpolation));
  const vertical = ({ width: columns, height: from, data }) =>
    from === height ? data : resizeVertical(data, columns, filterWeights(from, height, interpolation));
  const reduction = { width: image.width - width, height: image.height - height };
  if (reduction.height > 2 * Math.max(0, reduction.width)) { // the order of passes in Pillow 13
    const data = vertical(image);
    return { width, height, data: horizontal({ width: image.width, height, data }) };
  }
  const data = horizontal(image);
  return { width, height, data: vertical({ width, height: image.height, data }) };
}

/** Reduce an image by an integer factor: each pixel is the mean of a square. */
export function reduce({ width, height, data }, factor) {
  const [columns, rows] = [Math.ceil(width / factor), Math.ceil(height / factor)];
  const out = new Uint8Array(columns * rows * 3);
  const sums = new Int32Array(columns * 3);
  for (let row = 0; row < rows; row++) {
    sums.fill(0);
    const end = Math.min(height, (row + 1) * factor);
    for (let y = row * factor; y < end; y++) {
      let from = y * width * 3;
      for (let at = 0; at < sums.length; at += 3) {
        const stop = Math.min(from + factor * 3, (y + 1) * width * 3);
        while (from < stop) {
          sums[at] += data[from++];
          sums[at + 1] += data[from++];
          sums[at + 2] += data[from++];
        }
      }
    }
    const count = end - row * factor;
    for (let column = 0; column < columns; column++) {
      const area = count * (Math.min(width, (column + 1) * factor) - column * factor);
      for (let band = 0; band < 3; band++) {
        const at = column * 3 + band;
        out[row * columns * 3 + at] = Math.floor(sums[at] / area + 0.5);
      }
    }
  }
  return { width: columns, height: rows, data: out };
}

/** Crop an image; right and bottom are exclusive. */
export function crop(image, left, top, right, bottom) {
  const width = right - left;
  const height = bottom - top;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * image.width + left) * 3;
    data.set(image.data.subarray(start, start + width * 3), y * width * 3);
  }
  return { width, height, data };
}

/** Paste an image into a canvas, in place. */
export function paste(canvas, image, left, top) {
  for (let y = 0; y < image.height; y++) {
    const row = image.data.subarray(y * image.width * 3, (y + 1) * image.width * 3);
    canvas.data.set(row, ((top + y) * canvas.width + left) * 3);
  }
}

/** Rotate an image by a quarter turn counterclockwise. */
export function rotate90({ width, height, data }) {
  const out = new Uint8Array(data.length);
  let at = 0;
  for (let x = width - 1; x >= 0; x--) {
    for (let y = 0; y < height; y++) {
      const from = (y * width + x) * 3;
      out[at++] = data[from];
      out[at++] = data[from + 1];
      out[at++] = data[from + 2];
    }
  }
  return { width: height, height: width, data: out };
}

/**
 * Sample an image through an affine map, as Pillow's transform with bilinear sampling: the center of
 * pixel (x, y) comes from (a x + b y + c, d x + e y + f). Pixels outside are black; `edge` is by how
 * many pixels the image's own edge is replicated at each side.
 */
export function affineTransform(image, width, height, [a, b, c, d, e, f], edge) {
  const { data } = image;
  const fullWidth = image.width + edge.left + edge.right;
  const fullHeight = image.height + edge.top + edge.bottom;
  const column = (x) =>
    Math.min(Math.max(Math.min(Math.max(x, 0), fullWidth - 1) - edge.left, 0), image.width - 1);
  const row = (y) =>
    Math.min(Math.max(Math.min(Math.max(y, 0), fullHeight - 1) - edge.top, 0), image.height - 1);
  const out = new Uint8Array(width * height * 3);
  for (let v = 0; v < height; v++) {
    for (let u = 0; u < width; u++) {
      const x = a * (u + 0.5) + b * (v + 0.5) + c;
      const y = d * (u + 0.5) + e * (v + 0.5) + f;
      if (x < 0 || x >= fullWidth || y < 0 || y >= fullHeight) continue;
      const left = Math.floor(x - 0.5);
      const top = Math.floor(y - 0.5);
      const dx = x - 0.5 - left;
      const dy = y - 0.5 - top;
      const upper = row(top) * image.width;
      const lower = row(top + 1) * image.width;
      const [x0, x1] = [column(left), column(left + 1)];
      const at = (v * width + u) * 3;
      for (let band = 0; band < 3; band++) {
        const one = mix(data[(upper + x0) * 3 + band], data[(upper + x1) * 3 + band], dx);
        const two = mix(data[(lower + x0) * 3 + band], data[(lower + x1) * 3 + band], dx);
        out[at + band] = mix(one, two, dy); // truncated, not rounded, as in Pillow
      }
    }
  }
  return { width, height, data: out };
}

function mix(one, two, weight) {
  return one + (two - one) * weight;
}

function cubic(x) {
  const distance = Math.abs(x);
  if (distance < 1) return (1.5 * distance - 2.5) * distance * distance + 1;
  return distance < 2 ? (((distance - 5) * distance + 8) * distance - 4) * -0.5 : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** For each of `to` pixels: the first of `from` pixels under the filter, and the weights from there. */
function filterWeights(from, to, interpolation) {
  const [support, shape] = FILTERS[interpolation];
  const scale = from / to;
  const filterScale = Math.max(scale, 1);
  const table = [];
  for (let index = 0; index < to; index++) {
    const center = (index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * filterScale + 0.5));
    const end = Math.min(from, Math.trunc(center + support * filterScale + 0.5));
    const values = [];
    for (let at = first; at < end; at++) values.push(shape((at - center + 0.5) * (1 / filterScale)));
    const sum = values.reduce((total, weight) => total + weight, 0);
    const fixedPoint = values.map((value) => {
      const weight = sum === 0 ? value : value / sum;
      return Math.trunc(weight * PRECISION + (weight < 0 ? -0.5 : 0.5));
    });
    table.push({ first, weights: Int32Array.from(fixedPoint) });
  }
  return table;
}

function resizeHorizontal(data, width, height, table) {
  const out = new Uint8ClampedArray(table.length * height * 3);
  let at = 0;
  for (let y = 0; y < height; y++) {
    for (const { first, weights } of table) {
      let from = (y * width + first) * 3;
      let [red, green, blue] = [PRECISION / 2, PRECISION / 2, PRECISION / 2];
      for (let k = 0; k < weights.length; k++) {
        const weight = weights[k];
        red += data[from++] * weight;
        green += data[from++] * weight;
        blue += data[from++] * weight;
      }
      out[at++] = red >> 22;
      out[at++] = green >> 22;
      out[at++] = blue >> 22;
    }
  }
  return new Uint8Array(out.buffer);
}

function resizeVertical(data, width, table) {
  const row = width * 3;
  const out = new Uint8ClampedArray(row * table.length);
  const sums = new Int32Array(row);
  table.forEach(({ first, weights }, y) => {
    sums.fill(PRECISION / 2);
    for (let k = 0; k < weights.length; k++) {
      const weight = weights[k];
      const from = (first + k) * row;
      for (let x = 0; x < row; x++) sums[x] += data[from + x] * weight;
    }
    for (let x = 0; x < row; x++) out[y * row + x] = sums[x] >> 22;
  });
  return new Uint8Array(out.buffer);
}
