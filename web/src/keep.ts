/** A benchmark as a file, which `deploykit web ARTIFACT --record FILE` takes. */

import type { Plan } from './plan';
import type { Event } from './reporter';

export function saveAsFile(plan: Plan, events: Event[]): void {
  const body = {
    kind: 'deploykit web',
    version: 1,
    threads: plan.threads,
    accelerators: plan.accelerators,
    precision_target: plan.protocol.precision_target,
    subjects: plan.subjects.map(({ name, content_hash }) => ({ name, content_hash })),
    events,
  };
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([JSON.stringify(body)], { type: 'application/json' }));
  link.download = `deploykit-web-${new Date().toISOString().slice(0, 19).replace(/[-:]/g, '')}.json`;
  link.click();
  // The browser reads it after the click.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
