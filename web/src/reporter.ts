/** Sends what is measured to the command, piece by piece and in order, so that nothing is lost when the page ends. */

import { BASE } from './folder';

export type Event = { event: string } & Record<string, unknown>;

const EVERY_MS = 250;
const MOST_EVENTS = 200;

export interface Reporter {
  tell(event: Event): void;
  flush(): Promise<void>;
  /** What went wrong with sending, if anything did. */
  readonly problem: string;
}

/** A page without a command keeps everything to itself. */
class Silent implements Reporter {
  readonly problem = '';
  tell(): void {}
  async flush(): Promise<void> {}
}

class Sender implements Reporter {
  problem = '';
  private waiting: Event[] = [];
  private sending: Promise<void> = Promise.resolve();
  private last = 0;

  constructor(private readonly url: string) {
    addEventListener('pagehide', this.leave);
  }

  tell(event: Event): void {
    this.waiting.push(event);
    if (performance.now() - this.last > EVERY_MS || event.event === 'end') void this.flush();
  }

  flush(): Promise<void> {
    this.last = performance.now();
    this.sending = this.sending.then(() => this.send());
    return this.sending;
  }

  private async send(): Promise<void> {
    while (this.waiting.length && !this.problem) {
      const events = this.waiting.slice(0, MOST_EVENTS);
      try {
        const response = await fetch(this.url, posted({ events }));
        if (!response.ok) this.problem = `the command refused the results: ${response.status} ${await response.text()}`;
        else this.waiting.splice(0, events.length);
      } catch {
        this.problem = 'the command does not answer any more';
      }
    }
  }

  private readonly leave = () => {
    const left = [...this.waiting, { event: 'end', complete: false, ended: 'the page was closed' }];
    void fetch(this.url, { ...posted({ events: left }), keepalive: true }).catch(() => undefined);
  };

  close(): void {
    removeEventListener('pagehide', this.leave);
  }
}

function posted(body: unknown): RequestInit {
  return { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) };
}

/** A new run of the benchmark at the command, or nobody to report to. */
export async function startReport(reports: boolean): Promise<Reporter & { close(): void }> {
  if (!reports) return Object.assign(new Silent(), { close: () => undefined });
  const response = await fetch(`${BASE}runs`, posted({}));
  if (!response.ok) throw new Error(`The command takes no results: ${response.status} ${await response.text()}`);
  const { run } = (await response.json()) as { run: string };
  return new Sender(`${BASE}runs/${run}`);
}
