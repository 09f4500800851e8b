"""`progress-broker`, which `python -m progress_cli` is too."""

import sys


def run() -> None:
    """Run the command line. A Ctrl-C while it loads ends it without a traceback, as later on."""
    try:
        from progress_cli.app import run as run_command_line

        run_command_line()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    run()
