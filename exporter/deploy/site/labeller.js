/**
 * A labeller of images in this browser: ONNX Runtime Web, the model file, and the preprocessing of its manifest.
 *
 *     import { openLabeller } from "./site/labeller.js";
 *     const labeller = await openLabeller(new URL("./site/", document.baseURI));
 *     const { labels } = await labeller.label(file);
 */

import { bytesOf } from "./base64.js";
import { ImageError, decodeImage } from "./decode.js";
import { cropWindow, fitImage, normalise, targetSize } from "./preprocess.js";
import { probabilitiesOf } from "./probabilities.js";

export { ImageError };

/**
 * Return a labeller from the folder that `rexport web` wrote.
 *
 * @param {URL} folder The address of the folder, with a slash at its end.
 * @param {(text: string, share: number) => void} progress Receives the step at work and its completed share.
 */
export async function openLabeller(folder, progress = () => {}) {
  const source = { read: (file, report) => download(new URL(file.path, folder), file, report) };
  const response = await fetch(new URL("model.json", folder), { cache: "no-cache" });
  if (!response.ok) throw new Error(`model.json cannot be read: the server replied ${response.status}.`);
  return startLabeller(await response.json(), source, progress);
}

/** Return a labeller for a description of a model, whose files `source.read` returns as Uint8Array. */
export async function startLabeller(model, source, progress) {
  const total = Object.values(model.files).reduce((sum, file) => sum + file.bytes, 0);
  let before = 0;
  const read = async (file) => {
    const content = await source.read(file, (bytes) => progress("Loading the model", (before + bytes) / total));
    before += file.bytes;
    return content;
  };
  const code = await read(model.files.runtime);
  const wasm = await read(model.files.wasm);
  const weights = await read(model.files.model);
  progress("Starting the model", 1);
  const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const ort = await import(address);
  URL.revokeObjectURL(address);
  ort.env.wasm.numThreads = 1;
  ort.env.wasm.wasmBinary = wasm;
  const session = await ort.InferenceSession.create(weights, { executionProviders: ["wasm"] });
  const labeller = new Labeller(model, ort, session);
  await labeller.checkParity();
  return labeller;
}

async function download(address, file, report) {
  address.searchParams.set("sha256", file.sha256);
  const response = await fetch(address);
  if (!response.ok) throw new Error(`${file.path} cannot be read: the server replied ${response.status}.`);
  const content = new Uint8Array(file.bytes);
  let length = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    if (length + value.length > file.bytes) throw new Error(`${file.path} is not the file that rexport wrote.`);
    content.set(value, length);
    length += value.length;
    report(length);
  }
  await checkDigest(file, content.subarray(0, length));
  return content;
}

/** Throw an error if the content is not the written one. Without a secure context, only its length is compared. */
export async function checkDigest(file, content) {
  let same = content.length === file.bytes;
  if (same && globalThis.crypto?.subtle) {
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
    same = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("") === file.sha256;
  }
  if (!same) throw new Error(`${file.path} is not the file that rexport wrote. Copy the whole folder again.`);
}

/** An opened model. Calls follow each other: a second one waits for the first. */
export class Labeller {
  #last = Promise.resolve();

  constructor(model, ort, session) {
    this.model = model;
    this.ort = ort;
    this.session = session;
  }

  /**
   * Return the most probable classes of an image file, and the heat map of each class if the model has any.
   *
   * @param {Blob} file The image file.
   * @param {number} top The number of classes.
   * @returns {Promise<{labels: {name: string, index: number, probability: number}[], times: [string, number][],
   *   heat: ((index: number) => object) | null}>} Labels in order of falling probability, times in milliseconds.
   */
  async label(file, top = 5) {
    const { preprocessing } = this.model;
    const start = performance.now();
    const image = await decodeImage(file, preprocessing.mean.length);
    const decoded = performance.now();
    const pixels = fitImage(image, preprocessing);
    const fitted = performance.now();
    const { outputs, milliseconds } = await this.infer(this.inputOf(pixels));
    const probabilities = this.probabilities(outputs[this.model.outputs.logits].data);
    return {
      labels: rank(probabilities, top).map((index) => ({
        name: this.model.labels?.[index] ?? `class ${index}`,
        index,
        probability: probabilities[index],
      })),
      times: [["Decode", decoded - start], ["Preprocess", fitted - decoded], ["Network", milliseconds]],
      heat: this.heatOf(outputs, image),
    };
  }

  /** Return the input of the network for fitted pixels, for one image. */
  inputOf(pixels) {
    const { dtype, channels_last: channelsLast } = this.model.input;
    return dtype === "uint8" ? pixels.data : normalise(pixels, this.model.preprocessing, channelsLast);
  }

  /** Return the outputs of the network by name, after all earlier calls. A fixed batch is filled with zeros. */
  async infer(image) {
    const { name, dtype, shape } = this.model.input;
    const input = new image.constructor(image.length * shape[0]);
    input.set(image);
    const run = async () => {
      const start = performance.now();
      const outputs = await this.session.run({ [name]: new this.ort.Tensor(dtype, input, shape) });
      return { outputs, milliseconds: performance.now() - start };
    };
    const result = this.#last.then(run);
    this.#last = result.catch(() => {});
    return result;
  }

  /** Return the probability of each class for the outputs of one image, which may stand before those of others. */
  probabilities(values) {
    return probabilitiesOf(Array.from(values.subarray(0, values.length / this.model.input.shape[0])), this.model);
  }

  /**
   * Return a function from the index of a class to its heat map, or null. Of one output with two labels, the map is that
   * of the second class, and the first class has the negative map.
   */
  heatOf(outputs, image) {
    const output = outputs[this.model.outputs.cam];
    if (!output) return null;
    const [maps, rows, columns] = output.dims.slice(1);
    const place = placeOfMap(this.model.preprocessing, image.height, image.width);
    const isBinary = maps === 1 && this.model.labels?.length === 2;
    const mapOf = (index) => output.data.slice(index * rows * columns, (index + 1) * rows * columns);
    const valuesOf = (index) => (isBinary ? mapOf(0).map((value) => (index ? value : -value)) : mapOf(index));
    return (index) => ({ rows, columns, values: valuesOf(index), ...place });
  }

  /** Compare the logits of a test vector with PyTorch's, and throw an error if they differ by more than allowed. */
  async checkParity() {
    const { check } = this.model;
    if (!check) return;
    const bytes = bytesOf(check.input);
    const image = this.model.input.dtype === "uint8" ? bytes : new Float32Array(bytes.buffer);
    const { outputs } = await this.infer(image);
    const logits = outputs[this.model.outputs.logits].data;
    const difference = Math.max(...check.logits.map((value, index) => Math.abs(value - logits[index])));
    this.difference = difference / check.largest;
    if (!(this.difference <= check.tolerance)) {
      throw new Error(
        `This browser computes other numbers than PyTorch: they differ by ${this.difference.toExponential(1)}, ` +
          `and ${check.tolerance} is allowed.`,
      );
    }
  }
}

/** Return the indices of the largest values in falling order. At equal values, the lower index comes first. */
export function rank(values, top) {
  const order = Array.from(values, (_, index) => index);
  return order.sort((one, other) => values[other] - values[one] || one - other).slice(0, top);
}

/**
 * Return where a map lies on its image, as shares of the image's height and width: the `area` of all its cells, and the
 * part of the image that was `seen`, both as [top, left, bottom, right].
 */
export function placeOfMap(preprocessing, height, width) {
  const resized = targetSize(preprocessing, height, width);
  const spans = [0, 1].map((axis) => {
    const [before, first] = cropWindow(preprocessing, resized[axis], axis);
    const start = first - before;
    const { pad, crop } = preprocessing;
    return [start - pad, start + crop[axis] + pad, start, start + crop[axis]].map((place) => place / resized[axis]);
  });
  const [rows, columns] = spans;
  return { area: [rows[0], columns[0], rows[1], columns[1]], seen: [rows[2], columns[2], rows[3], columns[3]] };
}
