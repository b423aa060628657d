// Rows -> process_results.json and the details as CSV, as the command line writes them.

const COLUMNS = [
  "file", "face_index", "status", "label", "probability", "box_x", "box_y", "box_width", "box_height",
  "detection_score", "crop", "width", "height", "error",
];

// {"photo.jpg": "male", ...} in natural order; of several faces the first counts
export function processResults(pictures) {
  const answers = pictures
    .filter((picture) => picture.rows?.[0].label)
    .map((picture) => [picture.name, picture.rows[0].label])
    .sort(([one], [other]) => inNaturalOrder(one, other));
  if (!answers.length) return "{}\n";
  return `{\n${answers.map(([name, label]) => `  ${JSON.stringify(name)}: "${label}"`).join(",\n")}\n}\n`;
}

export function details(pictures) {
  const lines = [COLUMNS.join(",")];
  for (const picture of pictures) {
    for (const row of picture.rows ?? []) {
      const box = row.box ?? {};
      const values = { ...row, file: picture.name, box_x: box.x, box_y: box.y, box_width: box.width, box_height: box.height };
      lines.push(COLUMNS.map((column) => cell(values[column])).join(","));
    }
  }
  return `${lines.join("\r\n")}\r\n`;
}

function cell(value) {
  const text = value === null || value === undefined ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

// 2.jpg before 10.jpg
export function inNaturalOrder(one, other) {
  const [left, right] = [one, other].map((name) => name.split(/(\d+)/));
  for (let at = 0; at < Math.min(left.length, right.length); at += 1) {
    const difference = at % 2 ? Number(left[at]) - Number(right[at]) : compare(left[at], right[at]);
    if (difference) return difference;
  }
  return left.length - right.length || compare(one, other);
}

function compare(one, other) {
  return one < other ? -1 : Number(one > other);
}

export function save(name, text, type) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
