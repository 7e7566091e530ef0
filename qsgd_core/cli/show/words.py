"""Numbers as people say them."""

from __future__ import annotations

import math
from collections.abc import Mapping

from qsgd_core.jobs import dollars, qpu_seconds, say_cost


def number(value: float | None, form: str = ".4g") -> str:
    """``value`` by ``form``; ``not finite`` for NaN, infinities and the null of a JSON file."""
    if value is None or not math.isfinite(value):
        return "not finite"
    return format(value, form)


def percent(share: float | None) -> str:
    """``0.0046`` as ``0.46 %``: two digits below 1 %, one decimal above; None is ``unknown``."""
    if share is None:
        return "unknown"
    if not math.isfinite(share):
        return number(share)
    value = 100 * share
    return f"{value:.1f} %" if abs(value) >= 1 else f"{value:.2g} %"


def effect(size: Mapping[str, float | None]) -> str:
    """An effect size's ``mean`` and ``max``: ``0.46 % on average, 1.2 % at most``."""
    mean, most = percent(size["mean"]), percent(size["max"])
    return mean if mean == most and "%" not in mean else f"{mean} on average, {most} at most"


def spoken(unit: str, amount: int) -> str:
    """An amount of the ledger's, rounded for the eye: ``$0.25``, ``12.3 s``, ``4,096 shots``."""
    if unit == "micro_usd":
        return dollars(amount / 1e6)
    return qpu_seconds(amount / 1e6) if unit == "qpu_us" else f"{amount:,} shots"


def provisional(usd: float | None, qpu_s: float | None) -> str:
    """What of an amount is booked at the hold; empty where the vendor has stated everything."""
    said = say_cost(usd or None, qpu_s or None)
    if said is None:
        return ""
    return f"; {said} of it provisional, until the vendor says: qsgd jobs resume asks"


def duration(seconds: float) -> str:
    """``3.2 s``, ``14.0 min``, ``2.5 h``, ``4.0 days``."""
    for size, unit in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
