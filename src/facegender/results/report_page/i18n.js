// The language of the page, and what the browser stores.
const storage = {
  get(key) { try { return localStorage.getItem(key); } catch { return null; } },
  set(key, value) { try { localStorage.setItem(key, value); return true; } catch { return false; } },
};
const LANGUAGE_KEY = "facegender-language";

let language = storage.get(LANGUAGE_KEY) ?? (navigator.language?.startsWith("ru") ? "ru" : "en");
const message = (key, values = {}) =>
  (MESSAGES[language] ?? MESSAGES.en)[key].replace(/\{(\w+)\}/g, (_, name) => values[name]);
const formatNumber = (value, digits = 0) =>
  value.toLocaleString(language, { minimumFractionDigits: digits, maximumFractionDigits: digits });
const formatPercent = (value) => `${formatNumber(100 * value, 1)} %`;
