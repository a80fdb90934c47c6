"""The gate itself: budgets and baseline against what was measured. Pure functions that import no framework."""
