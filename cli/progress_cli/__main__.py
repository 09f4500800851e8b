"""`progress-broker`, which `python -m progress_cli` is too."""

import sys

SERVER = ("serve", "demo", "auth token", "auth key")
"""The commands that need what the server needs."""


def run() -> None:
    """Run the command line. A Ctrl-C while it loads ends it without a traceback, as later on."""
    try:
        if sys.argv[1:] == ["--version"]:
            _print_version()
        else:
            _run()
    except KeyboardInterrupt:
        sys.exit(130)


def _print_version() -> None:
    """Print the version as `app` does, without loading the libraries of the command line."""
    from importlib.metadata import version

    sys.stdout.write(f"{version('progress-broker')}\n")


def _run() -> None:
    from progress_broker.extras import MissingExtra

    try:
        _require()
        from progress_cli.app import run as run_command_line

        run_command_line()
    except MissingExtra as error:
        sys.stderr.write(f"progress-broker: {error}\n")
        sys.exit(5)  # as for any set-up that is wrong, by `exit_codes`, which needs the extra


def _require() -> None:
    from progress_broker.extras import require

    # No option before the command has a value.
    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    command = next((name for name in SERVER if name.split() == words[: len(name.split())]), None)
    if command is not None:
        require("server", command)
    require("cli", "the command line")


if __name__ == "__main__":
    run()
