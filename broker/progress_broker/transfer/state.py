"""The state of an exported operation, as it is shown."""

from progress_broker.model.operation import Operation
from progress_broker.operations.snapshot import FIELDS, read_snapshot
from progress_broker.storage.scripts import SCHEMA
from progress_broker.transfer.format import ExportedOperation


def read_state(operation: ExportedOperation) -> Operation:
    """Return the operation, without the summary of its children; raise `NotFound` if its state is not valid."""
    fields = {**operation.fields, b"schema": b"%d" % SCHEMA}
    return read_snapshot(operation.id, [fields.get(name.encode()) for name in FIELDS])
