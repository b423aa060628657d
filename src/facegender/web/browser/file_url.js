// Browsers run no modules and no workers on a page that is opened as a file: say what to do instead.

if (location.protocol === "file:") {
  const hint = document.createElement("p");
  hint.className = "error";
  hint.setAttribute("role", "alert");
  hint.textContent =
    "This page must come from a web server. Run  python -m http.server --bind 127.0.0.1  in its folder, " +
    "then open http://127.0.0.1:8000 · Эту страницу должен отдавать веб-сервер: запустите в её папке ту же " +
    "команду и откройте тот же адрес.";
  document.querySelector("main").prepend(hint);
}
