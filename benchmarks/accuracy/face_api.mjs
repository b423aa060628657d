// Runs face-api for baselines.py: images on standard input, answers as JSON lines on standard output.
//
// A request is three little-endian uint32 (height, width, 1 if the full image is the face) and then
// height * width * 3 bytes of RGB. The answer is {"p_male": 0.97}, or {"p_male": null} if no face
// was found. The first line, {"version": "1.7.15"}, is written once the networks are loaded.

import { createRequire } from 'node:module';
import path from 'node:path';
import process from 'node:process';

const require = createRequire(import.meta.url);
const tf = require('@tensorflow/tfjs');
const wasm = require('@tensorflow/tfjs-backend-wasm');
const faceapi = require('@vladmandic/face-api/dist/face-api.node-wasm.js');

const HEADER = 12;
const folder = path.dirname(require.resolve('@vladmandic/face-api/package.json'));

// The package selects the SIMD build if the processor supports it; in node it runs on one thread.
wasm.setWasmPaths(path.dirname(require.resolve('@tensorflow/tfjs-backend-wasm')) + path.sep);
if (!(await tf.setBackend('wasm'))) throw new Error('the wasm backend does not start');
await tf.ready();
const models = path.join(folder, 'model');
await faceapi.nets.ssdMobilenetv1.loadFromDisk(models);
await faceapi.nets.faceLandmark68Net.loadFromDisk(models);
await faceapi.nets.ageGenderNet.loadFromDisk(models);

function maleProbability({ gender, genderProbability }) {
  return gender === 'male' ? genderProbability : 1 - genderProbability;
}

// The documented pipeline with the package's defaults: SSD MobileNet v1 detects the faces, their
// landmarks align them, the age and gender network sees the aligned box.
async function inLargestFace(image) {
  const faces = await faceapi.detectAllFaces(image).withFaceLandmarks().withAgeAndGender();
  if (faces.length === 0) return null;
  const area = ({ detection }) => detection.box.area;
  return maleProbability(faces.reduce((best, face) => (area(face) > area(best) ? face : best)));
}

async function answer(height, width, isFullImage, bytes) {
  tf.engine().startScope();
  try {
    const image = tf.tensor3d(bytes, [height, width, 3], 'int32');
    if (!isFullImage) return await inLargestFace(image);
    return maleProbability(await faceapi.nets.ageGenderNet.predictAgeAndGender(image));
  } finally {
    tf.engine().endScope();
  }
}

async function* requests(stream) {
  let chunks = [];
  let size = 0;
  let needed = HEADER;
  for await (const chunk of stream) {
    chunks.push(chunk);
    size += chunk.length;
    while (size >= needed) {
      const data = Buffer.concat(chunks);
      const [height, width, fullImage] = [0, 4, 8].map((offset) => data.readUInt32LE(offset));
      needed = HEADER + height * width * 3;
      chunks = [data];
      if (size < needed) break;
      yield [height, width, fullImage === 1, new Uint8Array(data.subarray(HEADER, needed))];
      chunks = [data.subarray(needed)];
      size -= needed;
      needed = HEADER;
    }
  }
}

const write = (message) => process.stdout.write(`${JSON.stringify(message)}\n`);

write({ version: faceapi.version });
for await (const request of requests(process.stdin)) write({ p_male: await answer(...request) });
