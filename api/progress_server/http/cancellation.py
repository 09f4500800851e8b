"""What a call to cancel an operation says, as a request's body or in a WebSocket's message."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from progress_broker.model.operation import Label


class CancelRequest(BaseModel):
    """Why an operation should stop."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(max_length=1024)] | None = None
    by: Label | None = Field(None, description="who asks")
    force: StrictBool = Field(
        False, description="end it now, whatever its worker does; that one is refused from then on"
    )
