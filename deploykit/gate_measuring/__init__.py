"""What the gate's rules look at, measured: counts, equivalence, masks, times, and latency beside the baseline."""
