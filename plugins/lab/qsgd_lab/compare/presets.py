"""Arms that are compared together under one name.

``paper``: the four arms of the paper's text task (arXiv 2511.01918, Settings). Its second arm,
"Adam with quantum-inspired moment updates", is not defined there; we read it as the term added to
the gradient, at λ=0.5, so that it enters the moments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qsgd_core.errors import ConfigError

PRESETS: Mapping[str, Sequence[str]] = {
    "paper": ("adamw", "sine@0.5:gradient", "sine@0.1", "sine@0.5"),
}
CONTROL = "uniform"
"""Stands beside each arm of a preset: a uniform draw as strong as the quantum s, at every step."""


def preset_arms(name: str, *, controls: bool = True) -> list[str]:
    """Names of the arms, each arm with a term followed by its control unless refused.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"There is no preset {name!r}. There is {', '.join(PRESETS)}.")
    arms = list(PRESETS[name])
    beside = [CONTROL + arm[arm.index("@") :] for arm in arms if "@" in arm] if controls else []
    return arms + beside
