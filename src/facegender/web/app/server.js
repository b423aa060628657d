// Predictions by the server of this page. The page uses no other module to get them, so a module with the same
// exports (getModelInfo, predict, setToken, PredictionError) can replace this one.

const BATCH_FILES = 8;
const BATCH_BYTES = 16 * 2 ** 20;
const PARALLEL_REQUESTS = 2;
const FORM_BYTES = 65536; // reserved for the multipart headers

let token = "";
let limits = null; // of the server; null until they are known

// kind: "token" (missing or invalid), "offline" (no connection) or "other"; the message is for a person
export class PredictionError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export function setToken(text) {
  token = text;
}

// Describes the model: {uploads: whether images leave the browser, name, license, terms, metrics}
export async function getModelInfo() {
  const info = await (await send("model")).json();
  limits = info.limits;
  const { name, license, terms, metrics } = info;
  return { uploads: true, name, license, terms, metrics };
}

// Classifies images.
//   files: File or Blob objects
//   onResult(index, rows): called once per image, in any order; rows as in the details file
//   options.signal: an AbortSignal; options.onWait(seconds): called when the server is busy
// Resolves to the rows of every image, in the order of files. Rejects with a PredictionError or an AbortError.
export async function predict(files, onResult = () => {}, options = {}) {
  if (!limits) await getModelInfo();
  const results = new Array(files.length);
  const finish = (index, rows) => {
    results[index] = rows;
    onResult(index, rows);
  };
  const batches = makeBatches(files, finish);
  const failure = new AbortController(); // when one request fails, the others are aborted
  const signal = options.signal ? AbortSignal.any([options.signal, failure.signal]) : failure.signal;
  const sendBatches = async () => {
    for (const batch of batches) {
      const body = new FormData();
      for (const index of batch) body.append("files", files[index], files[index].name || "image");
      const response = await send("predict", { method: "POST", body, signal }, options.onWait);
      const { images } = await response.json();
      batch.forEach((index, position) => finish(index, images[position].rows));
    }
  };
  try {
    await Promise.all(Array.from({ length: PARALLEL_REQUESTS }, sendBatches));
  } catch (error) {
    failure.abort();
    throw error;
  }
  return results;
}

// Yields lists of indexes to send in one request; a file that the server would reject is finished at once
function* makeBatches(files, finish) {
  const maxFiles = Math.min(BATCH_FILES, limits.max_images);
  const maxFileBytes = Math.min(limits.max_image_bytes, limits.max_request_bytes - FORM_BYTES);
  const maxBytes = Math.min(BATCH_BYTES, limits.max_request_bytes - FORM_BYTES);
  let batch = [];
  let bytes = 0;
  for (let index = 0; index < files.length; index += 1) {
    const { size } = files[index];
    if (size > maxFileBytes) {
      const limit = maxFileBytes.toLocaleString("en");
      finish(index, [unreadable(`${size.toLocaleString("en")} bytes are over the limit of ${limit}`)]);
      continue;
    }
    if (batch.length && (batch.length === maxFiles || bytes + size > maxBytes)) {
      yield batch;
      batch = [];
      bytes = 0;
    }
    batch.push(index);
    bytes += size;
  }
  if (batch.length) yield batch;
}

function unreadable(error) {
  const noFace = { face_index: null, label: null, probability: null, box: null, detection_score: null, crop: null };
  return { file: null, ...noFace, width: null, height: null, status: "unreadable", error };
}

// Sends a request; repeats it while the server is busy
async function send(path, request = {}, onWait = () => {}) {
  for (;;) {
    let response;
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      response = await fetch(path, { ...request, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new PredictionError("offline", error.message);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401) throw new PredictionError("token", problem.title);
    const seconds = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !seconds || problem.type === "/problems/prediction-timeout") {
      throw new PredictionError("other", problem.detail || problem.title || `HTTP ${response.status}`);
    }
    onWait(seconds);
    await sleep(seconds * 1000, request.signal);
  }
}

function sleep(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
