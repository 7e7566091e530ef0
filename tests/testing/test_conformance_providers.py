"""The kit's look at a whole distribution finds names that another one has too."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from qsgd_core.hookspecs import hookimpl
from qsgd_core.plugins.loading import load_plugins
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import Settings
from qsgd_core.specs import (
    BackendSpec,
    ObserverSpec,
    PerturbationSpec,
    PolicySpec,
    ReportSpec,
    Spec,
    TaskSpec,
)
from qsgd_core.testing.provider import ProviderConformance


def provider(spec: Spec) -> Any:
    def hook() -> list[Spec]:
        return [spec]

    return SimpleNamespace(**{spec.hook: hookimpl(hook)})


def check(mine: Spec, theirs: Spec, *, prefer: tuple[str, ...] = ()) -> None:
    settings = Settings(load_plugins=(), prefer=prefer)
    extra = [("qsgd-mine", "1", provider(mine)), ("qsgd-theirs", "1", provider(theirs))]
    plugins = load_plugins(settings, extra=extra)
    assert not plugins.failures
    registered = [r for r in plugins.collect(Spec) if r.distribution == "qsgd-mine"]
    assert registered
    ProviderConformance().test_no_other_provider_serves_its_names(
        Registry(settings, plugins), registered
    )


def backend(prefix: str, **names: Any) -> BackendSpec:
    return BackendSpec(prefix, "simulator", "a.b:C", **names)


CLASHES = [
    (backend("mine", names=("x",)), backend("theirs", names=("x",))),
    (backend("mine", names=("x_1",)), backend("theirs", patterns=("x_*",))),
    (backend("mine", patterns=("x_*",)), backend("theirs", names=("x_1",))),
    (backend("mine", patterns=("x_*",)), backend("theirs", patterns=("x_*",))),
    (backend("p", devices=("a",)), backend("p", devices=("b",))),
    (PerturbationSpec("x", "a.b:C"), PerturbationSpec("x", "d.e:F")),
    (PolicySpec("x", "a.b:C"), PolicySpec("x", "d.e:F")),
    (ObserverSpec("x", "a.b:C"), ObserverSpec("x", "d.e:F")),
    (TaskSpec("x", "a.b:C"), TaskSpec("x", "d.e:F")),
    (ReportSpec("x", "a.b:C", "m.json"), ReportSpec("x", "d.e:F", "n.json")),
]


@pytest.mark.parametrize("prefer", [(), ("qsgd-mine",)])
@pytest.mark.parametrize("mine, theirs", CLASHES)
def test_a_name_that_another_plugin_serves_fails_the_kit(mine, theirs, prefer):
    with pytest.raises(AssertionError, match="served by qsgd-theirs too"):
        check(mine, theirs, prefer=prefer)


def test_names_of_ones_own_pass():
    check(backend("mine", names=("x",)), backend("theirs", names=("y",)))
    check(PerturbationSpec("x", "a.b:C"), TaskSpec("x", "d.e:F"))
