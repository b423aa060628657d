// Files that are chosen, dropped or pasted, with the names that the results use.

const IMAGE_NAME = /\.(jpe?g|jpe|jfif|mpo|a?png|webp|avif|gif|bmp|dib|tiff?|p[pgbn]m|jp2|hei[cf])$/i;

function isImage(file) {
  return file.type.startsWith("image/") || IMAGE_NAME.test(file.name);
}

// Files from a file dialog: [{name, file}]
export function chosenFiles(files) {
  return Array.from(files, (file) => ({ name: file.name, file }));
}

// Images of a folder from a folder dialog, named by their path inside it
export function folderImages(files) {
  return Array.from(files)
    .filter(isImage)
    .map((file) => ({ name: file.webkitRelativePath.split("/").slice(1).join("/") || file.name, file }));
}

// Dropped files, and the images in dropped folders
export async function droppedFiles(transfer) {
  // The list is emptied when the event ends, so all entries are read before the first await
  const entries = Array.from(transfer.items, (item) => item.kind === "file" && item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return chosenFiles(transfer.files);
  const isOneFolder = entries.length === 1 && entries[0].isDirectory;
  const found = [];
  for (const entry of entries) {
    if (entry.isFile) found.push({ name: entry.name, file: await readEntry(entry) });
    else await collectImages(entry, isOneFolder ? "" : `${entry.name}/`, found);
  }
  return found;
}

// Pasted images
export function pastedImages(transfer) {
  return Array.from(transfer.files)
    .filter(isImage)
    .map((file) => ({ name: file.name || "pasted.png", file }));
}

async function collectImages(folder, path, found) {
  const reader = folder.createReader();
  for (;;) {
    const entries = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!entries.length) return; // entries come in chunks of a hundred
    for (const entry of entries) {
      if (entry.isDirectory) {
        await collectImages(entry, `${path}${entry.name}/`, found);
      } else {
        const file = await readEntry(entry);
        if (isImage(file)) found.push({ name: path + entry.name, file });
      }
    }
  }
}

function readEntry(entry) {
  return new Promise((resolve, reject) => entry.file(resolve, reject));
}

// A name that is not in the set: "a.jpg", "a (2).jpg"
export function uniqueName(name, taken) {
  const dot = name.lastIndexOf(".");
  const [stem, suffix] = dot > 0 ? [name.slice(0, dot), name.slice(dot)] : [name, ""];
  let result = name;
  for (let count = 2; taken.has(result); count += 1) result = `${stem} (${count})${suffix}`;
  return result;
}
