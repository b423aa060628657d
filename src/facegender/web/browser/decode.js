// A picture file -> upright RGB pixels, by the browser's own decoders; whole or not at all.

/** Why a picture cannot be read, in words for a person. */
export class UnreadableError extends Error {}

/** Most pixels of a picture: the limit of `predict`. Browsers may give up before. */
export const MOST_PIXELS = 178_956_970;

const HEIC = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];
const STRIP = 2 ** 22; // pixels that are taken from the browser at a time
const ENDS_GREY = 10; // from the middle grey that a JPEG decoder fills with

/** Tell the format that a file's first bytes claim; "" for none that is known. */
export function formatOf(head) {
  const text = String.fromCharCode(...head.subarray(0, 16));
  if (text.startsWith("\xff\xd8\xff")) return "JPEG";
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
  if (text.startsWith("GIF87a") || text.startsWith("GIF89a")) return "GIF";
  if (text.startsWith("II*\0") || text.startsWith("MM\0*")) return "TIFF";
  if (text.startsWith("\0\0\0\x0cjP  ")) return "JPEG 2000";
  if (text.startsWith("BM") && text.slice(6, 10) === "\0\0\0\0") return "BMP";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  const brand = text.slice(4, 8) === "ftyp" ? text.slice(8, 12) : "";
  if (brand === "avif" || brand === "avis") return "AVIF";
  return HEIC.includes(brand) ? "HEIC" : "";
}

/**
 * Decode a picture file: upright by its EXIF data, in sRGB, its transparent parts white.
 *
 * @param {Uint8Array} bytes the file.
 * @returns {Promise<{width: number, height: number, data: Uint8Array}>} rows of R, G, B.
 * @throws {UnreadableError} it is none, is damaged, or of a format that this browser cannot read.
 */
export async function decode(bytes) {
  if (!bytes.length) throw new UnreadableError("the file is empty (0 bytes)");
  const format = formatOf(bytes);
  const picture = await pixelsOf(bytes, format);
  if (format === "JPEG") await refuseCutJpeg(bytes, picture);
  return picture;
}

async function pixelsOf(bytes, format) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(new Blob([bytes]), {
      imageOrientation: "from-image",
      premultiplyAlpha: "default",
      colorSpaceConversion: "default",
    });
  } catch {
    throw new UnreadableError(
      format
        ? `this browser cannot read it: a damaged ${format}, or a format that it does not know`
        : "the content is not a picture in a known format",
    );
  }
  try {
    const { width, height } = bitmap;
    if (width * height > MOST_PIXELS) {
      const most = MOST_PIXELS.toLocaleString("en");
      throw new UnreadableError(`${width}x${height} is over the limit of ${most} pixels`);
    }
    return { width, height, data: rgb(bitmap) };
  } finally {
    bitmap.close();
  }
}

/** Take a bitmap's pixels strip by strip: a large one is never held twice with four channels. */
function rgb(bitmap) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  if (!context) throw new UnreadableError(`${width}x${height} is too large for this browser`);
  const data = new Uint8Array(width * height * 3);
  let at = 0;
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const strip = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < strip.length; from += 4) {
      data[at++] = strip[from];
      data[at++] = strip[from + 1];
      data[at++] = strip[from + 2];
    }
  }
  return data;
}

/**
 * Refuse a JPEG that has its end marker but lacks some of its data: decoders fill with grey.
 * As in images.py: bytes put in before the end marker change nothing in a whole picture.
 */
async function refuseCutJpeg(bytes, picture) {
  const { end, isSequential } = jpegEnd(bytes);
  if (end < 0) throw new UnreadableError("cut off: the file ends before the picture does");
  if (isSequential && !hasGreyCorner(picture)) return;
  const stuffing = new Uint8Array(8 * 66);
  for (let restart = 0; restart < 8; restart++) {
    for (let k = 0; k < 64; k++) stuffing[restart * 66 + k] = [0x5a, 0xa5, 0x33, 0xcc][k % 4];
    stuffing.set([0xff, 0xd0 + restart], restart * 66 + 64);
  }
  const stuffed = new Uint8Array(bytes.length + stuffing.length);
  stuffed.set(bytes.subarray(0, end));
  stuffed.set(stuffing, end);
  stuffed.set(bytes.subarray(end), end + stuffing.length);
  const second = await pixelsOf(stuffed, "JPEG");
  for (let at = 0; at < picture.data.length; at++) {
    if (second.data[at] !== picture.data[at]) {
      throw new UnreadableError("cut off: the picture's data ends before its last row");
    }
  }
}

/** The corner at which a JPEG's data end, wherever EXIF has turned it, is grey as if filled in. */
function hasGreyCorner({ width, height, data }) {
  const corners = [0, width - 1, (height - 1) * width, height * width - 1];
  return corners.some((at) => {
    const [red, green, blue] = data.subarray(at * 3, at * 3 + 3);
    return Math.abs((red + green + blue) / 3 - 128) <= ENDS_GREY;
  });
}

/** Where the first picture's end marker stands (-1: nowhere); is it Huffman and sequential. */
function jpegEnd(bytes) {
  let isSequential = false;
  for (let at = 2; at + 1 < bytes.length; at++) {
    const kind = bytes[at + 1];
    if (bytes[at] !== 0xff || kind === 0 || kind === 0xff || (kind >= 0xd0 && kind <= 0xd7)) {
      continue;
    }
    if (kind === 0xd9) return { end: at, isSequential };
    isSequential ||= kind === 0xc0 || kind === 0xc1;
    at += 1 + (bytes[at + 2] << 8) + bytes[at + 3];
  }
  return { end: -1, isSequential };
}
