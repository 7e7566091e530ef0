"""What the paper claims (arXiv 2511.01918v2), and whether a comparison reproduces it.

Its text task: λ=0.5 ends 2.3 points of accuracy above Adam. Its fine-tuning: a mean loss 4.11 %
(λ=0.1) and 4.16 % (λ=0.5) under AdamW's. Epochs to 90 %: 4.6 against 7.4, 37.8 % fewer.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from qsgd_lab.stats.pairs import Metric, direction

ACCURACY_GAIN = 0.023
"""Difference of accuracies, as a share of 1."""
LOSS_CUT = 0.0416
"""Share of the baseline's loss, λ=0.5."""
LOSS_CUT_WEAK = 0.0411
"""The same, λ=0.1."""
LOSS_MODEL = "meta-llama/Llama-3.2-1B-Instruct"
"""What was fine-tuned, for one epoch of GSM8K."""
EPOCHS_CUT = 0.378
"""Share of the baseline's epochs to the target; as restricted means leave out what lies past the
horizon, a true cut of this size can only show as a smaller one where runs do not arrive."""

Outcome: TypeAlias = Literal["reproduced", "not reproduced", "cannot tell"]


def claimed_difference(metric: Metric, baseline_mean: float) -> float:
    """The paper's claim for λ=0.5 as a difference, arm less baseline, in the metric's unit.

    Args:
        metric: ``accuracy`` or ``loss``.
        baseline_mean: the baseline's own value: the claim on the loss is a share of it.

    Raises:
        ConfigError: another metric.
    """
    return ACCURACY_GAIN if direction(metric) == 1 else -LOSS_CUT * abs(baseline_mean)


def check_claim(claimed: float, *, ci95: tuple[float, float] | None, p: float | None) -> Outcome:
    """Hold a claimed difference against the one found.

    ``reproduced``: a difference in the claimed direction is found (p < 0.05 and the whole interval
    on that side of 0) and the interval reaches the claimed size. ``not reproduced``: the whole
    interval falls short of the claimed size, whether or not it holds 0. Otherwise the data fit both
    the claim and no effect: ``cannot tell``.

    Args:
        claimed: difference, arm less baseline; not 0.
        ci95: interval of the difference found.
        p: of it, corrected for the arms.
    """
    if ci95 is None or p is None:
        return "cannot tell"
    sign = 1 if claimed > 0 else -1
    low, high = sorted(sign * end for end in ci95)
    if high < abs(claimed):
        return "not reproduced"
    return "reproduced" if p < 0.05 and low > 0 else "cannot tell"
