/** One file in one runtime, away from the page's own thread: opened, checked, timed, and run on frames. */

import { requireAccelerator } from './accelerators';
import type { Answer, Ask, Calls, Question, Reply } from './messages';
import { agreement, classesOf, foregroundOf, probabilityOf, scoredOutput } from './mask';
import { startLiteRt } from './litert';
import { startOnnx } from './onnx';
import { readBytes, type Subject } from './plan';
import { levelsApart, preprocess } from './preprocess';
import { letterbox, type Picture } from './resample';
import type { Engine, Session, Tensors } from './session';
import { empty, fromBytes, imageShape } from './tensors';

const ENGINES = { tflite: startLiteRt, onnx: startOnnx } as const;
const TICKS = 20;

let base = '';
let subject: Subject;
let session: Session;
let hostInputs: Tensors = {};
let before: Tensors = {};

const seconds = (since: number) => (performance.now() - since) / 1000;

async function open({ base: folder, subject: wanted, threads, accelerator, startup }: Ask<'open'>): Promise<Answer<'open'>> {
  base = folder;
  subject = wanted;
  await requireAccelerator(accelerator);
  // The live view wants its first mask soon; a cold load is measured by itself.
  const early = startup ? null : readBytes(base, subject.file);
  const inputs = subject.inputs.map((input) => readBytes(base, input.file));
  const engine: Engine = await ENGINES[subject.target]({ base, accelerator, threads });
  const process_s = performance.now() / 1000;
  const asked = performance.now();
  const bytes = new Uint8Array(await (early ?? readBytes(base, subject.file)));
  session = await engine.open(subject, bytes);
  const cold_load_s = seconds(asked);
  for (const [index, input] of subject.inputs.entries()) hostInputs[input.name] = fromBytes(input, await inputs[index]);
  const first = performance.now();
  await session.run(hostInputs);
  const first_inference_s = seconds(first);
  let warm_load_s = 0;
  if (startup) {
    session.close();
    const again = performance.now();
    session = await engine.open(subject, bytes);
    warm_load_s = seconds(again);
  }
  const { runtime, accelerator: ran, notes } = session;
  return { runtime, accelerator: ran, notes, process_s, cold_load_s, first_inference_s, warm_load_s };
}

async function check({ picture }: Ask<'check'>): Promise<Answer<'check'>> {
  const scored = scoredOutput(subject);
  const host = new Uint8Array(await readBytes(base, subject.mask));
  const classes = async (inputs: Tensors) => classesOf((await session.run(inputs))[scored.name], scored, subject.output_kind);
  const shown: Picture = { ...picture, data: new Uint8Array(await readBytes(base, picture.file)) };
  const own = { ...hostInputs, ...pictureInputs(shown) };
  const images = subject.inputs.filter((input) => input.image);
  return {
    agreement: agreement(await classes(hostInputs), host),
    own_agreement: agreement(await classes(own), host),
    levels: Math.max(...images.map((input) => levelsApart(own[input.name], hostInputs[input.name], input))),
  };
}

function pictureInputs(picture: Picture): Tensors {
  return Object.fromEntries(
    subject.inputs.filter((input) => input.image).map((input) => [input.name, preprocess(picture, input)]),
  );
}

/** The smallest step of the clock, in seconds. */
function granularity(): number {
  let smallest = Infinity;
  for (let step = 0; step < TICKS; step++) {
    const from = performance.now();
    let now = from;
    while (now === from) now = performance.now();
    smallest = Math.min(smallest, now - from);
  }
  return smallest / 1000;
}

async function time({ runs, repeats, settle }: Ask<'time'>): Promise<Answer<'time'>> {
  const found: Answer<'time'> = { starts_ms: [], samples_s: [] };
  if (settle) await session.run(hostInputs);
  for (let run = 0; run < runs; run++) {
    const start = performance.now();
    for (let repeat = 0; repeat < repeats; repeat++) await session.run(hostInputs);
    found.samples_s.push((performance.now() - start) / 1000 / repeats);
    found.starts_ms.push(performance.timeOrigin + start);
  }
  return found;
}

async function frame({ pixels, width, height, restart }: Ask<'frame'>): Promise<Answer<'frame'>> {
  const begun = performance.now();
  const picture = { data: new Uint8Array(pixels), width, height };
  if (restart) before = firstFeedback();
  const inputs = { ...hostInputs, ...before, ...pictureInputs(picture) };
  const prepared = performance.now();
  const outputs = await session.run(inputs);
  const inferred = performance.now();
  const scored = scoredOutput(subject);
  const alpha = foregroundOf(outputs[scored.name], scored, subject.output_kind);
  before = nextFeedback(outputs);
  const ended = performance.now();
  return {
    alpha,
    ...size(scored),
    crop: cropOf(picture),
    preprocess_ms: prepared - begun,
    inference_ms: inferred - prepared,
    mask_ms: ended - inferred,
  };
}

function size(spec: Parameters<typeof imageShape>[0]): { width: number; height: number } {
  const { width, height } = imageShape(spec);
  return { width, height };
}

function cropOf(picture: Picture): Answer<'frame'>['crop'] {
  const mask = size(scoredOutput(subject));
  const image = subject.inputs.find((input) => input.image);
  if (image?.image?.rule !== 'letterbox') return { left: 0, top: 0, ...mask };
  return letterbox(picture, mask.width, mask.height);
}

function firstFeedback(): Tensors {
  const fed = subject.inputs.filter((input) => input.feedback);
  return Object.fromEntries(fed.map((input) => [input.name, empty(input).fill(input.feedback?.first ?? 0)]));
}

function nextFeedback(outputs: Tensors): Tensors {
  const found: Tensors = {};
  for (const input of subject.inputs) {
    const source = subject.outputs.find((output) => output.name === input.feedback?.output);
    if (!source || !input.feedback) continue;
    found[input.name] = probabilityOf(outputs[source.name], source, subject.output_kind, input.feedback.class_index);
  }
  return found;
}

const calls: { [N in keyof Calls]: (ask: Ask<N>) => Answer<N> | Promise<Answer<N>> } = { open, check, granularity, time, frame };

self.onmessage = async ({ data }: MessageEvent<Question>) => {
  let reply: Reply;
  try {
    reply = { id: data.id, answer: await calls[data.name](data.ask as never) };
  } catch (error) {
    reply = { id: data.id, error: error instanceof Error ? error.message : String(error) };
  }
  self.postMessage(reply);
};
