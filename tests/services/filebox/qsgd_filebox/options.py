"""How the vendor behaves: its times, its prices, its faults."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Fault = Literal[
    "lost",  # accepted, and the answer never arrives
    "blamed",  # accepted, and the adapter raises an error that says nothing of it
    "dropped",  # not accepted, and the answer never arrives either
    "refused",  # 429: not accepted, may be sent again
    "rejected",  # 400: not accepted, never will be
    "twice",  # one call makes two jobs
    "duplicated",  # one call makes two jobs, and is answered as if it had made one
    "fails",
    "cancelled",  # by the vendor
    "overbilled",  # three times the price
    "understated",  # half of the price, until all of it is stated
    "unbilled",  # the vendor never says what it cost
    "corrupt",  # the result has another shape
]


class FileboxOptions(BaseModel):
    """Options of the test double.

    Attributes:
        folder: the vendor.
        lag_s: a job younger than this is not listed.
        horizon_s: what the adapter declares; more than ``lag_s`` unless a test wants it wrong.
        run_s: how long a job takes from acceptance to its result.
        usage_s: how long after its end the vendor states what it cost.
        job_micro_usd: price of a job; what follows likewise.
        before_s: time between the call and its acceptance.
        after_s: time between acceptance and the answer.
        faults: numbers of the submissions, counted from 0, that meet each fault.
        offline: ``resolve`` finds the device retired.
        bad_key: ``resolve`` is refused.
        worst: what a job may cost at worst, in times of its price.
        priced: whether the price is known beforehand.
        max_rows: rows of one job.
        turned: radians by which the device turns every gate too far.
        coins: fair coins instead of circuits, so that nobody has to wait for torch.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    lag_s: float = 0.0
    horizon_s: float = 0.0
    run_s: float = 0.0
    usage_s: float = 0.0
    job_micro_usd: int = 1_000
    shot_micro_usd: int = 1
    job_qpu_us: int = 2_000
    shot_qpu_us: int = 10
    before_s: float = 0.0
    after_s: float = 0.0
    faults: dict[Fault, list[int]] = Field(default_factory=dict)
    offline: bool = False
    bad_key: bool = False
    worst: int = 1
    priced: bool = True
    max_rows: int | None = None
    turned: float = 0.0
    coins: bool = False
