/** The measurement: each file opened, checked, warmed up, then all in blocks that take turns in random order. */

import { clock, Conditions, type Facts } from './facts';
import { BASE } from './folder';
import type { Checked, Opened } from './messages';
import type { Accelerator, Plan, Subject } from './plan';
import { Remote } from './remote';
import type { Reporter } from './reporter';
import { reach, seeded, shuffled, median } from './statistics';

const SETTLES = 4;
const WINDOW_RUNS = 5;
const WINDOW_S = 0.1;
const STEADY_WINDOWS = 3;
const LEAST_BLOCKS = 8;
// So many runs are timed even where the seconds are up.
const LEAST_RUNS = 5;
const MOST_RUNS = 2000;
const GROWTH = 1.15;
const LOOKS = 2;
/** A sample is as long as this many steps of the clock, at least. */
const STEPS_OF_CLOCK = 100;
const CONDITIONS_EVERY_MS = 1000;

export type State = 'waiting' | 'opening' | 'warming up' | 'measuring' | 'done' | 'refused' | 'failed' | 'stopped';

export interface Row {
  subject: Subject;
  threads: number;
  asked: Accelerator;
  state: State;
  problem: string;
  opened: Opened | null;
  checked: Checked | null;
  repeats: number;
  blocks: number[][];
  reach: number | null;
}

interface Turn {
  row: Row;
  remote: Remote;
  runsOfABlock: number;
  samples: number;
  seconds: number;
  narrow: number;
  looked: number;
}

export class Bench {
  readonly rows: Row[] = [];
  stopping = false;
  granularity_s = 0;
  private readonly random;
  private readonly conditions = new Conditions();
  private lastConditions = 0;

  constructor(
    private readonly plan: Plan,
    private readonly facts: Facts,
    private readonly reporter: Reporter,
    private readonly changed: () => void,
  ) {
    this.random = seeded(plan.protocol.seed);
    for (const threads of plan.threads) {
      for (const asked of plan.accelerators) {
        for (const subject of plan.subjects) {
          this.rows.push({
            subject, threads, asked, state: 'waiting', problem: '', opened: null, checked: null, repeats: 1, blocks: [], reach: null,
          });
        }
      }
    }
  }

  /** Measures everything; ends early, with what there is, once `stopping` is set. */
  async run(): Promise<void> {
    await this.conditions.start();
    this.reporter.tell({ event: 'hello', time_s: clock(), facts: this.facts });
    try {
      for (const threads of this.plan.threads) {
        if (!this.stopping) await this.withThreads(this.rows.filter((row) => row.threads === threads));
      }
    } finally {
      for (const row of this.rows) if (!['done', 'refused', 'failed'].includes(row.state)) row.state = 'stopped';
      this.reporter.tell({ event: 'end', complete: !this.stopping, ended: this.stopping ? 'it was stopped on the page' : '' });
      await this.reporter.flush();
      this.changed();
    }
  }

  private async withThreads(rows: Row[]): Promise<void> {
    const turns: Turn[] = [];
    try {
      for (const row of rows) {
        if (this.stopping) return;
        const turn = await this.prepared(row);
        if (turn) turns.push(turn);
      }
      await this.sample(turns);
    } finally {
      for (const turn of turns) turn.remote.close();
    }
  }

  private about(row: Row) {
    return { subject: row.subject.name, accelerator: row.asked, threads: row.threads };
  }

  private readConditions(): void {
    if (performance.now() - this.lastConditions < CONDITIONS_EVERY_MS) return;
    this.lastConditions = performance.now();
    this.reporter.tell({ event: 'conditions', ...this.conditions.read() });
  }

  private fail(row: Row, phase: string, message: string, state: State = 'failed'): void {
    row.state = state;
    row.problem = message;
    this.reporter.tell({ event: 'problem', ...this.about(row), phase, message: message.slice(0, 500) });
    this.changed();
  }

  /** Opens, checks and warms up one file; null where one of these says that it is not to be timed. */
  private async prepared(row: Row): Promise<Turn | null> {
    if (row.threads > 1 && !this.facts.isolated) {
      this.fail(row, 'steady', 'several threads need a page that is isolated from other origins');
      return null;
    }
    const remote = new Remote();
    try {
      this.enter(row, 'opening');
      const { subject, threads, asked: accelerator } = row;
      row.opened = await remote.ask('open', { base: BASE, subject, threads, accelerator, startup: true });
      const { accelerator: ran, ...opened } = row.opened;
      this.reporter.tell({ event: 'opened', ...this.about(row), ...opened, ran });
      row.checked = await remote.ask('check', { picture: this.plan.picture });
      this.reporter.tell({ event: 'checked', ...this.about(row), ...row.checked });
      if (!(row.checked.agreement >= this.plan.required_agreement)) {
        const share = (row.checked.agreement * 100).toFixed(2);
        this.fail(row, 'check', `only ${share} % of the mask's pixels are the host's: it is not timed`, 'refused');
        remote.close();
        return null;
      }
      this.granularity_s = await remote.ask('granularity', {});
      this.enter(row, 'warming up');
      return await this.warmUp({ row, remote, runsOfABlock: 1, samples: 0, seconds: 0, narrow: 0, looked: 0 });
    } catch (error) {
      this.fail(row, 'opening', error instanceof Error ? error.message : String(error));
      remote.close();
      return null;
    }
  }

  private enter(row: Row, state: State): void {
    row.state = state;
    this.changed();
  }

  private async warmUp(turn: Turn): Promise<Turn> {
    const limits = this.plan.protocol;
    const medians: number[] = [];
    let [runs, total, stable] = [0, 0, false];
    let one = Math.max(turn.row.opened?.first_inference_s ?? 0, 1e-5);
    while (!(stable && runs >= limits.warmup_runs && total >= limits.warmup_seconds)) {
      if (this.stopping || (total >= limits.max_warmup_seconds && runs >= limits.warmup_runs)) break;
      const count = Math.max(WINDOW_RUNS, Math.min(MOST_RUNS, Math.ceil(WINDOW_S / one)));
      const { samples_s } = await turn.remote.ask('time', { runs: 1, repeats: count, settle: false });
      one = Math.max(samples_s[0], 1e-6);
      runs += count;
      total += count * one;
      medians.push(one);
      const last = medians.slice(-STEADY_WINDOWS);
      stable = last.length === STEADY_WINDOWS && Math.max(...last) - Math.min(...last) <= limits.warmup_change * Math.min(...last);
    }
    turn.row.repeats = Math.max(1, Math.ceil((STEPS_OF_CLOCK * this.granularity_s) / one));
    const sample = one * turn.row.repeats;
    const least = Math.max(limits.min_runs, limits.min_seconds / sample);
    turn.runsOfABlock = Math.max(1, Math.min(Math.floor(limits.block_seconds / sample), Math.floor(least / LEAST_BLOCKS), MOST_RUNS));
    const { repeats } = turn.row;
    this.reporter.tell({
      event: 'warm', ...this.about(turn.row), runs, seconds: total, stable, repeats, granularity_s: this.granularity_s,
    });
    return turn;
  }

  /** One that has enough goes on while others have not, so that all cover the same stretch of time. */
  private async sample(turns: Turn[]): Promise<void> {
    let going = [...turns];
    for (const turn of turns) this.enter(turn.row, 'measuring');
    while (going.length && !this.stopping && !going.every((turn) => this.enough(turn))) {
      for (const turn of shuffled(going, this.random)) {
        if (this.stopping) break;
        try {
          await this.block(turn);
        } catch (error) {
          this.fail(turn.row, 'steady', error instanceof Error ? error.message : String(error));
          going = going.filter((one) => one !== turn);
        }
      }
      this.readConditions();
      this.changed();
    }
    if (this.stopping) return;
    for (const { row } of going) {
      row.reach = reach(row.blocks, this.random);
      this.enter(row, 'done');
      this.reporter.tell({ event: 'stopped', ...this.about(row) });
    }
  }

  private async block(turn: Turn): Promise<void> {
    const { row, remote, runsOfABlock: runs } = turn;
    const { starts_ms, samples_s } = await remote.ask('time', { runs, repeats: row.repeats, settle: runs >= SETTLES });
    row.blocks.push(samples_s);
    turn.samples += runs;
    turn.seconds += samples_s.reduce((sum, one) => sum + one, 0) * row.repeats;
    this.reporter.tell({ event: 'samples', ...this.about(row), starts_s: starts_ms.map((one) => one / 1000), samples_s });
  }

  private enough(turn: Turn): boolean {
    const limits = this.plan.protocol;
    if (turn.samples >= LEAST_RUNS && turn.seconds >= limits.max_seconds) return true;
    if (turn.samples < limits.min_runs || turn.seconds < limits.min_seconds) return false;
    if (limits.precision_target === null) return true;
    if (turn.row.blocks.length >= GROWTH * turn.looked) {
      turn.looked = turn.row.blocks.length;
      turn.row.reach = reach(turn.row.blocks, this.random);
      turn.narrow = turn.row.reach <= limits.precision_target ? turn.narrow + 1 : 0;
    }
    return turn.narrow >= LOOKS;
  }
}

export function medianOf(row: Row): number | null {
  return row.blocks.length ? median(row.blocks.flat()) : null;
}
