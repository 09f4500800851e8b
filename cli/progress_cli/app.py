"""The app: what `progress-broker` can do."""

import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer

from progress_cli.exit_codes import EXIT_CODES, Boundary
from progress_cli.lazy import LazyCommand, LazyGroup

COMMANDS = (
    LazyCommand("serve", "serve:serve", "Serve the API and the dashboard. Ctrl-C or SIGTERM stops it."),
    LazyCommand(
        "demo",
        "demo:demo",
        "Start a private Redis, the API and three workers that do real work. Ctrl-C stops everything.",
    ),
    LazyCommand("ls", "ls:ls", "List operations, the most recently changed first."),
    LazyCommand(
        "show", "show:show", "Show one operation: its status, its progress and that of its children, and how it ended."
    ),
    LazyCommand(
        "tail", "tail:tail", "Follow an operation until it ends: show its state now, and each event as it happens."
    ),
    LazyCommand(
        "cancel",
        "cancel:cancel",
        "Ask the worker of an operation, and the workers of its children, to stop. They see who asked.",
    ),
    LazyCommand(
        "failures",
        "many.failures:failures",
        "Show what failed, in groups: how many, and the newest one with its message. Without a time, in the last hour.",
    ),
    LazyCommand(
        "rm",
        "many.deleting:rm",
        "Delete operations that have ended, by their ids or by a query. Their ids can't be used again for a while.",
    ),
    LazyCommand(
        "purge",
        "many.deleting:purge",
        "Delete the operations of a query that have ended, such as `--ended-until 7d`, or `--kind import`.",
    ),
    LazyCommand(
        "retain",
        "many.retain:retain",
        "Say how long chosen operations are kept. It counts more than the retention of all (`retention`).",
    ),
    LazyCommand("signal", "signal:signal", "Send a signal to an operation's worker, such as `pause`."),
    LazyCommand(
        "publish",
        "publish:publish",
        "Publish one event of an operation, or a stream of events from standard input.",
    ),
    LazyCommand(
        "replicas",
        "seeing.replicas:replicas",
        "List the replicas that are present: where they are, whether they are ready, and how many streams they have.",
    ),
    LazyCommand(
        "streams",
        "seeing.streams:streams",
        "List the open streams of all replicas: who follows what, from where, and whether its client is slow.",
    ),
    LazyCommand(
        "audit",
        "seeing.audit:audit",
        "Show who changed what, newest first: cancels, deletions, revocations, kicks, and what was created.",
    ),
    LazyCommand(
        "stats",
        "seeing.stats:stats",
        "Show figures of the whole installation: operations by status, events per second, streams, memory.",
    ),
    LazyCommand(
        "top",
        "seeing.stats:top",
        "Show figures of the whole installation again and again, with all replicas and the busiest operations.",
    ),
    LazyCommand(
        "workers",
        "seeing.workers:workers",
        "List the workers of operations that have not ended, those with the longest silence first.",
    ),
    LazyCommand(
        "storage",
        "seeing.storage:storage",
        "Show what takes room in Redis, by kind and status, from a sample of operations, and the longest of them.",
    ),
    LazyCommand(
        "monitor",
        "seeing.monitor:monitor",
        "Follow the log of the server at PROGRESS_URL: of the replica that answers, if there are several.",
    ),
    LazyCommand(
        "debug",
        "seeing.debug:debug",
        "Collect what helps to find out what is wrong, into files of a folder: no secrets and no events of operations.",
    ),
    LazyCommand(
        "kick",
        "changing.kick:kick",
        "End streams, whichever replicas they are at. Their clients come back with new connections, unless told not"
        " to.",
    ),
    LazyCommand(
        "reload",
        "changing.reload:reload",
        "Have all replicas read their settings again: keys, certificates, rates and the log level. Open streams go on.",
    ),
    LazyCommand(
        "drain",
        "changing.drain:drain",
        "Have a replica send all its clients to the others. It takes no new ones until it is started again.",
    ),
    LazyCommand(
        "retention",
        "retention:retention",
        "Show how long operations are kept, or set it, also for existing operations: 45s, 30m, 1h or 7d.",
    ),
    LazyCommand(
        "export",
        "moving.export:export",
        "Write operations, with all that is kept of their events, to a file or to standard output.",
    ),
    LazyCommand(
        "import",
        "moving.import_:import_",
        "Store the operations of an export, each whole or not at all, with their ids, positions and times.",
    ),
    LazyCommand(
        "doctor",
        "seeing.doctor:doctor",
        "Look for what is wrong with Redis, its data, the servers and the proxies before them, and say what to do.",
    ),
    LazyCommand(
        "archive",
        "moving.archive:archive",
        "Keep the exports of ended operations in a folder or a bucket, before their retention passes.",
    ),
    LazyCommand(
        "backup",
        "moving.backup:backup",
        "Write all operations to a folder or a bucket, each as it is at one moment.",
    ),
    LazyCommand(
        "restore",
        "moving.backup:restore",
        "Store the operations of a backup, each whole or not at all. All of the backup is checked first.",
    ),
    LazyCommand(
        "copy",
        "moving.copy:copy",
        "Copy all operations to another Redis, with their positions, so that clients and workers can go on there.",
    ),
    LazyCommand(
        "replay",
        "moving.replay:replay",
        "Show the events of operations again, with the pauses that were between them, or faster.",
    ),
    LazyCommand("script", "script:script", "Print a Lua script, for a worker in another language to load into Redis."),
    LazyCommand(
        "run",
        "run:run",
        "Run a command as an operation: its output becomes the log, and its progress bar the operation's progress.",
        allow_interspersed_args=False,
    ),
)
"""The commands with their modules and functions, and the first paragraph of their help. A test compares the two."""

AUTH = (
    LazyCommand(
        "token",
        "auth.credentials:token",
        "Make a token for trying things out, signed with the secret in PROGRESS_JWT_KEY.",
    ),
    LazyCommand(
        "key",
        "auth.credentials:key",
        "Make an API key for a worker. Prints the key and the lines to add to the TOML file of PROGRESS_API_KEYS.",
    ),
    LazyCommand(
        "revoke",
        "auth.revocations:revoke",
        "Revoke a principal or a token on all replicas. Its open streams end within about two seconds.",
    ),
    LazyCommand(
        "restore",
        "auth.revocations:restore",
        "Restore a principal or a token that was revoked. All replicas accept it again within about two seconds.",
    ),
    LazyCommand(
        "list",
        "auth.revocations:show_revoked",
        "List the revoked principals and tokens, and until when they are revoked.",
    ),
)


LIMITS = (
    LazyCommand(
        "set",
        "changing.limits:set_limits",
        "Set the limits of a principal, in place of those of the settings. What is left out is as for all principals.",
    ),
    LazyCommand("ls", "changing.limits:list_limits", "List the principals with limits of their own."),
    LazyCommand("rm", "changing.limits:remove_limits", "Have the limits of the settings apply to a principal again."),
)


CONTEXT = (
    LazyCommand(
        "add",
        "changing.context:add",
        "Add a context, or replace the one of that name. It names a server; the token stays in its file.",
    ),
    LazyCommand(
        "use",
        "changing.context:use",
        "Use a context in commands that are told neither by options nor by the environment where the operations are.",
    ),
    LazyCommand("ls", "changing.context:list_contexts", "List the contexts, and which one is in use."),
    LazyCommand("rm", "changing.context:remove", "Remove a context. The file of its token stays."),
)


class Commands(Boundary):
    """All commands."""

    def __init__(self, **options: Any) -> None:
        auth = LazyGroup(
            name="auth",
            help="Make tokens and API keys; revoke and restore them.",
            commands=AUTH,
            no_args_is_help=True,
        )
        limits = LazyGroup(
            name="limits",
            help="Set, list and remove limits of single principals.",
            commands=LIMITS,
            no_args_is_help=True,
        )
        context = LazyGroup(
            name="context",
            help="Name servers, and use one of them by its name.",
            commands=CONTEXT,
            no_args_is_help=True,
        )
        super().__init__(**options | {"commands": {it.name: it for it in (*COMMANDS, auth, limits, context)}})


app = typer.Typer(
    name="progress-broker",
    cls=Commands,
    help="Tells people how their long work is going.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # takes longer to import than most of the rest

        typer.echo(version("progress-broker"))
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Tells people how their long work is going."""


def run() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that lacks a character is no reason to fail
    app()
