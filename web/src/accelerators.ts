/** Whether this browser has what a file is to be computed by: a runtime may take something else without a word. */

import type { Accelerator } from './plan';

type Navigators = { gpu?: GPU; ml?: { createContext(): Promise<unknown> } };

/** Throws, in a sentence, where `accelerator` is not there. Called in the worker that is going to compute. */
export async function requireAccelerator(accelerator: Accelerator): Promise<void> {
  const it = navigator as Navigators;
  if (accelerator === 'webgpu') {
    if (!it.gpu) throw new Error('this browser has no WebGPU');
    if (!(await it.gpu.requestAdapter().catch(() => null))) throw new Error('this browser has WebGPU, and finds no graphics processor for it');
  }
  if (accelerator === 'webnn') {
    if (!it.ml) throw new Error('this browser has no WebNN');
    if (!(await it.ml.createContext().catch(() => null))) throw new Error('this browser has WebNN, and finds nothing that computes for it');
  }
}
