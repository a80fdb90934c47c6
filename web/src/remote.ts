/** A worker as a promise for each question. */

import type { Answer, Ask, CallName, Question, Reply } from './messages';

export class Remote {
  private readonly worker = new Worker(new URL('./worker.ts', import.meta.url), { name: 'file' });
  private readonly waiting = new Map<number, { resolve: (answer: never) => void; reject: (error: Error) => void }>();
  private asked = 0;

  constructor() {
    this.worker.onmessage = ({ data }: MessageEvent<Reply>) => {
      const one = this.waiting.get(data.id);
      this.waiting.delete(data.id);
      if ('error' in data) one?.reject(new Error(data.error));
      else one?.resolve(data.answer as never);
    };
    this.worker.onerror = (event) => this.fail(event.message || 'the worker ended');
  }

  ask<N extends CallName>(name: N, ask: Ask<N>, transfer: Transferable[] = []): Promise<Answer<N>> {
    const question: Question = { id: this.asked++, name, ask };
    return new Promise<Answer<N>>((resolve, reject) => {
      this.waiting.set(question.id, { resolve, reject });
      this.worker.postMessage(question, transfer);
    });
  }

  close(): void {
    this.worker.terminate();
    this.fail('stopped');
  }

  private fail(message: string): void {
    for (const one of this.waiting.values()) one.reject(new Error(message));
    this.waiting.clear();
  }
}
