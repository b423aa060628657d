// The files that the page saves: process_results.json and the details as CSV, as `facegender predict` writes them.

const COLUMNS = [
  "file", "face_index", "status", "label", "probability", "box_x", "box_y", "box_width", "box_height",
  "detection_score", "crop", "width", "height", "error",
];

// {"photo.jpg": "male", ...} in natural order; of several faces the main one counts
export function processResults(images) {
  const labels = images
    .filter((image) => image.rows?.[0].label)
    .map((image) => [image.name, image.rows[0].label])
    .sort(([one], [other]) => compareNatural(one, other));
  if (!labels.length) return "{}\n";
  return `{\n${labels.map(([name, label]) => `  ${JSON.stringify(name)}: "${label}"`).join(",\n")}\n}\n`;
}

export function detailsCsv(images) {
  const lines = [COLUMNS.join(",")];
  for (const image of images) {
    for (const row of image.rows ?? []) {
      const box = row.box ?? {};
      const values = { ...row, file: image.name, box_x: box.x, box_y: box.y, box_width: box.width, box_height: box.height };
      lines.push(COLUMNS.map((column) => csvCell(values[column])).join(","));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

function csvCell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// 2.jpg before 10.jpg
export function compareNatural(one, other) {
  const [left, right] = [one, other].map((name) => name.split(/(\d+)/));
  for (let index = 0; index < Math.min(left.length, right.length); index += 1) {
    const isNumber = index % 2;
    const difference = isNumber ? Number(left[index]) - Number(right[index]) : compareText(left[index], right[index]);
    if (difference) return difference;
  }
  return left.length - right.length || compareText(one, other);
}

function compareText(one, other) {
  return one < other ? -1 : Number(one > other);
}

export function saveFile(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
