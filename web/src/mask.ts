/** From what a file returns to the class of each pixel and to how sure it is of a person. */

import type { Subject, TensorSpec, Values } from './plan';
import { imageShape } from './tensors';

export const NO_CLASS = 255;

type Read = (channel: number, place: number) => number;

function reader(values: Values, spec: TensorSpec): Read {
  const { height, width, channels } = imageShape(spec);
  const size = height * width;
  const scale = spec.scale ?? 1;
  const zero = spec.scale === null ? 0 : spec.zero_point;
  return spec.layout === 'nchw'
    ? (channel, place) => (values[channel * size + place] - zero) * scale
    : (channel, place) => (values[place * channels + channel] - zero) * scale;
}

export function scoredOutput(subject: Subject): TensorSpec {
  const found = subject.outputs.find((output) => output.name === subject.scored);
  if (!found) throw new Error(`${subject.name} has no output ${subject.scored}`);
  return found;
}

/** The class of each pixel; `NO_CLASS` where a value is not finite or stands for none. */
export function classesOf(values: Values, spec: TensorSpec, kind: Subject['output_kind']): Uint8Array {
  const { height, width, channels } = imageShape(spec);
  const read = reader(values, spec);
  const found = new Uint8Array(height * width);
  for (let place = 0; place < found.length; place++) {
    found[place] = kind === 'mask' ? numbered(read(0, place)) : best(read, channels, place, kind === 'logits' ? 0 : 0.5);
  }
  return found;
}

function numbered(value: number): number {
  return Number.isInteger(value) && value >= 0 && value < NO_CLASS ? value : NO_CLASS;
}

/** The largest; of one alone whether it is above `even`, since it is that of the second of two classes. */
function best(read: Read, channels: number, place: number, even: number): number {
  let top = read(0, place);
  if (Number.isNaN(top)) return NO_CLASS;
  if (channels === 1) return top > even ? 1 : 0;
  let index = 0;
  for (let channel = 1; channel < channels; channel++) {
    const value = read(channel, place);
    if (Number.isNaN(value)) return NO_CLASS;
    if (value > top) [top, index] = [value, channel];
  }
  return index;
}

/** The probability of class `index` at each pixel, from 0 to 1. */
export function probabilityOf(values: Values, spec: TensorSpec, kind: Subject['output_kind'], index: number): Float32Array {
  const { height, width, channels } = imageShape(spec);
  const read = reader(values, spec);
  const found = new Float32Array(height * width);
  for (let place = 0; place < found.length; place++) {
    if (kind === 'mask') found[place] = read(0, place) === index ? 1 : 0;
    else if (channels === 1) {
      const second = kind === 'logits' ? 1 / (1 + Math.exp(-read(0, place))) : read(0, place);
      found[place] = index === 1 ? second : 1 - second;
    } else found[place] = kind === 'logits' ? softmax(read, channels, place, index) : read(index, place);
  }
  return found;
}

function softmax(read: Read, channels: number, place: number, index: number): number {
  const own = read(index, place);
  let sum = 0;
  for (let channel = 0; channel < channels; channel++) sum += Math.exp(read(channel, place) - own);
  return 1 / sum;
}

/** How sure the file is of a person at each pixel, 0 to 255: every class but the first is one. */
export function foregroundOf(values: Values, spec: TensorSpec, kind: Subject['output_kind']): Uint8ClampedArray<ArrayBuffer> {
  const behind = probabilityOf(values, spec, kind, 0);
  const found = new Uint8ClampedArray(behind.length);
  for (let place = 0; place < behind.length; place++) found[place] = (1 - behind[place]) * 255;
  return found;
}

/** The share of pixels with the same class; nothing agrees with no class at all. */
export function agreement(ours: Uint8Array, theirs: Uint8Array): number {
  if (ours.length !== theirs.length || !ours.length) return 0;
  let same = 0;
  for (let place = 0; place < ours.length; place++) same += ours[place] === theirs[place] && ours[place] !== NO_CLASS ? 1 : 0;
  return same / ours.length;
}
