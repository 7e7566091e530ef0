"""The engine's counters in a checkpoint: one JSON string, ``param_groups[0]["qsgd"]``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_core.optim.config import logger
from qsgd_core.sources import SOURCES, SourceName

RECORD_KEY = "qsgd"

FORMAT = 2
"""2: `place`, and steps that hold an earlier s are counted as held."""


@dataclass
class Counters:
    """The engine's own counters."""

    steps: int = 0
    asked_at: int | None = None
    measured_at: int | None = None
    measured: SourceName = "exact"
    sources: dict[str, int] = field(default_factory=dict)
    effect: list[float] | None = None
    run: str | None = None
    schedule: dict[str, Any] | None = None
    place: int | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Counters:
        """Read the JSON form.

        Raises:
            ConfigError: it is not a record, or one of a later version.
        """
        try:
            data = json.loads(text)
            if data["format"] > FORMAT:
                raise ConfigError(
                    f"The checkpoint was written by a newer qsgd-core (record format "
                    f"{data['format']}, this version reads {FORMAT}). Upgrade qsgd-core."
                )
            data["sources"] = dict.fromkeys(SOURCES, 0) | data["sources"]  # 1 knew no held
            return cls(**data | {"format": FORMAT})
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"The checkpoint's quantum record cannot be read: {error!r}. "
                f"Remove param_groups[0][{RECORD_KEY!r}] from it to start the term afresh."
            ) from error

    @classmethod
    def go_on(cls, text: str, origin: dict[str, Any]) -> Counters:
        """Read the JSON form to count on with s from ``origin``; says so if that is another one.

        Raises:
            ConfigError: see :meth:`from_json`.
        """
        record = cls.from_json(text)
        if record.origin != origin:
            logger.warning(
                "The checkpoint's modulation came from %s; from now on it comes from %s.",
                record.origin,
                origin,
            )
        record.origin = origin
        return record
