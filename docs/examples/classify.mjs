// Labels JPEG files in Node.js: node classify.mjs SITE IMAGE.jpg...
//
// SITE is the folder of `rexport web MODEL.onnx -o SITE`: the model, its labels, and the preprocessing of the manifest.
// npm install onnxruntime-node sharp
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { resolve } from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(`${process.cwd()}/`); // packages of the current folder
const [ort, sharp] = [require("onnxruntime-node"), require("sharp")];
const [site, ...images] = process.argv.slice(2);
if (!images.length) {
  console.error("usage: node classify.mjs SITE IMAGE.jpg...");
  process.exit(2);
}
const load = (name) => import(pathToFileURL(resolve(site, name)));
const { fitImage, normalise } = await load("preprocess.js");
const { probabilitiesOf } = await load("probabilities.js");
const model = JSON.parse(await readFile(resolve(site, "model.json"), "utf8"));
const { files, input, labels, preprocessing } = model;
const session = await ort.InferenceSession.create(resolve(site, files.model.path));

for (const path of images) {
  // Upright by EXIF, RGB, and without the colour profile, as rexport decodes in Python.
  const decoder = sharp(path, { ignoreIcc: true }).rotate().toColourspace("srgb").removeAlpha().raw();
  const { data, info } = await decoder.toBuffer({ resolveWithObject: true });
  const pixels = fitImage({ data, ...info }, preprocessing);
  const values = input.dtype === "uint8" ? pixels.data : normalise(pixels, preprocessing, input.channels_last);
  const { logits } = await session.run({ [input.name]: new ort.Tensor(input.dtype, values, input.shape) });
  const probabilities = probabilitiesOf(Array.from(logits.data), model);
  const best = probabilities.indexOf(Math.max(...probabilities));
  console.log([path, labels?.[best] ?? `class ${best}`, probabilities[best].toFixed(6)].join("\t"));
}
