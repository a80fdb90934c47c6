/** What the page asks of a worker and what comes back. */

import type { Accelerator, Subject } from './plan';

export interface Opened {
  runtime: string;
  accelerator: Accelerator;
  notes: string[];
  /** From the start of the worker until its runtime can open a file. */
  process_s: number;
  cold_load_s: number;
  first_inference_s: number;
  warm_load_s: number;
}

export interface Checked {
  /** The share of pixels that have the host's class, on the host's own tensor. */
  agreement: number;
  /** The same with the page's own preprocessing. */
  own_agreement: number;
  /** By how many of 256 levels the page's own tensor is off, at most. */
  levels: number;
}

export interface Timed {
  starts_ms: number[];
  samples_s: number[];
}

export interface FrameMask {
  alpha: Uint8ClampedArray<ArrayBuffer>;
  width: number;
  height: number;
  /** The part of the mask that has the frame: a letterbox has borders. */
  crop: { left: number; top: number; width: number; height: number };
  preprocess_ms: number;
  inference_ms: number;
  mask_ms: number;
}

export interface Calls {
  open: { ask: { base: string; subject: Subject; threads: number; accelerator: Accelerator; startup: boolean }; answer: Opened };
  check: { ask: { picture: { file: string; width: number; height: number } }; answer: Checked };
  granularity: { ask: Record<string, never>; answer: number };
  time: { ask: { runs: number; repeats: number; settle: boolean }; answer: Timed };
  frame: { ask: { pixels: ArrayBuffer; width: number; height: number; restart: boolean }; answer: FrameMask };
}

export type CallName = keyof Calls;
export type Ask<N extends CallName> = Calls[N]['ask'];
export type Answer<N extends CallName> = Calls[N]['answer'];

export interface Question {
  id: number;
  name: CallName;
  ask: unknown;
}

export type Reply = { id: number; answer: unknown } | { id: number; error: string };
