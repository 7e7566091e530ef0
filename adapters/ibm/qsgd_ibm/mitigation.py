"""The ``mitigation`` option as options of IBM's client-side Sampler."""

from __future__ import annotations

from typing import Any

from qsgd_core.errors import ConfigError
from qsgd_ibm.options import IBMOptions

MAX_RANDOMIZATIONS = 32
MIN_SHOTS_EACH = 8


def sampler_options(
    options: IBMOptions, *, shots: int, tags: list[str], max_execution_time: int
) -> dict[str, Any]:
    """Keyword arguments of ``qiskit_ibm_runtime.options_models.SamplerOptions``.

    ``readout`` twirls measurements only: readout error loses its bias towards 0 and becomes a plain
    shrinking of every ⟨Z⟩, which the twin follows. Bits stay bits: nothing is divided by an
    estimate.

    Raises:
        ConfigError: the shots cannot be split into equal randomisations.
    """
    given: dict[str, Any] = {
        "max_execution_time": max_execution_time,
        "environment": {"job_tags": tags},
        "execution": {"rep_delay": options.rep_delay},
    }
    if options.mitigation in ("twirl", "readout"):
        count = randomizations(shots)
        given["twirling"] = {
            "enable_gates": options.mitigation == "twirl",
            "enable_measure": True,
            "num_randomizations": count,
            "shots_per_randomization": shots // count,
        }
    if options.mitigation == "dd":
        given["dynamical_decoupling"] = {"enable": True}
    return given


def randomizations(shots: int) -> int:
    """Into how many equal parts to split ``shots``: the client's own choice may round up.

    Raises:
        ConfigError: there is no way with at least two parts of at least 8 shots.
    """
    fitting = [
        n
        for n in range(2, MAX_RANDOMIZATIONS + 1)
        if shots % n == 0 and shots // n >= MIN_SHOTS_EACH
    ]
    if not fitting:
        raise ConfigError(
            f"Twirling splits the shots into equal parts, and {shots} has none of at least "
            f"{MIN_SHOTS_EACH} shots. Use a power of two, such as --shots 256, or "
            "--option mitigation=none."
        )
    return max(fitting)
