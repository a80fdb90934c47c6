/** Whether the command that serves the page is still there: asked while nothing is sent to it anyway. */

import { element } from './dom';
import { BASE } from './folder';

const EVERY_MS = 4000;
const WORDS =
  'The command has ended, with the results that it was sent. A benchmark that still runs goes on with the files that it has opened; save it as a file before you close the page. ' +
  'For another one start deploykit web again, and open its new address.';

export class Command {
  /** Asked for nothing while this is set: a benchmark sends all the time, and is not to be disturbed. */
  busy = false;

  /** Begins to look, where there is a command at all. */
  watch(): void {
    setInterval(() => void this.look(), EVERY_MS);
  }

  /** Says that it does not answer, or that it does again. */
  found(there: boolean): void {
    const problem = element('problem');
    if (problem.hidden !== there) problem.textContent = there ? '' : WORDS;
    problem.hidden = there;
  }

  private async look(): Promise<void> {
    if (this.busy || document.hidden) return;
    try {
      const response = await fetch(`${BASE}plan.json`, { method: 'HEAD', cache: 'no-store' });
      if (!this.busy) this.found(response.ok);
    } catch {
      if (!this.busy) this.found(false);
    }
  }
}
