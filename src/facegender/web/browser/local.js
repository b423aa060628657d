// Predictions by this browser, with the exports of the page's server.js: images never leave the machine.

const PARALLEL_FILES = 2; // the worker has the next image while it processes one

let worker = null;
let requests = 0;
let reportLoading = () => {};
const pending = new Map(); // request number -> {resolve, reject}

/** kind: "offline" (a file of the page cannot be fetched) or "other"; the message is for a person. */
export class PredictionError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Without a server, no token is required. */
export function setToken() {}

/** Describe the model: {uploads: whether images leave the browser, name, license, terms, metrics}. */
export async function getModelInfo() {
  let response;
  try {
    response = await fetch(new URL("model.json", import.meta.url), { cache: "no-cache" });
  } catch (error) {
    throw new PredictionError("offline", error.message);
  }
  if (!response.ok) throw new PredictionError("other", `model.json: HTTP ${response.status}`);
  const { name, license, terms, metrics } = await response.json();
  return { uploads: false, name, license, terms, metrics };
}

/**
 * Classify images in a worker, one at a time. The first call loads the models.
 *
 * @param {Blob[]} files the images.
 * @param {(index: number, rows: object[]) => void} onResult called once per image; rows as in the
 *   details file.
 * @param options signal: an AbortSignal; onLoad(fraction): called while the models load.
 * @returns {Promise<object[][]>} the rows of every image, in the order of files; rejects with a
 *   PredictionError, or with the signal's reason.
 */
export async function predict(files, onResult = () => {}, { signal, onLoad = () => {} } = {}) {
  const results = new Array(files.length);
  reportLoading = onLoad;
  let next = 0;
  const feed = async () => {
    while (next < files.length) {
      signal?.throwIfAborted();
      const index = next++;
      results[index] = await send(files[index], signal);
      onResult(index, results[index]);
    }
  };
  await Promise.all(Array.from({ length: PARALLEL_FILES }, feed));
  return results;
}

function send(file, signal) {
  worker ??= startWorker();
  const id = requests++;
  return new Promise((resolve, reject) => {
    const abort = () => {
      pending.delete(id);
      reject(signal.reason);
    };
    const settleWith = (settle) => (value) => {
      signal?.removeEventListener("abort", abort);
      settle(value);
    };
    pending.set(id, { resolve: settleWith(resolve), reject: settleWith(reject) });
    signal?.addEventListener("abort", abort, { once: true });
    worker.postMessage({ id, file });
  });
}

function startWorker() {
  const started = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  started.addEventListener("message", ({ data }) => {
    if (data.failed) fail(data.failed);
    else if (data.id === undefined) reportLoading(data.loaded);
    else {
      pending.get(data.id)?.resolve(data.rows);
      pending.delete(data.id);
    }
  });
  started.addEventListener("error", (event) => {
    event.preventDefault();
    fail(event.message || "the page's worker cannot be started");
  });
  return started;
}

/** Reject all requests; the next one starts a new worker. */
function fail(reason) {
  worker.terminate();
  worker = null;
  for (const { reject } of pending.values()) reject(new PredictionError("other", reason));
  pending.clear();
}
