/** Sends what is measured to the command, piece by piece and in order, and keeps it for a file as well. */

import { BASE } from './folder';

export type Event = { event: string } & Record<string, unknown>;

const EVERY_MS = 250;
const MOST_EVENTS = 200;
const GONE = 'the command does not answer any more';

export class Reporter {
  /** What went wrong with sending, if anything did. */
  problem = '';
  readonly events: Event[] = [];
  private waiting: Event[] = [];
  private sending: Promise<void> = Promise.resolve();
  private last = 0;

  /** An empty `url` sends nothing: there is no command. `lost` is called when there is none any more. */
  constructor(
    private readonly url: string,
    private readonly lost: () => void,
  ) {
    if (url) addEventListener('pagehide', this.leave);
  }

  /** Whether what was measured is on this page alone. */
  get alone(): boolean {
    return !this.url || this.problem !== '';
  }

  tell(event: Event): void {
    this.events.push(event);
    if (this.alone) return;
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
        if (response.ok) this.waiting.splice(0, events.length);
        else this.problem = `the command refused the results: ${response.status} ${await response.text()}`;
      } catch {
        this.problem = GONE;
        this.lost();
      }
    }
  }

  private readonly leave = () => {
    if (this.problem) return;
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

/** A new run of the benchmark at the command, or one that keeps everything to itself where there never was one. */
export async function startReport(reports: boolean, lost: () => void): Promise<Reporter> {
  if (!reports) return new Reporter('', lost);
  let response: Response;
  try {
    response = await fetch(`${BASE}runs`, posted({}));
  } catch {
    lost();
    throw new Error(`not started: ${GONE}`);
  }
  if (!response.ok) throw new Error(`The command takes no results: ${await response.text()}`);
  const { run } = (await response.json()) as { run: string };
  return new Reporter(`${BASE}runs/${run}`, lost);
}
