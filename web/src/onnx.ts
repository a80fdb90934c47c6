/** ONNX files in onnxruntime-web. */

import type * as OrtModule from 'onnxruntime-web';
import type { Subject, Values } from './plan';
import { runtimeModule, versionOf, type Engine, type EngineOptions, type Session, type Tensors } from './session';

const NAMES = { wasm: 'WebAssembly', webgpu: 'WebGPU', webnn: 'WebNN' } as const;

export async function startOnnx({ base, accelerator, threads }: EngineOptions): Promise<Engine> {
  // One variant for both, a third smaller than the one that browsers without promises in WebAssembly would need.
  if (accelerator !== 'wasm' && !('Suspending' in WebAssembly)) {
    throw new Error(`onnxruntime-web needs promise integration for ${NAMES[accelerator]}, which this browser lacks`);
  }
  const variant = accelerator === 'wasm' ? 'ort.wasm.min.mjs' : 'ort.jspi.min.mjs';
  const [ort, version] = await Promise.all([
    runtimeModule<typeof OrtModule>(base, `onnx/${variant}`),
    versionOf(base, 'onnxruntime-web'),
  ]);
  ort.env.wasm.wasmPaths = `${base}runtimes/onnx/`;
  ort.env.wasm.numThreads = threads;
  ort.env.logLevel = 'error';
  return {
    async open(subject: Subject, bytes: Uint8Array): Promise<Session> {
      const session = await ort.InferenceSession.create(bytes, {
        executionProviders: [accelerator],
        extra: { session: sessionEntries(subject) },
      });
      return {
        runtime: `onnxruntime-web ${version} (${NAMES[accelerator]}${accelerator === 'wasm' ? ', SIMD' : ''})`,
        accelerator,
        notes: accelerator === 'wasm' ? [] : ['onnxruntime-web does not say which operations WebAssembly computed instead'],
        run: (inputs) => infer(ort, session, subject, inputs),
        close: () => void session.release(),
      };
    },
  };
}

/** Options such as `session.disable_quant_qdq`, as the runtime takes them: nested by the dots in their names. */
function sessionEntries(subject: Subject): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(subject.session_options).map(([key, value]) => [key.replace(/^session\./, ''), value]),
  );
}

async function infer(
  ort: typeof OrtModule,
  session: OrtModule.InferenceSession,
  subject: Subject,
  inputs: Tensors,
): Promise<Tensors> {
  const feeds: Record<string, OrtModule.Tensor> = {};
  for (const { name, dtype, shape } of subject.inputs) {
    feeds[name] = new ort.Tensor(dtype as 'float32', inputs[name] as Float32Array, shape);
  }
  const outputs = await session.run(feeds);
  return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, tensor.data as Values]));
}
