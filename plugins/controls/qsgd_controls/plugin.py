"""The provider: names of the five controls. Light; torch is imported when a control is made."""

from __future__ import annotations

from qsgd_core.hookspecs import hookimpl
from qsgd_core.specs import PerturbationSpec

CONTROLS = {
    "rademacher": "Random signs times the RMS of the matched modulation.",
    "uniform": "Uniform draws, rescaled to the RMS of the matched modulation.",
    "gaussian": "Clipped normal draws, rescaled to the RMS of the matched modulation.",
    "permuted": "The matched modulation's own values, in a random order.",
    "frozen": "One uniform draw per parameter for the whole run, rescaled at each step.",
}
"""Name -> summary. The class in :mod:`qsgd_controls.controls` is the name with a capital."""


@hookimpl
def qsgd_register_perturbations() -> list[PerturbationSpec]:
    """One spec for each control."""
    return [
        PerturbationSpec(
            name=name,
            factory=f"qsgd_controls.controls:{name.capitalize()}",
            options="qsgd_controls.options:ControlOptions",
            uses_backend=False,
            summary=f"{summary} Option: match (sine, circuit, …).",
        )
        for name, summary in CONTROLS.items()
    ]
