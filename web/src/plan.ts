/** What the command tells the page: files, their contract, what they are checked against, how to measure. */

export type Values = Float32Array | Int32Array | Uint8Array | Int8Array;
export type Layout = 'nchw' | 'nhwc';
export type Accelerator = 'wasm' | 'webgpu' | 'webnn';
export type Filter = 'nearest' | 'bilinear' | 'bicubic' | 'area';

export interface TensorSpec {
  name: string;
  shape: number[];
  dtype: string;
  layout: Layout;
  /** Integers q stand for `scale * (q - zero_point)`; null for real numbers. */
  scale: number | null;
  zero_point: number;
}

export interface ImageRule {
  color_order: 'rgb' | 'bgr';
  mean: number[];
  scale: number[];
  rule: 'stretch' | 'letterbox';
  filter: Filter;
  pad_value: number;
}

export interface InputSpec extends TensorSpec {
  image: ImageRule | null;
  feedback: { output: string; class_index: number; first: number } | null;
  /** The host's own tensor for the bundled picture. */
  file: string;
}

export interface Subject {
  name: string;
  label: string;
  network: string;
  target: 'tflite' | 'onnx';
  precision: string;
  size_bytes: number;
  content_hash: string;
  file: string;
  inputs: InputSpec[];
  outputs: TensorSpec[];
  scored: string;
  output_kind: 'logits' | 'probability' | 'mask';
  /** The host's classes of the bundled picture, one byte a pixel of the output. */
  mask: string;
  session_options: Record<string, string>;
}

export interface Protocol {
  min_runs: number;
  min_seconds: number;
  max_seconds: number;
  precision_target: number | null;
  warmup_runs: number;
  warmup_seconds: number;
  max_warmup_seconds: number;
  warmup_change: number;
  block_seconds: number;
  seed: number;
}

export interface Plan {
  version: number;
  /** Whether a command listens for results; not so for exported static files. */
  reports: boolean;
  protocol: Protocol;
  threads: number[];
  accelerators: Accelerator[];
  required_agreement: number;
  picture: { file: string; width: number; height: number };
  subjects: Subject[];
}

export const PLAN_VERSION = 1;

export async function readBytes(base: string, file: string): Promise<ArrayBuffer> {
  const response = await fetch(base + file);
  if (!response.ok) throw new Error(`${file}: ${response.status} ${response.statusText}`);
  return response.arrayBuffer();
}
