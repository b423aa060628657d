// Answers from this very browser, with the exports of the page's server.js: nothing leaves the machine.

const AHEAD = 2; // pictures that the worker has, so that it never waits for one

let worker = null;
let count = 0;
let watchLoad = () => {};
const waiting = new Map(); // what was asked of the worker: {resolve, reject} by number

/** kind: "offline" (a file of the page cannot be fetched) or "other"; the message is for a person. */
export class AnswerError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

/** Nobody asks for one here. */
export function setToken() {}

/** What answers: {uploads: do pictures leave the browser, name, license, terms, metrics}. */
export async function describe() {
  let response;
  try {
    response = await fetch(new URL("model.json", import.meta.url), { cache: "no-cache" });
  } catch (error) {
    throw new AnswerError("offline", error.message);
  }
  if (!response.ok) throw new AnswerError("other", `model.json: HTTP ${response.status}`);
  const { name, license, terms, metrics } = await response.json();
  return { uploads: false, name, license, terms, metrics };
}

/**
 * Answer for pictures, one after the other, in a worker. The first call loads the network.
 *
 * @param {Blob[]} files the pictures.
 * @param {(index: number, rows: object[]) => void} onProgress called once for each; rows are as in
 *   the details file, of one picture.
 * @param options signal: an AbortSignal that stops it; onLoad(share): how much of the network is here.
 * @returns {Promise<object[][]>} the rows of each, in the order of files; rejects with an
 *   AnswerError, or as the signal says.
 */
export async function answer(files, onProgress = () => {}, { signal, onLoad = () => {} } = {}) {
  const found = new Array(files.length);
  watchLoad = onLoad;
  let next = 0;
  const feed = async () => {
    while (next < files.length) {
      signal?.throwIfAborted();
      const index = next++;
      found[index] = await ask(files[index], signal);
      onProgress(index, found[index]);
    }
  };
  await Promise.all(Array.from({ length: AHEAD }, feed));
  return found;
}

function ask(file, signal) {
  worker ??= start();
  const id = count++;
  return new Promise((resolve, reject) => {
    const stop = () => {
      waiting.delete(id);
      reject(signal.reason);
    };
    const settled = (settle) => (value) => {
      signal?.removeEventListener("abort", stop);
      settle(value);
    };
    waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
    signal?.addEventListener("abort", stop, { once: true });
    worker.postMessage({ id, file });
  });
}

function start() {
  const begun = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
  begun.addEventListener("message", ({ data }) => {
    if (data.failed) fail(data.failed);
    else if (data.id === undefined) watchLoad(data.loaded);
    else {
      waiting.get(data.id)?.resolve(data.rows);
      waiting.delete(data.id);
    }
  });
  begun.addEventListener("error", (event) => {
    event.preventDefault();
    fail(event.message || "the page's worker cannot be started");
  });
  return begun;
}

/** Give up what is under way; another try loads everything again. */
function fail(reason) {
  worker.terminate();
  worker = null;
  for (const { reject } of waiting.values()) reject(new AnswerError("other", reason));
  waiting.clear();
}
