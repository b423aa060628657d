// The larger view: the original with its boxes, or the small copy where there is none.
let at = 0;

function showLarger(place) {
  at = place;
  const picture = shownPictures[place];
  const { first } = picture;
  byId("larger-name").replaceChildren(isolated(picture.file));
  byId("answer").replaceChildren(...answerOf(first));
  byId("faces").hidden = !picture.faces.length;
  byId("faces").replaceChildren(...picture.faces.map((row) => {
    const more = [
      row.detection_score == null ? null : word("detector", { x: number(row.detection_score, 2) }),
      row.crop === "none" ? word("whole") : null,
    ].filter(Boolean).join(", ");
    return make("li", {}, ...answerOf(row), more ? make("span", { className: "quiet" }, ` (${more})`) : "");
  }));
  byId("mark-note").textContent = corrected(picture) && picture.faces.length > 1 ? word("markNote") : "";
  byId("place").textContent = word("place", { x: number(place + 1), count: number(shownPictures.length) });
  byId("previous").disabled = place === 0;
  byId("next").disabled = place === shownPictures.length - 1;
  dressMark(byId("mark"), picture);
  showImage(picture);
  const dialog = byId("larger");
  if (!dialog.open) dialog.showModal();
  // A button that just became disabled would keep the keys to itself.
  if (!dialog.contains(document.activeElement) || document.activeElement.disabled
    || document.activeElement === dialog) byId("larger-name").focus();
}

function showImage(picture) {
  const [shot, image, note] = [byId("shot"), byId("picture"), byId("note")];
  const { first } = picture;
  const small = thumbnail(picture);
  const told = (row) => [...answerOf(row)].map((part) => part.textContent ?? part).join("");
  image.alt = word("imageOf", { file: picture.file, x: picture.rows.map(told).join("; ") });
  note.textContent = first.error ?? "";
  shot.style.setProperty("--wide", first.width || 1);
  shot.style.setProperty("--high", first.height || 1);
  byId("boxes").replaceChildren(...picture.faces.map((row) => makeBox(row, picture, told(row))));

  const useSmall = (reason) => {
    image.onerror = image.onload = null;
    shot.hidden = !small;
    if (small) image.src = small; else image.removeAttribute("src");
    if (!first.error) note.textContent = small ? reason : word("nothing");
  };
  const hasSameShape = () => Math.abs(
    Math.log(image.naturalWidth * first.height / (image.naturalHeight * first.width))) < 0.02;
  // An original of another shape was changed since, or turned otherwise: its boxes would be wrong.
  image.onload = () => { if (!hasSameShape()) useSmall(word("small")); };
  image.onerror = () => useSmall(word("small"));
  shot.hidden = false;
  if (picture.source && first.width) image.src = picture.source; else useSmall(word("small"));
}

function makeBox(row, picture, text) {
  const { x, y, width, height } = row.box;
  const [wide, high] = [picture.first.width, picture.first.height];
  const [left, top] = [Math.max(0, x / wide), Math.max(0, y / high)];
  const [right, bottom] = [Math.min(1, (x + width) / wide), Math.min(1, (y + height) / high)];
  const tag = picture.faces.length > 1 // of many faces a small one shows its number alone
    ? [String(picture.faces.indexOf(row) + 1), make("em", {}, ` · ${text}`)] : [text];
  const box = make("div", { className: `box ${row.status === "ok" ? row.label : "unknown"}` },
    make("span", {}, ...tag));
  box.classList.toggle("low", top < 0.1);
  box.classList.toggle("right", left > 0.6);
  Object.assign(box.style, {
    left: `${100 * left}%`, top: `${100 * top}%`,
    width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
  });
  return box;
}

function step(by) {
  const place = at + by;
  if (place < 0 || place >= shownPictures.length) return;
  showLarger(place);
  say(`${byId("picture").alt}. ${byId("place").textContent}`);
}

function returnToCards() {
  const wanted = Math.floor(at / PER_PAGE);
  if (wanted !== page) showPage(wanted);
  byId("cards").querySelector(`[data-place="${at}"] .open`)?.focus();
}
