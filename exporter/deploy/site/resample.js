/**
 * Resizing of 8-bit images, equal to Pillow's `Image.resize` bit by bit.
 *
 * A filter covers all source pixels when it shrinks. The weights are integers of 22 fractional bits, and the image
 * between the two passes has 8 bits per channel. As in Pillow 13, the horizontal pass comes first, but not where the
 * height shrinks by more than twice the pixels of the width; earlier versions always began with the horizontal one.
 *
 * An image is an object `{data, height, width, channels}`, whose `data` is a Uint8Array with the channels last.
 */

const FRACTION_BITS = 22;
const HALF = 1 << (FRACTION_BITS - 1);

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

function linear(x) {
  return Math.max(0, 1 - Math.abs(x));
}

function box(x) {
  return x > -0.5 && x <= 0.5 ? 1 : 0;
}

function hamming(signed) {
  const x = Math.abs(signed);
  if (x === 0) return 1;
  // Pillow's constants are single precision.
  return x >= 1 ? 0 : sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI));
}

function cubic(signed) {
  const x = Math.abs(signed);
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * -0.5 : 0;
}

function lanczos(x) {
  return x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0;
}

/** The half width of each filter in pixels, and its weight at a distance. */
const FILTERS = {
  box: [0.5, box],
  bilinear: [1, linear],
  hamming: [1, hamming],
  bicubic: [2, cubic],
  lanczos: [3, lanczos],
};

/** Return an image of `height` x `width` pixels, by a filter of Pillow's name. */
export function resizeAntialiased(image, height, width, interpolation) {
  if (interpolation === "nearest") return resizeNearest(image, height, width);
  const filter = FILTERS[interpolation];
  const isTall = image.height > height && image.height - height > 2 * (image.width - width);
  return isTall
    ? resizeRows(resizeColumns(image, height, filter), width, filter)
    : resizeColumns(resizeRows(image, width, filter), height, filter);
}

/** Return for each output pixel its first source pixel, the number of them, and their integer weights. */
function filterWeights(size, target, [reach, weigh]) {
  const scale = size / target;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  const taps = Math.ceil(support) * 2 + 1;
  const first = new Int32Array(target);
  const count = new Int32Array(target);
  const weights = new Int32Array(target * taps);
  for (let place = 0; place < target; place++) {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const floats = [];
    let sum = 0;
    for (let pixel = start; pixel < end; pixel++) {
      floats.push(weigh((pixel - centre + 0.5) * (1 / stretch)));
      sum += floats.at(-1);
    }
    first[place] = start;
    count[place] = end - start;
    floats.forEach((value, tap) => {
      const share = (sum === 0 ? value : value / sum) * (1 << FRACTION_BITS);
      weights[place * taps + tap] = Math.trunc(share < 0 ? share - 0.5 : share + 0.5);
    });
  }
  return { first, count, weights, taps };
}

function clip(sum) {
  return Math.min(255, Math.max(0, sum >> FRACTION_BITS));
}

function resizeRows(image, target, filter) {
  const { data, height, width, channels } = image;
  if (width === target) return image;
  const { first, count, weights, taps } = filterWeights(width, target, filter);
  const result = new Uint8Array(height * target * channels);
  let out = 0;
  for (let row = 0; row < height; row++) {
    for (let place = 0; place < target; place++) {
      const start = (row * width + first[place]) * channels;
      for (let channel = 0; channel < channels; channel++) {
        let sum = HALF;
        for (let tap = 0; tap < count[place]; tap++) {
          sum += data[start + tap * channels + channel] * weights[place * taps + tap];
        }
        result[out++] = clip(sum);
      }
    }
  }
  return { data: result, height, width: target, channels };
}

function resizeColumns(image, target, filter) {
  const { data, height, width, channels } = image;
  if (height === target) return image;
  const { first, count, weights, taps } = filterWeights(height, target, filter);
  const stride = width * channels;
  const result = new Uint8Array(target * stride);
  const sums = new Float64Array(stride);
  for (let place = 0; place < target; place++) {
    sums.fill(HALF);
    for (let tap = 0; tap < count[place]; tap++) {
      const weight = weights[place * taps + tap];
      const start = (first[place] + tap) * stride;
      for (let column = 0; column < stride; column++) sums[column] += data[start + column] * weight;
    }
    for (let column = 0; column < stride; column++) result[place * stride + column] = clip(sums[column]);
  }
  return { data: result, height: target, width, channels };
}

function resizeNearest({ data, height, width, channels }, targetHeight, targetWidth) {
  const rows = nearestPixels(height, targetHeight);
  const columns = nearestPixels(width, targetWidth);
  const result = new Uint8Array(targetHeight * targetWidth * channels);
  let out = 0;
  for (const row of rows) {
    for (const column of columns) {
      for (let channel = 0; channel < channels; channel++, out++) {
        if (row < height && column < width) result[out] = data[(row * width + column) * channels + channel];
      }
    }
  }
  return { data: result, height: targetHeight, width: targetWidth, channels };
}

/** Return the source pixel of each output pixel. The coordinate is a running sum, as Pillow's, with its rounding. */
function nearestPixels(size, target) {
  const step = size / target;
  let coordinate = step * 0.5;
  return Array.from({ length: target }, () => {
    const pixel = Math.trunc(coordinate);
    coordinate += step;
    return pixel;
  });
}
