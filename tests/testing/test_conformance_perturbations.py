"""The kit on perturbations and providers, and what nobody can do to a suite."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest
import torch
from kit import standard_tests

from qsgd_core.builtin.perturbations import CircuitPerturbation, Sine
from qsgd_core.circuits import CircuitBatch
from qsgd_core.errors import ConfigError
from qsgd_core.perturbation import ClassicalPerturbation
from qsgd_core.plugins.registry import forget_registries
from qsgd_core.testing import (
    BackendConformance,
    ClassicalPerturbationConformance,
    PerturbationConformance,
    ProviderConformance,
    SimulatorConformance,
    classical,
    perturbation,
)
from qsgd_core.testing.measuring import require_enough_shots
from qsgd_core.testing.runner import run, suite_file
from qsgd_core.testing.standard import HINT, hint

SUITES = (
    BackendConformance,
    ClassicalPerturbationConformance,
    PerturbationConformance,
    ProviderConformance,
    SimulatorConformance,
)


# --- right ones ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "suite, name, options",
    [
        ("perturbation", "sine", {}),
        ("perturbation", "circuit", {}),
        ("perturbation", "circuit", {"phases": "gradient", "entangler": "none"}),
        ("perturbation", "circuit", {"entangler": "ring"}),
        ("classical", "rademacher", {}),
        ("classical", "permuted", {"match": "circuit"}),
        ("classical", "frozen", {}),
        ("provider", "qsgd-core", {}),
        ("provider", "qsgd-controls", {}),
    ],
)
def test_what_the_project_brings_conforms(suite, name, options, monkeypatch):
    for module in (perturbation, classical):  # that one is shown with the provider
        monkeypatch.setattr(module, "assert_light", lambda _: None)
    report = run(suite_file(suite, name, options=options))
    assert [(o.test, o.reason) for o in report.of("failed")] == []
    assert len(report.of("passed")) >= 5


# --- wrong ones ----------------------------------------------------------------------------------


class RowsReversed(Sine):
    def plan(self, theta, grad, *, step):
        return super().plan(theta[::-1], grad[::-1], step=step)


class Random(Sine):
    def plan(self, theta, grad, *, step):
        return super().plan(theta + 1e-3 * np.random.rand(*theta.shape), grad, step=step)


class Remembers(Sine):
    calls = 0

    def plan(self, theta, grad, *, step):
        self.calls += 1
        return super().plan(theta * self.calls, grad, step=step)


class ChangesTheta(Sine):
    def plan(self, theta, grad, *, step):
        theta *= 1.5
        return super().plan(theta, grad, step=step)


class MixesBlocks(Sine):
    def plan(self, theta, grad, *, step):
        return super().plan(theta / np.abs(theta).max(), grad, step=step)


class OneRowTooMany(Sine):
    def plan(self, theta, grad, *, step):
        return super().plan(np.concatenate([theta, theta[:1]]), grad, step=step)


class OtherObservables(Sine):
    def plan(self, theta, grad, *, step):
        (batch,) = super().plan(theta, grad, step=step)
        return [CircuitBatch(batch.circuit, batch.angles, observables=((0,),))]


class DividesByTheGradient(Sine):
    def plan(self, theta, grad, *, step):
        with np.errstate(all="ignore"):
            return super().plan(theta * grad / grad, grad, step=step)


class TooStrong(Sine):
    def decode(self, z):
        return -2 * z


class SinglePrecision(Sine):
    def decode(self, z):
        return -z.astype(np.float32)


class FlippedFormula(Sine):
    def closed_form(self, theta, grad, *, step):
        return -super().closed_form(theta, grad, step=step)


class FormulaOfAnotherStep(Sine):
    def closed_form(self, theta, grad, *, step):
        return super().closed_form(theta * (1 + step), grad, step=step)


class FormulaInDouble(Sine):
    def closed_form(self, theta, grad, *, step):
        return super().closed_form(theta.double(), grad, step=step)


class FormulaInPlace(Sine):
    def closed_form(self, theta, grad, *, step):
        return theta.mul_(torch.pi).sin()


class FormulaDraws(Sine):
    def closed_form(self, theta, grad, *, step):
        torch.rand(1)
        return super().closed_form(theta, grad, step=step)


class EmptyAdvice(CircuitPerturbation):
    def __init__(self):
        super().__init__(2)

    def advice(self, n_qubits):
        return ""


WRONG = {
    RowsReversed: "test_rows_are_the_blocks_in_order",
    Random: "test_the_same_inputs_give_the_same_circuits",
    Remembers: "test_the_same_inputs_give_the_same_circuits",
    ChangesTheta: "test_the_same_inputs_give_the_same_circuits",
    MixesBlocks: "test_rows_are_the_blocks_in_order",
    OneRowTooMany: "test_rows_are_the_blocks_in_order",
    OtherObservables: "test_batches_ask_for_its_observables",
    DividesByTheGradient: "test_any_weights_can_be_planned",
    TooStrong: "test_decode_gives_s_in_range",
    SinglePrecision: "test_decode_gives_s_in_range",
    FlippedFormula: "test_the_closed_form_is_what_the_circuits_measure",
    FormulaOfAnotherStep: "test_the_closed_form_is_what_the_circuits_measure",
    FormulaInDouble: "test_the_closed_form_keeps_shape_dtype_and_device",
    FormulaInPlace: "test_the_closed_form_is_what_the_circuits_measure",
    FormulaDraws: "test_the_closed_form_is_what_the_circuits_measure",
    EmptyAdvice: "test_advice_is_a_sentence_or_nothing",
}


def fails(suite, test: str, made: object) -> bool:
    """Whether a standard test, called by hand, fails on an object."""
    extra = {"dtype": torch.float32, "device": "cpu"} if "keeps" in test or "shape" in test else {}
    try:
        getattr(suite(), test)(made, **extra)
    except (AssertionError, ConfigError, pytest.fail.Exception):
        return True
    return False


@pytest.mark.parametrize("kind, test", WRONG.items(), ids=lambda x: getattr(x, "__name__", x))
def test_a_wrong_perturbation_fails_in_the_test_that_names_the_fault(kind, test):
    assert fails(PerturbationConformance, test, kind())


@pytest.mark.parametrize("test", sorted(set(WRONG.values())))
def test_a_right_perturbation_passes_the_same_tests(test):
    assert not fails(PerturbationConformance, test, Sine())


class Signs(ClassicalPerturbation):
    def modulation(self, theta, grad, *, step, name, seed, reference):
        return torch.sign(grad)


class GlobalDraws(Signs):
    def modulation(self, theta, grad, **how):
        return 2 * torch.rand_like(theta) - 1


class TooLarge(Signs):
    def modulation(self, theta, grad, **how):
        return 3 * torch.sign(grad)


class OtherDtype(Signs):
    def modulation(self, theta, grad, **how):
        return torch.sign(grad).double()


class NoSuchMatch(Signs):
    match = "a_perturbation_that_nobody_has"


@pytest.mark.parametrize(
    "kind, test",
    [
        (GlobalDraws, "test_the_same_inputs_give_the_same_s"),
        (TooLarge, "test_s_has_the_shape_dtype_and_device_of_theta"),
        (OtherDtype, "test_s_has_the_shape_dtype_and_device_of_theta"),
        (NoSuchMatch, "test_what_it_is_matched_to_exists"),
    ],
)
def test_a_wrong_classical_perturbation_fails_where_a_right_one_passes(kind, test):
    assert fails(ClassicalPerturbationConformance, test, kind())
    if kind is not NoSuchMatch:
        assert not fails(ClassicalPerturbationConformance, test, Signs())


# --- providers -----------------------------------------------------------------------------------

HEAVY = """
import numpy
from qsgd_core import BackendSpec, hookimpl
@hookimpl
def qsgd_register_backends():
    yield BackendSpec(prefix="kitheavy", kind="simulator", names=("kitheavy",),
                      factory="qsgd_kitheavy.nowhere:Nothing")
"""


@pytest.fixture
def heavy(tmp_path, monkeypatch):
    """A provider that imports numpy on listing, has no summary and names code that is missing."""
    package = tmp_path / "qsgd_kitheavy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(HEAVY)
    info = tmp_path / "qsgd_kitheavy-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qsgd-kitheavy\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[qsgd]\nkitheavy = qsgd_kitheavy.plugin\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    forget_registries()
    yield
    forget_registries()
    for name in [name for name in sys.modules if name.startswith("qsgd_kitheavy")]:
        del sys.modules[name]


def test_a_careless_provider_is_told_everything_at_once(heavy):
    report = run(suite_file("provider", "qsgd-kitheavy", options={}))
    failed = {outcome.test: outcome for outcome in report.of("failed")}
    assert set(failed) == {
        "test_its_plugin_stays_light",
        "test_it_says_which_core_it_needs",
        "test_everything_it_registers_says_what_it_is",
        "test_everything_it_names_can_be_imported",
        "test_what_it_names_can_be_made",
    }
    assert "numpy" in failed["test_its_plugin_stays_light"].reason
    assert all(outcome.hint for outcome in failed.values())


def test_a_distribution_that_is_not_installed_does_not_load():
    report = run(suite_file("provider", "qsgd-nobody", options={}))
    assert "test_its_plugin_loads" in {outcome.test for outcome in report.of("failed")}


# --- a suite cannot be weakened ------------------------------------------------------------------


def fine(self):
    """Passes whatever happens."""


@pytest.mark.parametrize(
    "given",
    [
        {"test_rows_keep_their_order": fine},
        {"test_rows_keep_their_order": None},
        {"test_rows_keep_their_order": pytest.mark.skip(reason="later")(lambda self: None)},
        {"test_rows_keep_their_order": pytest.mark.xfail(lambda self: None)},
        {"measured": pytest.fixture(lambda self: None)},
        {"claims": pytest.fixture(lambda self: None)},
    ],
)
def test_overriding_what_belongs_to_the_kit_is_an_error(given):
    with pytest.raises(TypeError, match=r"overrides (test_rows|measured|claims).*xfail\(reason"):
        type("TestMine", (SimulatorConformance,), given)


@pytest.mark.parametrize("mark", [pytest.mark.skip, pytest.mark.xfail(reason="all of it")])
def test_marking_the_whole_suite_is_an_error(mark):
    with pytest.raises(TypeError, match="hide every test"):
        type("TestMine", (SimulatorConformance,), {"pytestmark": mark})


def test_a_suite_is_fed_and_extended_freely():
    given = {"shots": 500, "simulator": None, "secrets": ("x",), "test_of_my_own": fine}
    made = type("TestMine", (SimulatorConformance,), given)
    assert made.test_of_my_own is fine
    assert set(standard_tests(made)) == {*standard_tests(SimulatorConformance), "test_of_my_own"}


KNOWN = """
import pytest
from qsgd_core.builtin.simulators import SampledSimulator
from qsgd_core.jobs import Bits, Result
from qsgd_core.testing import SimulatorConformance

class Reversed(SampledSimulator):
    def run(self, work, *, shots, seed):
        result = super().run(work, shots=shots, seed=seed)
        return Result(tuple(Bits(p.values[::{step}]) for p in result.parts))

class TestReversed(SimulatorConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def simulator(cls):
        return Reversed()

    @pytest.mark.xfail(reason="vendor bug 123")
    def test_rows_keep_their_order(self):
        pass
"""


def test_a_known_failure_runs_the_standard_test_and_is_listed_with_its_reason():
    report = run(KNOWN.format(step=-1))
    assert ("test_rows_keep_their_order", "expected to fail: vendor bug 123") in {
        (outcome.test, outcome.reason) for outcome in report.of("skipped")
    }
    assert "test_rows_keep_their_order" not in {outcome.test for outcome in report.of("failed")}


def test_a_known_failure_that_no_longer_fails_is_a_failure():
    (failure,) = run(KNOWN.format(step=1)).of("failed")
    assert failure.test == "test_rows_keep_their_order"
    assert "XPASS(strict)" in failure.reason


def test_a_file_that_cannot_be_collected_is_a_failure():
    report = run("from qsgd_core.testing import NoSuchConformance")
    (failure,) = report.of("failed")
    assert "NoSuchConformance" in failure.reason


def test_a_suite_without_its_fixture_says_which_one():
    report = run(
        "from qsgd_core.testing import ProviderConformance\n"
        "class TestNothing(ProviderConformance): pass\n"
    )
    assert report.of("passed") == []
    assert all("Define the fixture" in outcome.reason for outcome in report.of("failed"))


@pytest.mark.parametrize("suite", SUITES)
def test_every_standard_test_says_what_to_do_if_it_fails(suite):
    tests = standard_tests(suite)
    assert len(tests) >= 4
    for name, test in tests.items():
        assert len(hint(test)) > 25, f"{name}: end its docstring with {HINT!r} and a remedy"


def test_too_few_shots_are_refused():
    with pytest.raises(ConfigError, match="Use 100 or more"):
        require_enough_shots(99)
    require_enough_shots(100)
    require_enough_shots(None)
