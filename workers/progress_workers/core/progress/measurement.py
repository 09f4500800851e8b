"""How far work is, measured by somebody else, such as a command that shows a bar."""

from typing import NamedTuple


class Measurement(NamedTuple):
    """How far the work is. What is None is unknown from now on, except for the unit and the message."""

    current: float | None = None
    total: float | None = None
    percent: float | None = None
    unit: str | None = None
    """None changes nothing; an empty unit means that there is none."""
    begins: bool = False
    """Whether another part of the work begins. Then the percentage may be lower than before."""
    counts_anew: bool = False
    """Whether other things are counted than before, so that the rate begins anew, too."""
    message: str | None = None
    """None changes nothing."""
