"""Training on several ranks ends with the weights of one process, whoever holds which rows."""

from __future__ import annotations

import io
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from gang import Gang
from torch import Tensor
from torch.nn import Linear, Module, Parameter

import qsgd_core as qsgd
from qsgd_core.errors import BackendError, BudgetExceededError, ConfigError
from qsgd_core.measure.paid_ranks import HeardLine, sample_for_all
from qsgd_core.measure.ranks import Ranks
from qsgd_core.measure.runner import Sample
from qsgd_core.schedule.messages import Frame

STEPS, BATCH = 20, 8


# -- what is trained, and how ------------------------------------------------------------------


class Net(Module):
    """Over two ranks: rows 2+1 (inp), 3+3 (mid, col) and 1+0 (out): whole, straddling and empty."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = Linear(5, 3)
        self.mid = Linear(3, 6)
        self.col = Parameter(torch.randn(6, 1))
        self.out = Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.mid(torch.tanh(self.inp(x)))) * self.col.reshape(1, 6)
        return self.out(h)


def make_net() -> Net:
    torch.manual_seed(0)
    return Net().double()


def make_optimizer(kind: str, model: Module, term: dict[str, Any]) -> tuple[Any, Any]:
    """(optimizer, what has its statistics)."""
    names = list(model.named_parameters())
    if kind == "qsgd":
        opt = qsgd.QSGD(model.parameters(), lr=0.05, named_parameters=names, **term)
        return opt, opt
    base = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    return base, qsgd.attach(base, named_parameters=names, **term)


def batch(step: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1000 + step)
    x = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    return x, x[:, :1] * x[:, 1:2]


def own_part(data: Tensor) -> Tensor:
    """This rank's rows of the global batch."""
    if not dist.is_initialized():
        return data
    return data.chunk(dist.get_world_size())[dist.get_rank()]


def backward(model: Module, step: int) -> None:
    x, y = (own_part(data) for data in batch(step))
    torch.nn.functional.mse_loss(model(x), y).backward()


def train(model: Module, opt: torch.optim.Optimizer, steps: range = range(STEPS)) -> None:
    for step in steps:
        opt.zero_grad()
        backward(model, step)
        opt.step()


def whole(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return (tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor).clone()


def weights(model: Module) -> dict[str, Tensor]:
    return {name.removeprefix("module."): whole(p) for name, p in model.named_parameters()}


def outcome(model: Module, stats: Any) -> dict[str, Any]:
    return {"weights": weights(model), "stats": asdict(stats.qsgd_stats())}


# -- what the ranks run ------------------------------------------------------------------------


def run_alone(kind: str, term: dict[str, Any]) -> dict[str, Any]:
    model = make_net()
    opt, stats = make_optimizer(kind, model, term)
    train(model, opt)
    return outcome(model, stats)


def run_ddp(kind: str, term: dict[str, Any], pieces: int = 1) -> dict[str, Any]:
    """``pieces``: how many backward passes a step's gradient is accumulated over."""
    net = make_net()
    model = torch.nn.parallel.DistributedDataParallel(net)
    opt, stats = make_optimizer(kind, net, term)
    for step in range(STEPS):
        opt.zero_grad()
        parts = [own_part(data).chunk(pieces) for data in batch(step)]
        for i, (x, y) in enumerate(zip(*parts, strict=True)):
            model.require_backward_grad_sync = i == pieces - 1  # what no_sync() does
            (torch.nn.functional.mse_loss(model(x), y) / pieces).backward()
        opt.step()
    return outcome(net, stats)


def shard(model: Net, **kwargs: Any) -> Net:
    from torch.distributed.fsdp import fully_shard

    for part in (model.mid, model):
        fully_shard(part, **kwargs)
    return model


def run_fsdp(
    kind: str, term: dict[str, Any], mesh_shape: tuple[int, ...] | None = None
) -> dict[str, Any]:
    from torch.distributed.device_mesh import init_device_mesh

    sums = []
    sum_ = Ranks.sum_
    mesh = {}
    if mesh_shape is not None:
        names = ("replicate", "shard")[-len(mesh_shape) :]
        mesh["mesh"] = init_device_mesh("cpu", mesh_shape, mesh_dim_names=names)
    model = shard(make_net(), **mesh)
    opt, stats = make_optimizer(kind, model, term)
    Ranks.sum_ = lambda self, tensors: sums.append(len(tensors)) or sum_(self, tensors)
    try:
        train(model, opt)
    finally:
        Ranks.sum_ = sum_
    return outcome(model, stats) | {"sums": len(sums)}


def same_as_alone(answers: list[Any], kind: str, term: dict[str, Any]) -> None:
    alone = run_alone(kind, term)
    plain = run_alone(kind, {"quantum_weight": 0.0})
    far = max(
        float((a - b).abs().max())
        for a, b in zip(alone["weights"].values(), plain["weights"].values(), strict=True)
    )
    assert far > 1e-4  # without the term the weights are other ones
    for answer in answers:
        for name, value in alone["weights"].items():
            torch.testing.assert_close(answer["weights"][name], value, rtol=0, atol=1e-10)
        assert answer["stats"]["sources"] == alone["stats"]["sources"]
        for key in ("effect_size", "effect_size_mean", "effect_size_max"):
            assert answer["stats"][key] == pytest.approx(alone["stats"][key], rel=1e-8)
        assert answer["stats"] == answers[0]["stats"]


def kinds(fast: str) -> Any:
    """Both kinds of optimizer, one of them in the long run only."""
    slow = {"qsgd": "attach", "attach": "qsgd"}[fast]
    return pytest.mark.parametrize("kind", [fast, pytest.param(slow, marks=pytest.mark.slow)])


TERMS: list[dict[str, Any]] = [
    {},
    {"scope": "model", "n_qubits": 17, "depth": 1},
    {"scope": "all", "perturbation": "circuit"},
    {"scope": "all", "normalize": "update", "n_qubits": 3},
    {"perturbation": "circuit", "perturbation_options": {"phases": "gradient"}},
    {"backend": "sampled", "shots": 64, "perturbation": "circuit", "every": 3},
    {"normalize": "update", "quantum_weight": 0.1, "n_qubits": 5},
    {"inject": "gradient", "scope": "all", "perturbation": "circuit"},
]
terms = pytest.mark.parametrize("term", TERMS, ids=lambda term: " ".join(term) or "default")


@terms
@kinds("attach")
def test_ddp_ends_with_the_weights_of_one_process(two, kind, term):
    same_as_alone(two.run("run_ddp", kind, term), kind, term)


def test_ddp_with_accumulated_gradients_ends_with_the_weights_of_one_process(two):
    term = {"scope": "all", "perturbation": "circuit"}
    same_as_alone(two.run("run_ddp", "qsgd", term, pieces=2), "qsgd", term)


@terms
@kinds("qsgd")
def test_fsdp_ends_with_the_weights_of_one_process(two, kind, term):
    same_as_alone(two.run("run_fsdp", kind, term), kind, term)


@pytest.mark.parametrize("mesh_shape", [(1, 2), (2, 1)])
def test_replicated_shards_end_with_the_weights_of_one_process(two, mesh_shape):
    """HSDP: (Replicate, Shard(0)), with one of the two over a single rank."""
    term = {"scope": "all", "perturbation": "circuit", "normalize": "update"}
    same_as_alone(two.run("run_fsdp", "qsgd", term, mesh_shape), "qsgd", term)


@pytest.mark.slow
@pytest.mark.parametrize("mesh_shape", [(4,), (2, 2)])
def test_four_ranks_end_with_the_weights_of_one_process(mesh_shape):
    gang = Gang(__file__, world=4)
    try:
        for term in TERMS:
            same_as_alone(gang.run("run_fsdp", "qsgd", term, mesh_shape), "qsgd", term)
    finally:
        gang.close()


@pytest.mark.parametrize(
    "term, per_step",
    [
        ({"scope": "all", "normalize": "update"}, 2),
        ({"scope": "model"}, 2),
        ({"every": 20}, 1 + 1 / STEPS),
        ({"quantum_weight": 0.0}, 0),
    ],
)
def test_a_sharded_step_costs_one_collective_for_theta_and_g_and_one_for_sums(two, term, per_step):
    assert {answer["sums"] for answer in two.run("run_fsdp", "qsgd", term)} == {per_step * STEPS}


def run_partly_sharded(term: dict[str, Any]) -> dict[str, Any]:
    """``mid`` is sharded, the rest is whole on both ranks; its gradients are averaged by hand."""
    from torch.distributed.fsdp import fully_shard

    model = make_net()
    fully_shard(model.mid)
    opt, stats = make_optimizer("qsgd", model, term)
    for step in range(STEPS):
        opt.zero_grad()
        backward(model, step)
        for p in model.parameters():
            if not hasattr(p, "full_tensor"):
                dist.all_reduce(p.grad)
                p.grad /= 2
        opt.step()
    return outcome(model, stats)


@pytest.mark.parametrize("normalize", [None, "update"])
def test_a_block_over_whole_and_sharded_tensors_is_the_block_of_one_process(two, normalize):
    term = {"scope": "model", "n_qubits": 17, "depth": 1, "perturbation": "circuit"}
    term |= {"normalize": normalize, "perturbation_options": {"entangler": "chain"}}
    same_as_alone(two.run("run_partly_sharded", term), "qsgd", term)


def test_a_sharded_model_is_described_like_the_whole_one(two):
    model = make_net()
    expected = asdict(make_optimizer("qsgd", model, {"scope": "all"})[0].qsgd_describe())
    assert two.run("describe_sharded", {"scope": "all"}) == [expected] * 2


def describe_sharded(term: dict[str, Any]) -> dict[str, Any]:
    return asdict(make_optimizer("qsgd", shard(make_net()), term)[0].qsgd_describe())


# -- scaling, clipping -------------------------------------------------------------------------


def run_scaled(sharded: bool, fused: bool, term: dict[str, Any]) -> dict[str, Any]:
    """Gradients are scaled and clipped; at step 3 one row of the batch is infinite."""
    model = shard(make_net()) if sharded else make_net()
    opt = qsgd.QSGD(model.parameters(), lr=0.05, fused=fused, **term)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)
    for step in range(STEPS):
        opt.zero_grad()
        x, y = batch(step)
        if step == 3:
            x[0] = torch.inf
        x, y = own_part(x), own_part(y)
        scaler.scale(torch.nn.functional.mse_loss(model(x), y)).backward()
        if not fused:
            scaler.unscale_(opt)
            torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        scaler.step(opt)
        scaler.update()
    return outcome(model, opt) | {"scale": scaler.get_scale()}


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("inject", ["update", "gradient"])
def test_a_grad_scaler_skips_the_same_step_on_every_rank(two, fused, inject):
    term = {"inject": inject, "perturbation": "circuit"}
    alone = run_scaled(False, fused, term)
    for answer in two.run("run_scaled", True, fused, term):
        for name, value in alone["weights"].items():
            assert value.isfinite().all()
            torch.testing.assert_close(answer["weights"][name], value, rtol=0, atol=1e-10)
        assert answer["scale"] == alone["scale"]
        assert answer["stats"]["effect_size_mean"] == pytest.approx(
            alone["stats"]["effect_size_mean"], rel=1e-8
        )


# -- checkpoints -------------------------------------------------------------------------------

HELD = {"scope": "all", "perturbation": "circuit", "every": 4, "backend": "sampled", "shots": 32}


def run_resumed(how: str) -> dict[str, Any]:
    """Half of the steps, a checkpoint, and the other half in a new model."""
    first = shard(make_net())
    opt, _ = make_optimizer("qsgd", first, HELD)
    train(first, opt, range(6))
    second = shard(make_net())
    resumed, stats = make_optimizer("qsgd", second, HELD)
    if how == "own":
        buffer = io.BytesIO()
        torch.save((first.state_dict(), opt.state_dict()), buffer)
        buffer.seek(0)
        model_state, state = torch.load(buffer, weights_only=False)
        second.load_state_dict(model_state)
        resumed.load_state_dict(state)
    else:
        from torch.distributed.checkpoint import state_dict as dcp

        options = dcp.StateDictOptions(full_state_dict=how == "full")
        model_state, state = dcp.get_state_dict(first, opt, options=options)
        dcp.set_state_dict(
            second, resumed, model_state_dict=model_state, optim_state_dict=state, options=options
        )
    train(second, resumed, range(6, STEPS))
    return outcome(second, stats)


@pytest.mark.parametrize("how", ["own", "sharded", "full"])
def test_a_run_resumed_on_two_ranks_goes_on_with_the_modulation_it_held(two, how):
    same_as_alone(two.run("run_resumed", how), "qsgd", HELD)


# -- ZeroRedundancyOptimizer -------------------------------------------------------------------


def run_zero(where: str, term: dict[str, Any]) -> dict[str, Any] | str:
    from torch.distributed.optim import ZeroRedundancyOptimizer

    net = make_net()
    model = torch.nn.parallel.DistributedDataParallel(net)
    if where == "inside":
        opt = ZeroRedundancyOptimizer(net.parameters(), qsgd.QSGD, lr=0.05, **term)
        stats = opt.optim
    else:
        opt = ZeroRedundancyOptimizer(net.parameters(), torch.optim.AdamW, lr=0.05)
        stats = qsgd.attach(opt if where == "on the whole" else opt.optim, **term)
    try:
        train(model, opt)
    except ConfigError as error:
        return str(error)
    return outcome(net, stats)


@pytest.mark.parametrize("where", ["inside", "on the part", "on the whole"])
def test_zero_with_scope_tensor_ends_with_the_weights_of_one_process(two, where):
    alone = run_alone("qsgd", {"perturbation": "circuit"})
    for answer in two.run("run_zero", where, {"perturbation": "circuit"}):
        for name, value in alone["weights"].items():
            torch.testing.assert_close(answer["weights"][name], value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("where", ["inside", "on the part"])
def test_zero_with_scope_model_is_refused_with_the_way_out(two, where):
    for answer in two.run("run_zero", where, {"scope": "model"}):
        assert 'scope="model" needs every parameter' in answer
        assert "gives each rank a part" in answer
        assert "attach(ZeroRedundancyOptimizer(" in answer


def test_the_way_out_of_zero_with_scope_model_ends_with_the_weights_of_one_process(two):
    term = {"scope": "model", "n_qubits": 17, "depth": 1}
    same_as_alone(two.run("run_zero", "on the whole", term), "qsgd", term)


# -- what is refused ---------------------------------------------------------------------------


def step_refused(layout: str) -> str:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
    from torch.distributed.tensor import Shard

    model = make_net()
    if layout == "columns":
        fully_shard(model.out, shard_placement_fn=lambda p: Shard(p.dim() - 1))
    elif layout == "FSDP1":
        mesh = init_device_mesh("cpu", (2,))
        model = FullyShardedDataParallel(
            model, device_mesh=mesh, use_orig_params=True, device_id=torch.device("cpu")
        )
    opt, _ = make_optimizer("attach", model, {})
    backward(model, 0)
    before = weights(model)
    try:
        opt.step()
    except ConfigError as error:
        for name, value in weights(model).items():
            assert torch.equal(value, before[name])
        return str(error)
    return "nothing"


@pytest.mark.parametrize(
    "layout, name, way_out",
    [
        ("columns", "'out.weight'", "fully_shard without a shard_placement_fn"),
        ("FSDP1", "'_fsdp_wrapped_module.", "torch.distributed.fsdp.fully_shard (FSDP2), or DDP"),
    ],
)
def test_other_ways_to_cut_a_tensor_are_refused_by_name(two, layout, name, way_out):
    for answer in two.run("step_refused", layout):
        assert name in answer
        assert way_out in answer


# -- what only rank 0 knows --------------------------------------------------------------------


def shares() -> list[Any]:
    ranks = Ranks()
    mine = [None, b"", b"twin", bytes(range(256)) * 4096, None]
    given = [ranks.share(m if ranks.is_lead else b"ignored") for m in mine]
    return [(ranks.rank, ranks.world, ranks.is_lead), given]


def test_what_rank_0_knows_every_rank_learns(two):
    expected = [None, b"", b"twin", bytes(range(256)) * 4096, None]
    assert two.run("shares") == [[(0, 2, True), expected], [(1, 2, False), expected]]
    assert shares() == [(0, 1, True), expected]


def fails_on_lead() -> tuple[str, dict[str, Any], bool]:
    ranks = Ranks()

    def work() -> bytes:
        assert ranks.is_lead
        raise BudgetExceededError("No money.", asked=7, left=3, unit="micro_usd")

    try:
        ranks.lead_does(work)
    except BudgetExceededError as error:
        return str(error), vars(error), ranks.share(b"still together") == b"still together"
    raise AssertionError("nothing was raised")


def test_what_rank_0_cannot_do_fails_on_every_rank_and_they_stay_together(two):
    expected = ("No money.", {"asked": 7, "left": 3, "unit": "micro_usd"}, True)
    assert two.run("fails_on_lead") == [expected, expected]
    assert fails_on_lead() == expected


def fails_otherwise_on_lead() -> str:
    try:
        Ranks().lead_does(lambda: b"%d" % (1 // 0))
    except (BackendError, ZeroDivisionError) as error:
        return f"{type(error).__name__}: {error}"
    raise AssertionError("nothing was raised")


def test_a_fault_of_rank_0_is_a_backend_error_on_the_others(two):
    mine, others = two.run("fails_otherwise_on_lead")
    assert mine == "ZeroDivisionError: integer division or modulo by zero"
    assert others.startswith("BackendError: Rank 0 failed: ZeroDivisionError(")


def samples() -> list[Any]:
    """Rank 0 has what is measured; the others' own call would raise."""
    ranks = Ranks()
    z = [torch.randn(3, 4, dtype=torch.float64).numpy() if ranks.is_lead else None, np.ones((2, 1))]

    def ask() -> Sample:
        assert ranks.is_lead
        return Sample(z, "tracked")

    sample = sample_for_all(ranks, ask)
    return [sample.z, sample.source]


def test_a_measured_sample_is_the_same_on_every_rank_to_the_bit(two):
    (z, source), (other_z, other_source) = two.run("samples")
    assert source == other_source == "tracked"
    assert all(np.array_equal(a, b) for a, b in zip(z, other_z, strict=True))
    assert z[0].shape == (3, 4)


GROUP_TIMEOUT_S = 6.0


def waits_long() -> bytes | None:
    """Rank 0 hears nothing from the courier for longer than a collective may take."""
    from datetime import timedelta

    ranks = Ranks(dist.new_group(timeout=timedelta(seconds=GROUP_TIMEOUT_S)))

    class Silence:
        starts = 1

        def receive(self, timeout_s: float) -> list[Frame]:
            time.sleep(timeout_s)
            return []

    line = HeardLine(Silence(), ranks)
    until = time.monotonic() + 1.5 * GROUP_TIMEOUT_S

    def work() -> bytes:
        while time.monotonic() < until:
            line.receive(0.5)
        return b"at last"

    answer = ranks.lead_does(work)
    line.receive(0.1)  # nobody waits now, so nothing is sent
    return answer if ranks.share(b"together") == b"together" else None


@pytest.mark.slow
def test_ranks_wait_for_a_queued_job_longer_than_their_timeout(two):
    assert two.run("waits_long") == [b"at last"] * 2


def sums() -> list[Tensor]:
    ranks = Ranks()
    tensors = [
        torch.full((2, 3), ranks.rank + 1.0),
        torch.tensor(10.0**ranks.rank, dtype=torch.float64),
        torch.zeros(0),
    ]
    ranks.sum_(tensors)
    return tensors


def test_sums_over_ranks_keep_shape_and_dtype(two):
    for a, b, c in two.run("sums"):
        assert torch.equal(a, torch.full((2, 3), 3.0))
        assert torch.equal(b, torch.tensor(11.0, dtype=torch.float64))
        assert c.shape == (0,)
    assert torch.equal(sums()[0], torch.ones(2, 3))
