/** Arrays in the number formats of files. */

import type { TensorSpec, Values } from './plan';

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array } as const;
const LIMITS: Record<string, [number, number]> = { uint8: [0, 255], int8: [-128, 127], int32: [-2147483648, 2147483647] };

export function empty(spec: TensorSpec): Values {
  const make = ARRAYS[spec.dtype as keyof typeof ARRAYS];
  if (!make) throw new Error(`${spec.name} holds ${spec.dtype}, which the page does not make`);
  return new make(spec.shape.reduce((all, one) => all * one, 1));
}

export function fromBytes(spec: TensorSpec, bytes: ArrayBuffer): Values {
  const made = empty(spec);
  if (made.byteLength !== bytes.byteLength) throw new Error(`${spec.name} has ${bytes.byteLength} bytes, not ${made.byteLength}`);
  new Uint8Array(made.buffer).set(new Uint8Array(bytes));
  return made;
}

/** Halves go to the even neighbour, as in numpy and Python. */
export function roundEven(value: number): number {
  const down = Math.floor(value);
  const rest = value - down;
  if (rest !== 0.5) return Math.round(value);
  return down % 2 === 0 ? down : down + 1;
}

/** A real number in the numbers of the file. */
export function stored(spec: TensorSpec, value: number): number {
  const limits = LIMITS[spec.dtype];
  if (spec.scale === null) return limits ? Math.trunc(value) : value;
  const [low, high] = limits ?? [-Infinity, Infinity];
  const single = Math.fround(Math.fround(value) / Math.fround(spec.scale));
  return Math.min(high, Math.max(low, roundEven(single) + spec.zero_point));
}

/** Height, width and classes of an image tensor (1, C, H, W) or (1, H, W, C). */
export function imageShape(spec: TensorSpec): { height: number; width: number; channels: number } {
  const [, a, b, c] = spec.shape;
  return spec.layout === 'nchw' ? { channels: a, height: b, width: c } : { height: a, width: b, channels: c };
}
