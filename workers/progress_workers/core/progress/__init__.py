"""How far the work is: counts, stages, percentages and rates. No I/O, and the clock is passed in."""
