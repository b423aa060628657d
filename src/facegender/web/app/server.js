// Answers by the server that this page came from. The page takes its answers through this module only:
// another module with the same exports can stand in its place (see describe, answer, setToken).

const PART_FILES = 8;
const PART_BYTES = 16 * 2 ** 20;
const PARTS_AT_ONCE = 2;

let token = "";
let limits = null; // what one request may hold, once the server has said it

// kind: "token" (one is missing or wrong), "offline" (nobody answers), or "other"; the message is for a person
export class AnswerError extends Error {
  constructor(kind, message) {
    super(message);
    this.kind = kind;
  }
}

export function setToken(text) {
  token = text;
}

// What answers: {uploads: do pictures leave the browser, name, license, terms, metrics}
export async function describe() {
  const card = await (await ask("model")).json();
  limits = card.limits;
  const { name, license, terms, metrics } = card;
  return { uploads: true, name, license, terms, metrics };
}

// Answers for pictures.
//   files: File or Blob objects
//   onProgress(index, rows): called once for each, in any order; rows are as in the details file, of one picture
//   options.signal: an AbortSignal that stops it; options.onWait(seconds): the server is busy for so long
// Resolves to the rows of each, in the order of files. Rejects with an AnswerError, or an AbortError.
export async function answer(files, onProgress = () => {}, options = {}) {
  if (!limits) await describe();
  const found = new Array(files.length);
  const finish = (index, rows) => {
    found[index] = rows;
    onProgress(index, rows);
  };
  const coming = parts(files, finish);
  const failed = new AbortController(); // where one request fails, the others need not go on
  const signal = options.signal ? AbortSignal.any([options.signal, failed.signal]) : failed.signal;
  const work = async () => {
    for (const part of coming) {
      const body = new FormData();
      for (const index of part) body.append("files", files[index], files[index].name || "picture");
      const response = await ask("predict", { method: "POST", body, signal }, options.onWait);
      const { pictures } = await response.json();
      part.forEach((index, place) => finish(index, pictures[place].rows));
    }
  };
  try {
    await Promise.all(Array.from({ length: PARTS_AT_ONCE }, work));
  } catch (error) {
    failed.abort();
    throw error;
  }
  return found;
}

// The indexes of files that go together; a file that the server would refuse is answered here
function* parts(files, finish) {
  const most = Math.min(PART_FILES, limits.files);
  const room = Math.min(PART_BYTES, limits.request_bytes - 65536);
  let part = [];
  let bytes = 0;
  for (let index = 0; index < files.length; index += 1) {
    const { size } = files[index];
    if (size > limits.bytes || size > limits.request_bytes - 65536) {
      const most = Math.min(limits.bytes, limits.request_bytes - 65536);
      finish(index, [unreadable(`${size.toLocaleString("en")} bytes are over the limit of ${most.toLocaleString("en")}`)]);
      continue;
    }
    if (part.length && (part.length === most || bytes + size > room)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(index);
    bytes += size;
  }
  if (part.length) yield part;
}

function unreadable(error) {
  const nothing = { face_index: null, label: null, probability: null, box: null, detection_score: null, crop: null, width: null, height: null };
  return { file: null, ...nothing, status: "unreadable", error };
}

// Asks the server; comes again as often as it says that it is busy
async function ask(path, request = {}, onWait = () => {}) {
  for (;;) {
    let response;
    try {
      const headers = token ? { Authorization: `Bearer ${token}` } : {};
      response = await fetch(path, { ...request, headers, cache: "no-store" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new AnswerError("offline", error.message);
    }
    if (response.ok) return response;
    const problem = await response.json().catch(() => ({}));
    if (response.status === 401) throw new AnswerError("token", problem.title);
    const seconds = Number(response.headers.get("Retry-After"));
    if (response.status !== 503 || !seconds || problem.type === "/problems/timed-out") {
      throw new AnswerError("other", problem.detail || problem.title || `HTTP ${response.status}`);
    }
    onWait(seconds);
    await pause(seconds * 1000, request.signal);
  }
}

function pause(milliseconds, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
