"""How a conclusion reads: the clauses of one arm's sentence.

What is decided is decided in :mod:`.conclusions`; here it only gets its words.
"""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_lab.stats.paired import Difference, Paired
from qsgd_lab.stats.pairs import Metric

FEW = 10
"""Seeds that are advised where fewer were run."""


@dataclass(frozen=True)
class Sentence:
    """The clauses about one arm.

    Attributes:
        name: of the arm.
        baseline: name of the arm it is compared with.
        paired: the comparison.
        arms: arms compared with that baseline.
        claim: size of the paper's claim, in the metric's unit.
        detectable: minimum detectable effect; None without a spread.
        needed: seeds that would find the claim; None without a spread or where none would do.
    """

    name: str
    baseline: str
    paired: Paired
    arms: int
    claim: float
    detectable: float | None
    needed: int | None

    def too_few(self) -> str:
        """Fewer than 2 pairs."""
        have = "one seed shows no spread" if self.paired.n else "no seed has a result of both"
        advice = f"; run --seeds {FEW}" if self.paired.seeds < FEW else ""
        return (
            f"Nothing can be concluded about the {self.paired.metric} of {self.name}: {have}, and "
            f"a comparison with {self.baseline} needs 2 such seeds at least{advice}."
        )

    def found(self, verdict: str) -> str:
        """A difference."""
        return f"{self.name} is {verdict} than {self.baseline}: {self._numbers()}."

    def not_found(self) -> str:
        """No difference, where the paper's would have been found."""
        return (
            f"{self._none_found()}: {self._numbers()}; at this spread one of "
            f"{self._size(self.detectable)} or more would have been found in 80 % of such "
            "comparisons, a smaller one cannot be ruled out."
        )

    def underpowered(self) -> str:
        """No difference, where the paper's might well have been missed."""
        seeds = f"about {self.needed} seeds" if self.needed else "more seeds than can be run"
        return (
            f"{self._none_found()}, but {self.paired.n} seeds are too few to tell: "
            f"{self._numbers()}; at this spread only one of {self._size(self.detectable)} or more "
            "would have been found in 80 % of such comparisons, and one of "
            f"{self._size(self.claim)}, as the paper claims, needs {seeds}."
        )

    def without_spread(self, *, testable: bool) -> str:
        """All differences are equal, and not found by the sign flip that stands for t."""
        paired = self.paired
        start = (
            f"{self.name} differs from {self.baseline} by {self._size(paired.mean, signed=True)}"
            if paired.mean
            else f"{self.name} ended at exactly the {paired.metric} of {self.baseline}"
        ) + f" at each of {paired.n} seeds"
        if testable:
            return f"{start}: no difference was found."
        advice = f"; run --seeds {FEW}" if paired.seeds < FEW else ""
        return (
            f"{start}; without any spread only the sign flip applies, and from {paired.n} seeds it "
            f"finds nothing over {_arms(self.arms)}{advice}."
        )

    def hangs_on_divergence(self, worst: Difference, *, found: bool) -> str:
        """The primary finding is not the one with diverged runs counted in."""
        return (
            f"It cannot be told whether {self.name} differs from {self.baseline}: the seeds where "
            f"neither diverged show {'a' if found else 'no'} difference ({self._numbers()}), but "
            "with diverged runs at the worst value seen it is "
            f"{self._size(worst.mean, signed=True)} ({p_value(worst.p)})."
        )

    def left_out(self) -> str:
        """What was dropped, as a sentence of its own; empty where every seed has both."""
        paired = self.paired
        parts = []
        if paired.divergence_p is not None:
            parts.append(
                f"{paired.diverged_arm} of its runs diverged against {paired.diverged_baseline} of "
                f"{self.baseline} (McNemar {p_value(paired.divergence_p)})"
            )
        if paired.missing:
            lack = "1 seed lacks" if paired.missing == 1 else f"{paired.missing} seeds lack"
            parts.append(f"{lack} a run")
        if not parts:
            return ""
        return f" {paired.n} of {paired.seeds} seeds were compared: {'; '.join(parts)}."

    def _none_found(self) -> str:
        return f"No difference between {self.name} and {self.baseline} was found"

    def _numbers(self) -> str:
        """The difference, its interval and its p."""
        paired = self.paired
        interval = ""
        if paired.ci95 is not None:
            low, high = (number(end, paired.metric, signed=True) for end in paired.ci95)
            interval = f"95 % interval {low} to {high}, "
        corrected = "" if self.arms == 1 else f" after Holm over {_arms(self.arms)}"
        return (
            f"{paired.metric} {self._size(paired.mean, signed=True)} ({interval}{paired.test} over "
            f"{paired.n} seeds, {p_value(paired.p_holm)}{corrected})"
        )

    def _size(self, value: float | None, *, signed: bool = False) -> str:
        unit = " points" if self.paired.metric == "accuracy" else ""
        return number(value or 0.0, self.paired.metric, signed=signed) + unit


def number(value: float, metric: Metric, *, signed: bool = False) -> str:
    """Three digits; an accuracy is a share of 1 and reads as percentage points."""
    shown = 100 * value if metric == "accuracy" else value
    return f"{shown:+.3g}" if signed else f"{shown:.3g}"


def p_value(p: float | None) -> str:
    """Two digits, and no smaller than anyone can use."""
    if p is None:
        return "no p"
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"


def _arms(n: int) -> str:
    return "1 arm" if n == 1 else f"{n} arms"
