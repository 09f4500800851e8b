"""How far the work is: counts, stages, percentages and rates. No I/O, and no clock of its own."""
