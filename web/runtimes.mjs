// Puts the variants of the WebAssembly runtimes that the page loads, and no others, beside the page.
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'vite';

const here = dirname(fileURLToPath(import.meta.url));
const target = join(here, '..', 'deploykit', 'web', 'runtimes');
const liteRt = ['litert_wasm_internal', 'litert_wasm_compat_internal', 'litert_wasm_threaded_internal', 'litert_wasm_jspi_internal'];
const onnx = [
  'ort.wasm.min.mjs',
  'ort-wasm-simd-threaded.mjs',
  'ort-wasm-simd-threaded.wasm',
  'ort.jspi.min.mjs',
  'ort-wasm-simd-threaded.jspi.mjs',
  'ort-wasm-simd-threaded.jspi.wasm',
];

const from = (name, ...parts) => join(here, 'node_modules', name, ...parts);
const about = async (name) => JSON.parse(await readFile(from(name, 'package.json'), 'utf8'));

await rm(target, { recursive: true, force: true });
await mkdir(join(target, 'litert'), { recursive: true });
await mkdir(join(target, 'onnx'));
for (const name of liteRt) {
  for (const suffix of ['.js', '.wasm']) {
    await copyFile(from('@litertjs/core', 'wasm', name + suffix), join(target, 'litert', name + suffix));
  }
}
for (const name of onnx) {
  await copyFile(from('onnxruntime-web', 'dist', name), join(target, 'onnx', name));
}
// Its module names another package, which a browser does not find by itself.
await build({
  configFile: false,
  root: here,
  logLevel: 'warn',
  build: {
    outDir: join(target, 'litert'),
    emptyOutDir: false,
    copyPublicDir: false,
    target: 'es2022',
    lib: { entry: from('@litertjs/core', 'dist', 'index.js'), formats: ['es'], fileName: () => 'litert.mjs' },
  },
});
const packages = {};
for (const name of ['@litertjs/core', '@litertjs/wasm-utils', 'onnxruntime-web']) {
  const { version, license } = await about(name);
  packages[name] = { version, license };
}
await writeFile(join(target, 'packages.json'), JSON.stringify(packages, null, 2) + '\n');
