/**
 * Resizing without antialiasing, equal to `runtimes.images.sampling` bit by bit: each output pixel is computed from its
 * 2 or 4 nearest source pixels on each axis, in float64, and rounded to the nearest integer, at a tie to the even one.
 */

const CUBIC = -0.75;

/** Return an image of `height` x `width` pixels, by `bilinear` or `bicubic` interpolation. */
export function resizeSampled({ data, height, width, channels }, targetHeight, targetWidth, interpolation) {
  const taps = interpolation === "bicubic" ? cubicTaps : linearTaps;
  const columns = taps(width, targetWidth);
  const rows = taps(height, targetHeight);
  const across = new Float64Array(height * targetWidth * channels);
  for (let row = 0; row < height; row++) {
    for (let column = 0; column < targetWidth; column++) {
      for (let channel = 0; channel < channels; channel++) {
        let sum = 0;
        for (const [pixel, weight] of columns[column]) sum += data[(row * width + pixel) * channels + channel] * weight;
        across[(row * targetWidth + column) * channels + channel] = sum;
      }
    }
  }
  const stride = targetWidth * channels;
  const result = new Uint8Array(targetHeight * stride);
  for (let row = 0; row < targetHeight; row++) {
    for (let column = 0; column < stride; column++) {
      let sum = 0;
      for (const [pixel, weight] of rows[row]) sum += across[pixel * stride + column] * weight;
      result[row * stride + column] = Math.min(255, Math.max(0, roundHalfEven(sum)));
    }
  }
  return { data: result, height: targetHeight, width: targetWidth, channels };
}

/** Return the nearest integer, at a tie the even one, as NumPy's `rint` and Python's `round`. */
export function roundHalfEven(value) {
  const below = Math.floor(value);
  const share = value - below;
  if (share !== 0.5) return share < 0.5 ? below : below + 1;
  return below % 2 === 0 ? below : below + 1;
}

function centre(place, size, target) {
  return (place + 0.5) * (size / target) - 0.5;
}

/** Return for each output pixel its source pixels with their weights. */
function linearTaps(size, target) {
  return Array.from({ length: target }, (_, place) => {
    const coordinate = Math.max(0, centre(place, size, target));
    const first = Math.trunc(coordinate);
    const share = coordinate - first;
    return inside(first, [1 - share, share], size);
  });
}

function cubicTaps(size, target) {
  return Array.from({ length: target }, (_, place) => {
    const coordinate = centre(place, size, target);
    const first = Math.floor(coordinate);
    const share = coordinate - first;
    return inside(first - 1, [far(share + 1), near(share), near(1 - share), far(2 - share)], size);
  });
}

function inside(first, weights, size) {
  return weights.map((weight, tap) => [Math.min(size - 1, Math.max(0, first + tap)), weight]);
}

function near(distance) {
  return ((CUBIC + 2) * distance - (CUBIC + 3)) * distance * distance + 1;
}

function far(distance) {
  return ((CUBIC * distance - 5 * CUBIC) * distance + 8 * CUBIC) * distance - 4 * CUBIC;
}
