// Opened by a double click, a page may run no modules and no workers: it says what to do instead.

if (location.protocol === "file:") {
  const hint = document.createElement("p");
  hint.className = "error";
  hint.setAttribute("role", "alert");
  hint.textContent =
    "This page has to come from a web server, one on this machine will do: python -m http.server " +
    "--bind 127.0.0.1 in its folder, then open http://127.0.0.1:8000 · Эту страницу должен " +
    "отдавать веб-сервер, хотя бы на этой же машине: команда та же.";
  document.querySelector("main").prepend(hint);
}
