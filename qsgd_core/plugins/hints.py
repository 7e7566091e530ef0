"""What to tell somebody whose name nobody serves: the plugin that failed, or what to install."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from qsgd_core.errors import QSGDError, UnknownBackendError, UnknownNameError, nearest
from qsgd_core.plugins.naming import rule
from qsgd_core.specs import BackendSpec, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qsgd_core.plugins.loading import PluginFailure, PluginRecord, Plugins

_CONTROLS = ("rademacher", "uniform", "gaussian", "permuted", "frozen")

KNOWN: dict[str, dict[str, str]] = {
    "backend": {
        "aer": "qsgd-aer",
        "pennylane": "qsgd-pennylane",
        "ibm": "qsgd-ibm",
        "ibm_*": "qsgd-ibm",
        "fake_*": "qsgd-ibm",
        "braket": "qsgd-braket",
        "arn:aws:braket:*": "qsgd-braket",
    },
    "perturbation": dict.fromkeys(_CONTROLS, "qsgd-controls"),
    "task": dict.fromkeys(("sequences", "sequences-quantum", "gsm8k"), "qsgd-lab"),
    "report": dict.fromkeys(("run", "comparison"), "qsgd-lab"),
}
"""By noun: names that the project's own distributions serve. Says what to install, no more."""


def unserved(kind: type[Spec], name: str, specs: Iterable[Spec], plugins: Plugins) -> QSGDError:
    """The error for a name that no loaded plugin serves.

    Args:
        kind: what was asked for.
        name: the name as typed.
        specs: every spec of that kind.
        plugins: where failed and disabled plugins are looked up.

    Returns:
        If a plugin that failed would have served the name: an error of the failure's own class
        with the real cause chained. Else UnknownBackendError or UnknownNameError.
    """
    for failure in plugins.failures:
        if _would_serve(failure.record, kind, name, failure.declared):
            return _quoted(failure, kind, name)
    unknown = UnknownBackendError if kind is BackendSpec else UnknownNameError
    hints = _hints(kind, name, specs, plugins)
    if re.fullmatch(r"[\w<>]+(\.[\w<>]+)+", name):
        again = f"asked={{{kind.noun!r}: ...}}"
        hints.append(f"For a run that had an object of class {name!r}, hand one over: {again}.")
    return unknown(" ".join([f"Unknown {kind.noun} {name!r}.", *hints]))


def known_distribution(kind: type[Spec], name: str) -> str | None:
    """The project's own distribution that serves ``name``, installed or not."""
    prefix = name.partition(":")[0]
    for pattern, distribution in KNOWN.get(kind.noun, {}).items():
        if fnmatchcase(name, pattern) or fnmatchcase(prefix, pattern):
            return distribution
    return None


def _would_serve(
    record: PluginRecord, kind: type[Spec], name: str, declared: Iterable[Spec] = ()
) -> bool:
    """Whether a plugin that is not loaded would have served ``name``, as far as one can tell."""
    own = {record.name, record.name.removeprefix("qsgd-"), record.entry_point} - {""}
    return (
        name.partition(":")[0] in own
        or known_distribution(kind, name) == record.name
        or any(isinstance(s, kind) and rule(s, name) is not None for s in declared)
    )


def _quoted(failure: PluginFailure, kind: type[Spec], name: str) -> QSGDError:
    record = failure.record
    plugin = f"{record.name} {record.version}".strip()
    error = type(failure.error)(
        f"The {kind.noun} {name!r} would come from the plugin {plugin}, which failed. "
        f"{failure.error} All plugins and their state: qsgd plugins. To go without this one: "
        f"QSGD_DISABLED_PLUGINS={record.name}"
    )
    error.__cause__ = failure.error.__cause__ or failure.error
    return error


def _hints(kind: type[Spec], name: str, specs: Iterable[Spec], plugins: Plugins) -> list[str]:
    hints = []
    specs = list(specs)
    prefix = name.partition(":")[0]
    devices = [
        d for s in specs if isinstance(s, BackendSpec) and s.prefix == prefix for d in s.devices
    ]
    if devices:
        hints.append(f"Under {prefix!r} there are: {_listed(f'{prefix}:{d}' for d in devices)}.")
    names = sorted({shown for spec in specs for shown in spec.shown})
    if close := nearest(name, names, 3):
        hints.append(f"Did you mean {' or '.join(repr(c) for c in close)}?")
    elif not devices:
        hints.append(f"Installed: {_listed(names)}.")
    if plugins.failures:
        failed = " ".join(f"{f.record.name}: {f.error}" for f in plugins.failures)
        hints.append(f"Plugins that failed to load, in case it is one of theirs: {failed}")
    return hints + _unused(kind, name, plugins.records)


def _unused(kind: type[Spec], name: str, records: Iterable[PluginRecord]) -> list[str]:
    """What is not in use and would serve the name: turned off, or not installed."""
    for record in records:
        if record.status == "disabled" and _would_serve(record, kind, name):
            return [f"{record.name} is installed and turned off by QSGD_DISABLED_PLUGINS."]
        if record.status == "not allowed" and _would_serve(record, kind, name):
            return [f"{record.name} is installed and not in QSGD_LOAD_PLUGINS: add it there."]
    distribution = known_distribution(kind, name)
    if distribution is None or any(record.name == distribution for record in records):
        return []
    return [f"It comes with {distribution}. To install that: pip install {distribution}"]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"
