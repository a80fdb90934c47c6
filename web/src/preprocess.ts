/** From a picture to the tensor that a file takes, by the rules of its manifest. */

import type { ImageRule, InputSpec, Values } from './plan';
import { letterbox, resample, type Picture } from './resample';
import { empty, imageShape, stored } from './tensors';

/** The pixels at the size of the input: red, green and blue, letterboxed where the rule says so. */
function fitted(picture: Picture, rule: ImageRule, width: number, height: number): Uint8Array {
  if (rule.rule === 'stretch') return resample(picture, width, height, rule.filter);
  const inner = letterbox(picture, width, height);
  const pixels = resample(picture, inner.width, inner.height, rule.filter);
  const found = new Uint8Array(width * height * 3).fill(rule.pad_value);
  for (let y = 0; y < inner.height; y++) {
    const line = pixels.subarray(y * inner.width * 3, (y + 1) * inner.width * 3);
    found.set(line, ((inner.top + y) * width + inner.left) * 3);
  }
  return found;
}

const tables = new WeakMap<InputSpec, Float64Array[]>();

/** What each of the 256 levels of a channel is in the file: all of preprocessing but the resizing. */
function levels(input: InputSpec, rule: ImageRule): Float64Array[] {
  const known = tables.get(input);
  if (known) return known;
  const made = [0, 1, 2].map((channel) =>
    Float64Array.from({ length: 256 }, (_, level) =>
      input.dtype === 'uint8' ? level : stored(input, (level - rule.mean[channel]) * rule.scale[channel]),
    ),
  );
  tables.set(input, made);
  return made;
}

/** The tensor of one image input. */
export function preprocess(picture: Picture, input: InputSpec): Values {
  const rule = input.image;
  if (!rule) throw new Error(`${input.name} is no image`);
  const { height, width } = imageShape(input);
  const pixels = fitted(picture, rule, width, height);
  const found = empty(input);
  const size = height * width;
  const table = levels(input, rule);
  for (let channel = 0; channel < 3; channel++) {
    const of = table[channel];
    const source = rule.color_order === 'bgr' ? 2 - channel : channel;
    const [start, step] = input.layout === 'nchw' ? [channel * size, 1] : [channel, 3];
    for (let place = 0; place < size; place++) found[start + place * step] = of[pixels[place * 3 + source]];
  }
  return found;
}

/** By how many of 256 levels the tensor differs most from another of the same input. */
export function levelsApart(ours: Values, theirs: Values, input: InputSpec): number {
  const rule = input.image;
  if (!rule) return 0;
  const { height, width } = imageShape(input);
  const unit = [0, 1, 2].map((channel) =>
    input.dtype === 'uint8' ? 1 : (input.scale ?? 1) / Math.abs(rule.scale[channel]),
  );
  let most = 0;
  for (let place = 0; place < ours.length; place++) {
    const channel = input.layout === 'nchw' ? Math.floor(place / (height * width)) : place % 3;
    const apart = Math.abs(ours[place] - theirs[place]) * unit[channel];
    if (!(apart <= most)) most = apart;
  }
  return most;
}
