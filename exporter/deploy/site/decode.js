/**
 * From the content of an image file to upright pixels, by the browser's own decoders.
 *
 * As in `runtimes.images.preprocessing`, the first bytes determine the format, the EXIF orientation is applied, colour
 * profiles are ignored, and transparent parts are blended with white. The browser reads pixels through a canvas, which
 * has 8 bits per channel.
 */

import { MAX_PIXELS } from "./preprocess.js";

/** The largest size of an image file in bytes. */
export const MAX_FILE_BYTES = 256 * 2 ** 20;

const SIGNATURES = [
  ["JPEG", [[0, "\xff\xd8\xff"]]],
  ["PNG", [[0, "\x89PNG\r\n\x1a\n"]]],
  ["GIF", [[0, "GIF8"]]],
  ["BMP", [[0, "BM"]]],
  ["WEBP", [[0, "RIFF"], [8, "WEBP"]]],
];

/** An image that cannot be used. The message is a sentence for the visitor. */
export class ImageError extends Error {}

/**
 * Return the pixels of an image file: `{data, height, width, channels}`, grey or RGB.
 *
 * @param {Blob} file The image file.
 * @param {number} channels 1 for grey, 3 for RGB.
 */
export async function decodeImage(file, channels) {
  const bitmap = await openBitmap(file);
  try {
    return pixelsOf(bitmap, channels);
  } finally {
    bitmap.close();
  }
}

/** Return an upright bitmap, after checks of the file's size and format. The caller closes it. */
async function openBitmap(file) {
  if (file.size === 0) throw new ImageError("The file is empty.");
  if (file.size > MAX_FILE_BYTES) throw new ImageError(`The file has ${megabytes(file.size)}; at most 268 MB are read.`);
  const head = String.fromCharCode(...new Uint8Array(await file.slice(0, 16).arrayBuffer()));
  const format = SIGNATURES.find(([, parts]) => parts.every(([start, text]) => head.startsWith(text, start)))?.[0];
  if (!format) throw new ImageError("The file is not a JPEG, PNG, WEBP, GIF or BMP image.");
  const options = { imageOrientation: "from-image", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, options);
  } catch {
    throw new ImageError(`The ${format} image is broken, or too large for this browser.`);
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    const size = `${bitmap.width} x ${bitmap.height}`;
    bitmap.close();
    throw new ImageError(`The image has ${size} pixels, more than ${MAX_PIXELS / 1e6} million. Scale it down first.`);
  }
  return bitmap;
}

function pixelsOf(bitmap, channels) {
  const { width, height } = bitmap;
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  let data;
  try {
    ({ data } = context.getImageData(0, 0, width, height));
  } catch {
    throw new ImageError(`This browser cannot read an image of ${width} x ${height} pixels. Scale it down first.`);
  }
  return { data: channels === 1 ? greyOf(data) : coloursOf(data), height, width, channels };
}

function coloursOf(data) {
  const result = new Uint8Array((data.length / 4) * 3);
  for (let from = 0, to = 0; from < data.length; from += 4) {
    const alpha = data[from + 3];
    result[to++] = blended(data[from], alpha);
    result[to++] = blended(data[from + 1], alpha);
    result[to++] = blended(data[from + 2], alpha);
  }
  return result;
}

/** Return Pillow's luma of each pixel. A grey pixel keeps its value. */
function greyOf(data) {
  const colours = coloursOf(data);
  const result = new Uint8Array(data.length / 4);
  for (let from = 0, to = 0; from < colours.length; from += 3) {
    result[to++] = (19595 * colours[from] + 38470 * colours[from + 1] + 7471 * colours[from + 2] + 32768) >> 16;
  }
  return result;
}

function blended(value, alpha) {
  return alpha === 255 ? value : Math.trunc((value * alpha + 255 * (255 - alpha) + 127) / 255);
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(1)} MB`;
}

/**
 * Return whether the browser gives a page the true pixels of a canvas. Some browsers change them slightly, against
 * recognition of the visitor.
 */
export function readsTruePixels() {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 64;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const written = context.createImageData(64, 64);
  written.data.forEach((_, place) => (written.data[place] = place % 4 === 3 ? 255 : (place * 37) % 256));
  context.putImageData(written, 0, 0);
  const { data } = context.getImageData(0, 0, 64, 64);
  return data.every((value, place) => value === written.data[place]);
}
