/**
 * From a decoded image to the input of the network, by the preprocessing of a manifest. The steps and their rounding
 * are those of `runtimes.images.preprocessing`: resize, crop, pad, channel order, scale, mean, standard deviation.
 */

import { resizeAntialiased } from "./resample.js";
import { resizeSampled, roundHalfEven } from "./sampling.js";

/** The largest number of pixels of an image, before and after resizing. */
export const MAX_PIXELS = 80_000_000;

/** Return the [height, width] of an image after resizing. */
export function targetSize({ resize = null }, height, width) {
  if (resize === null) return [height, width];
  if (Array.isArray(resize)) return resize;
  const longer = Math.trunc((resize * Math.max(height, width)) / Math.min(height, width));
  return height <= width ? [resize, longer] : [longer, resize];
}

/** Return the black pixels before a resized image and the first pixel of the crop, along one axis. */
export function cropWindow(preprocessing, size, axis) {
  const crop = preprocessing.crop[axis];
  const missing = Math.max(0, crop - size);
  const offset = (size + missing - crop) / 2;
  const first = preprocessing.crop_offset === "floor" ? Math.floor(offset) : roundHalfEven(offset);
  return [Math.floor(missing / 2), first];
}

/** Return the pixels that the network sees: resized, cropped and padded, `{data, height, width, channels}`. */
export function fitImage(image, preprocessing) {
  const [height, width] = targetSize(preprocessing, image.height, image.width);
  if (height * width > MAX_PIXELS) {
    throw new Error(
      `The image would have ${height} x ${width} pixels after resizing, which is too many. Crop the image first.`,
    );
  }
  let resized = image;
  if (height !== image.height || width !== image.width) {
    const resize = preprocessing.antialias === false ? resizeSampled : resizeAntialiased;
    resized = resize(image, height, width, preprocessing.interpolation ?? "bilinear");
  }
  return cropAndPad(resized, preprocessing);
}

function cropAndPad({ data, height, width, channels }, preprocessing) {
  const [before, top] = cropWindow(preprocessing, height, 0);
  const [beside, left] = cropWindow(preprocessing, width, 1);
  const [rows, columns] = preprocessing.crop.map((side) => side + 2 * preprocessing.pad);
  const result = new Uint8Array(rows * columns * channels);
  for (let row = 0; row < rows; row++) {
    const y = row - preprocessing.pad + top - before;
    if (y < 0 || y >= height || row < preprocessing.pad || row >= rows - preprocessing.pad) continue;
    for (let column = preprocessing.pad; column < columns - preprocessing.pad; column++) {
      const x = column - preprocessing.pad + left - beside;
      if (x < 0 || x >= width) continue;
      for (let channel = 0; channel < channels; channel++) {
        result[(row * columns + column) * channels + channel] = data[(y * width + x) * channels + channel];
      }
    }
  }
  return { data: result, height: rows, width: columns, channels };
}

/** Return the float32 input of the network, channels first, or channels last for `channelsLast`. */
export function normalise({ data, height, width, channels }, preprocessing, channelsLast = false) {
  const area = height * width;
  const result = new Float32Array(area * channels);
  for (let channel = 0; channel < channels; channel++) {
    const source = preprocessing.channel_order === "BGR" ? channels - 1 - channel : channel;
    const table = normalisedValues(preprocessing, channel);
    for (let place = 0; place < area; place++) {
      const target = channelsLast ? place * channels + channel : channel * area + place;
      result[target] = table[data[place * channels + source]];
    }
  }
  return result;
}

/** Return the input of the network for each of the 256 values of a pixel. Each step is rounded to float32. */
function normalisedValues({ scale = 255, mean, std }, channel) {
  const { fround } = Math;
  const [middle, deviation] = [fround(mean[channel]), fround(std[channel])];
  return Float32Array.from({ length: 256 }, (_, value) => fround(fround(value / scale) - middle) / deviation);
}
