"""From a comparison's folder to a document: what can be concluded first, then what it rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qsgd_lab.compare.table import Comparison, say_target
from qsgd_lab.compare.text import between_times
from qsgd_lab.report import hardware, lines, tables
from qsgd_lab.report.backstage import Backstage
from qsgd_lab.report.claims import beside
from qsgd_lab.report.commands import compare_command
from qsgd_lab.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Fold,
    Item,
    Paragraph,
    Section,
    Table,
    pairs,
)
from qsgd_lab.report.forest import forest
from qsgd_lab.report.verdicts import TONES, answer, by_kind


def document(comparison: Comparison, backstage: Backstage) -> Document:
    """The page about a comparison."""
    plan = comparison.plan
    others = len(plan.others)
    seeds = "1 seed" if len(plan.seeds) == 1 else f"{len(plan.seeds)} seeds"
    versus = "1 arm" if others == 1 else f"{others} arms"
    return Document(
        kind="comparison",
        title=f"{plan.task}: {len(comparison.arms)} arms, {seeds}",
        lead=(
            f"{versus} against {plan.baseline}, compared by final {plan.metric}, every arm on the "
            f"same {seeds}. Arms, seeds and metric were fixed before the first run."
        ),
        sections=(
            Section("What can and cannot be concluded", _conclusions(comparison, backstage)),
            Section("Arms", _blocks(tables.arms(comparison), forest(comparison))),
            Section("Beside the paper", _beside(comparison, backstage)),
            Section(
                "While training", _blocks(lines.curves(comparison), lines.differences(comparison))
            ),
            Section("Epochs to the target", _arriving(comparison)),
            Section("Effect size", _blocks(lines.effects(comparison))),
            hardware.of_comparison(comparison, backstage.paid),
            Section("Failures", _failures(comparison)),
            Section("Further numbers", _further(comparison)),
            Section("Provenance", _provenance(comparison, backstage)),
        ),
    )


PAPER = "Pamuk, Özdemir and Kocabay, Superpositional Gradient Descent (arXiv 2511.01918v2)"


def _conclusions(comparison: Comparison, backstage: Backstage) -> tuple[Block, ...]:
    blocks: list[Block] = []
    total = sum(backstage.states.values())
    finished = backstage.states["finished"]
    if comparison.failures:
        n = len(comparison.failures)
        have = "1 run has" if n == 1 else f"{n} runs have"
        said = f"{have} failed, of {total}. Failed runs count as missing: see Failures."
        blocks.append(Paragraph(said, "alert"))
    if (waiting := total - finished - len(comparison.failures)) > 0:
        have = "1 run is" if waiting == 1 else f"{waiting} runs are"
        said = f"{have} not finished yet, of {total}; they count as missing."
        blocks.append(Paragraph(said, "alert"))
    blocks += [Paragraph(note, "alert") for note in comparison.notes]
    blocks.append(Paragraph(answer(comparison), "answer"))
    blocks += [Paragraph(said) for said in by_kind(comparison)]
    items = [
        Item(c.sentence, tag=c.verdict, tone=TONES[c.verdict])
        for c in (arm.conclusion for arm in comparison.arms.values())
        if c is not None
    ]
    blocks.append(Bullets(tuple(items)))
    blocks += [Paragraph(said) for said in comparison.setting]
    return tuple(blocks)


def _beside(comparison: Comparison, backstage: Backstage) -> tuple[Block, ...]:
    found = beside(comparison, backstage)
    of: dict[str, list[str]] = {}
    for row in found:
        if row.notes:
            claims = of.setdefault("; ".join(row.notes), [])
            claims += [row.claim] if row.claim not in claims else []
    notes = tuple(Item(f"{' and '.join(claims)}: {said}.") for said, claims in of.items())
    return (
        Paragraph(f"What is claimed by {PAPER}, and what came of it here."),
        tables.claims(found),
        Bullets(notes, small=True),
    )


def _arriving(comparison: Comparison) -> tuple[Block, ...]:
    if comparison.plan.target is None:
        return ()
    figure = lines.arriving(comparison)
    if figure is None:
        return (Paragraph(f"No run reached {say_target(comparison.plan)}."),)
    arms = comparison.arms.values()
    said = tuple(Item(arm.epochs_sentence) for arm in arms if arm.epochs_sentence is not None)
    return (figure, Fold("In words", (Bullets(said),)))


def _failures(comparison: Comparison) -> tuple[Block, ...]:
    if not comparison.failures:
        return ()
    rows = [(f"{failed.arm}, seed {failed.seed}", failed.error) for failed in comparison.failures]
    again = (
        "The same line, typed again, tries these runs again and repeats no other. Tracebacks are "
        "in the folder failures."
    )
    return (pairs(rows), Paragraph(again))


def _further(comparison: Comparison) -> tuple[Block, ...]:
    """What only some will open."""
    blocks: list[Block] = [
        Fold("Secondary tests of the final difference", (tables.secondary(comparison),))
    ]
    if comparison.plan.target is not None:
        blocks.append(Fold("Secondary: epochs to the target", (tables.arrivals(comparison),)))
    blocks.append(Fold("Every run’s final value", (tables.finals(comparison),)))
    return tuple(blocks)


def _provenance(comparison: Comparison, backstage: Backstage) -> tuple[Block, ...]:
    plan = comparison.plan
    versions = ", ".join(f"{name} {version}" for name, version in plan.versions.items())
    states = ", ".join(f"{n} {state}" for state, n in sorted(backstage.states.items()))
    rows = [
        ("comparison", f"{plan.id}, plan {plan.digest()}"),
        ("task", plan.source + ("" if plan.script is None else f", SHA-256 {plan.script}")),
        *((f"imported {file}", f"SHA-256 {digest}") for file, digest in plan.imports.items()),
        *_chosen(plan.identity_of_task),
        ("data", plan.data or "the task’s own"),
        ("seeds", ", ".join(map(str, plan.seeds))),
        ("runs", states),
        ("planned with", versions),
        *_machines(backstage),
        ("backends", _backends(comparison)),
        ("cost", _cost(comparison, backstage)),
    ]
    if (ended := between_times(backstage.ended)) is not None:
        rows.append(("runs ended", ended))
    if (sent := hardware.submitted(backstage.paid.values())) is not None:
        rows.append(("jobs sent", sent))
    if backstage.calibrations:
        rows.append(("calibrations", ", ".join(backstage.calibrations)))
    rows += [("not read", note) for note in backstage.notes]
    settings = Fold("Settings of every arm", (_settings(comparison),))
    again = Paragraph("This line rebuilds the comparison, or goes on with it in the same folder:")
    return (pairs(rows), again, Code(compare_command(plan)), settings)


def _chosen(identity: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was chosen about the task."""
    return [(f"task, {name}", str(value)) for name, value in identity.items()]


def _machines(backstage: Backstage) -> list[tuple[str, str]]:
    alone = len(backstage.machines) == 1
    return [
        (
            "computed with" if alone else f"computed with ({n} runs)",
            ", ".join(f"{name} {value}" for name, value in machine.items()),
        )
        for machine, n in backstage.machines
    ]


def _backends(comparison: Comparison) -> str:
    """Backend -> the arms that it served."""
    by: dict[str, list[str]] = {}
    for arm in comparison.plan.arms:
        if not arm.term:
            continue
        shots = arm.config["shots"]
        name = arm.config["backend"] + ("" if shots is None else f", {shots} shots")
        by.setdefault(name, []).append(arm.name)
    return "; ".join(f"{name}: {', '.join(arms)}" for name, arms in by.items()) or "none"


def _cost(comparison: Comparison, backstage: Backstage) -> str:
    if not any(arm.paid for arm in comparison.plan.arms):
        return "none: everything was simulated on this machine"
    budget = comparison.plan.budget
    return hardware.total(backstage.paid) + (f" Budget: {budget}." if budget else "")


def _settings(comparison: Comparison) -> Table:
    """Settings that differ between arms, and below them those that all have."""
    arms = comparison.plan.arms
    rows = [(name, *(_shown(arm.config[name]) for arm in arms)) for name in arms[0].config]
    rows.sort(key=lambda row: len(set(row[1:])) == 1)
    columns = ("setting", *(arm.name for arm in arms))
    return Table(columns=columns, rows=tuple(rows), words=tuple(range(len(columns))))


def _shown(value: object) -> str:
    return "–" if value is None else str(value)


def _blocks(*blocks: Block | None) -> tuple[Block, ...]:
    return tuple(block for block in blocks if block is not None)
