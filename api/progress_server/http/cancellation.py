"""The parameters of a cancel call, in a request body or in a WebSocket message."""

from pydantic import Field, StrictBool

from progress_broker.model.operation import Label, NewCancel


class CancelRequest(NewCancel):
    """Parameters of a cancel: why, requested by whom, and whether to force it."""

    by: Label | None = Field(None, description="Who requests the cancel. Ignored if the caller is authenticated.")
    force: StrictBool = Field(False, description="End the operation now. Later updates from its worker are rejected.")

    def described(self) -> str:
        """Return whether it is by force, and why, for the audit."""
        return ": ".join(filter(None, ("by force" if self.force else "", self.reason)))
