"""A worker is cut off from Redis, by a proxy that drops every byte, and comes back: nothing is missing.

`make test` cuts it off for a few seconds, `make chaos` for a minute (PROGRESS_CUTOFF_S).
"""

import os
import time
from pathlib import Path

from progress_workers import Operation
from progress_workers.core.outgoing.backlog import MAX_LINES
from tests.servers import RealRedis, free_port, wait_until
from tests.workers.harness import Broker
from tests.workers.proxy import Proxy
from tests.workers.reaping import Reaping


def test_a_worker_cut_off_and_back_has_lost_nothing_within_the_bound(folder: Path) -> None:
    port, cut_s = free_port(), float(os.environ.get("PROGRESS_CUTOFF_S", "4"))
    with RealRedis(folder / "redis", port=port) as server, Proxy(port) as proxy:
        direct = Broker(server.url, history_length=1_000_000, worker_lost_after_s=cut_s + 60)
        cut_off = Broker(proxy.url, history_length=1_000_000, redis_timeout_s=1)
        with Reaping(direct.settings):
            spans = drive(cut_off, proxy, cut_s)
        shown = direct.show("op")
        events = direct.events("op")
        numbers = [event.n for event in events]
        assert numbers == sorted(set(numbers)), "nothing is there twice"  # of progress, only a curve is kept
        assert shown.status == "succeeded"
        assert shown.progress is not None
        assert shown.progress["current"] == spans.done
        logged = direct.data("op", "log")
        dropped = sum(line.get("dropped", 0) for line in logged)
        kept = [int(line["message"]) for line in logged if "dropped" not in line]
        assert kept == sorted(kept)
        assert len(kept) + dropped == spans.lines
        assert kept[-1] == spans.lines - 1
        assert dropped == 0 or dropped <= max(0, spans.lines - MAX_LINES)
        pending, running, *between, last = [event.data["status"] for event in events if event.type in ("status", "end")]
        assert (pending, running, last) == ("pending", "running", "succeeded")
        assert between == ["stalled", "running"] * (len(between) // 2 or 1)  # once, or oftener on a busy machine
        direct.redis.close()
        cut_off.redis.close()
    told = f"{spans.before:,.0f} rounds/s before, {spans.cut:,.0f} while cut off, {dropped} lines dropped"
    print(f"cut off for {cut_s:.0f} s: {told}")


class Spans:
    """How fast the loop went, and what it said."""

    before = cut = 0.0
    done = lines = 0


def drive(broker: Broker, proxy: Proxy, cut_s: float) -> Spans:
    """Work for a while, then cut off, then connected again; return what was said."""
    spans = Spans()
    with Operation.start("work", id="op", lease_s=1, settings=broker.settings) as op:
        spans.before = work(op, spans, min(cut_s, 5))
        proxy.dropping = True
        spans.cut = work(op, spans, cut_s)
        proxy.dropping = False
        wait_until(lambda: op.flush(1), "it is told", 60)
        work(op, spans, 1)
    return spans


def work(op: Operation, spans: Spans, lasting_s: float) -> float:
    """Report as a loop does, with a line now and then; return the rounds a second."""
    began, rounds, next_line = time.monotonic(), 0, 0.0
    while (passed := time.monotonic() - began) < lasting_s:
        for _ in range(1000):
            op.advance()
        rounds += 1000
        if passed >= next_line:
            op.log(str(spans.lines))
            spans.lines += 1
            next_line = passed + 0.01
    spans.done += rounds
    return rounds / lasting_s
