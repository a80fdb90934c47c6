/** A file opened in one of the WebAssembly runtimes, inside a worker. */

import type { Accelerator, Subject, Values } from './plan';

export type Tensors = Record<string, Values>;

export interface Session {
  /** The runtime with its version and variant. */
  readonly runtime: string;
  /** What computes; another than was asked for where the runtime fell back. */
  readonly accelerator: Accelerator;
  /** What the runtime says of where it computes, for people. */
  readonly notes: string[];
  /** One inference, from arrays to arrays. */
  run(inputs: Tensors): Promise<Tensors>;
  close(): void;
}

export interface Engine {
  open(subject: Subject, bytes: Uint8Array): Promise<Session>;
}

export interface EngineOptions {
  /** The folder of the page. */
  base: string;
  accelerator: Accelerator;
  threads: number;
}

export type StartEngine = (options: EngineOptions) => Promise<Engine>;

/** The version of a package among the runtimes, as `make web` wrote it down. */
export async function versionOf(base: string, name: string): Promise<string> {
  const packages = (await (await fetch(`${base}runtimes/packages.json`)).json()) as Record<string, { version: string }>;
  return packages[name].version;
}

/** Modules of the runtimes are files of their own, which the page's bundler does not look into. */
export async function runtimeModule<T>(base: string, path: string): Promise<T> {
  const url = `${base}runtimes/${path}`;
  return (await import(/* @vite-ignore */ url)) as T;
}
