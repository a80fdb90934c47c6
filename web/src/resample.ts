/** Resizing of pixels as OpenCV does it, so that the page and the command see the same picture. */

import type { Filter } from './plan';
import { roundEven } from './tensors';

interface Axis {
  taps: number;
  sources: Int32Array;
  weights: Float32Array;
}

const CUBIC = -0.75;
/** OpenCV's bilinear weights are whole numbers of this many bits. */
const BITS = 11;
const kept = new Map<string, Axis>();

function cubicWeights(t: number): number[] {
  const near = (x: number) => ((CUBIC + 2) * x - (CUBIC + 3)) * x * x + 1;
  const far = (x: number) => ((CUBIC * x - 5 * CUBIC) * x + 8 * CUBIC) * x - 4 * CUBIC;
  return [far(t + 1), near(t), near(1 - t), far(2 - t)];
}

function axis(from: number, to: number, filter: Filter, enlarges: boolean): Axis {
  const key = `${from} ${to} ${filter} ${enlarges}`;
  const known = kept.get(key);
  if (known) return known;
  const scale = from / to;
  const rows: [number, number[]][] = [];
  for (let place = 0; place < to; place++) rows.push(row(place, scale, from, to, filter, enlarges));
  const taps = Math.max(...rows.map(([, weights]) => weights.length));
  const made = { taps, sources: new Int32Array(to * taps), weights: new Float32Array(to * taps) };
  rows.forEach(([first, weights], place) => {
    for (let tap = 0; tap < taps; tap++) {
      made.sources[place * taps + tap] = Math.min(from - 1, Math.max(0, first + tap));
      made.weights[place * taps + tap] = weights[tap] ?? 0;
    }
  });
  kept.set(key, made);
  return made;
}

/** The first source pixel of one result pixel, and the weights from there on. */
function row(place: number, scale: number, from: number, to: number, filter: Filter, enlarges: boolean): [number, number[]] {
  if (filter === 'nearest') return [Math.min(from - 1, Math.floor(place * scale)), [1]];
  if (filter === 'area' && !enlarges) return covered(place * scale, Math.min((place + 1) * scale, from), from);
  let at = (place + 0.5) * scale - 0.5;
  if (filter === 'bicubic') return [Math.floor(at) - 1, cubicWeights(at - Math.floor(at))];
  if (filter === 'area') {
    const first = Math.floor(place * scale);
    const rest = place + 1 - (first + 1) * (to / from);
    return linear(first, rest <= 0 ? 0 : rest - Math.floor(rest), from);
  }
  at = Math.max(0, at);
  return linear(Math.floor(at), at - Math.floor(at), from, true);
}

/** Two neighbours and how much of each; `whole` weights add up to two to the power of `BITS`. */
function linear(first: number, rest: number, from: number, whole = false): [number, number[]] {
  if (whole) {
    const one = 1 << BITS;
    const part = Math.fround(rest);
    return first >= from - 1 ? [from - 1, [one]] : [first, [roundEven((1 - part) * one), roundEven(part * one)]];
  }
  return first >= from - 1 ? [from - 1, [1]] : [first, [1 - rest, rest]];
}

function covered(low: number, high: number, from: number): [number, number[]] {
  const first = Math.floor(low + 1e-6);
  const last = Math.min(from, Math.ceil(high - 1e-6));
  const weights = [];
  for (let source = first; source < last; source++) {
    weights.push((Math.min(source + 1, high) - Math.max(source, low)) / (high - low));
  }
  return [first, weights];
}

export interface Picture {
  /** Red, green, blue and alpha of each pixel. */
  data: Uint8Array | Uint8ClampedArray;
  width: number;
  height: number;
}

/** The picture at another size: red, green and blue of each pixel. */
export function resample(picture: Picture, width: number, height: number, filter: Filter): Uint8Array {
  const enlarges = width > picture.width || height > picture.height;
  const across = axis(picture.width, width, filter, enlarges);
  const down = axis(picture.height, height, filter, enlarges);
  if (filter === 'bilinear') return bilinear(picture, across, down, width, height);
  const middle = acrossRows(picture, across, width, new Float32Array(picture.height * width * 3));
  const found = new Uint8Array(width * height * 3);
  const line = width * 3;
  const { taps } = down;
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < line; x++) {
      let sum = 0;
      for (let tap = 0; tap < taps; tap++) {
        sum += middle[down.sources[y * taps + tap] * line + x] * down.weights[y * taps + tap];
      }
      found[y * line + x] = sum <= 0 ? 0 : sum >= 255 ? 255 : (sum + 0.5) | 0;
    }
  }
  return found;
}

/** The same in the whole numbers of OpenCV, which cuts bits off between the two directions. */
function bilinear(picture: Picture, across: Axis, down: Axis, width: number, height: number): Uint8Array {
  const middle = acrossRows(picture, across, width, new Int32Array(picture.height * width * 3));
  const found = new Uint8Array(width * height * 3);
  const line = width * 3;
  for (let y = 0; y < height; y++) {
    const [first, second] = down.taps === 1 ? [y, y] : [2 * y, 2 * y + 1];
    const [above, below] = [down.sources[first] * line, down.sources[second] * line];
    const [upper, lower] = [down.weights[first], down.taps === 1 ? 0 : down.weights[second]];
    for (let x = 0; x < line; x++) {
      const sum = (((middle[above + x] >> 4) * upper) >> 16) + (((middle[below + x] >> 4) * lower) >> 16);
      found[y * line + x] = (sum + 2) >> 2;
    }
  }
  return found;
}

function acrossRows<T extends Float32Array | Int32Array>(picture: Picture, axis: Axis, width: number, middle: T): T {
  const { data } = picture;
  const { taps, sources, weights } = axis;
  let place = 0;
  for (let y = 0; y < picture.height; y++) {
    const start = y * picture.width;
    for (let x = 0; x < width; x++) {
      let red = 0;
      let green = 0;
      let blue = 0;
      for (let tap = x * taps; tap < (x + 1) * taps; tap++) {
        const source = (start + sources[tap]) * 4;
        const weight = weights[tap];
        red += data[source] * weight;
        green += data[source + 1] * weight;
        blue += data[source + 2] * weight;
      }
      middle[place++] = red;
      middle[place++] = green;
      middle[place++] = blue;
    }
  }
  return middle;
}

/** Where a letterbox has the picture: its place and size in the input. */
export function letterbox(picture: { width: number; height: number }, width: number, height: number) {
  const ratio = Math.min(height / picture.height, width / picture.width);
  const inner = { width: Math.max(1, roundEven(picture.width * ratio)), height: Math.max(1, roundEven(picture.height * ratio)) };
  return { ...inner, left: (width - inner.width) >> 1, top: (height - inner.height) >> 1 };
}
