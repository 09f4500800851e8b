"""Clocks that differ."""

from progress_broker.diagnosis.finding import Check, Finding, Level

SKEW_WARNING_S, SKEW_FAULT_S = 1.0, 5.0


def of_clock(at: str, whose: str, ahead_s: float, unsure_s: float, of: str) -> Finding:
    """Return how far the clock of one is ahead of that `of` another, which is known within `unsure_s`."""
    skew_s = max(0.0, abs(ahead_s) - unsure_s)
    figures = {"skew_s": round(ahead_s, 3)}
    if skew_s <= SKEW_WARNING_S:
        return Finding(Check.CLOCK, Level.GOOD, at, f"the clocks of {whose} and {of} agree", figures=figures)
    return Finding(
        Check.CLOCK,
        Level.FAULT if skew_s > SKEW_FAULT_S else Level.WARNING,
        at,
        f"the clock of {whose} is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} that of {of}:"
        " tokens and leases end at other times than they should",
        "set both clocks by NTP (chrony or systemd-timesyncd; `timedatectl` shows whether it runs)",
        figures,
    )
