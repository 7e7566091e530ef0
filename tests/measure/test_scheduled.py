"""QSGD on a queued service: what is refused, what the defaults are, what a checkpoint keeps."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import qsgd_core as qsgd
from qsgd_core.builtin.policies import Hold, Sync, Tracked
from qsgd_core.errors import BudgetExceededError, ConfigError
from qsgd_core.events import Event, ScheduleChanged
from qsgd_core.optim.config import TermConfig
from qsgd_core.optim.source.build import build_source
from qsgd_core.plugins.registry import default_registry
from qsgd_core.schedule.ledger.ledger import Ledger


@pytest.fixture
def sold(filebox, tmp_path, monkeypatch):
    """The vendor's jobs; from here on it is the default backend."""
    folder = tmp_path / "vendor"
    monkeypatch.setenv("QSGD_BACKEND", "filebox:x")
    monkeypatch.setenv("QSGD_BACKEND_OPTIONS", json.dumps({"folder": str(folder), "coins": True}))
    monkeypatch.setenv("QSGD_LEDGER", f"sqlite:///{tmp_path / 'ledger.sqlite'}")

    def jobs() -> list[dict[str, Any]]:
        return [json.loads(path.read_text()) for path in sorted((folder / "jobs").glob("*.json"))]

    return jobs


class Training:
    """Two tensors that are stepped with drawn gradients."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        self.params = [torch.nn.Parameter(torch.randn(3, 4)), torch.nn.Parameter(torch.randn(5))]
        self.events: list[Event] = []
        self.opt = qsgd.QSGD(
            self.params, lr=0.01, observers=[self.events.append], **{"shots": 8, **options}
        )

    def step(self, step: int) -> None:
        generator = torch.Generator().manual_seed(1000 + step)
        for p in self.params:
            p.grad = torch.randn(p.shape, generator=generator)
        self.opt.step()

    def go(self, steps: range) -> Training:
        for step in steps:
            self.step(step)
        return self

    def s(self) -> bytes:
        return b"".join(self.opt.state[p]["qsgd_s"].numpy().tobytes() for p in self.params)

    def close(self, *, finished: bool | None = None) -> None:
        self.opt.close(finished=finished)


def paid(**options: Any) -> Any:
    source, _, _ = build_source(TermConfig(**options), default_registry())
    assert source.paid is not None
    return source


# --- before anything is sent ---------------------------------------------------------------------


def test_neither_an_interval_nor_an_end_is_an_error_that_names_both(sold):
    with pytest.raises(ConfigError, match=r"total_steps=2000.*every=50"):
        paid()
    assert sold() == []


def test_a_policy_that_never_asks_needs_neither(sold):
    assert not paid(policy="twin").paid.policy.measures


@pytest.mark.parametrize(
    "given, expected",
    [({}, Tracked), ({"policy": "sync"}, Sync), ({"policy": "hold"}, Hold)],
)
def test_tracked_is_the_default_and_waits_for_the_first_result(sold, given, expected):
    runner = paid(total_steps=100, **given).paid
    assert type(runner.policy) is expected
    assert runner.paid_run.wait == "first"


def test_policy_and_wait_may_come_from_the_environment_and_an_argument_wins(sold, monkeypatch):
    monkeypatch.setenv("QSGD_POLICY", "hold")
    monkeypatch.setenv("QSGD_WAIT", "never")
    runner = paid(total_steps=100).paid
    assert (type(runner.policy), runner.paid_run.wait) == (Hold, "never")
    runner = paid(total_steps=100, policy="sync", wait="always").paid
    assert (type(runner.policy), runner.paid_run.wait) == (Sync, "always")


@pytest.mark.parametrize(
    "options, words",
    [
        ({"schedule": {"twin_evry": 2}}, "twin_every"),
        ({"schedule": {"max_in_flight": 0}}, "'max_in_flight' cannot be 0"),
        ({"schedule": {"on_exhausted": "panic"}}, "'on_exhausted' cannot be 'panic'"),
        ({"schedule": {"tiles": 0}}, "tiles must be 'auto' or at least 1"),
        ({"policy": "trackd"}, "Did you mean 'tracked'"),
        ({"wait": "sometimes"}, "wait must be"),
        ({"total_steps": 0}, "total_steps must be an integer of at least 1"),
        ({"budget": " "}, "budget must be an amount"),
    ],
)
def test_what_the_scheduler_cannot_be_told(sold, options, words):
    with pytest.raises(ConfigError, match=words):
        paid(**{"total_steps": 10, **options})
    assert sold() == []


@pytest.mark.parametrize(
    "every, twin_every, looks", [(None, 4, 4), (15, 4, 3), (7, 4, 1), (8, 4, 4), (2, 4, 2)]
)
def test_the_scheduler_is_looked_at_so_often_that_no_refresh_that_is_due_is_missed(
    sold, every, twin_every, looks
):
    source = paid(every=every, total_steps=1000, schedule={"twin_every": twin_every})
    assert source.every == looks


# --- a run ---------------------------------------------------------------------------------------


def test_sync_measures_at_every_kth_step_and_holds_the_result_to_the_bit(sold, tmp_path):
    training = Training(policy="sync", every=3, budget="$1", run="r")
    seen = []
    for step in range(7):
        training.step(step)
        seen.append(training.s())
    assert [seen[k] == seen[k - 1] for k in range(1, 7)] == [True, True, False, True, True, False]
    training.close(finished=True)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    jobs = ledger.jobs(run="r")
    assert [(job.step, job.state, job.consumed_step) for job in jobs] == [
        (step, "settled", step) for step in (0, 3, 6)
    ]
    last = jobs[-1].tag
    z = np.concatenate([v.ravel() for v in ledger.result(last).expectations(ledger.workload(last))])
    s = torch.cat([training.opt.state[p]["qsgd_s"] for p in training.params]).numpy()
    np.testing.assert_array_equal(np.sort(s), np.sort(-z.astype(np.float32)))
    stats = training.opt.qsgd_stats()
    assert (stats.steps, stats.sources["measured"], stats.sources["held"]) == (7, 3, 4)
    assert len(sold()) == 3


def test_a_run_paced_by_its_budget_spends_it(sold, tmp_path):
    """$0.0052 pays for four jobs of four blocks of eight shots each, and a little."""
    training = Training(total_steps=24, budget="$0.0052", wait="always", run="r")
    training.go(range(24)).close(finished=True)
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    (cap,) = ledger.caps(ledger.jobs()[0].budget)
    (price,) = {job.spent.micro_usd for job in ledger.jobs()}
    assert cap.reserved == cap.overrun == 0
    assert 0 <= cap.cap - cap.spent < price
    assert set(training.opt.qsgd_stats().sources) >= {"tracked"}
    assert training.opt.qsgd_stats().sources["tracked"] == 24


def test_a_budget_below_one_job_is_an_error_at_the_first_step_and_sends_nothing(sold):
    training = Training(total_steps=24, budget="$0.0001")
    with pytest.raises(BudgetExceededError, match="can cost up to"):
        training.step(0)
    training.close()
    assert sold() == []


def test_a_checkpoint_goes_on_and_uses_again_what_was_paid_for_after_it(sold):
    training = Training(policy="sync", every=3, budget="$1", run="r")
    training.go(range(4))
    saved = copy.deepcopy(training.opt.state_dict())
    weights = [p.detach().clone() for p in training.params]
    training.go(range(4, 9))
    training.close(finished=False)
    count = len(sold())

    again = Training(policy="sync", every=3, budget="$1", run="r")
    with torch.no_grad():
        for p, w in zip(again.params, weights, strict=True):
            p.copy_(w)
    again.opt.load_state_dict(saved)
    again.go(range(4, 9))
    again.close(finished=True)
    assert len(sold()) == count == 3
    assert again.s() == training.s()
    for mine, first in zip(again.params, training.params, strict=True):
        assert torch.equal(mine, first)


def test_the_observers_hear_of_the_schedule(sold):
    training = Training(total_steps=20, every=10, budget="$1")
    training.go(range(12)).close(finished=True)
    said = [event.what for event in training.events if isinstance(event, ScheduleChanged)]
    assert said[0] == "planned"
    assert {"asked", "answered", "applied"} <= set(said)


def test_a_policy_of_somebody_elses_is_used_by_its_name(sold, tmp_path, monkeypatch):
    """Installed like any plugin: found by its entry point, asked at every look."""
    site = Path(tmp_path / "site")
    info = site / "qsgd_thrice-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: qsgd-thrice\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[qsgd]\nthrice = qsgd_thrice_plugin\n")
    (site / "qsgd_thrice_plugin.py").write_text(
        "from qsgd_core.hookspecs import hookimpl\n"
        "from qsgd_core.specs import PolicySpec\n"
        "@hookimpl\n"
        "def qsgd_register_policies():\n"
        "    return [PolicySpec(name='thrice', factory='qsgd_thrice:Thrice')]\n"
    )
    (site / "qsgd_thrice.py").write_text(
        "from qsgd_core.policy import Policy\n"
        "class Thrice(Policy):\n"
        "    between, waits = 'hold', True\n"
        "    def __init__(self, options):\n"
        "        pass\n"
        "    def due(self, view):\n"
        "        return view.step in (0, 5, 6)\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "qsgd-filebox,qsgd-thrice")
    training = Training(
        policy="thrice", total_steps=8, budget="$1", run="r", schedule={"twin_every": 1}
    )
    training.go(range(8)).close(finished=True)
    steps = [job.step for job in Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}").jobs()]
    assert steps == [0, 5, 6]


# --- a program that is run again under the same id -----------------------------------------------


@pytest.mark.parametrize("policy", ["sync", "hold", "tracked"])
@pytest.mark.parametrize("changed", ["weights", "perturbation"])
def test_another_program_under_a_runs_id_is_refused_and_buys_nothing(sold, policy, changed):
    asked = {"run": "mine", "policy": policy, "every": 1, "wait": "first"}
    first = Training(**asked).go(range(1))
    first.close()
    before = len(sold())
    again = Training(**asked, **({"perturbation": "circuit"} if changed == "perturbation" else {}))
    if changed == "weights":
        with torch.no_grad():
            again.params[0].add_(0.5)
    what = "other circuits" if changed == "perturbation" else "the same circuits at other angles"
    with pytest.raises(ConfigError, match=f"Run 'mine' has had {what} measured at step 0"):
        again.go(range(1))
    assert len(sold()) == before


@pytest.mark.parametrize("policy", ["sync", "hold"])
def test_the_same_program_under_a_runs_id_is_served_what_it_has_paid_for(sold, policy):
    asked = {"run": "mine", "policy": policy, "every": 1, "wait": "first"}
    first = Training(**asked).go(range(1))
    first.close()
    again = Training(**asked).go(range(1))
    again.close()
    assert all(torch.equal(p, q) for p, q in zip(again.params, first.params, strict=True))
    assert len(sold()) == 1


@pytest.mark.parametrize("moved, refused", [(0.5, True), (1e-4, False)])
def test_a_later_step_at_other_angles_is_not_served_what_was_measured_before(sold, moved, refused):
    """Angles that a tenth of the shot noise hides, as after a crash on another machine, are."""
    asked = {"run": "mine", "policy": "sync", "every": 1, "schedule": {"twin_every": 1}}
    Training(**asked).go(range(3)).close(finished=False)
    again = Training(**asked).go(range(1))
    before = len(sold())
    with torch.no_grad():
        for p in again.params:
            p.add_(moved)
    if refused:
        other = "other angles measured at step 1 than are asked for now"
        with pytest.raises(ConfigError, match=f"Run 'mine' has had the same circuits at {other}"):
            again.go([1])
    else:
        again.go([1])
    assert len(sold()) == before
    again.close(finished=False)


def test_another_number_of_shots_is_not_served_what_was_measured_with_few(sold):
    Training(run="mine", policy="sync", every=1, shots=8).go(range(1)).close(finished=False)
    before = len(sold())
    with pytest.raises(ConfigError, match=r"another number of shots \(8, not 16\)"):
        Training(run="mine", policy="sync", every=1, shots=16).go(range(1))
    assert len(sold()) == before


def test_a_run_that_held_goes_on_from_its_start_and_uses_what_it_paid_for_at_other_angles(sold):
    """Killed before its first checkpoint: results came at other steps, so the angles differ."""
    asked = {"run": "mine", "policy": "hold", "every": 2, "schedule": {"twin_every": 1}}
    Training(**asked).go(range(4)).close(finished=False)
    again = Training(**asked).go(range(1))
    with torch.no_grad():
        again.params[0].add_(0.3)
    again.go(range(1, 4))
    failed = [e for e in again.events if isinstance(e, ScheduleChanged) and e.what == "failed"]
    again.close(finished=False)
    assert failed == []
    assert len(sold()) <= 2  # steps 0 and 2, once each


def test_a_checkpoint_of_one_run_is_not_loaded_under_the_id_of_another(sold):
    asked = {"policy": "hold", "every": 2, "schedule": {"twin_every": 1}}
    other = Training(run="other", **asked).go(range(3))
    saved = copy.deepcopy(other.opt.state_dict())
    other.close(finished=False)
    mine = Training(run="mine", **asked).go(range(1))
    before = len(sold())
    with pytest.raises(ConfigError, match="checkpoint is of run 'other', and run='mine' was asked"):
        mine.opt.load_state_dict(saved)
    mine.close(finished=False)
    assert len(sold()) == before
