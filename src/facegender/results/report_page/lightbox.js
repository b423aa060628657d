// The lightbox: the original image with its boxes, or its thumbnail where the original is missing.
let lightboxIndex = 0; // in visibleImages

function openLightbox(index) {
  lightboxIndex = index;
  const image = visibleImages[index];
  byId("lightbox-name").replaceChildren(isolated(image.file));
  byId("lightbox-result").replaceChildren(...describe(image.first));
  byId("lightbox-faces").hidden = !image.faces.length;
  byId("lightbox-faces").replaceChildren(...image.faces.map((row) => {
    const notes = [
      row.detection_score == null ? null : message("detectionScore", { score: formatNumber(row.detection_score, 2) }),
      row.crop === "none" ? message("fullImage") : null,
    ].filter(Boolean).join(", ");
    return make("li", {}, ...describe(row), notes ? make("span", { className: "muted" }, ` (${notes})`) : "");
  }));
  byId("mark-note").textContent = otherLabel(image) && image.faces.length > 1 ? message("markNote") : "";
  byId("position").textContent = message("position", {
    index: formatNumber(index + 1), count: formatNumber(visibleImages.length),
  });
  byId("previous").disabled = index === 0;
  byId("next").disabled = index === visibleImages.length - 1;
  updateMarkButton(byId("lightbox-mark"), image);
  showImage(image);
  const dialog = byId("lightbox");
  if (!dialog.open) dialog.showModal();
  // A button that was just disabled would swallow the arrow keys.
  if (!dialog.contains(document.activeElement) || document.activeElement.disabled
    || document.activeElement === dialog) byId("lightbox-name").focus();
}

function showImage(image) {
  const [holder, element, note] = [byId("annotated"), byId("lightbox-image"), byId("lightbox-note")];
  const { first } = image;
  const small = thumbnail(image);
  const asText = (row) => [...describe(row)].map((part) => part.textContent ?? part).join("");
  element.alt = message("imageAlt", { file: image.file, predictions: image.rows.map(asText).join("; ") });
  note.textContent = first.error ?? "";
  holder.style.setProperty("--width", first.width || 1);
  holder.style.setProperty("--height", first.height || 1);
  byId("boxes").replaceChildren(...image.faces.map((row) => makeBox(row, image, asText(row))));
  fitNow(byId("annotated"));

  const showThumbnail = () => {
    element.onerror = element.onload = null;
    holder.hidden = !small;
    if (small) element.src = small; else element.removeAttribute("src");
    if (!first.error) note.textContent = message(small ? "thumbnailOnly" : "noImage");
  };
  const hasSameShape = () => Math.abs(
    Math.log(element.naturalWidth * first.height / (element.naturalHeight * first.width))) < 0.02;
  // An original with another aspect ratio has changed since the run: its boxes would be wrong.
  element.onload = () => { if (!hasSameShape()) showThumbnail(); };
  element.onerror = showThumbnail;
  holder.hidden = false;
  if (image.source && first.width) element.src = image.source; else showThumbnail();
}

function makeBox(row, image, text) {
  const { x, y, width, height } = row.box;
  const [fullWidth, fullHeight] = [image.first.width, image.first.height];
  const [left, top] = [Math.max(0, x / fullWidth), Math.max(0, y / fullHeight)];
  const [right, bottom] = [Math.min(1, (x + width) / fullWidth), Math.min(1, (y + height) / fullHeight)];
  const tag = image.faces.length > 1 // a small box of several shows its number only
    ? [String(image.faces.indexOf(row) + 1), make("em", {}, ` · ${text}`)] : [text];
  const box = make("div", { className: `box ${row.status === "ok" ? row.label : "unknown"}` },
    make("span", { className: "tag" }, ...tag));
  box.classList.toggle("tag-inside", top < 0.1);
  box.classList.toggle("tag-right", left > 0.6);
  Object.assign(box.style, {
    left: `${100 * left}%`, top: `${100 * top}%`,
    width: `${100 * (right - left)}%`, height: `${100 * (bottom - top)}%`,
  });
  return box;
}
keepTagsInside(byId("annotated"));

function moveLightbox(step) {
  const index = lightboxIndex + step;
  if (index < 0 || index >= visibleImages.length) return;
  openLightbox(index);
  announce(`${byId("lightbox-image").alt}. ${byId("position").textContent}`);
}

function returnToCards() {
  const target = Math.floor(lightboxIndex / PAGE_SIZE);
  if (target !== page) showPage(target);
  byId("cards").querySelector(`[data-index="${lightboxIndex}"] .open`)?.focus();
}
