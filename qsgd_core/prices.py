"""What devices cost, row by row: the table that ships, and the user's own before it.

For estimates, and for adapters whose service does not tell its prices. Where the service tells
them, they win.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Sequence
from datetime import date
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Cost
from qsgd_core.settings import Settings, load_settings

SHIPPED = Path(__file__).with_name("prices.toml")

Usd = Annotated[float | None, Field(None, ge=0, le=1e6, allow_inf_nan=False)]
Seconds = Annotated[float | None, Field(None, ge=0, le=1e6, allow_inf_nan=False)]


class Price(BaseModel):
    """One row. What is None is unknown, which is never treated as 0.

    Attributes:
        devices: globs of names, as typed or as the service gives them.
        plan: glob of the account's plan; ``*`` also when the plan is not known.
        per_job_usd: fee of one job.
        per_shot_usd: price of one run of one circuit.
        per_second_usd: price of a QPU second.
        job_s: QPU seconds of a job, whatever is in it.
        execution_s: QPU seconds of one run of one circuit.
        rows_per_job: circuits that share one job's fixed cost, at most; None for any number.
        source: where the figures are from.
        effective_date: since when they hold, ``2026-06`` or ``2026-06-30``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    devices: tuple[Annotated[str, Field(min_length=1)], ...] = Field(min_length=1)
    plan: str = Field("*", min_length=1)
    per_job_usd: Usd
    per_shot_usd: Usd
    per_second_usd: Usd
    job_s: Seconds
    execution_s: Seconds
    rows_per_job: int | None = Field(None, ge=1)
    source: str = Field(min_length=1)
    effective_date: str = Field(pattern=r"^\d{4}-\d{2}(-\d{2})?$")

    @field_validator("effective_date", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, date) else value  # TOML has dates

    def fits(self, device: str, plan: str | None) -> bool:
        """Whether the row is about ``device`` on ``plan``; case and blanks make no difference."""
        name = _normal(device)
        return any(fnmatchcase(name, _normal(glob)) for glob in self.devices) and (
            self.plan == "*" if plan is None else fnmatchcase(_normal(plan), _normal(self.plan))
        )

    def cost(self, executions: int) -> Cost:
        """One job with so many runs of circuits."""
        seconds = None
        if self.job_s is not None and self.execution_s is not None:
            seconds = self.job_s + executions * self.execution_s
        timed = 0.0 if self.per_second_usd == 0 else _times(self.per_second_usd, seconds)
        usd = _sum(self.per_job_usd, _times(self.per_shot_usd, executions), timed)
        return Cost(usd=usd, qpu_s=seconds, shots=executions)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    price: tuple[Price, ...] = ()


def find_price(
    *names: str, plan: str | None = None, settings: Settings | None = None
) -> Price | None:
    """The row for a device, in the user's file or else the one that ships; None if there is none.

    Args:
        names: what the device is called: as asked for, as the service gives it.
        plan: the account's plan; None when it is not known.
        settings: those of the environment by default.

    Raises:
        ConfigError: the user's file cannot be read, with the row and the column.
    """
    rows = load_prices(settings or load_settings())
    return next((row for row in rows if any(row.fits(name, plan) for name in names)), None)


def load_prices(settings: Settings) -> Sequence[Price]:
    """All rows, those that count first.

    Raises:
        ConfigError: see :func:`find_price`.
    """
    own = settings.prices
    if own is None:
        there = settings.home and settings.home / "prices.toml"
        if there is None or not os.path.exists(there):  # noqa: PTH110  never raises
            return _read(SHIPPED)
        own = there
    return [*_read(own), *_read(SHIPPED)]


def _read(path: Path) -> tuple[Price, ...]:
    try:
        return _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).price
    except ValidationError as error:
        raise ConfigError(f"The prices in {path} cannot be used: {_complaint(error)}") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(
            f"The prices in {path} cannot be read: {error}. It must be a TOML file with rows as in "
            f"{SHIPPED}; QSGD_PRICES names another."
        ) from error


def _complaint(error: ValidationError) -> str:
    first: dict[str, Any] = dict(error.errors()[0])
    loc = list(first["loc"])
    row = f"row {loc[1] + 1}, " if loc[:1] == ["price"] and len(loc) > 1 else ""
    column = ".".join(str(part) for part in (loc[2:] if row else loc)) or "the row"
    if first["type"] == "extra_forbidden":
        columns = ", ".join(Price.model_fields) if row else "price"
        return f"{row}{column} is not known. Known: {columns}."
    if first["type"] == "missing":
        return f"{row}{column} is missing. Every row needs devices, source and effective_date."
    return f"{row}{column} = {first['input']!r}: {first['msg']}."


def _normal(name: str) -> str:
    return name.strip().lower().replace(" ", "-")


def _times(price: float | None, amount: float | None) -> float | None:
    return None if price is None or amount is None else price * amount


def _sum(*amounts: float | None) -> float | None:
    known = [amount for amount in amounts if amount is not None]
    return round(sum(known), 9) if len(known) == len(amounts) else None
