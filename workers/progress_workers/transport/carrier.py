"""What carries an operation's reports to the broker, and its signals back: over Redis, or over HTTP.

All else in this package and above names operations only, and knows neither keys nor addresses.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from progress_broker.errors import BrokerError, StorageUnavailable
from progress_broker.model.operation import NewOperation
from progress_broker.model.publish import Created, Publish, Published, WorkerView
from progress_broker.runtime.backoff import Backoff
from progress_broker.workers.signals import ArrivedSignal, SignalPosition

LANE_AWAY_S = 0.5
"""The longest delay until an operation is tried again whose lane is away while others answer."""


class CallRejected(StorageUnavailable):
    """One publish failed with an error that concerns only this one; others may succeed."""


class LaneUnavailable(CallRejected):
    """The lane of this operation can't be reached now. Whoever was asked knows that, so to ask again costs little."""


class ServerAway(LaneUnavailable):
    """As `LaneUnavailable`; the log has told already which server is away."""


def delay_s(backoff: Backoff, error: BrokerError | None) -> float:
    """Return after how many seconds to send again what was rejected with this error."""
    later_s = backoff.failed()
    return min(later_s, LANE_AWAY_S) if isinstance(error, LaneUnavailable) else later_s


class Rewound(NamedTuple):
    """An operation of whose signals Redis has lost some that were read: those after this position are lost, or new."""

    operation: str
    position: SignalPosition


class Carrier(Protocol):
    """The way from this process to its broker. Its methods may be called by any thread.

    They raise `StorageUnavailable` or `StorageFull` if the broker does not answer now, and `SetupError` if it never
    will with these settings.
    """

    peer: str
    """What answers, as logs name it."""

    def publish(self, publishes: Sequence[Publish]) -> list[Published | BrokerError]:
        """Store publishes in one round trip; return an answer for each.

        An error that concerns one publish is its answer: a rejection, `CallRejected`, or `StorageUnavailable` or
        `StorageFull`, which others may get too. If it raises, each of them may or may not be stored: so callers send
        only publishes that can be repeated.
        """

    def create(self, operation: str, new: NewOperation, traceparent: str, *, notify: bool = False) -> Created:
        """Create an operation, unless it exists with the same values, and notify its parent.

        With `notify`, its parent is notified also if it exists.

        Raises `OperationExists` or `Gone`.
        """

    def view(self, operation: str) -> WorkerView:
        """Return an operation's state; raise `NotFound` or `Gone`."""

    def signals(self, positions: Mapping[str, SignalPosition]) -> Sequence[ArrivedSignal | Rewound]:
        """Return the signals of operations after these positions, in order. Wait some seconds for the first.

        Only one thread calls this.
        """

    def end_wait(self) -> bool:
        """End a call of `signals` that waits. Return whether to do so again in a moment, if it goes on waiting."""

    def rest(self) -> None:
        """Read no signals until `signals` is called again. The thread that calls that calls this, too."""

    def after_fork(self) -> None:
        """Restart in a forked child: the connections belong to the parent."""
