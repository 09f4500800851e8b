"""Tools that know nothing of progress: tasks, timers, counts."""
