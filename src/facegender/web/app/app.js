// The page: collects images, has them classified, shows the results.

import { PredictionError, getModelInfo, predict, setToken } from "./server.js";
import { chosenFiles, droppedFiles, folderImages, pastedImages, uniqueName } from "./file_picker.js";
import { detailsCsv, processResults, saveFile } from "./results.js";
import { annotatedImage, card, faceList, make, outcome, tableRow } from "./images.js";
import { setUpCamera } from "./camera.js";
import {
  currentLanguage, formatNumber, message, preferredLanguage, setLanguage, translateError,
} from "./i18n.js";

const CARDS = 24;
const ROWS = 100;
const STATUS_INTERVAL = 2000; // milliseconds; a screen reader reads every change
const REFRESH_DELAY = 150; // milliseconds
const OUTCOMES = ["female", "male", "unknown", "no_face", "unreadable"];
const LANGUAGE_KEY = "facegender-language";

const byId = (id) => document.getElementById(id);
let images = []; // {name, file, rows: null until it is classified}
let names = new Set();
let visibleCards = CARDS;
let visibleRows = ROWS;
let model = null; // what getModelInfo returns
let running = null; // an AbortController while images are classified
let openImage = null; // the image in the lightbox
let statusText = () => "";

// ---- texts -------------------------------------------------------------------------------------

function setStatus(text) {
  statusText = text;
  byId("status").textContent = text();
}

function showError(text) {
  byId("error").textContent = text;
}

function applyLanguage(language) {
  setLanguage(language);
  const other = language === "en" ? "ru" : "en";
  Object.assign(byId("language"), { textContent: other === "ru" ? "Русский" : "English", lang: other });
  byId("limitations").replaceChildren(...message("limitationList").map((text) => make("li", { textContent: text })));
  byId("status").textContent = statusText();
  showModel();
  showAll();
}

function showModel() {
  byId("privacy").textContent = model ? message(model.uploads ? "serverPrivacy" : "browserPrivacy") : "";
  const terms = [model?.license, model?.terms].filter(Boolean).join(". ");
  const [before, after] = message("terms").split("{terms}");
  const quoted = make("span", { textContent: terms, lang: "en" }); // as the model file states them
  byId("terms").replaceChildren(...(terms ? [before, quoted, after] : []));
  byId("for-programs").hidden = !model?.uploads;
  const accuracy = model?.metrics?.validation?.accuracy;
  const percent = (value) => formatNumber(100 * value, 1);
  byId("accuracy").textContent = accuracy
    ? message("accuracy", {
      name: model.name, value: percent(accuracy.value), count: formatNumber(accuracy.count),
      low: percent(accuracy.interval[0]), high: percent(accuracy.interval[1]),
    })
    : "";
}

// ---- classification ----------------------------------------------------------------------------

async function addImages(files) {
  showError("");
  if (!files.length) {
    showError(message("noImages"));
    return;
  }
  for (const { name, file } of files) {
    const unique = uniqueName(name, names);
    names.add(unique);
    images.push({ name: unique, file, rows: null });
  }
  showAll();
  if (!running) await classifyAll();
}

async function classifyAll() {
  running = new AbortController();
  byId("progress").hidden = false;
  byId("resume").hidden = true;
  const progress = makeProgress();
  try {
    for (;;) {
      const waiting = images.filter((image) => !image.rows);
      if (!waiting.length) break;
      progress.show();
      await predict(
        waiting.map((image) => image.file),
        (index, rows) => {
          waiting[index].rows = rows.map((row) => ({ ...row, file: waiting[index].name }));
          progress.advance();
          scheduleRefresh(waiting[index]);
        },
        {
          signal: running.signal,
          onWait: (seconds) => setStatus(() => message("serverBusy", { seconds: formatNumber(seconds) })),
          onLoad: (fraction) => {
            progress.restartClock(); // loading says nothing about the time per image
            setStatus(() => message("loadingModel", { percent: formatNumber(100 * fraction) }));
          },
        },
      );
    }
    const count = images.length;
    refresh();
    setStatus(() => message("done", { count: formatNumber(count) }));
  } catch (error) {
    handleFailure(error);
  } finally {
    running = null;
    byId("progress").hidden = true;
    refresh();
  }
}

// The progress bar, and the status line with the remaining time
function makeProgress() {
  let started = performance.now();
  let done = 0;
  let shownAt = 0;
  const show = () => {
    const count = done + images.filter((image) => !image.rows).length;
    const seconds = (((performance.now() - started) / 1000) * (count - done)) / Math.max(1, done);
    byId("progress-bar").value = done / count;
    if (done && performance.now() - shownAt < STATUS_INTERVAL) return;
    shownAt = performance.now();
    const processed = done;
    setStatus(() => {
      const text = message("progress", { done: formatNumber(processed), count: formatNumber(count) });
      return processed && seconds > 2 ? `${text}, ${message("remaining", { time: formatDuration(seconds) })}` : text;
    });
  };
  return {
    show,
    advance: () => {
      done += 1;
      show();
    },
    restartClock: () => (started = performance.now()),
  };
}

function handleFailure(error) {
  const count = images.length;
  const done = images.filter((image) => image.rows).length;
  setStatus(() => (count ? message("stopped", { done: formatNumber(done), count: formatNumber(count) }) : ""));
  byId("resume").hidden = done === count || error.kind === "token";
  if (error instanceof PredictionError) showPredictionError(error);
  else if (error.name !== "AbortError") throw error;
}

function formatDuration(seconds) {
  return seconds < 90
    ? message("seconds", { count: formatNumber(seconds) })
    : message("minutes", { count: formatNumber(seconds / 60) });
}

function showPredictionError(error) {
  if (error.kind !== "token") {
    const reason = error.kind === "offline" ? message("offline") : translateError(error.message);
    showError(message("failed", { reason }));
    return;
  }
  if (!byId("token-form").hidden) showError(message("tokenInvalid"));
  byId("token-form").hidden = false;
  byId("token").focus();
}

// ---- results -----------------------------------------------------------------------------------

let refreshTimer = 0;
const changedImages = new Set();

// Limits how often cards and rows are drawn when results come fast
function scheduleRefresh(image) {
  changedImages.add(image);
  refreshTimer ||= setTimeout(refresh, REFRESH_DELAY);
}

function refresh() {
  clearTimeout(refreshTimer);
  refreshTimer = 0;
  for (const image of changedImages) refreshImage(image);
  changedImages.clear();
  showCounts();
}

function refreshImage(image) {
  const index = images.indexOf(image);
  const [oldCard, oldRow] = [byId("cards").children[index], byId("rows").children[index]];
  if (oldCard) {
    const hasFocus = oldCard.contains(document.activeElement);
    const newCard = card(image, openLightbox);
    oldCard.replaceWith(newCard);
    if (hasFocus) newCard.firstElementChild.focus();
  }
  oldRow?.replaceWith(tableRow(image));
  if (openImage === image) openLightbox(image);
}

function showAll() {
  const focused = Array.from(byId("cards").children).findIndex((one) => one.contains(document.activeElement));
  byId("results").hidden = !images.length;
  byId("cards").replaceChildren(...images.slice(0, visibleCards).map((image) => card(image, openLightbox)));
  byId("rows").replaceChildren(...images.slice(0, visibleRows).map(tableRow));
  byId("more-cards").hidden = images.length <= visibleCards;
  byId("more-rows").hidden = images.length <= visibleRows;
  byId("cards").children[focused]?.firstElementChild.focus();
  showCounts();
}

function showCounts() {
  const counts = Object.fromEntries(OUTCOMES.map((one) => [one, 0]));
  for (const image of images) {
    if (image.rows) counts[outcome(image.rows)] += 1;
  }
  const item = (className, key, count) => make(
    "div", {}, make("dt", { textContent: message(key) }), make("dd", { className, textContent: formatNumber(count) }),
  );
  byId("counts").replaceChildren(
    item("", "countImages", images.length), ...OUTCOMES.map((one) => item(one, one, counts[one])),
  );
  const hasResults = images.some((image) => image.rows);
  byId("save-json").disabled = !hasResults;
  byId("save-csv").disabled = !hasResults;
}

// ---- lightbox ----------------------------------------------------------------------------------

function openLightbox(image) {
  openImage = image;
  byId("lightbox-title").textContent = image.name;
  byId("lightbox-stage").replaceChildren(annotatedImage(image, image.rows));
  const items = faceList(image.rows);
  byId("lightbox-faces").replaceChildren(...items);
  byId("lightbox-faces").classList.toggle("single", items.length === 1);
  const index = images.indexOf(image);
  byId("lightbox-previous").disabled = index === 0;
  byId("lightbox-next").disabled = index === images.length - 1;
  if (!byId("lightbox").open) byId("lightbox").showModal();
}

function moveLightbox(step) {
  const image = images[images.indexOf(openImage) + step];
  if (image) openLightbox(image);
}

// ---- events ------------------------------------------------------------------------------------

byId("language").onclick = () => {
  const language = currentLanguage() === "en" ? "ru" : "en";
  try {
    localStorage.setItem(LANGUAGE_KEY, language);
  } catch { /* storage is blocked: the choice lasts for this visit */ }
  applyLanguage(language);
};
byId("choose-images").onclick = () => byId("files").click();
byId("choose-folder").onclick = () => byId("folder").click();
byId("files").onchange = () => {
  addImages(chosenFiles(byId("files").files));
  byId("files").value = "";
};
byId("folder").onchange = () => {
  addImages(folderImages(byId("folder").files));
  byId("folder").value = "";
};
byId("stop").onclick = () => running?.abort();
byId("resume").onclick = () => {
  showError("");
  classifyAll();
};
byId("clear").onclick = () => {
  running?.abort();
  [images, names, visibleCards, visibleRows] = [[], new Set(), CARDS, ROWS];
  setStatus(() => "");
  showError("");
  byId("resume").hidden = true;
  showAll();
  byId("choose-images").focus();
};
byId("save-json").onclick = () => saveFile("process_results.json", processResults(images), "application/json");
byId("save-csv").onclick = () => saveFile("details.csv", detailsCsv(images), "text/csv");
byId("more-cards").onclick = () => {
  const first = visibleCards;
  visibleCards += 2 * CARDS;
  showAll();
  byId("cards").children[first].firstElementChild.focus();
};
byId("more-rows").onclick = () => {
  visibleRows += 5 * ROWS;
  showAll();
};
byId("lightbox-close").onclick = () => byId("lightbox").close();
byId("lightbox").addEventListener("close", () => {
  const index = images.indexOf(openImage);
  openImage = null;
  byId("cards").children[index]?.firstElementChild.focus();
});
byId("lightbox-previous").onclick = () => moveLightbox(-1);
byId("lightbox-next").onclick = () => moveLightbox(1);
byId("lightbox").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") moveLightbox(-1);
  if (event.key === "ArrowRight") moveLightbox(1);
});
byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(byId("token").value.trim());
  showError("");
  await connect();
});
document.addEventListener("paste", (event) => {
  const found = pastedImages(event.clipboardData);
  if (found.length) addImages(found);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.toggle("dragging", event.dataTransfer?.types.includes("Files") ?? false);
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragging");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  addImages(await droppedFiles(event.dataTransfer));
});
setUpCamera((file) => addImages(chosenFiles([file])));

// Gets the description of the model, then classifies the images that were added meanwhile
async function connect() {
  try {
    model = await getModelInfo();
    byId("token-form").hidden = true;
    showModel();
    if (images.some((image) => !image.rows) && !running) await classifyAll();
  } catch (error) {
    if (!(error instanceof PredictionError)) throw error;
    showPredictionError(error);
  }
}

function savedLanguage() {
  try {
    return localStorage.getItem(LANGUAGE_KEY);
  } catch {
    return null;
  }
}
applyLanguage(savedLanguage() ?? preferredLanguage(navigator.languages));
connect();
