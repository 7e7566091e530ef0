"""What a checkpoint keeps of the term: one JSON string, and s of each parameter in full precision.

Numbers live in ``param_groups``, the record in ``param_groups[0]["qsgd"]``, a held s in
``state[p]["qsgd_s"]``. ``load_state_dict`` casts every state tensor to its parameter's dtype, so s
is carried around it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from qsgd_core.errors import ConfigError

RECORD_KEY = "qsgd"
S_KEY = "qsgd_s"
"""(m,) float32 or float64: the held modulation of the parameter's selected coordinates."""
MEASURED_KEY = "qsgd_measured_at"
"""int: the step at which :data:`S_KEY` was measured."""

FORMAT = 1


@dataclass
class Record:
    """The engine's own counters."""

    steps: int = 0
    measured_at: int | None = None
    measured: str = "exact"
    sources: dict[str, int] = field(default_factory=dict)
    effect: list[float] | None = None
    run: str | None = None
    origin: dict[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Record:
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
            return cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigError(
                f"The checkpoint's quantum record cannot be read: {error!r}. "
                f"Remove param_groups[0][{RECORD_KEY!r}] from it to start the term afresh."
            ) from error


def held_values(state_dict: Mapping[str, Any]) -> dict[int, torch.Tensor]:
    """The held s in a state dict, by the parameter's position over all groups."""
    ids = [i for group in state_dict["param_groups"] for i in group["params"]]
    state = state_dict["state"]
    return {k: state[i][S_KEY] for k, i in enumerate(ids) if i in state and S_KEY in state[i]}


def restore_held(
    params: Iterable[torch.Tensor],
    state: Mapping[torch.Tensor, dict[str, Any]],
    held: Mapping[int, torch.Tensor],
) -> None:
    """Put s back in the precision it was saved in, on each parameter's device."""
    for k, param in enumerate(params):
        if k in held:
            state[param][S_KEY] = held[k].detach().clone().to(param.device)
