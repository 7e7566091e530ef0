"""Integer amounts in the three units a budget can cap: shots, micro-dollars, QPU microseconds."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Cost, sum_known

UNITS = ("shots", "micro_usd", "qpu_us")

MOST = 10**15
"""No amount is larger: a billion dollars, 30 years of QPU time. Sums stay far below 2**63."""

_FORMS = (
    (re.compile(r"^\$\s*(?P<n>\S+)$"), "micro_usd", 1_000_000),
    (re.compile(r"^(?P<n>\S+?)\s*(usd|USD)$"), "micro_usd", 1_000_000),
    (re.compile(r"^(?P<n>\S+?)\s*shots?$"), "shots", 1),
    (re.compile(r"^(?P<n>\S+?)\s*min$"), "qpu_us", 60_000_000),
    (re.compile(r"^(?P<n>\S+?)\s*s$"), "qpu_us", 1_000_000),
)


@dataclass(frozen=True)
class Amount:
    """An amount in each unit; None means unknown, which is never treated as 0."""

    shots: int | None = None
    micro_usd: int | None = None
    qpu_us: int | None = None

    def of(self, unit: str) -> int | None:
        """The amount in ``unit``."""
        value: int | None = getattr(self, unit)
        return value

    @classmethod
    def total(cls, amounts: Iterable[Amount]) -> Amount:
        """All together; what is unknown of one is unknown of all."""
        each = list(amounts)
        return cls(**{unit: sum_known(amount.of(unit) for amount in each) for unit in UNITS})

    @classmethod
    def from_cost(cls, cost: Cost | None) -> Amount:
        """A vendor's floats as integers, rounded up: a hold must never be a fraction too small.

        What is negative, not finite or absurd is unknown, as is all of None.
        """
        if cost is None:
            return cls()
        return cls(
            shots=_integer(cost.shots, 1),
            micro_usd=_integer(cost.usd, 1e6),
            qpu_us=_integer(cost.qpu_s, 1e6),
        )

    def to_cost(self) -> Cost:
        """The same in dollars and seconds."""
        return Cost(
            usd=None if self.micro_usd is None else self.micro_usd / 1e6,
            qpu_s=None if self.qpu_us is None else self.qpu_us / 1e6,
            shots=self.shots,
        )


@dataclass(frozen=True)
class BudgetAsked:
    """What somebody gave as a budget: amounts, for one of the run's own, or the name of one.

    Attributes:
        text: as it was given; None: the default budget.
        limits: the amounts, see :func:`parse_budget`; empty unless amounts were given.
    """

    text: str | None
    limits: Mapping[str, int]

    @classmethod
    def parse(cls, text: str | None) -> BudgetAsked:
        """Read it. Whether there is a budget of that name, the ledger says."""
        try:
            limits = {} if text is None else parse_budget(text)
        except ConfigError:  # a budget's name never reads as an amount
            limits = {}
        return cls(text, limits)

    @property
    def name(self) -> str | None:
        """The name of the budget that was asked for; None: amounts were, or nothing."""
        return None if self.limits else self.text


@dataclass(frozen=True)
class Cap:
    """One unit of a budget, in integers of that unit.

    Attributes:
        budget: its name.
        unit: one of :data:`UNITS`.
        cap: the limit.
        reserved: held for jobs that are not settled.
        spent: what settled jobs cost, up to their holds.
        overrun: what they were billed above their holds.
    """

    budget: str
    unit: str
    cap: int
    reserved: int
    spent: int
    overrun: int

    @property
    def room(self) -> int:
        """What is neither reserved nor spent."""
        return self.cap - self.reserved - self.spent

    @property
    def left(self) -> int:
        """What can still be reserved: nothing once the vendor has billed above a hold."""
        return 0 if self.overrun else self.room

    @property
    def unbilled(self) -> int:
        """What has not been billed, reserved or not; 0 after an overrun of all of it."""
        return max(self.cap - self.spent - self.overrun, 0)


def parse_budget(text: str) -> dict[str, int]:
    """``600s``, ``10min``, ``$25`` or ``1e6shots`` as {unit: integer cap}; ``$25,600s`` caps both.

    Raises:
        ConfigError: another form, not a positive finite amount, or two amounts in one unit.
    """
    limits: dict[str, int] = {}
    for part in text.split(","):
        unit, cap = _parse_amount(part, text)
        if unit in limits:
            raise ConfigError(
                f"Budget {text!r} has two amounts in one unit, {say(unit, limits[unit])} and "
                f"{say(unit, cap)}. Give one for each unit, such as $25,600s."
            )
        limits[unit] = cap
    return limits


def _parse_amount(part: str, text: str) -> tuple[str, int]:
    """One amount of the budget ``text``."""
    for pattern, unit, scale in _FORMS:
        if match := pattern.match(part.strip()):
            try:
                number = float(match["n"])
            except ValueError:
                break
            cap = math.floor(round(number * scale, 3)) if math.isfinite(number) else 0
            if not 1 <= cap <= MOST:  # rounded down: never more than what was typed
                raise ConfigError(
                    f"A budget must be more than 0 and no more than {say(unit, MOST)}; found "
                    f"{text!r}. Give 600s, $25 or 1e6shots."
                )
            return unit, cap
    raise ConfigError(
        f"Budget {text!r} is not understood. Give QPU seconds (600s), dollars ($25) or shots "
        "(1e6shots); several are capped together as in $25,600s."
    )


def say_all(limits: Mapping[str, int]) -> str:
    """Amounts in several units: ``$25 and 600 s of QPU time``."""
    return " and ".join(say(unit, amount) for unit, amount in limits.items())


def say(unit: str, amount: int) -> str:
    """An amount as people write it: ``$1.25``, ``42.0 s of QPU time``, ``4096 shots``."""
    if unit == "micro_usd":
        return f"${amount / 1e6:,.6f}".rstrip("0").rstrip(".")
    if unit == "qpu_us":
        return f"{amount / 1e6:.6f}".rstrip("0").rstrip(".") + " s of QPU time"
    return f"{amount:,} shots"


def _integer(value: float | None, scale: float) -> int | None:
    if value is None or not 0 <= value <= MOST / scale:  # False for NaN too
        return None
    return math.ceil(round(value * scale, 3))
