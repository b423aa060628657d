// The language of the page: messages, numbers and error messages.

import { ERROR_MESSAGES } from "./error_messages.js";
import { MESSAGES } from "./messages.js";

let language = "en";

export function preferredLanguage(languages) {
  return languages.some((one) => one.toLowerCase().startsWith("ru")) ? "ru" : "en";
}

export function setLanguage(chosen) {
  language = chosen;
  document.documentElement.lang = chosen;
  for (const element of document.querySelectorAll("[data-message]")) {
    element.textContent = message(element.dataset.message);
  }
}

export function currentLanguage() {
  return language;
}

export function message(key, values = {}) {
  const text = MESSAGES[language][key];
  if (Array.isArray(text)) return text;
  return text.replace(/\{(\w+)\}/g, (placeholder, name) => (name in values ? String(values[name]) : placeholder));
}

// Translates an error message of the server or the worker; an unknown one stays in English.
export function translateError(text) {
  const [pattern, translation] = (ERROR_MESSAGES[language] ?? []).find(([one]) => one.test(text)) ?? [/$^/, ""];
  return text
    .replace(pattern, translation)
    .replace(/\d+(,\d{3})+/g, (digits) => formatNumber(Number(digits.replaceAll(",", ""))));
}

export function formatNumber(value, places = 0) {
  return value.toLocaleString(language, { minimumFractionDigits: places, maximumFractionDigits: places });
}

export function formatPercent(probability) {
  return `${formatNumber(probability * 100, 1)} %`;
}
