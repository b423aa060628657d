// What the page says, by language. {x} is filled in.

import { REASONS } from "./reasons.js";

const WORDS = {
  en: {
    skip: "Skip to choosing pictures",
    lead: "Tells from a picture of a face whether people would label it male or female.",
    caveat: "The answer is a guess at a label that people gave, not a fact about a person.",
    uploads: "Pictures are sent to the server that this page came from; they stay in its memory until they "
      + "are answered, and are neither stored nor logged.",
    stays: "Pictures are looked at in this browser and never leave it.",
    choose: "Choose pictures", dropHere: "Drop pictures or a folder anywhere on this page, paste them, or:",
    pick: "Choose pictures", pickFolder: "Choose a folder", camera: "Camera", shoot: "Take a picture",
    noCamera: "The camera cannot be used: {reason}", shot: "Taken: {x}",
    tokenAsked: "This server asks for a token:", tokenSend: "Go on", tokenWrong: "This token is not the right one.",
    stop: "Stop", goOn: "Go on", stopped: "Stopped. Answered: {x} of {count}.",
    progress: "Answered: {x} of {count}", left: "about {x} left", seconds: "{x} s", minutes: "{x} min",
    done: "All answered: {count}.", waits: "The server is busy; going on in {x} s.",
    loads: "Loading the network: {x} %",
    none: "There is no picture among these files.",
    failed: "No answer: {reason}", offline: "the server cannot be reached",
    results: "Answers", json: "Save process_results.json", csv: "Save all details (CSV)", clear: "Start again", more: "Show more",
    table: "As a table", file: "File", answer: "Answer", certainty: "Certainty", faces: "Faces", note: "Note",
    countPictures: "pictures", female: "female", male: "male", unknown: "unknown",
    no_face: "no face", unreadable: "unreadable", waiting: "waiting…",
    guess: "best guess: {x}", face: "Face {x}", detector: "face detector {x}", whole: "taken whole",
    imageOf: "Picture {file}. {x}", notShown: "This browser cannot show the picture.",
    close: "Close", back: "← Previous", next: "Next →",
    honest: "What the answer is, and what it is not",
    points: [
      "It says which of two words, male or female, people would most likely have put under such a face. It "
        + "says nothing about gender identity, and people who do not fit two words are put into one.",
      "It is sometimes wrong. Small children can hardly be told at all; old women are often taken for men, and "
        + "so are, more rarely, women with short hair, caps or uniforms. Masks, scarves, sunglasses, turned "
        + "and blurred faces make it worse.",
      "The certainty is how often such an answer is right for pictures like those it learned from: mostly "
        + "celebrities and faces from the web. For others it may be right less often than it says.",
      "“unknown” is a full answer: less sure than the threshold. “no face” means that none was found.",
      "It must not be used to decide, or to help decide, about people (hiring, credit, prices, access, "
        + "schooling, health, policing, border control), to identify or follow anybody, or to infer "
        + "anybody’s gender identity.",
    ],
    measured: "This network, {name}: {share} % right of {count} pictures of its validation part "
      + "(95 % interval {low} to {high} %).",
    terms: "Terms of the network: {x}",
    programs: "For programs:", api: "the API",
  },
  ru: {
    skip: "Сразу к выбору снимков",
    lead: "Определяет по снимку лица, назвали бы его люди мужским или женским.",
    caveat: "Ответ — это догадка о метке, которую поставили бы люди, а не факт о человеке.",
    uploads: "Снимки отправляются на сервер, с которого пришла эта страница; они остаются в его памяти, пока на "
      + "них не дан ответ, и не сохраняются ни на диске, ни в журнале.",
    stays: "Снимки обрабатываются прямо в браузере и никуда не отправляются.",
    choose: "Выберите снимки", dropHere: "Перетащите снимки или папку в любое место страницы, вставьте их или:",
    pick: "Выбрать снимки", pickFolder: "Выбрать папку", camera: "Камера", shoot: "Снять",
    noCamera: "Камера недоступна: {reason}", shot: "Снято: {x}",
    tokenAsked: "Серверу нужен токен:", tokenSend: "Дальше", tokenWrong: "Токен не подошёл.",
    stop: "Остановить", goOn: "Продолжить", stopped: "Остановлено. Готово: {x} из {count}.",
    progress: "Готово: {x} из {count}", left: "осталось около {x}", seconds: "{x} с", minutes: "{x} мин",
    done: "Всё готово. Снимков: {count}.", waits: "Сервер занят; продолжим через {x} с.",
    loads: "Загружается сеть: {x} %",
    none: "Среди этих файлов нет снимков.",
    failed: "Ответа нет: {reason}", offline: "сервер недоступен",
    results: "Ответы", json: "Сохранить process_results.json", csv: "Сохранить подробности (CSV)", clear: "Начать заново", more: "Показать ещё",
    table: "Таблица", file: "Файл", answer: "Ответ", certainty: "Уверенность", faces: "Лиц", note: "Примечание",
    countPictures: "снимков", female: "женское", male: "мужское", unknown: "неясно",
    no_face: "нет лица", unreadable: "не читается", waiting: "ждёт…",
    guess: "лучшая догадка: {x}", face: "Лицо {x}", detector: "детектор лиц {x}", whole: "взято целиком",
    imageOf: "Снимок {file}. {x}", notShown: "Этот браузер не может показать снимок.",
    close: "Закрыть", back: "← Назад", next: "Дальше →",
    honest: "Что значит ответ и чего он не значит",
    points: [
      "Ответ говорит, каким из двух слов, «мужское» или «женское», люди скорее всего подписали бы такое лицо. Он "
        + "ничего не говорит о гендерной идентичности, а тех, кому два слова не подходят, относит к одному из них.",
      "Иногда он неверен. Маленьких детей почти не различить; пожилых женщин часто принимает за мужчин, реже — "
        + "женщин с короткой стрижкой, в фуражке или форме. Маски, платки, тёмные очки, повёрнутые и "
        + "нерезкие лица снижают точность.",
      "Уверенность показывает, как часто такой ответ верен на снимках, похожих на те, по которым сеть училась: в "
        + "основном это знаменитости и лица из интернета. На других снимках ответ может быть верен реже.",
      "«Неясно» — полноценный ответ: уверенность ниже порога. «Нет лица» — лицо не найдено.",
      "Ответ нельзя использовать, чтобы принимать решения о людях или помогать их принимать (приём на работу, "
        + "кредиты, цены, доступ, учёба, здоровье, полиция, граница), чтобы опознавать людей или следить за ними, "
        + "чтобы судить о чьей-либо гендерной идентичности.",
    ],
    measured: "Эта сеть, {name}: верно {share} % из {count} снимков её проверочной части "
      + "(95-процентный интервал от {low} до {high} %).",
    terms: "Условия использования сети: {x}",
    programs: "Для программ:", api: "API",
  },
};

let language = "en";

export function languageOf(preferred) {
  return preferred.some((one) => one.toLowerCase().startsWith("ru")) ? "ru" : "en";
}

export function speak(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  for (const element of document.querySelectorAll("[data-word]")) {
    element.textContent = say(element.dataset.word);
  }
}

export function spoken() {
  return language;
}

export function say(word, values = {}) {
  const text = WORDS[language][word];
  if (Array.isArray(text)) return text;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
}

// Why there is no answer, in the page's language; what nobody has put into it stays as it is
export function reason(text) {
  const [pattern, words] = (REASONS[language] ?? []).find(([one]) => one.test(text)) ?? [/$^/, ""];
  return text.replace(pattern, words).replace(/\d+(,\d{3})+/g, (count) => number(Number(count.replaceAll(",", ""))));
}

export function number(value, places = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: places, maximumFractionDigits: places });
}

export function percent(probability) {
  return `${number(probability * 100, 1)} %`;
}
