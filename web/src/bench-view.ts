/** The table of the benchmark, its buttons and its words. */

import { Bench, medianOf, type Row } from './bench';
import type { Command } from './command';
import { element, make, ms, percent } from './dom';
import { readFacts, type Facts } from './facts';
import { saveAsFile } from './keep';
import type { Plan } from './plan';
import { Reporter, startReport } from './reporter';
import { drift, median, percentile } from './statistics';

const WORDS: Record<string, string> = { wasm: 'WebAssembly', webgpu: 'WebGPU', webnn: 'WebNN' };
const COLUMNS = ['file', 'runs on', 'mask', 'load cold, warm', 'median', '±', 'p90', 'runs', 'over time'];
const CHART = { width: 96, height: 24 };
const MOST_POINTS = 48;

export class BenchView {
  private readonly start = element<HTMLButtonElement>('start');
  private readonly stop = element<HTMLButtonElement>('stop');
  private readonly save = element<HTMLButtonElement>('save');
  private readonly status = element('bench-status');
  private readonly facts = readFacts();
  private bench: Bench | null = null;
  private reporter: Reporter | null = null;
  private said = '';

  constructor(
    private readonly plan: Plan,
    private readonly command: Command,
    private readonly before: () => void,
  ) {
    this.start.addEventListener('click', () => void this.run());
    this.stop.addEventListener('click', () => this.end());
    this.save.addEventListener('click', () => saveAsFile(plan, this.reporter?.events ?? []));
    void this.facts.then((facts) => this.showFacts(facts));
    this.fill(new Bench(plan, {} as Facts, new Reporter('', () => undefined), () => undefined).rows);
  }

  end(): void {
    if (this.bench) this.bench.stopping = true;
    this.stop.disabled = true;
  }

  async run(): Promise<void> {
    this.start.disabled = true;
    this.stop.disabled = false;
    this.before();
    this.command.busy = true;
    let message = '';
    try {
      const reporter = await startReport(this.plan.reports, () => this.lost());
      this.reporter = reporter;
      this.save.hidden = true;
      const bench = new Bench(this.plan, await this.facts, reporter, () => this.show(bench));
      this.bench = bench;
      await bench.run();
      reporter.close();
      message = bench.stopping ? 'stopped; what was measured until then is kept' : 'done';
      if (reporter.problem) message += `, on this page alone: ${reporter.problem}`;
      this.save.hidden = !reporter.alone;
    } catch (error) {
      message = error instanceof Error ? error.message : String(error);
    }
    this.bench = null;
    this.command.busy = false;
    this.start.disabled = false;
    this.stop.disabled = true;
    this.status.textContent = message;
    document.documentElement.dataset.benchmark = 'ended';
  }

  private lost(): void {
    this.command.found(false);
    this.save.hidden = !this.reporter?.alone;
  }

  private show(bench: Bench): void {
    this.fill(bench.rows);
    element<HTMLProgressElement>('progress').value = this.share(bench);
    const current = bench.rows.find((row) => row.state === 'opening' || row.state === 'warming up');
    const words = current ? `${current.state}: ${current.subject.label}` : bench.rows.some((row) => row.state === 'measuring') ? 'measuring' : '';
    // Only a new phase is said: numbers that change all the time would drown everything else.
    if (words && words !== this.said) this.status.textContent = this.said = words;
  }

  private share(bench: Bench): number {
    const { min_runs, min_seconds } = this.plan.protocol;
    const shares = bench.rows.map((row) => {
      if (['done', 'refused', 'failed', 'stopped'].includes(row.state)) return 1;
      const samples = row.blocks.flat();
      const seconds = samples.reduce((sum, one) => sum + one, 0) * row.repeats;
      return Math.min(samples.length / min_runs, min_seconds ? seconds / min_seconds : 1, 1) * 0.9;
    });
    return shares.reduce((sum, one) => sum + one, 0) / Math.max(shares.length, 1);
  }

  private fill(rows: Row[]): void {
    element('rows').replaceChildren(...rows.map((row) => this.line(row)));
  }

  private line(row: Row): HTMLTableRowElement {
    const line = make('tr');
    const samples = row.blocks.flat();
    const middle = medianOf(row);
    const cells: (string | Node)[] = [
      row.subject.label,
      this.where(row),
      row.checked ? percent(row.checked.agreement, 2) : '-',
      row.opened ? `${ms(row.opened.cold_load_s)}, ${ms(row.opened.warm_load_s)}` : '-',
      middle === null ? '-' : ms(middle),
      row.reach === null ? '-' : percent(row.reach),
      middle === null ? '-' : ms(percentile(samples, 90)),
      samples.length ? String(samples.length) : '-',
      this.course(row, samples),
    ];
    cells.forEach((content, index) => {
      const cell = index ? make('td') : Object.assign(make('th'), { scope: 'row' });
      cell.dataset.label = COLUMNS[index];
      cell.append(content);
      line.append(cell);
    });
    line.dataset.state = row.state;
    return line;
  }

  private where(row: Row): string {
    if (row.problem) return row.problem;
    const threads = `${row.threads} thread${row.threads === 1 ? '' : 's'}`;
    if (!row.opened) return row.state === 'waiting' ? `${WORDS[row.asked]}, ${threads}` : row.state;
    return row.opened.accelerator === 'wasm' ? `${row.opened.runtime}, ${threads}` : row.opened.runtime;
  }

  private course(row: Row, samples: number[]): string | Node {
    if (row.blocks.length < 2) return '-';
    const change = drift(samples);
    const words = change === null ? '' : `${change >= 0 ? '+' : ''}${percent(change)}`;
    const chart = make('canvas', '', 'course');
    Object.assign(chart, CHART);
    chart.setAttribute('role', 'img');
    chart.setAttribute('aria-label', words ? `last third against the first: ${words}` : 'course over time');
    plot(chart, row.blocks);
    const found = make('span', '', 'over');
    found.append(chart, words);
    return found;
  }

  private showFacts(facts: Facts): void {
    const rows: [string, string][] = [
      ['browser', facts.browser],
      ['system', facts.system],
      ['device', facts.model || 'not said'],
      ['architecture', facts.architecture],
      ['cores', String(facts.cores)],
      ['memory', facts.memory_gb === null ? 'not said' : `${facts.memory_gb} GB or more`],
      ['WebGPU', facts.gpu || 'none'],
      ['several threads', facts.isolated ? 'possible' : 'not on this page: it is not isolated from other origins'],
    ];
    const items = rows.map(([name, value]) => {
      const item = make('div');
      item.append(make('dt', name), make('dd', value));
      return item;
    });
    element('facts').replaceChildren(...items);
  }
}

/** The medians of consecutive blocks, from the lowest to the highest. */
function plot(chart: HTMLCanvasElement, blocks: number[][]): void {
  const step = Math.ceil(blocks.length / MOST_POINTS);
  const points = [];
  for (let first = 0; first < blocks.length; first += step) points.push(median(blocks.slice(first, first + step).flat()));
  const [low, high] = [Math.min(...points), Math.max(...points)];
  const context = chart.getContext('2d');
  if (!context) return;
  context.strokeStyle = getComputedStyle(document.documentElement).getPropertyValue('--accent');
  context.lineWidth = 1.5;
  context.beginPath();
  points.forEach((value, place) => {
    const x = 2 + (place / Math.max(points.length - 1, 1)) * (chart.width - 4);
    const y = chart.height - 3 - ((value - low) / (high - low || 1)) * (chart.height - 6);
    if (place) context.lineTo(x, y);
    else context.moveTo(x, y);
  });
  context.stroke();
}
