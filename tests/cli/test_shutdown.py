"""Signals that stop a command, at moments at which Python loses an exception."""

from tests.workers.harness import finished, worker

LOST = """
    import signal, time
    from progress_cli.shutdown import until_stopped

    class Object:
        def __del__(self):
            signal.raise_signal(signal.SIGTERM)

    with until_stopped():
        Object()
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            pass
        until = time.monotonic() + 60
        while time.monotonic() < until:
            time.sleep(0.01)
        print("it went on")
    print("closed")
"""


def test_a_signal_stops_it_also_where_its_exception_is_lost() -> None:
    assert finished(worker("redis://unused", LOST)) == "closed\n"
