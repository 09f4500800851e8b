"""Jobs that report, to look at."""
