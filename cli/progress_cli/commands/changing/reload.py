"""`reload`: have all replicas read their settings again."""

import typer

from progress_broker.replicas.changes import ReplicaReload
from progress_broker.settings import Settings
from progress_cli import connect
from progress_cli.exit_codes import REJECTED, STORAGE, print_error
from progress_cli.options import READER, with_settings


@with_settings(*READER)
def reload(settings: Settings) -> None:
    """Have all replicas read their settings again: keys, certificates, rates and the log level. Open streams go on.

    Each replica takes all that is new, or nothing if it can't use some of it. SIGHUP does the same at one server.
    """

    report = connect.ask(settings, lambda operators: operators.admin.reload())
    for replica in report.replicas:
        if replica.error is None:
            typer.echo(_described(replica))
        else:
            print_error(f"replica {replica.replica} changed nothing: {replica.error}")
    for name in report.silent:
        print_error(f"replica {name} did not answer")
    if report.silent:
        raise typer.Exit(STORAGE)
    if any(replica.error for replica in report.replicas):
        raise typer.Exit(REJECTED)


def _described(replica: ReplicaReload) -> str:
    changed = f"changed: {', '.join(replica.changed)}" if replica.changed else "no setting has changed"
    restart = f"; only a restart takes {', '.join(replica.restart)}" if replica.restart else ""
    return f"replica {replica.replica} read keys and certificates again, {changed}{restart}"
