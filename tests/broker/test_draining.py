"""Which clients are disconnected by a shutdown, and how often."""

from collections.abc import Iterator

from progress_broker.runtime.timer_wheel import TimerWheel
from progress_broker.stream.drain import send_away
from progress_broker.stream.subscription import Subscription
from tests.broker.harness import Timers
from tests.broker.test_channel import make, watch


class Carrying:
    """A connection that records the calls to `close`."""

    def __init__(self, *subscriptions: Subscription) -> None:
        self.carried = subscriptions
        self.told: list[tuple[str, bool]] = []

    @property
    def subscriptions(self) -> Iterator[Subscription]:
        return iter(self.carried)

    def close(self, reason: str, *, reconnect: bool) -> None:
        self.told.append((reason, reconnect))


def test_a_connection_is_told_once_and_its_subscriptions_are_left_to_it() -> None:
    channel, _ = make()
    carried, alone = [watch(channel) for _ in range(3)], watch(channel)
    connection, idle = Carrying(*(outlet.subscription for outlet in carried)), Carrying()
    send_away([channel], {connection, idle}, TimerWheel(Timers().clock), 0)
    assert connection.told == idle.told == [("draining", True)]
    assert alone.reasons() == ["draining"]
    assert not any(outlet.reasons() for outlet in carried)


async def test_over_a_time_they_leave_at_moments_of_their_own() -> None:
    timers = Timers()
    wheel = TimerWheel(timers.clock)
    connections = {Carrying() for _ in range(100)}
    send_away([], connections, wheel, 10)
    left: list[int] = []
    for _ in range(10):
        timers.advance(1)
        await wheel.turn()
        left.append(sum(bool(connection.told) for connection in connections))
    assert left[-1] == 100
    assert 20 < left[4] < 80
