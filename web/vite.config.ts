import { defineConfig } from 'vite';

// The names carry no hash, so that a change of one file changes that file alone; relative, so that any folder serves it.
const NAMES = { entryFileNames: 'assets/[name].js', chunkFileNames: 'assets/[name].js', assetFileNames: 'assets/[name][extname]' };

export default defineConfig({
  base: './',
  publicDir: false,
  build: {
    outDir: '../deploykit/web/page',
    emptyOutDir: true,
    target: 'es2022',
    modulePreload: false,
    assetsInlineLimit: 0,
    reportCompressedSize: false,
    rollupOptions: { input: { page: 'index.html', enter: 'enter.html' }, output: NAMES },
  },
  // A classic script: LiteRT.js loads its WebAssembly by importScripts, which a module worker lacks.
  worker: { format: 'iife', rollupOptions: { output: NAMES } },
});
