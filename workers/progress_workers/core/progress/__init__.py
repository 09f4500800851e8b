"""The progress of work: counts, stages, percentages and rates. No I/O happens here, and the clock is passed in."""
