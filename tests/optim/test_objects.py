"""An object stands where a name does: a rule, a simulator or a policy needs no distribution."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core import Backend, Capabilities, ClassicalPerturbation, Perturbation, Simulator
from qsgd_core.builtin.perturbations import CircuitPerturbation, Sine
from qsgd_core.builtin.policies import Hold
from qsgd_core.builtin.simulators import ExactSimulator
from qsgd_core.circuits import Workload
from qsgd_core.errors import BackendError, ConfigError, PluginError, ResultCorruptError
from qsgd_core.jobs import Bits, Expectations, Result


def weights(opt: torch.optim.Optimizer) -> torch.Tensor:
    return opt.param_groups[0]["params"][0].detach().clone()


def trained(n_steps: int = 3, kind: str = "qsgd", **term: Any) -> tuple[torch.Tensor, Any]:
    w = Parameter(torch.tensor([0.1, 0.3, -0.2, 0.45], dtype=torch.float64))
    if kind == "qsgd":
        opt: Any = qsgd.QSGD([w], lr=0.1, **term)
        told = opt
    else:
        opt = torch.optim.SGD([w], lr=0.1)
        told = qsgd.attach(opt, **term)
    for _ in range(n_steps):
        w.grad = w.detach().cos()
        opt.step()
    opt.state_dict()
    return weights(opt), told


class Half(ClassicalPerturbation):
    """s = 1/2, or what is given."""

    def __init__(self, value: float = 0.5) -> None:
        self.value = value

    def modulation(self, theta, grad, *, step, name, seed, reference):  # type: ignore[no-untyped-def]
        return torch.full_like(theta, self.value)


class Matched(Half):
    match = Sine()

    def modulation(self, theta, grad, *, step, name, seed, reference):  # type: ignore[no-untyped-def]
        return reference


class Own(Simulator):
    """Answers as it is told; by default the core's own exact values."""

    capabilities = Capabilities(exact=True, sampled=True)

    def __init__(self, answer: Any = None) -> None:
        self.answer = answer

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Any:
        result = ExactSimulator("exact").run(work, shots=None, seed=seed)
        return result if self.answer is None else self.answer(work, result)


@pytest.mark.parametrize("kind", ["qsgd", "attach"])
@pytest.mark.parametrize(
    "named, given",
    [
        ({}, {"perturbation": Sine()}),
        ({"perturbation": "circuit", "depth": 3}, {"perturbation": CircuitPerturbation(3)}),
        ({"backend": "sampled", "shots": 8}, {"perturbation": Sine(), "shots": 8}),
        ({"perturbation": "circuit"}, {"perturbation": "circuit", "backend": Own()}),
        ({"policy": "hold"}, {"policy": Hold()}),
        ({}, {"perturbation": Matched()}),
    ],
)
def test_an_object_does_what_its_name_does(named, given, kind):
    backend = {k: v for k, v in named.items() if k == "backend"}
    expected, found = trained(kind=kind, **named)[0], trained(kind=kind, **backend, **given)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_a_rule_of_ones_own_needs_no_distribution():
    found, opt = trained(perturbation=Half(), kind="attach")
    w = torch.tensor([0.1, 0.3, -0.2, 0.45], dtype=torch.float64)
    for _ in range(3):
        w = w - 0.1 * w.cos() * (1 + 0.5 * 0.5)
    torch.testing.assert_close(found, w)
    assert opt.origin.perturbation.endswith("test_objects.Half")


def test_descriptions_and_checkpoints_name_an_objects_class():
    _, opt = trained(backend=Own(), perturbation=CircuitPerturbation(1))
    described = opt.qsgd_describe()
    assert described.backend.endswith("test_objects.Own")
    assert described.distribution == "an object of this program"
    assert "CircuitPerturbation" in opt.state_dict()["param_groups"][0]["qsgd"]
    assert opt.qsgd_estimate(10).backend.endswith("test_objects.Own")


def test_a_record_of_objects_is_replayed_with_them(tmp_path):
    record = str(tmp_path / "record.sqlite")
    term: dict[str, Any] = {"backend": Own(), "perturbation": CircuitPerturbation(2)}
    expected, opt = trained(record=record, **term)
    opt.close()
    found, again = trained(replay=record, perturbation=CircuitPerturbation(2))
    assert torch.equal(found, expected)
    assert again.qsgd_stats().replayed["bit_identical"]


class Queue(Backend):
    name, capabilities = "mine", Capabilities(paid=True)

    quote = submit = status = fetch = find = cancel = None  # type: ignore[assignment]


class Bare(Simulator):
    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        raise NotImplementedError


@pytest.mark.parametrize(
    "term, words",
    [
        ({"perturbation": Sine}, r"give perturbation=Sine\(\)"),
        ({"backend": Own}, r"give backend=Own\(\)"),
        ({"perturbation": 3}, "a name or an object"),
        ({"policy": Sine()}, "policy must be a name or an object derived from Policy"),
        ({"perturbation": Sine(), "perturbation_options": {"x": 1}}, "has its options in itself"),
        ({"backend": Own(), "backend_options": {"x": 1}}, "has its options in itself"),
        ({"backend": Queue(), "every": 3}, "finds it by name"),
        ({"backend": Bare()}, "capabilities"),
        ({"quantum_wieght": 0.1}, "Did you mean 'quantum_weight'"),
        ({"N_QUBITS": 2}, "Did you mean 'n_qubits'"),
        ({"run": " "}, "run must have something in it"),
        ({"policy": "trackd"}, "Did you mean 'tracked'"),
        ({"schedule": {"twin_evry": 2}}, "Did you mean 'twin_every'"),
        ({"budget": "$2O"}, "2O"),
        ({"budget": "my-projct"}, "my-projct"),
    ],
)
@pytest.mark.parametrize("backend", ["exact", "sampled"])
def test_what_cannot_be_is_refused_at_once_whatever_the_backend(term, words, backend):
    with pytest.raises((ConfigError, PluginError), match=words):
        trained(0, **({"backend": backend} | term))


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [("beta", "betas"), ("maximise", "maximize"), ("LR", "lr"), ("named_parameter", "named_par")],
)
def test_a_misspelt_argument_of_the_base_optimizer_is_not_taken_for_one_of_the_term(
    misspelt, meant
):
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}"):
        qsgd.QSGD([Parameter(torch.ones(4))], **{misspelt: 0.5})


@pytest.mark.parametrize(
    "make", [qsgd.QSGD, lambda groups: qsgd.attach(torch.optim.SGD(groups, lr=0.1))]
)
@pytest.mark.parametrize(
    ("key", "meant"),
    [("quantum_wieght", "quantum_weight"), ("Scope", "scope"), ("n_qubit", "n_qubits")],
)
def test_a_misspelt_setting_of_a_group_is_refused_and_other_keys_are_left_alone(make, key, meant):
    weights = [Parameter(torch.ones(4))]
    with pytest.raises(ConfigError, match=f"Did you mean '{meant}'"):
        make([{"params": weights, key: 1}])
    make([{"params": weights, "name": "head", "layer_depth": 3, "initial_lr": 0.1}])


def test_an_lr_that_is_no_number_is_named():
    with pytest.raises(ConfigError, match=r"lr of a parameter group of QSGD.*array\(0.01\)"):
        qsgd.QSGD([Parameter(torch.ones(4))], lr=np.array(0.01))


WRONG = [
    (lambda w, r: Result(tuple(Expectations(p.values * math.nan) for p in r.parts)), "nan"),
    (lambda w, r: Result(tuple(Expectations(p.values + 3) for p in r.parts)), "outside"),
    (lambda w, r: Result(tuple(Expectations(p.values[:, :1]) for p in r.parts)), "shape"),
    (lambda w, r: Result(r.parts + r.parts), "batches"),
    (lambda w, r: Result(tuple(Expectations(p.values * 1j) for p in r.parts)), "dtype"),
    (lambda w, r: list(r.parts), "not a qsgd_core Result"),
    (lambda w, r: 1 / 0, "ZeroDivisionError"),
]
BITS = [
    (lambda bits: bits + 2, "bit is 2"),
    (lambda bits: bits.astype(np.int64) - 1, "bit is -1"),
    (lambda bits: bits[:, :-1], "gave 7 shots"),
    (lambda bits: bits.astype(float), "dtype"),
    (lambda bits: bits[:, :, :-1], "shape"),
]


@pytest.mark.parametrize("answer, words", WRONG)
def test_a_simulator_that_gives_what_cannot_be_is_named(answer, words):
    with pytest.raises(BackendError, match=f"Own' of an object.*{words}"):
        trained(backend=Own(answer), perturbation="circuit")


@pytest.mark.parametrize("change, words", BITS)
def test_bits_that_are_none_are_refused(change, words):
    def answer(work: Workload, result: Result) -> Result:
        zeros = [np.zeros((b.n_rows, 8, b.circuit.n_qubits), np.uint8) for b in work.batches]
        return Result(tuple(Bits(change(z)) for z in zeros))

    with pytest.raises(ResultCorruptError, match=words):
        trained(backend=Own(answer), shots=8)


class Decoded(Sine):
    def __init__(self, change: Any) -> None:
        self.change = change

    def decode(self, z):  # type: ignore[no-untyped-def]
        return self.change(-z)

    def closed_form(self, theta, grad, *, step):  # type: ignore[no-untyped-def]
        return self.change(super().closed_form(theta, grad, step=step))


S_WRONG = [
    (lambda s: s * 0 + 5, "s = 5 outside"),
    (lambda s: s * math.nan, "s = nan outside"),
    (lambda s: s[:, :1], "shape"),
]


@pytest.mark.parametrize("backend", ["exact", "sampled"])
@pytest.mark.parametrize("change, words", S_WRONG)
def test_a_perturbation_that_leaves_the_interval_is_named_before_it_moves_a_weight(
    change, words, backend
):
    w = Parameter(torch.tensor([0.1, 0.3, -0.2, 0.45], dtype=torch.float64))
    opt = qsgd.QSGD([w], backend=backend, perturbation=Decoded(change))
    w.grad = torch.ones_like(w)
    before = w.detach().clone()
    with pytest.raises(PluginError, match=f"Decoded' of an object.*{words}"):
        opt.step()
    assert torch.equal(w.detach(), before)


@pytest.mark.parametrize("value", [5.0, -1.01, math.nan, math.inf])
def test_a_rule_that_leaves_the_interval_is_named(value):
    with pytest.raises(PluginError, match="Half' of an object"):
        trained(perturbation=Half(value))


def test_what_a_rule_makes_of_an_infinite_gradient_is_not_its_fault():
    class Slope(Half):
        def modulation(self, theta, grad, *, step, name, seed, reference):  # type: ignore[no-untyped-def]
            return grad / grad.abs().max()

    w = Parameter(torch.ones(4))
    opt = qsgd.QSGD([w], perturbation=Slope())
    w.grad = torch.tensor([1.0, math.inf, 0.0, 1.0])
    opt.step()


def test_rounding_is_no_fault():
    assert isinstance(Sine(), Perturbation)
    trained(perturbation=Half(1.0 + 1e-7))
    trained(
        backend=Own(
            lambda w, r: Result(tuple(Expectations(p.values * 0 + 1 + 1e-7) for p in r.parts))
        ),
        perturbation="circuit",
    )
