"""Pages about comparisons: what they draw and say is what the table has."""

from __future__ import annotations

import itertools
import math
import re
import statistics
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import lab_report_made as made
import plotly.graph_objects as go
import pytest
from scipy import stats

from qsgd_core.schedule.ledger.ledger import Ledger
from qsgd_lab.compare.table import Comparison, read_comparison
from qsgd_lab.report import backstage, comparison
from qsgd_lab.report.document import Bullets, Document, Figure, Fold, Paragraph, Table
from qsgd_lab.report.page import html
from qsgd_lab.report.palette import looks
from qsgd_lab.report.twin import escape, markdown

EVIL = '<script>alert(1)</script> "quoted" & | `code` *b* %{x} <a href="https://evil.example">'


def no_ledger() -> Ledger:
    raise AssertionError("nothing was paid for")


def read(
    home: Path, plan: object, curve: Callable[..., object]
) -> tuple[Comparison, backstage.Backstage, Document]:
    made.write(home, plan, curve)
    found = read_comparison(home, plan)
    behind = backstage.look(found, no_ledger)
    return found, behind, comparison.document(found, behind)


@pytest.fixture(scope="module")
def paper(tmp_path_factory: pytest.TempPathFactory) -> tuple[Comparison, Document]:
    """The paper's arms over 10 seeds; one control is worse."""
    curve = made.learning(gain={"uniform@0.5:gradient": -0.02})
    found, _, document = read(tmp_path_factory.mktemp("paper") / "c", made.plan_of(), curve)
    return found, document


def figure(document: Document, name: str) -> Figure:
    (found,) = [figure for figure in document.figures() if figure.name == name]
    return found


def words(document: Document) -> str:
    return html(document).split('<script type="application/json"')[0]


def section(document: Document, title: str) -> tuple[object, ...]:
    (found,) = [section.blocks for section in document.sections if section.title == title]
    return found


# --- what is drawn is what was found -------------------------------------------------------------


def test_the_forest_plot_has_every_arms_difference_interval_bar_and_the_claim(paper):
    found, document = paper
    forest = figure(document, "forest")
    drawn = {trace["name"]: trace for trace in forest.traces}
    others = [arm for arm in found.arms.values() if arm.paired is not None]
    assert len(others) == 6
    assert len(drawn) == len(forest.traces) == 3 * 6
    for arm in others:
        interval = drawn[f"{arm.name}, 95 % interval"]
        bar = drawn[f"{arm.name}, minimum detectable effect"]
        assert drawn[arm.name]["x"] == [pytest.approx(100 * arm.paired.mean)]
        assert interval["x"] == pytest.approx([100 * end for end in arm.paired.ci95])
        size = 100 * arm.conclusion.minimum_detectable_effect
        assert bar["x"] == pytest.approx([-size, size])
        rows = {tuple(trace["y"]) for trace in (interval, bar)}
        assert rows == {tuple(drawn[arm.name]["y"] * 2)}
    zero, claim = forest.layout["shapes"]
    assert (zero["x0"], claim["x0"]) == (0.0, pytest.approx(2.3))
    low, high = forest.layout["xaxis"]["range"]
    assert all(low < x < high for trace in forest.traces for x in trace["x"])
    assert low < 0 < 2.3 < high
    assert [note["text"] for note in forest.layout["annotations"]] == [a.name for a in others]


def test_a_learning_curve_is_the_mean_of_the_runs_and_its_band_their_t_interval(paper):
    found, document = paper
    drawn = {trace["name"]: trace for trace in figure(document, "curves").traces}
    half = stats.t.isf(0.025, 9)
    for arm in found.arms.values():
        columns = list(zip(*arm.curves.values(), strict=True))
        means = [100 * statistics.fmean(column) for column in columns]
        errors = [100 * half * statistics.stdev(c) / math.sqrt(10) for c in columns]
        assert drawn[arm.name]["y"] == pytest.approx(means)
        band = drawn[f"{arm.name}, 95 % interval"]
        assert band["x"] == [*range(1, 11), *range(10, 0, -1)]
        assert band["y"][:10] == pytest.approx([m + e for m, e in zip(means, errors, strict=True)])
        assert band["y"][:9:-1] == pytest.approx(
            [m - e for m, e in zip(means, errors, strict=True)]
        )
        assert band["legendgroup"] == drawn[arm.name]["legendgroup"] == arm.name


def test_differences_while_training_end_at_the_final_difference(paper):
    found, document = paper
    widest, *lines = figure(document, "differences").traces
    for trace in lines:
        arm = found.arms[trace["name"]]
        assert trace["y"][-1] == pytest.approx(100 * arm.paired.mean)
    halves = [
        100 * (arm.paired.ci95[1] - arm.paired.ci95[0]) / 2
        for arm in found.arms.values()
        if arm.paired is not None
    ]
    assert widest["y"][9] == pytest.approx(max(halves))
    assert widest["y"][10] == pytest.approx(-max(halves))


def test_the_arrivals_are_the_kaplan_meier_curves(paper):
    found, document = paper
    for trace in figure(document, "arriving").traces:
        curve = found.arms[trace["name"]].survival
        assert trace["x"] == [0.0, *curve.times, 10.0]
        assert trace["y"] == pytest.approx([100.0, *(100 * s for s in curve.share), trace["y"][-1]])
        assert trace["y"][-2] == trace["y"][-1]
        assert trace["line"]["shape"] == "hv"


def test_the_effect_trace_leaves_the_baseline_out_and_is_the_mean_over_seeds(paper):
    found, document = paper
    effect = figure(document, "effect")
    assert [trace["name"] for trace in effect.traces] == [*found.arms][1:]
    for trace in effect.traces:
        runs = found.arms[trace["name"]].effect_curves.values()
        means = [statistics.fmean(column) for column in zip(*runs, strict=True)]
        assert trace["y"] == pytest.approx(means)
    assert effect.layout["yaxis"]["type"] == "log"


def test_the_table_of_arms_is_that_of_the_terminal_with_every_column(paper):
    found, document = paper
    table = section(document, "Arms")[0]
    assert [row[0] for row in table.rows] == list(found.arms)
    columns = {name: [row[i] for row in table.rows] for i, name in enumerate(table.columns)}
    arm = found.arms["sine@0.5"]
    i = list(found.arms).index("sine@0.5")
    assert columns["runs"][i] == "10/10"
    assert (
        columns["accuracy %"][i] == f"{100 * arm.accuracy.mean:.2f} ± {100 * arm.accuracy.se:.2f}"
    )
    assert columns["difference"][i] == f"{100 * arm.paired.mean:+.2f} ± {100 * arm.paired.se:.2f}"
    low, high = (f"{100 * end:+.2f}" for end in arm.paired.ci95)
    assert columns["95 % interval"][i] == f"{low} to {high}"
    assert columns["p"][i] == f"{arm.paired.p:.2g}"
    assert columns["p (Holm)"][i] == f"{arm.paired.p_holm:.2g}"
    assert columns["effect size"][i] == f"{arm.effect_size:.2g}"
    assert columns["s per run"][i] == f"{arm.wall_s:.1f}"


def test_every_figure_is_one_that_plotly_accepts_in_colours_that_the_page_has(paper):
    _, document = paper
    style = Path(comparison.__file__).with_name("templates").joinpath("style.css").read_text()
    known = set(re.findall(r"--([a-z-]+):", style))

    def plain(value, key=None):
        if isinstance(value, dict):
            return {k: plain(v, k) for k, v in value.items()}
        if isinstance(value, list | tuple):
            return [plain(each) for each in value]
        if key in ("color", "fillcolor"):
            assert value in known
            return "#000000"
        return value

    for each in document.figures():
        go.Figure(data=plain(each.traces), layout=plain(each.layout))
        assert {key.colour for key in each.keys} <= known
        groups = {trace.get("legendgroup") for trace in each.traces}
        assert {key.group for key in each.keys if key.group is not None} <= groups


def test_controls_look_like_their_arm_but_broken_and_open_and_no_two_arms_look_alike(paper):
    found, _ = paper
    look = looks(found)
    for name in ("uniform@0.5:gradient", "uniform@0.1", "uniform@0.5"):
        match = look[found.arms[name].match]
        assert look[name].colour == match.colour
        assert look[name].symbol == f"{match.symbol}-open"
        assert (match.dash, look[name].dash != "solid") == ("solid", True)
    alike = [(look.colour, look.dash, look.symbol) for look in look.values()]
    assert len(set(alike)) == len(alike)


# --- what is said --------------------------------------------------------------------------------


def test_the_page_begins_with_what_can_be_concluded_in_the_words_of_the_statistics(paper):
    found, document = paper
    answer, quantum, controls, said = section(document, "What can and cannot be concluded")
    assert answer == Paragraph("No quantum term was found to be better than adamw.", "answer")
    assert quantum.text.startswith("Arms with a quantum term. No difference from adamw found: ")
    assert "Worse than adamw: uniform@0.5:gradient" in controls.text
    conclusions = [arm.conclusion for arm in found.arms.values() if arm.conclusion is not None]
    assert [(i.tag, i.text) for i in said.items] == [(c.verdict, c.sentence) for c in conclusions]
    assert document.shown[0].title == "What can and cannot be concluded"


def test_a_gain_that_the_control_shares_is_not_put_down_to_the_quantum_term(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5", "uniform@0.5"))
    curve = made.learning(gain={"sine@0.5": 0.03, "uniform@0.5": 0.03})
    _, _, document = read(tmp_path / "c", plan, curve)
    answer = section(document, "What can and cannot be concluded")[0]
    assert answer.text == (
        "sine@0.5 was found to be better than adamw, but so was uniform@0.5, which measures "
        "nothing."
    )
    _, claims, notes = section(document, "Beside the paper")
    assert claims.rows[0][:2] == ("accuracy, λ\u00a0=\u00a00.5", "reproduced")
    assert "uniform@0.5, which measures nothing, was found better too" in notes.items[0].text
    _, _, alone = read(
        tmp_path / "d", made.plan_of(("adamw", "sine@0.5")), made.learning(gain={"sine@0.5": 0.03})
    )
    answer = section(alone, "What can and cannot be concluded")[0]
    assert answer.text == "sine@0.5 was found to be better than adamw."


def test_secondary_statistics_are_folded_away_and_called_so(paper):
    found, document = paper
    tests, arrivals, finals = section(document, "Further numbers")
    assert all(isinstance(fold, Fold) for fold in (tests, arrivals, finals))
    assert "Secondary" in tests.title
    assert "Secondary" in arrivals.title
    (table,) = tests.blocks
    row = {r[0]: r for r in table.rows}["sine@0.5"]
    secondary = found.arms["sine@0.5"].paired.secondary
    assert row[1] == f"{secondary.sign_flip.p:.2g} (exact)"
    assert row[2] == f"{secondary.wilcoxon_p:.2g}"
    assert row[3] == "–"  # BCa needs 20 seeds
    (runs,) = finals.blocks
    by_hand = [f"{100 * c[-1]:.2f}" for c in found.arms["sine@0.5"].curves.values()]
    assert [row for row in runs.rows if row[0] == "sine@0.5"] == [("sine@0.5", *by_hand)]


def test_provenance_has_versions_seeds_machine_backend_cost_and_the_plans_digest(paper):
    found, document = paper
    table = section(document, "Provenance")[0]
    said = dict(table.rows)
    assert said["seeds"] == "0, 1, 2, 3, 4, 5, 6, 7, 8, 9"
    assert found.plan.digest() in said["comparison"]
    assert f"torch {found.plan.versions['torch']}" in said["planned with"]
    assert said["computed with"] == "python 3.11.7, torch 2.13.0, threads 1, processor x86_64 AVX2"
    assert said["runs"] == "70 finished"
    assert said["runs ended"] == "2025-06-15 15:06 to 2025-06-15 15:15 UTC"
    assert said["cost"].startswith("none")
    assert said["backends"].startswith("exact: sine@0.5:gradient")


def test_numbers_of_both_pages_are_the_same(paper):
    _, document = paper
    page, twin = words(document).replace("<wbr>", ""), markdown(document)
    tables = [b for s in document.sections for b in s.blocks if isinstance(b, Table)]
    cells = set(itertools.chain.from_iterable(row for table in tables for row in table.rows))
    assert len(cells) > 50
    for cell in cells:
        assert escape(cell) in twin
        assert cell.replace(" ± ", "\u00a0±\u00a0").replace("<", "&lt;") in page
    for each in document.figures():
        if each.numbers is not None:
            assert escape(each.numbers.rows[0][-1]) in twin


# --- what can go wrong ---------------------------------------------------------------------------


def test_diverged_failed_and_missing_runs_are_drawn_around_and_said(tmp_path):
    base = made.learning()

    def curve(arm, seed):
        if arm == "sine@0.5" and seed == 2:
            lost = {"train_loss": None, "loss": None}
            return [row | (lost if i >= 4 else {}) for i, row in enumerate(base(arm, seed))]
        if arm == "sine@0.1" and seed == 3:
            return "ValueError: no such corpus"
        return None if arm == "uniform@0.1" and seed > 7 else base(arm, seed)

    found, behind, document = read(tmp_path / "c", made.plan_of(), curve)
    assert dict(behind.states) == {"finished": 67, "failed": 1, "pending": 2}
    alerts = [
        block.text
        for block in section(document, "What can and cannot be concluded")
        if isinstance(block, Paragraph) and block.tone == "alert"
    ]
    assert alerts[0].startswith("1 run has failed, of 70.")
    assert alerts[1].startswith("2 runs are not finished yet, of 70")
    assert section(document, "Failures")[0].rows == (
        ("sine@0.1, seed 3", "ValueError: no such corpus"),
    )
    drawn = {trace["name"]: trace for trace in figure(document, "curves").traces}
    kept = [c[-1] for seed, c in found.arms["sine@0.5"].curves.items() if seed != 2]
    assert drawn["sine@0.5"]["y"][-1] == pytest.approx(100 * statistics.fmean(kept))
    finals = section(document, "Further numbers")[2].blocks[0]
    assert {row[0]: row for row in finals.rows}["sine@0.5"][3] == "diverged"
    assert {row[0]: row for row in finals.rows}["sine@0.1"][4] == "–"
    assert "NaN" not in html(document).split("<script>")[0]


@pytest.mark.parametrize("lost", ["sine@0.5", "adamw"])
def test_an_arm_without_any_result_leaves_a_page(tmp_path, lost):
    plan = made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=3)
    base = made.learning()
    _, _, document = read(
        tmp_path / "c", plan, lambda arm, seed: "died" if arm == lost else base(arm, seed)
    )
    text = words(document)
    assert "cannot tell" in text
    assert ("figure-forest" in text) == (lost != "adamw")
    assert "No run" not in text or lost != "adamw"


def test_nothing_that_has_run_leaves_a_page_without_figures_and_scripts(tmp_path):
    _, _, document = read(tmp_path / "c", made.plan_of(seeds=2), lambda arm, seed: None)
    page = html(document)
    assert list(document.figures()) == []
    assert "<script" not in page
    assert "script-src &#39;none&#39;" in page
    assert "14 runs are not finished yet, of 14" in page
    assert markdown(document)


def test_one_seed_has_points_and_no_intervals_bands_or_bars(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=1)
    _, _, document = read(tmp_path / "c", plan, made.learning())
    forest = figure(document, "forest")
    assert [trace["mode"] for trace in forest.traces] == ["markers", "markers"]
    assert [trace["name"] for trace in figure(document, "curves").traces] == [
        "adamw",
        "sine@0.5",
        "uniform@0.5",
    ]
    assert "grey band" not in figure(document, "differences").caption
    assert "cannot be told from these runs" in words(document)


def test_a_loss_has_no_accuracy_no_target_and_is_better_to_the_left(tmp_path):
    plan = made.replaced(made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=5))
    found, _, document = read(tmp_path / "c", plan, made.losing(cut={"sine@0.5": 0.05}))
    assert section(document, "Epochs to the target") == ()
    assert "accuracy %" not in section(document, "Arms")[0].columns
    forest = figure(document, "forest")
    assert "better is to the left" in forest.caption
    claim = forest.layout["shapes"][1]["x0"]
    assert claim == pytest.approx(-0.0416 * found.arms["sine@0.5"].paired.baseline_mean)
    drawn = {trace["name"]: trace for trace in forest.traces}
    assert drawn["sine@0.5"]["x"] == [pytest.approx(found.arms["sine@0.5"].paired.mean)]
    assert len(section(document, "Further numbers")) == 2


def test_no_run_at_the_target_says_so_and_draws_nothing(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=3, target=0.999)
    _, _, document = read(tmp_path / "c", plan, made.learning())
    assert section(document, "Epochs to the target") == (
        Paragraph("No run reached accuracy 99.9 %."),
    )


def test_equal_arms_have_a_page(tmp_path):
    """As on small tasks: every seed ends where the baseline does, to the bit."""
    plan = made.plan_of(("adamw", "sine@0.5"), seeds=6)
    base = made.learning()
    _, _, document = read(tmp_path / "c", plan, lambda arm, seed: base("adamw", seed))
    assert "ended at exactly the accuracy of adamw" in words(document)
    (mark,) = figure(document, "forest").traces
    assert mark["x"] == [0.0]


# --- the file ------------------------------------------------------------------------------------


class Parsed(HTMLParser):
    """Elements of a page, without the contents of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))


@pytest.fixture
def evil(tmp_path: Path) -> Document:
    """A comparison whose names and errors try to be markup."""
    plan = made.renamed(made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=3), EVIL)
    base = made.learning()

    def curve(arm, seed):
        name = "adamw" if arm.startswith("adamw") else arm
        return f"ValueError: {EVIL}" if (arm, seed) == (plan.arms[2].name, 1) else base(name, seed)

    _, _, document = read(tmp_path / "c", plan, curve)
    return document


def test_what_users_name_is_never_markup(evil):
    page = html(evil)
    parsed = Parsed(page)
    scripts = [attrs for tag, attrs in parsed.elements if tag == "script"]
    assert len(scripts) == page.count("<script") == 3
    assert not any(tag == "a" for tag, _ in parsed.elements)
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    data = page.split('id="figures">')[1].split("</script>")[0]
    assert "<" not in data
    for each in evil.figures():
        names = [trace["name"] for trace in each.traces]
        names += [note["text"] for note in each.layout.get("annotations", ())]
        assert not any("<" in name for name in names)


def test_what_users_name_is_never_markup_in_the_twin(evil):
    before, command, after = markdown(evil).split("```")
    assert "<script" in command
    for outside in (before, after):
        assert not re.search(r"<\w", outside)
        assert r"\| \`code\` \*b\*" in outside


def test_the_page_loads_nothing_and_forbids_it(evil):
    page = html(evil)
    elements = Parsed(page).elements
    assert not any(attrs.get("src") for _, attrs in elements)
    links = [attrs["href"] for _, attrs in elements if "href" in attrs]
    assert links == ["data:,"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = [a["content"] for _, a in elements if a.get("http-equiv")]
    assert policy.startswith("default-src 'none';")
    assert "unsafe-inline'; script" not in policy.split("script-src")[1]
    assert policy.count("sha256-") == 2


def test_the_same_folder_gives_the_same_bytes(tmp_path):
    plan = made.plan_of(("adamw", "sine@0.5", "uniform@0.5"), seeds=4)
    made.write(tmp_path / "c", plan, made.learning())

    def pages() -> tuple[str, str]:
        found = read_comparison(tmp_path / "c", plan)
        document = comparison.document(found, backstage.look(found, no_ledger))
        return html(document), markdown(document)

    assert pages() == pages()


def test_a_table_of_the_twin_has_as_many_cells_in_every_row(evil, paper):
    for document in (evil, paper[1]):
        lines = markdown(document).splitlines()
        for above, below in itertools.pairwise(lines):
            if above.startswith("| ") and below.startswith("| "):
                cells = [len(re.findall(r"(?<!\\)\|", line)) for line in (above, below)]
                assert cells[0] == cells[1]


@pytest.mark.parametrize(
    "text, escaped",
    [
        ("a|b", r"a\|b"),
        ("<b>", "&lt;b&gt;"),
        ("_a_ b_c __init__", r"\_a\_ b_c \_\_init\_\_"),
        ("two\nlines", "two lines"),
        (r"\|", r"\\\|"),
    ],
)
def test_text_is_escaped_for_markdown(text, escaped):
    assert escape(text) == escaped


def test_bullets_of_claims_are_small_print(paper):
    _, _, notes = section(paper[1], "Beside the paper")
    assert isinstance(notes, Bullets)
    assert notes.small
