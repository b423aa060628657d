// What a person drops, pastes or chooses -> files with the names that the results have.

const PICTURE = /\.(jpe?g|jpe|jfif|mpo|a?png|webp|avif|gif|bmp|dib|tiff?|p[pgbn]m|jp2|hei[cf])$/i;

function isPicture(file) {
  return file.type.startsWith("image/") || PICTURE.test(file.name);
}

// Files chosen one by one: [{name, file}]
export function chosen(files) {
  return Array.from(files, (file) => ({ name: file.name, file }));
}

// A folder chosen by its button: its pictures, named by their path inside it
export function ofFolder(files) {
  return Array.from(files)
    .filter(isPicture)
    .map((file) => ({ name: file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file }));
}

// What was dropped: files as they are, folders by the pictures in them
export async function dropped(transfer) {
  // The list is empty once the event is over, so all entries are taken before the first wait
  const entries = Array.from(transfer.items, (item) => item.kind === "file" && item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosen(transfer.files);
  const isOneFolder = entries.length === 1 && entries[0].isDirectory;
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) found.push({ name: entry.name, file: await fileOf(entry) });
    else await walk(entry, isOneFolder ? "" : `${entry.name}/`, found);
  }
  return found;
}

// What was pasted: pictures get a name by when they came
export function pasted(transfer) {
  return Array.from(transfer.files)
    .filter(isPicture)
    .map((file) => ({ name: file.name || "pasted.png", file }));
}

async function walk(folder, path, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return; // it gives a hundred at a time
    for (const entry of entries) {
      if (entry.isDirectory) {
        await walk(entry, `${path}${entry.name}/`, found);
      } else {
        const file = await fileOf(entry);
        if (isPicture(file)) found.push({ name: path + entry.name, file });
      }
    }
  }
}

function fileOf(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

// A name that none of the others has: "a.jpg", "a (2).jpg"
export function distinct(name, taken) {
  const dot = name.lastIndexOf(".");
  const [stem, suffix] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let result = name;
  for (let count = 2; taken.has(result); count += 1) result = `${stem} (${count})${suffix}`;
  return result;
}
