/** TFLite files in LiteRT.js. */

import type * as LiteRtModule from '@litertjs/core';
import type { Subject } from './plan';
import { runtimeModule, versionOf, type Engine, type EngineOptions, type Session, type Tensors } from './session';

const VARIANTS = { wasm: 'WebAssembly', webgpu: 'WebGPU', webnn: 'WebNN' } as const;

export async function startLiteRt({ base, accelerator, threads }: EngineOptions): Promise<Engine> {
  const [litert, version] = await Promise.all([
    runtimeModule<typeof LiteRtModule>(base, 'litert/litert.mjs'),
    versionOf(base, '@litertjs/core'),
  ]);
  const relaxed = await litert.supportsFeature('relaxedSimd');
  // WebNN waits for promises inside WebAssembly; so does a file that the GPU computes in part only.
  const jspi = accelerator !== 'wasm' && (await litert.supportsFeature('jspi'));
  const folder = `${base}runtimes/litert/`;
  // Inside a worker Emscripten would look beside the worker's own script.
  Object.assign(self, {
    Module: {
      locateFile: (name: string) => folder + name,
      mainScriptUrlOrBlob: `${folder}litert_wasm_threaded_internal.js`,
    },
  });
  await litert.loadLiteRt(folder, { threads: accelerator === 'wasm' && threads > 1, jspi });
  const simd = relaxed ? 'relaxed SIMD' : 'SIMD';
  return {
    async open(_subject: Subject, bytes: Uint8Array): Promise<Session> {
      const model = await litert.loadAndCompile(bytes, {
        accelerator,
        ...(accelerator === 'wasm' ? { cpuOptions: { numThreads: threads } } : {}),
      });
      const ran = model.options.accelerator;
      const partly = ran !== 'wasm' && !model.isFullyAccelerated;
      return {
        runtime: `LiteRT.js ${version} (${VARIANTS[ran]}${ran === 'wasm' ? `, ${simd}` : ''})`,
        accelerator: ran,
        notes: partly ? [`${VARIANTS[ran]} computes some operations; WebAssembly the others`] : [],
        run: (inputs) => infer(litert, model, inputs),
        close: () => model.delete(),
      };
    },
  };
}

async function infer(litert: typeof LiteRtModule, model: LiteRtModule.CompiledModel, inputs: Tensors): Promise<Tensors> {
  const given: Record<string, LiteRtModule.Tensor> = {};
  for (const { name, shape } of model.getInputDetails()) {
    given[name] = new litert.Tensor(inputs[name] as LiteRtModule.TypedArray, shape);
  }
  try {
    const outputs = await model.run(given);
    const found: Tensors = {};
    for (const [name, tensor] of Object.entries(outputs)) {
      found[name] = await tensor.data();
      tensor.delete();
    }
    return found;
  } finally {
    for (const tensor of Object.values(given)) tensor.delete();
  }
}
