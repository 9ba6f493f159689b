/**
 * The picture of a heat map: the image in grey, under colours from nothing to the map's largest value. The colours are
 * those of `rexport predict --cam`.
 *
 * A heat map is an object `{rows, columns, values, area, seen}`: its cells in rows, the area of the image that they
 * cover, and the part that the network saw, both as [top, left, bottom, right] in shares of the height and width.
 */

const COLOURS = [
  [0, [30, 60, 160]],
  [0.35, [40, 160, 190]],
  [0.6, [120, 200, 90]],
  [0.8, [250, 200, 40]],
  [1, [215, 30, 30]],
];
const STRENGTH = 0.6;
const [SMALLEST, LARGEST] = [224, 640];

/** Draw an image, and its heat map if there is one, on a canvas that gets a suitable size. */
export function drawImage(canvas, bitmap, heat = null) {
  const longer = Math.max(bitmap.width, bitmap.height);
  const scale = Math.min(Math.max(longer, SMALLEST), LARGEST) / longer;
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = scale <= 2;
  context.imageSmoothingQuality = "high";
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  if (heat !== null) {
    const picture = context.getImageData(0, 0, canvas.width, canvas.height);
    blend(picture, placeOnImage(heat, picture.height, picture.width));
    context.putImageData(picture, 0, 0);
  }
}

/** Return the value of the map at each pixel, interpolated linearly. It is NaN where the network saw nothing. */
export function placeOnImage({ rows, columns, values, area, seen }, height, width) {
  const down = cells(height, rows, area[0], area[2], seen[0], seen[2]);
  const across = cells(width, columns, area[1], area[3], seen[1], seen[3]);
  const result = new Float32Array(height * width);
  down.forEach(([row, rowShare], y) => {
    const [upper, lower] = [row * columns, Math.min(row + 1, rows - 1) * columns];
    across.forEach(([column, columnShare], x) => {
      const next = Math.min(column + 1, columns - 1);
      const above = values[upper + column] * (1 - columnShare) + values[upper + next] * columnShare;
      const below = values[lower + column] * (1 - columnShare) + values[lower + next] * columnShare;
      result[y * width + x] = above * (1 - rowShare) + below * rowShare;
    });
  });
  return result;
}

/** Return for each pixel of one axis its cell and the share of the next cell. The share is NaN outside what was seen. */
function cells(length, count, start, end, seenStart, seenEnd) {
  return Array.from({ length }, (_, pixel) => {
    const place = (pixel + 0.5) / length;
    const cell = Math.min(count - 1, Math.max(0, ((place - start) / (end - start)) * count - 0.5));
    const isSeen = place >= seenStart && place < seenEnd;
    return [Math.trunc(cell), isSeen ? cell - Math.trunc(cell) : NaN];
  });
}

function blend({ data }, heat) {
  const largest = heat.reduce((most, value) => (value > most ? value : most), 0);
  heat.forEach((value, pixel) => {
    const place = pixel * 4;
    const grey = (data[place] + data[place + 1] + data[place + 2]) / 3;
    const share = largest > 0 ? Math.min(1, Math.max(0, value / largest)) : 0;
    const alpha = STRENGTH * Math.sqrt(share);
    const colour = colourOf(share);
    for (let channel = 0; channel < 3; channel++) {
      data[place + channel] = Number.isNaN(value) ? grey / 3 : (1 - alpha) * grey + alpha * colour[channel];
    }
  });
}

function colourOf(share) {
  const next = Math.max(1, COLOURS.findIndex(([stop]) => share <= stop));
  const [[low, from], [high, to]] = [COLOURS[next - 1], COLOURS[next]];
  return from.map((value, channel) => value + ((share - low) / (high - low)) * (to[channel] - value));
}
