"""What the engine refuses, what it says once, and whom it tells."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core.errors import CapabilityError, ConfigError, UnknownBackendError, UnknownNameError
from qsgd_core.events import Event, StepTaken, Warned


def make_params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [Parameter(torch.randn(8, generator=generator).to(dtype))]


def step(opt: torch.optim.Optimizer, size: float = 1.0) -> None:
    for p in opt.param_groups[0]["params"]:
        p.grad = torch.full_like(p, size)
    opt.step()


def make_qsgd(**kwargs: Any) -> Any:
    return qsgd.QSGD(make_params(), **kwargs)


def make_attached(**kwargs: Any) -> Any:
    return qsgd.attach(torch.optim.SGD(make_params(), lr=0.1), **kwargs)


both = pytest.mark.parametrize("make", [make_qsgd, make_attached])


@both
@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"n_qubits": 0}, ConfigError, "n_qubits must be .* not 0"),
        ({"n_qubits": 2.0}, ConfigError, r"n_qubits must be .* not 2\.0"),
        ({"n_qubits": True}, ConfigError, "n_qubits must be .* not True"),
        ({"depth": 0}, ConfigError, "depth must be .* not 0"),
        ({"depth": -3, "perturbation": "circuit"}, ConfigError, "depth must be .* not -3"),
        ({"quantum_weight": math.nan}, ConfigError, "quantum_weight must be finite .* not nan"),
        ({"quantum_weight": math.inf}, ConfigError, "quantum_weight must be finite .* not inf"),
        ({"quantum_weight": -0.5}, ConfigError, r"at least 0, not -0\.5"),
        ({"quantum_weight": None}, ConfigError, "must be a number, not None"),
        ({"quantum_weight": lambda _: -1.0}, ConfigError, r"at least 0, not -1\.0"),
        ({"shots": -1, "backend": "sampled"}, ConfigError, "shots must be .* not -1"),
        ({"shots": 0, "backend": "sampled"}, ConfigError, "shots must be .* not 0"),
        ({"shots": lambda _: 0, "backend": "sampled"}, ConfigError, "shots must be .* not 0"),
        ({"shots": 100}, CapabilityError, "'exact' computes expectation values exactly"),
        ({"shots": 2**27, "backend": "sampled"}, CapabilityError, "134217728"),
        ({"every": 0}, ConfigError, "every must be .* not 0"),
        ({"every": 2.5}, ConfigError, r"every must be .* not 2\.5"),
        ({"seed": 1.5}, ConfigError, r"seed must be .* not 1\.5"),
        ({"scope": "layer"}, ConfigError, "scope must be .* not 'layer'"),
        ({"inject": "weights"}, ConfigError, "inject must be .* not 'weights'"),
        ({"normalize": "rms"}, ConfigError, "normalize must be .* not 'rms'"),
        ({"inject": "gradient", "normalize": "update"}, ConfigError, "leave normalize out"),
        ({"backend": "exakt"}, UnknownBackendError, "'exakt'.*exact"),
        ({"perturbation": "sinus"}, UnknownNameError, "'sinus'.*sine"),
        ({"observers": ["tensorbord"]}, UnknownNameError, "'tensorbord'.*tensorboard"),
        ({"perturbation_options": {"a": 1}}, ConfigError, "'sine'"),
        ({"backend_options": {"a": 1}}, ConfigError, "'exact'"),
        ({"n_qubits": 21, "backend": "sampled"}, CapabilityError, "up to 20 qubits; 21"),
        ({"n_qubits": 257, "perturbation": "circuit"}, CapabilityError, "257"),
        ({"depth": 7, "perturbation": "circuit"}, CapabilityError, "7"),
    ],
    ids=lambda value: re.sub(r" at 0x\w+", "", str(value)),
)
def test_what_cannot_work_is_refused_at_once_with_the_value(make, arguments, error, said):
    with pytest.raises(error, match=f"(?s){said}"):
        make(**arguments)


def test_a_refused_attachment_leaves_nothing_behind():
    opt = torch.optim.SGD(make_params(), lr=0.1)
    before = set(opt.param_groups[0]), set(vars(opt))
    with pytest.raises(ConfigError):
        qsgd.attach(opt, n_qubits=21, backend="sampled")
    assert (set(opt.param_groups[0]), set(vars(opt))) == before
    qsgd.attach(opt)


@both
def test_numbers_of_any_kind_may_be_the_quantum_weight(make):
    for value in (1, torch.tensor(1.0), "1.0", True):
        term = make(quantum_weight=value)
        group = getattr(term, "optimizer", term).param_groups[0]
        assert group["quantum_weight"] == 1.0
        assert type(group["quantum_weight"]) is float


@both
def test_a_backend_that_would_measure_nothing_is_said_in_one_line(make, caplog):
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        make(backend="sampled", quantum_weight=0.0)
        assert len(caplog.records) == 1
        assert "'sampled' is set, but quantum_weight is 0: nothing will be" in caplog.text
        caplog.clear()
        make(quantum_weight=0.0)
        make(backend="sampled", quantum_weight=lambda s: 0.1 * s)
        make(backend="sampled")
        assert caplog.records == []


@both
def test_the_backend_of_the_environment_counts_as_set(make, caplog, monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND", "sampled")
    monkeypatch.setenv("QSGD_SHOTS", "32")
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        make(quantum_weight=0.0)
    assert "nothing will be measured" in caplog.text
    assert make().qsgd_describe().backend == "sampled"


@both
def test_a_long_chain_is_warned_of_once(make, caplog):
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        make(perturbation="circuit", n_qubits=8)
        assert caplog.records == []
        term = make(perturbation="circuit", n_qubits=9)
        opt = getattr(term, "optimizer", term)
        opt.add_param_group({"params": [Parameter(torch.ones(9))]})
        step(opt)
    assert len(caplog.records) == 1
    assert "chain of 9 qubits" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_term_that_rounds_away_is_said_once(dtype, caplog):
    opt = qsgd.QSGD(make_params(dtype), lr=1e-6, eps=1e-4)  # float16 has no 1e-8
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        step(opt, size=0.0)  # there is no term yet: nothing to say
        assert caplog.records == []
        for _ in range(3):
            step(opt, size=1e-2)
    assert len(caplog.records) == 1
    assert f"none of 4 {str(dtype).removeprefix('torch.')} weights changed" in caplog.text
    assert "float32" in caplog.text


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_term_that_does_not_round_away_is_not_warned_of(dtype, caplog):
    opt = qsgd.QSGD(make_params(dtype), lr=0.1)
    with caplog.at_level(logging.WARNING, "qsgd_core"):
        for _ in range(3):
            step(opt)
    assert caplog.records == []


def optimizer_of(term: Any) -> torch.optim.Optimizer:
    return getattr(term, "optimizer", term)


@both
def test_observers_are_told_of_every_step_with_its_effect_and_source(make):
    events: list[Event] = []
    term = make(observers=[events.append], quantum_weight=lambda s: 0.5 if s < 3 else 0.0)
    effects = []
    for _ in range(3):
        step(optimizer_of(term))
        effects.append(term.qsgd_stats().effect_size)
    step(optimizer_of(term))
    assert all(isinstance(e, StepTaken) for e in events)
    assert [e.step for e in events] == [1, 2, 3, 4]
    assert [e.source for e in events] == ["exact"] * 3 + ["zero"]
    assert [float(e.effect_size) for e in events[:3]] == effects
    assert events[3].effect_size is None
    assert min(effects) > 0


@both
def test_warnings_are_events_too(make):
    events: list[Event] = []
    make(perturbation="circuit", n_qubits=9, observers=[events.append])
    assert [type(e) for e in events] == [Warned]
    assert "chain of 9 qubits" in events[0].message


@both
def test_an_observer_that_raises_is_logged_once_and_dropped(make, caplog):
    told: list[Event] = []

    def broken(event: Event) -> None:
        raise ValueError("disk full")

    observers: list[Callable[[Event], None]] = [broken, told.append]
    term = make(observers=observers)
    plain = make()
    with caplog.at_level(logging.ERROR, "qsgd_core"):
        for _ in range(3):
            step(optimizer_of(term))
            step(optimizer_of(plain))
    assert len(caplog.records) == 1
    assert "disk full" in caplog.text
    assert len(told) == 3
    ours, theirs = (optimizer_of(t).param_groups[0]["params"][0] for t in (term, plain))
    assert torch.equal(ours, theirs)
