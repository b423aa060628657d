// The networks in the browser: ONNX Runtime's WebAssembly, the face detector and the classifier.

import * as ort from "./runtime/ort.js";

const MOST_THREADS = 4;

/**
 * Fetch everything and make it ready.
 *
 * @param {(share: number) => void} onProgress told how much of it has come, 0 to 1.
 * @returns `model` is the model file's description, `detect` and `classify` run the networks.
 */
export async function load(onProgress) {
  const model = await (await get("model.json", { cache: "no-cache" })).json();
  const wanted = Object.entries(model.files);
  const total = wanted.reduce((sum, [, { bytes }]) => sum + bytes, 0);
  let come = 0;
  const files = {};
  const count = (bytes) => onProgress(Math.min(1, (come += bytes) / total));
  await Promise.all(
    wanted.map(async ([name, { bytes, sha256 }]) => {
      files[name] = await download(name, sha256, bytes, count);
    }),
  );
  // Handed over as bytes: then no server has to know the type of a .wasm file
  ort.env.wasm.wasmBinary = files["runtime/ort.wasm"].buffer;
  // Threads need memory that is shared, which browsers allow isolated pages only
  const cores = Math.ceil((navigator.hardwareConcurrency || 1) / 2);
  ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, cores) : 1;
  ort.env.logLevel = "error";
  const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all" };
  const detector = await ort.InferenceSession.create(files["yunet.onnx"], options);
  const classifier = await ort.InferenceSession.create(files["model.onnx"], options);
  return {
    model,
    detect: async (picture) => {
      const outputs = await detector.run({ [detector.inputNames[0]]: tensor([picture]) });
      return detector.outputNames.map((name) => outputs[name]);
    },
    classify: async (pictures) => {
      const outputs = await classifier.run({ [classifier.inputNames[0]]: tensor(pictures) });
      const { data } = outputs[classifier.outputNames[0]];
      return pictures.map((_, index) => [data[2 * index], data[2 * index + 1]]);
    },
  };
}

function tensor(pictures) {
  const [{ width, height }] = pictures;
  const data = new Uint8Array(pictures.length * width * height * 3);
  pictures.forEach((picture, index) => data.set(picture.data, index * width * height * 3));
  return new ort.Tensor("uint8", data, [pictures.length, height, width, 3]);
}

async function get(name, how = {}) {
  const url = new URL(name, import.meta.url);
  let answer;
  try {
    answer = await fetch(url, how);
  } catch (error) {
    throw new Error(`${name} cannot be fetched (${error.message}): is the web server running?`);
  }
  if (!answer.ok) {
    throw new Error(`${name} cannot be fetched: the web server answers ${answer.status}`);
  }
  return answer;
}

/**
 * Fetch a file. It goes by its digest, so that no cache gives out the one of an older page; where
 * one has kept half a file, the server is asked again.
 */
async function download(name, digest, size, onBytes, how = {}) {
  const answer = await get(`${name}?${digest.slice(0, 16)}`, how);
  const bytes = new Uint8Array(size);
  let at = 0;
  for (const reader = answer.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (at + value.length <= size) bytes.set(value, at);
    at += value.length;
    onBytes(value.length);
  }
  if (at === size) return bytes;
  if (!how.cache) return download(name, digest, size, onBytes, { cache: "reload" });
  throw new Error(`${name} on the web server has ${at} bytes, not ${size}: put it there again`);
}
