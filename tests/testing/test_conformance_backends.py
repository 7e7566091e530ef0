"""The kit on backends: right ones pass, each wrong one fails in the test that names the fault."""

from __future__ import annotations

import importlib
import runpy
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Cost, Quote
from qsgd_core.plugins.registry import default_registry, forget_registries
from qsgd_core.template import render
from qsgd_core.testing import backend, measuring
from qsgd_core.testing.jobs import JobSender, plan, price, require_allowed
from qsgd_core.testing.runner import run, suite_file

FILE = Path(__file__).parents[1] / "conformance" / "broken_backends.py"
RIGHT = {"Good", "SmallJobs", "PaidWithinTheLimit"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The template's backend, importable here and in second processes as if it were installed."""
    site = tmp_path_factory.mktemp("site")
    for path, text in render("kitqueue", "backend").items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / "qsgd_kitqueue-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: qsgd-kitqueue\nVersion: 0.1.0\nRequires-Dist: qsgd-core\n"
    )
    (info / "entry_points.txt").write_text("[qsgd]\nkitqueue = qsgd_kitqueue.plugin\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("KITQUEUE_API_KEY", "sesame-open-5f2e")
        importlib.invalidate_caches()
        forget_registries()
        yield site
    for name in [name for name in sys.modules if name.startswith("qsgd_kitqueue")]:
        del sys.modules[name]


def collect_anew(name, options, handle):
    """What another process would do, by a new object."""
    result = default_registry().make_backend(name, options).fetch(handle)
    return [measuring.digest(part) for part in result.parts]


@pytest.fixture(scope="module")
def report(site):
    """Every backend of the file, in one run of the kit."""
    with pytest.MonkeyPatch.context() as patch:
        # A second process for each of two dozen backends would take half a minute.
        patch.setattr(measuring, "heavy_imports", lambda *_: [])
        patch.setattr(backend, "collect_elsewhere", collect_anew)
        return run(FILE.read_text())


@pytest.fixture(scope="module")
def failed(report):
    failed = {outcome.suite: set() for outcome in report.outcomes}
    for outcome in report.of("failed"):
        failed[outcome.suite].add(outcome.test)
    return failed


def test_right_backends_pass_in_one_job_in_many_and_when_paid(failed):
    assert {kind: failed[kind] for kind in RIGHT} == {kind: set() for kind in RIGHT}


def test_each_wrong_backend_fails_in_the_test_that_names_the_fault(site, failed):
    space = runpy.run_path(str(FILE))
    expected = {kind.__name__: test for kind, test in space["BROKEN"].items()}
    assert len(expected) > 20
    assert {k: t for k, t in expected.items() if t not in failed[k]} == {}
    assert set(failed) == set(expected) | RIGHT


@pytest.mark.parametrize(
    "kind, alone",
    [
        ("TwoJobs", "test_a_job_is_found_by_its_tag"),
        ("KnowsItsJobsOnlyHere", "test_another_process_collects_the_result"),
        ("TupleInTheHandle", "test_a_handle_survives_json"),
        ("BilledAboveTheQuote", "test_the_bill_stays_within_the_quote"),
        ("AlwaysTheSameShots", "test_two_calls_differ"),
    ],
)
def test_a_fault_that_touches_one_thing_fails_one_test(failed, kind, alone):
    assert failed[kind] == {alone}


def test_a_paid_backend_is_sent_nothing_unless_the_class_allows_the_cost(report):
    said = {o.reason for o in report.of("failed") if o.suite == "Paid"}
    assert any("Nothing was sent" in reason and "allow_cost_usd" in reason for reason in said)
    folder = Path(runpy.run_path(str(FILE))["OPTIONS"]["folder"])
    assert not (folder / "money-was-spent").exists()


def test_after_a_failed_submission_the_kit_looks_for_the_job_and_counts_what_it_cost(report, site):
    said = {o.reason for o in report.of("failed") if o.suite == "DeniesItsJob"}
    assert any("says that no job was made, and made job" in reason for reason in said)

    denying = runpy.run_path(str(FILE))["DeniesItsJob"]()
    planned = plan(denying.capabilities, shots=200)
    desk = JobSender(denying, planned.shots, deadline_s=20.0)
    for what in ("one", "two"):
        with pytest.raises(pytest.fail.Exception, match="and made job"):
            desk.send(what, planned.again, seed=1)
    desk.close()
    assert desk.spent() == pytest.approx(0.2)


def test_no_secret_is_repeated_in_the_failure(report):
    assert report.of("failed")
    assert not any("sesame" in outcome.reason for outcome in report.outcomes)


def test_a_backend_conforms_by_its_name(site, tmp_path):
    options = {"folder": str(tmp_path), "queue_s": 0.02}
    report = run(suite_file("backend", "kitqueue", options=options, shots=200))
    assert report.of("failed") == []
    assert len(report.of("passed")) > 30
    assert report.cost_usd == 0.0


# --- what may be spent ---------------------------------------------------------------------------


class Priced:
    """A paid backend as far as prices go."""

    name = "priced"

    def __init__(self, site, usd):
        made = default_registry().make_backend("kitqueue")
        self.capabilities = replace(made.capabilities, paid=True)
        self._quote = Quote(Cost(usd=usd, qpu_s=1.0), Cost(usd=usd, qpu_s=2.0), "list", "2026")

    def quote(self, work, *, shots):
        return self._quote


@pytest.mark.parametrize(
    "usd, allowed, said",
    [
        (
            0.25,
            None,
            [
                "4 jobs, $1.00 and 4 s of QPU time expected, $1.00 and 8 s of QPU time at worst",
                "--allow-cost 1.00",
            ],
        ),
        (0.25, 0.99, ["Allow $1.00"]),
        (0.0021, None, ["$0.0084 and 4 s of QPU time expected", "--allow-cost 0.01"]),
        (None, None, ["unknown price"]),
        (None, 1e6, ["unknown price fits no limit"]),
        (0.0, None, ["--allow-cost 0.00"]),
    ],
)
def test_what_is_not_allowed_is_refused_with_the_quote(site, usd, allowed, said):
    priced = Priced(site, usd)
    quoted = price(priced, plan(priced.capabilities, shots=None))
    with pytest.raises(ConfigError) as caught:
        require_allowed(priced, quoted, allowed)
    assert all(part in str(caught.value) for part in ["Nothing was sent", "list (2026)", *said])


@pytest.mark.parametrize("usd, allowed", [(0.25, 1.0), (0.0, 0.0)])
def test_what_is_allowed_is_not_refused(site, usd, allowed):
    priced = Priced(site, usd)
    require_allowed(priced, price(priced, plan(priced.capabilities, shots=None)), allowed)
