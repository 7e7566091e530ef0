"""One sentence an arm: what can and what cannot be concluded, in words that hold at any n.

A difference counts as found at p < 0.05 after Holm. Where none is found, the answer depends on
what would have been found: the yardstick is the paper's claim. If an effect of that size would have
been seen with 80 % power, "no difference found" says something; if not, the seeds are too few, and
the answer is "cannot tell" with the number of seeds that would do.

Diverged runs leave the primary analysis, which flatters the arm they are of. So what it says stands
only if it is the same with those runs counted at the worst value seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from qsgd_lab.stats.censored import RestrictedDifference
from qsgd_lab.stats.claims import claimed_difference
from qsgd_lab.stats.paired import Difference, Paired
from qsgd_lab.stats.pairs import direction
from qsgd_lab.stats.power import ALPHA, minimum_detectable_effect, seeds_needed
from qsgd_lab.stats.sentences import Sentence, p_value

Verdict: TypeAlias = Literal["better", "worse", "no difference found", "cannot tell"]


@dataclass(frozen=True)
class Conclusion:
    """What the primary analysis says of one arm.

    Attributes:
        verdict: ``better`` and ``worse`` than the baseline are findings after Holm.
        sentence: why, for people.
        minimum_detectable_effect: the difference that 80 % of such comparisons would find, at
            Holm's first step over the arms; in the metric's unit. None without a spread.
        seeds_needed: seeds that would find the paper's claim so; None without a spread, or where
            100,000 would not do.
    """

    verdict: Verdict
    sentence: str
    minimum_detectable_effect: float | None
    seeds_needed: int | None


def conclude(name: str, paired: Paired, *, baseline: str, arms: int) -> Conclusion:
    """The conclusion for one arm.

    Args:
        name: of the arm.
        paired: from :func:`~qsgd_lab.stats.paired.compare_arms`.
        baseline: name of the arm it is compared with.
        arms: arms compared with that baseline.
    """
    words = _sentence(name, paired, baseline, arms)
    verdict, reason = _decide(paired, words)
    return Conclusion(verdict, reason + words.left_out(), words.detectable, words.needed)


def _decide(paired: Paired, words: Sentence) -> tuple[Verdict, str]:
    if paired.p is None or paired.p_holm is None:
        return "cannot tell", words.too_few()
    found = _found(paired, paired.p_holm)
    worst = paired.worst_case
    if worst is not None and not _stands(paired, worst, found):
        return "cannot tell", words.hangs_on_divergence(worst, found=bool(found))
    if found:
        verdict: Verdict = "better" if found == direction(paired.metric) else "worse"
        return verdict, words.found(verdict)
    if words.detectable is None:  # all differences equal: the least p of the sign flip is 2/2^n
        testable = words.arms * 2 ** (1 - paired.n) < ALPHA
        reason = words.without_spread(testable=testable)
        return "no difference found" if testable else "cannot tell", reason
    if words.detectable <= words.claim:
        return "no difference found", words.not_found()
    return "cannot tell", words.underpowered()


def _sentence(name: str, paired: Paired, baseline: str, arms: int) -> Sentence:
    mean, sd = paired.baseline_mean, paired.sd
    claim = 0.0 if mean is None else abs(claimed_difference(paired.metric, mean))
    detectable = needed = None
    if paired.test == "paired t" and sd is not None:
        detectable = minimum_detectable_effect(paired.n, sd, arms=arms)
        needed = seeds_needed(claim, sd, arms=arms)
    return Sentence(name, baseline, paired, arms, claim, detectable, needed)


def _stands(paired: Paired, worst: Difference, found: int) -> bool:
    """Whether a finding holds with diverged runs counted in.

    Leaving out an arm's diverged runs flatters that arm; a finding against it holds all the more.
    """
    better = direction(paired.metric)
    if found and not (paired.diverged_arm if found == better else paired.diverged_baseline):
        return True
    return worst.p is None or _found(worst, worst.p) == found


def _found(difference: Difference, p: float) -> int:
    """Sign of the mean difference if it is found, else 0."""
    if difference.mean is None or p >= ALPHA:
        return 0
    return (difference.mean > 0) - (difference.mean < 0)


def conclude_epochs(
    name: str, difference: RestrictedDifference | None, *, baseline: str, target: str
) -> str:
    """One sentence on epochs to the target; secondary, and it says so.

    Args:
        name: of the arm.
        difference: None where no run of either arm arrives, or no pair is complete.
        baseline: name of the arm it is compared with.
        target: as people read it, ``accuracy 90 %``.
    """
    if difference is None:
        return (
            f"Nothing can be said on how fast {name} and {baseline} reach {target}: within the "
            "epochs given no run did, or no seed has both."
        )
    means = (
        f"{difference.arm_mean:.3g} against {difference.baseline_mean:.3g}, runs that do not "
        f"arrive counted as {difference.horizon:g}"
    )
    flip = difference.sign_flip
    if flip is None:
        return (
            f"Epochs to {target}, {name} against {baseline}: {means}; from 1 seed nothing can be "
            "concluded."
        )
    kind = "exact sign flip" if flip.exact else "sign flip"
    test = (
        f"secondary: {kind} over {difference.n} seeds, {p_value(flip.p)}, not corrected for the "
        "number of arms"
    )
    if flip.p >= ALPHA:
        return (
            f"No difference between {name} and {baseline} in epochs to {target} was found: "
            f"{means} ({test})."
        )
    faster = "fewer" if difference.mean < 0 else "more"
    return (
        f"{name} took {abs(difference.mean):.3g} {faster} epochs than {baseline} to {target}: "
        f"{means} ({test})."
    )
