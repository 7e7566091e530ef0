"""What a run of the kit came to: a pytest plugin that keeps each test's outcome and reason."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import pytest

from qsgd_core.jobs import sum_known
from qsgd_core.testing.standard import hint

Verdict: TypeAlias = Literal["passed", "failed", "skipped"]

COST: pytest.StashKey[list[float | None]] = pytest.StashKey()
"""US dollars billed to each suite that sent jobs; None where a bill did not say."""


@dataclass(frozen=True)
class CaseOutcome:
    """One test.

    Attributes:
        test: its name, with its parameter.
        suite: its class's name.
        verdict: an expected failure counts as skipped, with its reason.
        reason: why it failed or was skipped; empty when it passed.
        hint: what to do about a failure.
    """

    test: str
    suite: str
    verdict: Verdict
    reason: str = ""
    hint: str = ""


@dataclass
class ConformanceReport:
    """The outcomes of a run, in order.

    Attributes:
        cost_usd: what the vendor billed; 0 if nothing was sent, None if a bill did not say.
    """

    outcomes: list[CaseOutcome] = field(default_factory=list)
    cost_usd: float | None = 0.0

    def of(self, verdict: Verdict) -> list[CaseOutcome]:
        """The outcomes with this verdict."""
        return [outcome for outcome in self.outcomes if outcome.verdict == verdict]


SAME = "For the same reason as"
NEEDED = "Repair this first: the test, and every other that needs this, could not begin."


class Collector:
    """The pytest plugin: fills :attr:`report`; tells ``progress`` each test that begins."""

    def __init__(self, progress: Callable[[str], object]) -> None:
        self.report = ConformanceReport()
        self._progress = progress
        self._hints: dict[str, str] = {}
        self._seen: set[str] = set()
        self._first: dict[str, str] = {}

    def pytest_configure(self, config: pytest.Config) -> None:
        """Python's own tracebacks: only their last line is read, and pytest's take long to make."""
        config.option.tbstyle = "native"

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Remember what the test's docstring says about a failure."""
        self._hints[item.nodeid] = hint(getattr(item, "function", None))
        self._progress(item.name)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Keep what counts: the call, or the first phase that did not pass."""
        report = yield
        if report.when == "call" or report.outcome != "passed":
            verdict: Verdict = report.outcome
            suite = getattr(getattr(item, "cls", None), "__name__", "")
            if item.nodeid not in self._seen or verdict == "failed":
                self._seen.add(item.nodeid)
                reason, said = _reason(report), ""
                if verdict == "failed":
                    reason, said = self._once(item, reason, before=report.when == "setup")
                self.report.outcomes.append(CaseOutcome(item.name, suite, verdict, reason, said))
        return report

    def _once(self, item: pytest.Item, reason: str, *, before: bool) -> tuple[str, str]:
        """Reason and hint of a failure: those of one fault once, and not for every test it hits.

        Args:
            item: the test.
            reason: as it failed.
            before: whether it failed before it began, so that what it says of itself is no help.
        """
        first = self._first.setdefault(reason, item.name)
        if first != item.name:
            return f"{SAME} {first}: {reason}", ""
        return reason, NEEDED if before else self._hints.get(item.nodeid, "")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """A file or class that cannot be collected is a failure."""
        if report.failed:
            name = report.nodeid or "collection"
            self.report.outcomes.append(CaseOutcome(name, "", "failed", str(report.longrepr)))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Add up the bills."""
        bills = session.config.stash.get(COST, [])
        self.report.cost_usd = sum_known(bills)


def _reason(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if xfail := getattr(report, "wasxfail", ""):
        return f"expected to fail: {xfail.removeprefix('reason: ')}"
    if report.skipped and isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    return crash.message if crash is not None else str(report.longrepr)
