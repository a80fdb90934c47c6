/** The page: two views of the files that the command names. `#run` starts the benchmark at once. */

import { BenchView } from './bench-view';
import { Command } from './command';
import { element } from './dom';
import { readPlan } from './folder';
import { LiveView } from './live-view';

const VIEWS = ['live', 'bench'] as const;
type View = (typeof VIEWS)[number];

function tabs(): (view: View) => void {
  const show = (view: View) => {
    for (const one of VIEWS) {
      const tab = element(`tab-${one}`);
      tab.setAttribute('aria-selected', String(one === view));
      tab.tabIndex = one === view ? 0 : -1;
      element(one).hidden = one !== view;
    }
  };
  for (const [index, one] of VIEWS.entries()) {
    const tab = element(`tab-${one}`);
    tab.addEventListener('click', () => show(one));
    tab.addEventListener('keydown', ({ key }) => {
      if (key !== 'ArrowLeft' && key !== 'ArrowRight') return;
      const other = VIEWS[(index + 1) % VIEWS.length];
      show(other);
      element(`tab-${other}`).focus();
    });
  }
  return show;
}

async function start(): Promise<void> {
  const show = tabs();
  const plan = await readPlan();
  const live = new LiveView(plan);
  const command = new Command();
  if (plan.reports) command.watch();
  const bench = new BenchView(plan, command, () => live.release());
  element('tab-live').addEventListener('click', () => {
    bench.end();
    void live.select();
  });
  if (location.hash === '#run') {
    show('bench');
    await bench.run();
  } else await live.select();
}

start().catch((error: unknown) => {
  const problem = element('problem');
  problem.hidden = false;
  problem.textContent = error instanceof Error ? error.message : String(error);
});
