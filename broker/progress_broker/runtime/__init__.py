"""Generic tools, independent of operations: tasks, timers, counters."""
