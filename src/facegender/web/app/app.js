// The page: takes pictures, has them answered, shows the answers.

import { AnswerError, answer, describe, setToken } from "./server.js";
import { chosen, distinct, dropped, ofFolder, pasted } from "./choose.js";
import { details, processResults, save } from "./results.js";
import { card, facesOf, kindOf, make, shot, tableRow } from "./pictures.js";
import { watchCamera } from "./camera.js";
import { languageOf, number, reason, say, speak, spoken } from "./words.js";

const CARDS = 24;
const ROWS = 100;
const SPEAK_EVERY = 2000; // milliseconds
const KINDS = ["female", "male", "unknown", "no_face", "unreadable"];

const at = (id) => document.getElementById(id);
let pictures = []; // {name, file, rows: null until answered}
let names = new Set();
let shownCards = CARDS;
let shownRows = ROWS;
let about = null;
let working = null; // an AbortController
let larger = null; // the picture in the dialog
let told = () => "";

// ---- what is said ------------------------------------------------------------------------------

function tell(words) {
  told = words;
  at("told").textContent = words();
}

function complain(words) {
  at("error").textContent = words;
}

function speakAll(language) {
  speak(language);
  const other = language === "en" ? "ru" : "en";
  Object.assign(at("language"), { textContent: other === "ru" ? "Русский" : "English", lang: other });
  at("honest").replaceChildren(...say("points").map((text) => make("li", { textContent: text })));
  at("told").textContent = told();
  showAbout();
  showAll();
}

function showAbout() {
  at("where").textContent = about ? say(about.uploads ? "uploads" : "stays") : "";
  const terms = [about?.license, about?.terms].filter(Boolean).join(". ");
  const [before, after] = say("terms").split("{x}");
  const quoted = make("span", { textContent: terms, lang: "en" }); // as the model file states them
  at("terms").replaceChildren(...(terms ? [before, quoted, after] : []));
  at("programs").hidden = !about?.uploads;
  const accuracy = about?.metrics?.validation?.accuracy;
  const share = (value) => number(100 * value, 1);
  at("measured").textContent = accuracy
    ? say("measured", {
      name: about.name, share: share(accuracy.value), count: number(accuracy.count),
      low: share(accuracy.interval[0]), high: share(accuracy.interval[1]),
    })
    : "";
}

// ---- pictures come in --------------------------------------------------------------------------

async function take(given) {
  complain("");
  if (!given.length) {
    complain(say("none"));
    return;
  }
  for (const { name, file } of given) {
    const own = distinct(name, names);
    names.add(own);
    pictures.push({ name: own, file, rows: null, isFailed: false });
  }
  showAll();
  if (!working) await work();
}

async function work() {
  working = new AbortController();
  at("working").hidden = false;
  let started = performance.now();
  let answered = 0;
  let spoke = 0;
  at("go-on").hidden = true;
  try {
    for (;;) {
      const waiting = pictures.filter((picture) => !picture.rows);
      if (!waiting.length) break;
      const progress = () => {
        const count = answered + pictures.filter((picture) => !picture.rows).length;
        const seconds = (((performance.now() - started) / 1000) * (count - answered)) / Math.max(1, answered);
        at("bar").value = answered / count;
        if (answered && performance.now() - spoke < SPEAK_EVERY) return; // a screen reader reads each of them
        spoke = performance.now();
        tell(() => {
          const known = say("progress", { x: number(answered), count: number(count) });
          return answered && seconds > 2 ? `${known}, ${say("left", { x: duration(seconds) })}` : known;
        });
      };
      progress();
      await answer(
        waiting.map((picture) => picture.file),
        (index, rows) => {
          waiting[index].rows = rows.map((row) => ({ ...row, file: waiting[index].name }));
          answered += 1;
          progress();
          refresh(waiting[index]);
        },
        {
          signal: working.signal,
          onWait: (seconds) => tell(() => say("waits", { x: number(seconds) })),
          onLoad: (share) => {
            started = performance.now(); // what comes before the first picture says nothing of the rest
            tell(() => say("loads", { x: number(100 * share) }));
          },
        },
      );
    }
    const count = pictures.length;
    showChanged();
    tell(() => say("done", { count: number(count) }));
  } catch (error) {
    const count = pictures.length;
    const done = pictures.filter((picture) => picture.rows).length;
    tell(() => (count ? say("stopped", { x: number(done), count: number(count) }) : ""));
    at("go-on").hidden = done === count || error.kind === "token";
    if (error instanceof AnswerError) askFor(error);
    else if (error.name !== "AbortError") throw error;
  } finally {
    working = null;
    at("working").hidden = true;
    showChanged();
  }
}

function duration(seconds) {
  return seconds < 90 ? say("seconds", { x: number(seconds) }) : say("minutes", { x: number(seconds / 60) });
}

function askFor(error) {
  if (error.kind !== "token") {
    complain(say("failed", { reason: error.kind === "offline" ? say("offline") : reason(error.message) }));
    return;
  }
  if (!at("token-form").hidden) complain(say("tokenWrong"));
  at("token-form").hidden = false;
  at("token").focus();
}

// ---- answers are shown -------------------------------------------------------------------------

let refreshing = 0;
const changed = new Set();

// Cards and rows change at most a few times a second, however fast the answers come
function refresh(picture) {
  changed.add(picture);
  refreshing ||= setTimeout(showChanged, 150);
}

function showChanged() {
  clearTimeout(refreshing);
  refreshing = 0;
  for (const picture of changed) showAgain(picture);
  changed.clear();
  showCounts();
}

function showAgain(picture) {
  const place = pictures.indexOf(picture);
  const [oldCard, oldRow] = [at("cards").children[place], at("rows").children[place]];
  if (oldCard) {
    const hasFocus = oldCard.contains(document.activeElement);
    const fresh = card(picture, open);
    oldCard.replaceWith(fresh);
    if (hasFocus) fresh.firstElementChild.focus();
  }
  oldRow?.replaceWith(tableRow(picture));
  if (larger === picture) open(picture);
}

function showAll() {
  const focused = Array.from(at("cards").children).findIndex((one) => one.contains(document.activeElement));
  at("results").hidden = !pictures.length;
  at("cards").replaceChildren(...pictures.slice(0, shownCards).map((picture) => card(picture, open)));
  at("rows").replaceChildren(...pictures.slice(0, shownRows).map(tableRow));
  at("more-cards").hidden = pictures.length <= shownCards;
  at("more-rows").hidden = pictures.length <= shownRows;
  at("cards").children[focused]?.firstElementChild.focus();
  showCounts();
}

function showCounts() {
  const counts = Object.fromEntries(KINDS.map((kind) => [kind, 0]));
  for (const picture of pictures) {
    if (picture.rows) counts[kindOf(picture.rows)] += 1;
  }
  const line = (kind, word, count) => make(
    "div", {}, make("dt", { textContent: say(word) }), make("dd", { className: kind, textContent: number(count) }),
  );
  at("counts").replaceChildren(
    line("", "countPictures", pictures.length), ...KINDS.map((kind) => line(kind, kind, counts[kind])),
  );
  const hasAnswers = pictures.some((picture) => picture.rows);
  at("save-json").disabled = !hasAnswers;
  at("save-csv").disabled = !hasAnswers;
}

// ---- one picture, larger -----------------------------------------------------------------------

function open(picture) {
  larger = picture;
  at("larger-title").textContent = picture.name;
  at("larger-stage").replaceChildren(shot(picture, picture.rows));
  const lines = facesOf(picture.rows);
  at("larger-faces").replaceChildren(...lines);
  at("larger-faces").classList.toggle("one", lines.length === 1);
  const place = pictures.indexOf(picture);
  at("larger-back").disabled = place === 0;
  at("larger-on").disabled = place === pictures.length - 1;
  if (!at("larger").open) at("larger").showModal();
}

function step(by) {
  const next = pictures[pictures.indexOf(larger) + by];
  if (next) open(next);
}

// ---- wiring ------------------------------------------------------------------------------------

at("language").onclick = () => {
  const language = spoken() === "en" ? "ru" : "en";
  try {
    localStorage.setItem("facegender-language", language);
  } catch { /* the browser keeps nothing here; the choice is for this visit */ }
  speakAll(language);
};
at("pick").onclick = () => at("files").click();
at("pick-folder").onclick = () => at("folder").click();
at("files").onchange = () => {
  take(chosen(at("files").files));
  at("files").value = "";
};
at("folder").onchange = () => {
  take(ofFolder(at("folder").files));
  at("folder").value = "";
};
at("stop").onclick = () => working?.abort();
at("go-on").onclick = () => {
  complain("");
  work();
};
at("clear").onclick = () => {
  working?.abort();
  [pictures, names, shownCards, shownRows] = [[], new Set(), CARDS, ROWS];
  tell(() => "");
  complain("");
  at("go-on").hidden = true;
  showAll();
  at("pick").focus();
};
at("save-json").onclick = () => save("process_results.json", processResults(pictures), "application/json");
at("save-csv").onclick = () => save("details.csv", details(pictures), "text/csv");
at("more-cards").onclick = () => {
  const first = shownCards;
  shownCards += 2 * CARDS;
  showAll();
  at("cards").children[first].firstElementChild.focus();
};
at("more-rows").onclick = () => {
  shownRows += 5 * ROWS;
  showAll();
};
at("larger-close").onclick = () => at("larger").close();
at("larger").addEventListener("close", () => {
  const place = pictures.indexOf(larger);
  larger = null;
  at("cards").children[place]?.firstElementChild.focus();
});
at("larger-back").onclick = () => step(-1);
at("larger-on").onclick = () => step(1);
at("larger").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  if (event.key === "ArrowRight") step(1);
});
at("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  setToken(at("token").value.trim());
  complain("");
  await start();
});
document.addEventListener("paste", (event) => {
  const found = pasted(event.clipboardData);
  if (found.length) take(found);
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragged");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) document.body.classList.remove("dragged");
});
document.addEventListener("drop", async (event) => {
  event.preventDefault();
  document.body.classList.remove("dragged");
  take(await dropped(event.dataTransfer));
});
watchCamera((file) => take(chosen([file])));

// Asks who answers, and goes on with what waits
async function start() {
  try {
    about = await describe();
    at("token-form").hidden = true;
    showAbout();
    if (pictures.some((picture) => !picture.rows) && !working) await work();
  } catch (error) {
    if (!(error instanceof AnswerError)) throw error;
    askFor(error);
  }
}

function kept() {
  try {
    return localStorage.getItem("facegender-language");
  } catch {
    return null;
  }
}
speakAll(kept() ?? languageOf(navigator.languages));
start();
