"""`python -m cli` is `progress-broker`."""

from cli.main import run

run()
