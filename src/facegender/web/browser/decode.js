// Decode an image file to upright RGB pixels with the browser's decoders; a truncated file is an error.

/** An image cannot be read; the message says why. */
export class UnreadableError extends Error {}

/** Maximum pixels of an image: the default of `facegender predict`. A browser may support fewer. */
export const MAX_PIXELS = 178_956_970;

const HEIC_BRANDS = ["heic", "heix", "heim", "heis", "hevc", "hevx", "mif1", "msf1"];
const STRIP_PIXELS = 2 ** 22;
const FILL_TOLERANCE = 10; // of the middle gray with which JPEG decoders fill missing data

/** The format by the first bytes of a file; "" if it is unknown. */
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
  return HEIC_BRANDS.includes(brand) ? "HEIC" : "";
}

/**
 * Decode an image file: upright by its EXIF orientation, in sRGB, on white where it is transparent.
 *
 * @param {Uint8Array} bytes the file.
 * @returns {Promise<{width: number, height: number, data: Uint8Array}>} rows of R, G, B.
 * @throws {UnreadableError} not an image, damaged, or of a format that this browser cannot read.
 */
export async function decode(bytes) {
  if (!bytes.length) throw new UnreadableError("the file is empty (0 bytes)");
  const format = formatOf(bytes);
  const image = await decodePixels(bytes, format);
  if (format === "JPEG") await checkTruncatedJpeg(bytes, image);
  return image;
}

async function decodePixels(bytes, format) {
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
        ? `this browser cannot read it: a damaged ${format}, or a format that it does not support`
        : "not an image in a known format",
    );
  }
  try {
    const { width, height } = bitmap;
    if (width * height > MAX_PIXELS) {
      const limit = MAX_PIXELS.toLocaleString("en");
      throw new UnreadableError(`${width}x${height} is over the limit of ${limit} pixels`);
    }
    return { width, height, data: toRgb(bitmap) };
  } finally {
    bitmap.close();
  }
}

/** Copy the pixels of a bitmap in strips, so that memory has no second copy with four channels. */
function toRgb(bitmap) {
  const { width, height } = bitmap;
  const rows = Math.max(1, Math.min(height, Math.floor(STRIP_PIXELS / width)));
  const canvas = new OffscreenCanvas(width, rows);
  const context = canvas.getContext("2d", { willReadFrequently: true, alpha: false });
  if (!context) throw new UnreadableError(`${width}x${height} is too large for this browser`);
  const data = new Uint8Array(width * height * 3);
  let to = 0;
  for (let top = 0; top < height; top += rows) {
    const count = Math.min(rows, height - top);
    context.fillStyle = "#fff";
    context.fillRect(0, 0, width, rows);
    context.drawImage(bitmap, 0, top, width, count, 0, 0, width, count);
    const strip = context.getImageData(0, 0, width, count).data;
    for (let from = 0; from < strip.length; from += 4) {
      data[to++] = strip[from];
      data[to++] = strip[from + 1];
      data[to++] = strip[from + 2];
    }
  }
  return data;
}

/**
 * Throw if a JPEG has its end marker but not all of its data, which decoders fill with gray. The
 * method of images/jpeg.py: data inserted before the end marker changes a truncated image only.
 */
async function checkTruncatedJpeg(bytes, image) {
  const { end, isSequential } = findJpegEnd(bytes);
  if (end < 0) throw new UnreadableError("truncated: the file ends before the image does");
  if (isSequential && !hasGrayCorner(image)) return;
  const stuffing = new Uint8Array(8 * 66);
  for (let restart = 0; restart < 8; restart++) {
    for (let k = 0; k < 64; k++) stuffing[restart * 66 + k] = [0x5a, 0xa5, 0x33, 0xcc][k % 4];
    stuffing.set([0xff, 0xd0 + restart], restart * 66 + 64);
  }
  const stuffed = new Uint8Array(bytes.length + stuffing.length);
  stuffed.set(bytes.subarray(0, end));
  stuffed.set(stuffing, end);
  stuffed.set(bytes.subarray(end), end + stuffing.length);
  const second = await decodePixels(stuffed, "JPEG");
  for (let at = 0; at < image.data.length; at++) {
    if (second.data[at] !== image.data[at]) {
      throw new UnreadableError("truncated: the image data ends before the last row");
    }
  }
}

/** Whether a corner is gray; after rotation by EXIF, any corner can be where the data ends. */
function hasGrayCorner({ width, height, data }) {
  const corners = [0, width - 1, (height - 1) * width, height * width - 1];
  return corners.some((at) => {
    const [red, green, blue] = data.subarray(at * 3, at * 3 + 3);
    return Math.abs((red + green + blue) / 3 - 128) <= FILL_TOLERANCE;
  });
}

/** The offset of the first end marker, or -1, and whether the JPEG is Huffman-coded and sequential. */
function findJpegEnd(bytes) {
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
