"""``qsgd conform``: the conformance kit on anything that is installed."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json, print_table, quiet_stdout
from qsgd_core.errors import ConfigError, UnknownBackendError, UnknownNameError
from qsgd_core.installed import normalise
from qsgd_core.jobs import sum_known
from qsgd_core.plugins.registry import Registry, default_registry, parse_options

if TYPE_CHECKING:
    from qsgd_core.testing.report import ConformanceReport
    from qsgd_core.testing.runner import Suite


def conform(
    name: Annotated[
        str,
        typer.Argument(
            help="A simulator, backend or perturbation, or a provider by its distribution."
        ),
    ],
    shots: Annotated[
        int | None, typer.Option(help="Shots per row; at least 100.", show_default="enough")
    ] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of what is tested.")
    ] = None,
    allow_cost: Annotated[
        float | None,
        typer.Option(metavar="USD", min=0.0, help="Send paid jobs, up to this much in all."),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Check that something installed keeps its contract; exits with 1 if it does not.

    Its declared capabilities decide what is tested. A paid backend is sent nothing without
    --allow-cost: it is quoted instead.
    """
    if importlib.util.find_spec("pytest") is None:
        raise ConfigError("The conformance kit runs on pytest. Install it: pip install pytest")
    options = parse_options(option or ())
    with quiet_stdout(as_json):
        suites = find_suites(default_registry(), name)
        if "backend" in suites:
            _require_allowed(name, options, shots=shots, allow_cost=allow_cost)
        reports = [
            _run(suite, name, options, shots=shots, allow_cost=allow_cost) for suite in suites
        ]
    record = _record(name, reports)
    if as_json:
        print_json(record)
    else:
        _print(record, reports)
    if record["failed"] or not record["passed"]:
        raise typer.Exit(1)


def find_suites(registry: Registry, name: str) -> list[Suite]:
    """Which suites apply to ``name``; more than one if it names several things.

    Raises:
        UnknownNameError: nothing installed has that name.
        ConfigError, PluginError: it is ambiguous, or the plugin that would serve it failed.
    """
    suites: list[Suite] = []
    unknown: UnknownBackendError | None = None
    try:
        suites.append(registry.resolve_backend(name).spec.kind)
    except UnknownBackendError as error:
        unknown = error
    kinds = {r.spec.uses_backend for r in registry.perturbations() if r.spec.name == name}
    suites += ["perturbation" if uses else "classical" for uses in sorted(kinds, reverse=True)]
    if any(record.name == normalise(name) for record in registry.plugins.records):
        suites.append("provider")
    if not suites:
        perturbations = ", ".join(sorted(r.spec.name for r in registry.perturbations()))
        raise UnknownNameError(
            f"No simulator, backend, perturbation or provider is called {name!r}. {unknown} "
            f"Perturbations: {perturbations}."
        ) from unknown
    return suites


def _require_allowed(
    name: str, options: dict[str, Any], *, shots: int | None, allow_cost: float | None
) -> None:
    """Quote every job of a paid backend; raise unless the sum is allowed. Sends none."""
    from qsgd_core.backend import Backend
    from qsgd_core.testing.jobs import plan, price, require_allowed

    backend = default_registry().make_backend(name, options)
    if isinstance(backend, Backend) and backend.capabilities.paid:
        backend.resolve()
        planned = plan(backend.capabilities, shots=shots)
        require_allowed(backend, price(backend, planned), allow_cost)


def _run(
    suite: Suite,
    name: str,
    options: dict[str, Any],
    *,
    shots: int | None,
    allow_cost: float | None,
) -> ConformanceReport:
    from qsgd_core.testing.measuring import require_enough_shots
    from qsgd_core.testing.runner import run, suite_file

    require_enough_shots(shots)
    text = suite_file(suite, name, options=options, shots=shots, allow_cost_usd=allow_cost)
    with _progress(name) as progress:
        return run(text, progress=progress)


@contextlib.contextmanager
def _progress(name: str) -> Iterator[Callable[[str], object]]:
    """The test that is running, on stderr, if that is a terminal."""
    from rich.console import Console

    with Console(stderr=True).status(f"{name}: starting") as status:
        yield lambda test: status.update(f"{name}: {test}")


def _record(name: str, reports: list[ConformanceReport]) -> dict[str, Any]:
    cost = sum_known(report.cost_usd for report in reports)
    return {
        "name": name,
        "passed": sum(len(report.of("passed")) for report in reports),
        "failed": sum(len(report.of("failed")) for report in reports),
        "skipped": [
            {"test": o.test, "reason": o.reason} for report in reports for o in report.of("skipped")
        ],
        "failures": [
            {"test": o.test, "reason": o.reason, "hint": o.hint}
            for report in reports
            for o in report.of("failed")
        ],
        "cost_usd": None if cost is None else round(cost, 6),
    }


def _print(record: dict[str, Any], reports: list[ConformanceReport]) -> None:
    rows = [
        (o.test, o.verdict, o.reason.partition("\n")[0])
        for report in reports
        for o in report.outcomes
    ]
    from qsgd_core.testing.report import SAME

    print_table(("test", "outcome", "why"), rows)
    for failure in record["failures"]:
        if failure["reason"].startswith(SAME):
            continue
        typer.echo(f"\n{failure['test']} failed:\n{failure['reason']}")
        if failure["hint"]:
            typer.echo(f"What to do: {failure['hint']}")
    cost = record["cost_usd"]
    typer.echo(
        f"\n{record['name']}: {record['passed']} passed, {record['failed']} failed, "
        f"{len(record['skipped'])} skipped; cost "
        f"{'unknown' if cost is None else f'${cost:.2f}'}."
    )
