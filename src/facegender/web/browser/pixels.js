// Pixels and what is done with them, bit by bit as Pillow does it: the network learned from pictures
// that Pillow had made smaller, and another way to do so would show it other pictures.
//
// A picture is {width, height, data}: data is a Uint8Array of rows of R, G, B.

export const GREY = 128;

const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, cubic],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};
const PRECISION = 2 ** 22; // of Pillow's whole-numbered weights for 8 bits

/** Make an even surface. */
export function surface(width, height, level) {
  return { width, height, data: new Uint8Array(width * height * 3).fill(level) };
}

/** Python's round(): halves go to the even neighbour. */
export function round(value) {
  const low = Math.floor(value);
  const rest = value - low;
  return rest < 0.5 || (rest === 0.5 && low % 2 === 0) ? low : low + 1;
}

/**
 * Bring a picture to another size, as Pillow's Image.resize: across and down, the filter widened by
 * the scale, rounded to 8 bits after each.
 */
export function resize(picture, width, height, filter = "bilinear") {
  const passes = [
    ({ width: from, height: rows, data }) =>
      from === width ? data : across(data, from, rows, weights(from, width, filter)),
    ({ width: columns, height: from, data }) =>
      from === height ? data : down(data, columns, weights(from, height, filter)),
  ];
  const less = { width: picture.width - width, height: picture.height - height };
  if (less.height > 2 * Math.max(0, less.width)) { // Pillow's order, since its version 13
    const data = passes[1](picture);
    return { width, height, data: passes[0]({ width: picture.width, height, data }) };
  }
  const data = passes[0](picture);
  return { width, height, data: passes[1]({ width, height: picture.height, data }) };
}

/** Make a picture smaller by a whole number: each pixel is the mean of a square. */
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

/** Take the part from left, top up to and without right, bottom. */
export function part(picture, left, top, right, bottom) {
  const width = right - left;
  const height = bottom - top;
  const data = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const start = ((top + y) * picture.width + left) * 3;
    data.set(picture.data.subarray(start, start + width * 3), y * width * 3);
  }
  return { width, height, data };
}

/** Lay a picture onto another one, in place. */
export function lay(surface, picture, left, top) {
  for (let y = 0; y < picture.height; y++) {
    const row = picture.data.subarray(y * picture.width * 3, (y + 1) * picture.width * 3);
    surface.data.set(row, ((top + y) * surface.width + left) * 3);
  }
}

/** Turn a picture a quarter against the clock. */
export function turned({ width, height, data }) {
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
 * Look at a picture through an affine map, as Pillow's transform with bilinear sampling: the middle
 * of pixel (x, y) comes from (a x + b y + c, d x + e y + f). What lies outside is black; whoever
 * wants its edge repeated hands in `edge`, the pixels by which it goes on at every side.
 */
export function transform(picture, width, height, [a, b, c, d, e, f], edge) {
  const { data } = picture;
  const fullWidth = picture.width + edge.left + edge.right;
  const fullHeight = picture.height + edge.top + edge.bottom;
  const column = (x) =>
    Math.min(Math.max(Math.min(Math.max(x, 0), fullWidth - 1) - edge.left, 0), picture.width - 1);
  const row = (y) =>
    Math.min(Math.max(Math.min(Math.max(y, 0), fullHeight - 1) - edge.top, 0), picture.height - 1);
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
      const upper = row(top) * picture.width;
      const lower = row(top + 1) * picture.width;
      const [x0, x1] = [column(left), column(left + 1)];
      const at = (v * width + u) * 3;
      for (let band = 0; band < 3; band++) {
        const one = mix(data[(upper + x0) * 3 + band], data[(upper + x1) * 3 + band], dx);
        const two = mix(data[(lower + x0) * 3 + band], data[(lower + x1) * 3 + band], dx);
        out[at + band] = mix(one, two, dy); // cut off, not rounded, as Pillow does
      }
    }
  }
  return { width, height, data: out };
}

function mix(one, two, share) {
  return one + (two - one) * share;
}

function cubic(x) {
  const far = Math.abs(x);
  if (far < 1) return (1.5 * far - 2.5) * far * far + 1;
  return far < 2 ? (((far - 5) * far + 8) * far - 4) * -0.5 : 0;
}

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** For each of `to` places: the first of `from` that counts, and the weights from there on. */
function weights(from, to, filter) {
  const [reach, shape] = FILTERS[filter];
  const scale = from / to;
  const wide = Math.max(scale, 1);
  const table = [];
  for (let place = 0; place < to; place++) {
    const centre = (place + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach * wide + 0.5));
    const end = Math.min(from, Math.trunc(centre + reach * wide + 0.5));
    const found = [];
    for (let at = first; at < end; at++) found.push(shape((at - centre + 0.5) * (1 / wide)));
    const sum = found.reduce((total, weight) => total + weight, 0);
    const whole = found.map((weight) => {
      const share = sum === 0 ? weight : weight / sum;
      return Math.trunc(share * PRECISION + (share < 0 ? -0.5 : 0.5));
    });
    table.push({ first, weights: Int32Array.from(whole) });
  }
  return table;
}

function across(data, width, height, table) {
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

function down(data, width, table) {
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
