"""All arms' conclusions in a sentence or two: the answer, before what it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qsgd_lab.compare.table import ArmResult, Comparison
from qsgd_lab.report.document import Tone
from qsgd_lab.stats.conclusions import Verdict

TONES: Mapping[Verdict, Tone] = {
    "better": "better",
    "worse": "worse",
    "no difference found": "none",
    "cannot tell": "open",
}


def answer(comparison: Comparison) -> str:
    """Whether any arm with a quantum term was found better, in a sentence."""
    baseline = comparison.plan.baseline
    arms = _quantum(comparison)
    better = [arm.name for arm in arms if _verdict(arm) == "better"]
    untold = [arm for arm in arms if _verdict(arm) == "cannot tell"]
    if better:
        found = f"{_listed(better)} {_were(better)} found to be better than {baseline}"
        controls = [name for arm in arms for name in gained_too(arm, comparison)]
        if not controls:
            return f"{found}."
        measures = "measures" if len(controls) == 1 else "measure"
        return f"{found}, but so {_were(controls)} {_listed(controls)}, which {measures} nothing."
    if not arms:
        return "No arm here has a quantum term."
    if len(untold) == len(arms):
        return f"Whether a quantum term is better than {baseline} cannot be told from these runs."
    rest = f"; of {_listed([arm.name for arm in untold])} it cannot be told" if untold else ""
    return f"No quantum term was found to be better than {baseline}{rest}."


def by_kind(comparison: Comparison) -> list[str]:
    """What was found of the quantum arms, of the controls and of the rest."""
    baseline = comparison.plan.baseline
    quantum = _quantum(comparison)
    others = [arm for arm in comparison.arms.values() if arm.conclusion is not None]
    controls = [arm for arm in others if arm.control]
    rest = [arm for arm in others if arm not in quantum and arm not in controls]
    groups = (
        ("Arms with a quantum term", quantum),
        ("Controls", controls),
        ("Arms without a term", rest),
    )
    return [_said(arms, what, baseline) for what, arms in groups if arms]


def gained_too(arm: ArmResult, comparison: Comparison) -> list[str]:
    """The controls of an arm that were found better, as the arm was."""
    if _verdict(arm) != "better":
        return []
    return [
        other.name
        for other in comparison.arms.values()
        if other.match == arm.name and _verdict(other) == "better"
    ]


def _said(arms: Sequence[ArmResult], what: str, baseline: str) -> str:
    words: Mapping[Verdict, str] = {
        "better": f"better than {baseline}",
        "worse": f"worse than {baseline}",
        "no difference found": f"no difference from {baseline} found",
        "cannot tell": "cannot be told",
    }
    by = {verdict: [a.name for a in arms if _verdict(a) == verdict] for verdict in words}
    parts = [f"{words[verdict]}: {_listed(names)}" for verdict, names in by.items() if names]
    return f"{what}. {_capital('; '.join(parts))}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _quantum(comparison: Comparison) -> list[ArmResult]:
    return [comparison.arms[a.name] for a in comparison.plan.others if a.term and not a.control]


def _verdict(arm: ArmResult) -> Verdict | None:
    return None if arm.conclusion is None else arm.conclusion.verdict


def _were(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
