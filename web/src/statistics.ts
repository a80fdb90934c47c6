/** What the page shows while it measures. The command computes its own figures from the raw samples. */

const GROUPS = 20;
const LEAST_GROUPS = 8;
const RESAMPLES = 200;
const BINS = 256;
/** Percentile intervals of 20 groups are too narrow by about as much as Student's t is wider than the normal. */
const WIDENING = 1.1;

/** Random numbers from 0 to 1 that are the same for the same seed (the generator is known as mulberry32). */
export function seeded(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}

export function shuffled<T>(items: readonly T[], random: () => number): T[] {
  const found = [...items];
  for (let last = found.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [found[last], found[other]] = [found[other], found[last]];
  }
  return found;
}

export function median(values: readonly number[]): number {
  const ordered = [...values].sort((a, b) => a - b);
  const middle = ordered.length >> 1;
  return ordered.length % 2 ? ordered[middle] : (ordered[middle - 1] + ordered[middle]) / 2;
}

/** The nearest rank. */
export function percentile(values: readonly number[], percent: number): number {
  const ordered = [...values].sort((a, b) => a - b);
  return ordered[Math.max(0, Math.ceil((percent / 100) * ordered.length) - 1)];
}

/** How far the 95 % interval of the median reaches, as a share of it: a bootstrap over blocks, roughly. */
export function reach(blocks: readonly number[][], random: () => number): number {
  const all = blocks.flat();
  const middle = median(all);
  if (blocks.length < LEAST_GROUPS) return Math.max(Math.max(...all) - middle, middle - Math.min(...all)) / middle;
  const groups = Math.min(GROUPS, blocks.length);
  const { counts, values } = histogram(blocks, all, groups);
  const medians = Array.from({ length: RESAMPLES }, () => resampledMedian(counts, values, groups, random));
  const [low, high] = [percentile(medians, 2.5), percentile(medians, 97.5)];
  return (WIDENING * Math.max(high - middle, middle - low, 0)) / middle;
}

function histogram(blocks: readonly number[][], all: number[], groups: number) {
  const ordered = [...all].sort((a, b) => a - b);
  const bins = Math.min(BINS, ordered.length);
  const edges = Array.from({ length: bins }, (_, bin) => ordered[Math.floor((bin * ordered.length) / bins)]);
  const counts = Array.from({ length: groups }, () => new Float64Array(bins));
  blocks.forEach((block, index) => {
    const of = counts[Math.floor((index * groups) / blocks.length)];
    for (const value of block) of[binOf(edges, value)]++;
  });
  return { counts, values: edges };
}

function binOf(edges: number[], value: number): number {
  let [low, high] = [0, edges.length - 1];
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (edges[middle] <= value) low = middle;
    else high = middle - 1;
  }
  return low;
}

function resampledMedian(counts: Float64Array[], values: number[], groups: number, random: () => number): number {
  const sum = new Float64Array(values.length);
  let total = 0;
  for (let draw = 0; draw < groups; draw++) {
    counts[Math.floor(random() * groups)].forEach((count, bin) => {
      sum[bin] += count;
      total += count;
    });
  }
  let reached = 0;
  for (let bin = 0; bin < values.length; bin++) {
    reached += sum[bin];
    if (reached >= total / 2) return values[bin];
  }
  return values[values.length - 1];
}

/** By how much the median of the last third of the runs is above that of the first; null for too few runs. */
export function drift(samples: readonly number[]): number | null {
  const third = Math.floor(samples.length / 3);
  return third < 5 ? null : median(samples.slice(-third)) / median(samples.slice(0, third)) - 1;
}
