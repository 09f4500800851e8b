"""The parameters of a cancel call, in a request body or in a WebSocket message."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from progress_broker.model.operation import Label


class CancelRequest(BaseModel):
    """Parameters of a cancel: why, requested by whom, and whether to force it."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1024)] | None = None
    by: Label | None = Field(None, description="Who requests the cancel. Ignored if the caller is authenticated.")
    force: StrictBool = Field(False, description="End the operation now. Later updates from its worker are rejected.")
