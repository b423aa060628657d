// The face detector and the classifier in the browser, run by ONNX Runtime's WebAssembly build.

import * as ort from "./runtime/ort.js";

const MAX_THREADS = 4;

/**
 * Fetch the models and the runtime.
 *
 * @param {(fraction: number) => void} onProgress called with the loaded fraction, 0 to 1.
 * @returns `model` is the description in model.json, `detect` and `classify` run the networks.
 */
export async function loadModels(onProgress) {
  const model = await (await get("model.json", { cache: "no-cache" })).json();
  const entries = Object.entries(model.files);
  const total = entries.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let loaded = 0;
  const files = {};
  const count = (bytes) => onProgress(Math.min(1, (loaded += bytes) / total));
  await Promise.all(
    entries.map(async ([name, { bytes, sha256 }]) => {
      files[name] = await download(name, sha256, bytes, count);
    }),
  );
  // Passed as bytes, so that the web server need not know the media type of .wasm files
  ort.env.wasm.wasmBinary = files["runtime/ort.wasm"].buffer;
  // Threads need shared memory, which browsers give to cross-origin isolated pages only
  const cores = Math.ceil((navigator.hardwareConcurrency || 1) / 2);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MAX_THREADS, cores) : 1;
  ort.env.logLevel = "error";
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  const detector = await ort.InferenceSession.create(files["yunet.onnx"], options);
  const classifier = await ort.InferenceSession.create(files["model.onnx"], options);
  return {
    model,
    detect: async (image) => {
      const outputs = await detector.run({ [detector.inputNames[0]]: tensor([image]) });
      return detector.outputNames.map((name) => outputs[name]);
    },
    classify: async (images) => {
      const outputs = await classifier.run({ [classifier.inputNames[0]]: tensor(images) });
      const { data } = outputs[classifier.outputNames[0]];
      return images.map((_, index) => [data[2 * index], data[2 * index + 1]]);
    },
  };
}

/** Stack images of one size: uint8 [N, height, width, 3]. */
function tensor(images) {
  const [{ width, height }] = images;
  const data = new Uint8Array(images.length * width * height * 3);
  images.forEach((image, index) => data.set(image.data, index * width * height * 3));
  return new ort.Tensor("uint8", data, [images.length, height, width, 3]);
}

async function get(name, options = {}) {
  const url = new URL(name, import.meta.url);
  let response;
  try {
    response = await fetch(url, options);
  } catch (error) {
    throw new Error(`${name} cannot be fetched (${error.message}): is the web server running?`);
  }
  if (!response.ok) {
    throw new Error(`${name} cannot be fetched: the web server answers ${response.status}`);
  }
  return response;
}

/**
 * Fetch a file. The digest in its URL keeps caches from returning the file of an older page; a
 * truncated file in a cache is fetched from the server again.
 */
async function download(name, digest, size, onBytes, options = {}) {
  const response = await get(`${name}?${digest.slice(0, 16)}`, options);
  const bytes = new Uint8Array(size);
  let received = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (received + value.length <= size) bytes.set(value, received);
    received += value.length;
    onBytes(value.length);
  }
  if (received === size) return bytes;
  if (!options.cache) return download(name, digest, size, onBytes, { cache: "reload" });
  throw new Error(`${name} on the web server has ${received} bytes, not ${size}: copy it there again`);
}
