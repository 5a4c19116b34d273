// Maps in colour over the film: where they lie is decided as in the package's heatmaps (overlays.onto_film).

// Black over violet and orange to yellow, of evenly rising lightness: legible without colour vision as well.
const STOPS = [[0, 0, 4], [40, 11, 84], [101, 21, 110], [159, 42, 99], [212, 72, 66], [245, 125, 21], [250, 193, 39], [252, 255, 164]];

/** Red, green and blue of a level in [0, 1]. */
export function colour(level) {
  const at = Math.min(Math.max(level, 0), 1) * (STOPS.length - 1);
  const below = Math.min(Math.floor(at), STOPS.length - 2);
  return STOPS[below].map((value, channel) => value + (at - below) * (STOPS[below + 1][channel] - value));
}

/** The largest value of a map; at 0 or below nothing on the film speaks for the finding. */
export const top = (heat) => Math.max(...heat.map((row) => Math.max(...row)));

/** A map's value, bilinear, at (row, column) counted in cells; beyond the outermost cells' centres theirs. */
export function valueAt(heat, row, column) {
  const inside = (at, size) => Math.min(Math.max(at, 0), size - 1);
  row = inside(row, heat.length);
  column = inside(column, heat[0].length);
  const [r, c] = [Math.floor(row), Math.floor(column)];
  const [down, right] = [Math.min(r + 1, heat.length - 1), Math.min(c + 1, heat[0].length - 1)];
  const [y, x] = [row - r, column - c];
  return (1 - y) * ((1 - x) * heat[r][c] + x * heat[r][right]) + y * ((1 - x) * heat[down][c] + x * heat[down][right]);
}

/** A canvas to be stretched over the film: colour, opaque by level; nothing outside the crop, which the network did not see. */
export function drawn(heat, { place, crop, rescaled, cells: [first, step] }) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = rescaled;
  const context = canvas.getContext("2d");
  const image = context.createImageData(rescaled, rescaled);
  const most = top(heat);
  const cell = (at) => (at / crop - first) / step;
  for (let row = 0; row < rescaled; row++) {
    const y = row + 0.5 - place[0];
    for (let column = 0; column < rescaled; column++) {
      const x = column + 0.5 - place[1];
      if (y < 0 || y > crop || x < 0 || x > crop || most <= 0) continue;
      const level = Math.max(valueAt(heat, cell(y), cell(x)), 0) / most;
      image.data.set([...colour(level), 255 * level], 4 * (row * rescaled + column));
    }
  }
  context.putImageData(image, 0, 0);
  return canvas;
}
