// Fits texts into the room they have: file names are cut in the middle, tags of boxes stay inside their image.

const MIN_TAIL = 4; // letters
const graphemes = new Intl.Segmenter(undefined, { granularity: "grapheme" });
const fitters = new WeakMap(); // element -> what fits it
const observer = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.isConnected) fitters.get(target)(target);
    else observer.unobserve(target);
  }
});

function observe(element, fit) {
  fitters.set(element, fit);
  observer.observe(element);
  return element;
}

// Cuts the text of an element in the middle where it is too long for one line. The text itself stays whole.
export function cutInTheMiddle(element) {
  return observe(element, (target) => {
    const text = target.textContent;
    target.replaceChildren(text);
    const { paddingLeft, paddingRight } = getComputedStyle(target);
    const room = target.clientWidth - parseFloat(paddingLeft) - parseFloat(paddingRight);
    const range = document.createRange();
    range.selectNodeContents(target);
    const { width } = range.getBoundingClientRect();
    if (width <= room + 0.5 || room <= 0) return;
    const letters = Array.from(graphemes.segment(text), ({ segment }) => segment);
    let count = Math.max(MIN_TAIL, Math.floor((letters.length * room) / width / 2));
    const [head, tail] = ["start", "end"].map((part) => Object.assign(document.createElement("span"), { className: `name-${part}` }));
    target.replaceChildren(head, tail);
    do {
      head.textContent = letters.slice(0, -count).join("");
      tail.textContent = letters.slice(-count).join("");
      count -= 1;
    } while (count > 0 && tail.getBoundingClientRect().width > 0.6 * room);
    head.style.maxWidth = `${Math.floor(room - tail.getBoundingClientRect().width)}px`;
  });
}

// Moves the tags of boxes so that all of their text is inside the frame of the image.
export function keepTagsInside(holder) {
  return observe(holder, () => {
    const outer = holder.closest(".thumbnail, .stage").getBoundingClientRect();
    for (const tag of holder.querySelectorAll(".tag")) {
      tag.style.translate = "";
      const inner = tag.getBoundingClientRect();
      const across = Math.max(outer.left - inner.left, Math.min(0, outer.right - inner.right));
      const down = Math.max(outer.top - inner.top, Math.min(0, outer.bottom - inner.bottom));
      tag.style.translate = `${across}px ${down}px`;
    }
  });
}
