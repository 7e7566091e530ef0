"""Which numbers the term draws, and that nobody draws from the program's own generators."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

import qsgd_core as qsgd
from qsgd_core import Capabilities, Simulator
from qsgd_core.circuits import Workload
from qsgd_core.jobs import Bits, Result
from qsgd_core.seeds import derive_seed, generators_put_back

SAMPLED: dict[str, Any] = {"backend": "sampled", "shots": 100}
TERMS = [SAMPLED, {"perturbation": "uniform"}, {"perturbation": "frozen"}]
terms = pytest.mark.parametrize("term", TERMS, ids=["shots", "uniform", "frozen"])


def make(kind: str = "qsgd", **term: Any) -> torch.optim.Optimizer:
    w = Parameter(torch.tensor([0.1, 0.3, -0.2, 0.45], dtype=torch.float64))
    if kind == "qsgd":
        return qsgd.QSGD([w], lr=1e-9, weight_decay=0, quantum_weight=1e6, **term)
    opt = torch.optim.SGD([w], lr=1e-9)
    qsgd.attach(opt, quantum_weight=1e6, **term)
    return opt


def step(opt: torch.optim.Optimizer) -> torch.Tensor:
    """s, as far as the weights show it."""
    (w,) = opt.param_groups[0]["params"]
    before, w.grad = w.detach().clone(), torch.ones_like(w)
    opt.step()
    return before - w.detach()


def together(*opts: torch.optim.Optimizer, n_steps: int = 40) -> list[torch.Tensor]:
    rounds = [[step(opt) for opt in opts] for _ in range(n_steps)]
    return [torch.stack(own) for own in zip(*rounds, strict=True)]


def correlation(a: torch.Tensor, b: torch.Tensor) -> float:
    a, b = (x - x.mean(0) for x in (a, b))
    return float(abs(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]))


@pytest.mark.parametrize("kind", ["qsgd", "attach"])
@terms
def test_optimizers_of_one_training_draw_each_their_own(term, kind):
    drawn = together(*(make(kind, **term) for _ in range(3)))
    for i, j in [(0, 1), (0, 2), (1, 2)]:
        if term.get("perturbation") == "frozen":  # one draw for the whole run
            assert not torch.allclose(drawn[i][0], drawn[j][0])
        else:  # 160 draws: 0.08 is one sigma
            assert correlation(drawn[i], drawn[j]) < 0.4


@terms
def test_the_same_training_again_draws_the_same(term):
    first = together(make(**term), make(**term), n_steps=5)
    again = together(make(**term), make(**term), n_steps=5)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@terms
def test_the_first_of_several_draws_what_it_draws_alone(term):
    assert torch.equal(
        together(make(**term), make(**term), n_steps=5)[0], together(make(**term), n_steps=5)[0]
    )


@terms
def test_a_seed_that_is_given_is_the_seed(term):
    a, b = together(make(**term, seed=5), make(**term, seed=5), n_steps=5)
    assert torch.equal(a, b)


@terms
def test_a_checkpoint_goes_on_with_its_own_draws_wherever_it_is_loaded(term):
    pair = make(**term), make(**term)
    together(*pair, n_steps=3)
    saved = [copy.deepcopy(opt.state_dict()) for opt in pair]
    straight = together(*pair, n_steps=3)
    second = make(**term)  # alone, so that it would draw as the first does
    with torch.no_grad():
        second.param_groups[0]["params"][0].sub_(straight[1][:0].sum(0))
    second.load_state_dict(saved[1])
    resumed = together(second, n_steps=3)[0]
    torch.testing.assert_close(resumed, straight[1], rtol=0.05, atol=2e-4)


def test_an_optimizer_made_anew_over_the_same_weights_takes_the_others_place():
    w = Parameter(torch.full((4,), 0.3, dtype=torch.float64))
    unused = qsgd.QSGD([w], lr=1e-9, quantum_weight=1e6, **SAMPLED)
    again = qsgd.QSGD([w], lr=1e-9, quantum_weight=1e6, **SAMPLED)
    w.grad = torch.ones_like(w)
    again.step()
    found = w.detach().clone()
    del unused
    v = Parameter(torch.full((4,), 0.3, dtype=torch.float64))
    alone = qsgd.QSGD([v], lr=1e-9, quantum_weight=1e6, **SAMPLED)
    v.grad = torch.ones_like(v)
    alone.step()
    assert torch.equal(found, v.detach())


class Careless(Simulator):
    """Samples from whatever generator lies about."""

    capabilities = Capabilities(sampled=True, exact=False, default_shots=32)

    def __init__(self) -> None:
        random.random()
        self.seen: list[float] = []

    def run(self, work: Workload, *, shots: int | None, seed: int) -> Result:
        self.seen.append(random.random() + float(np.random.rand()) + float(torch.rand(())))
        parts = [
            Bits(np.random.randint(0, 2, (b.n_rows, shots or 1, b.circuit.n_qubits)))
            for b in work.batches
        ]
        return Result(tuple(parts))


def states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return random.getstate(), name, bytes(keys), *rest, bytes(torch.get_rng_state().numpy())


def test_a_simulator_that_draws_from_the_programs_generators_leaves_them_where_they_were():
    simulator = Careless()
    before = states()
    opt = make(backend=simulator, seed=1)
    drawn = together(opt, n_steps=4)[0]
    assert states() == before
    assert len(set(simulator.seen)) == 4
    random.seed(99)
    torch.manual_seed(98)
    again = together(make(backend=simulator, seed=1), n_steps=4)[0]
    assert torch.equal(drawn, again)


def test_generators_are_put_back_when_what_runs_fails():
    before = states()
    with pytest.raises(ZeroDivisionError), generators_put_back(seed=3):
        (random.random(), np.random.rand(), torch.rand(()), 1 / 0)
    assert states() == before


@pytest.mark.parametrize("name", ["aer:statevector", "pennylane:default.qubit", "braket:local"])
def test_opening_asking_and_running_a_backend_moves_no_generator(name):
    before = states()
    w = Parameter(torch.tensor([0.1, 0.3, -0.2, 0.45]))
    opt = qsgd.QSGD([w], backend=name, shots=16, seed=derive_seed("x"))
    opt.qsgd_describe()
    opt.qsgd_estimate(10)
    w.grad = torch.ones(4)
    opt.step()
    assert states() == before
