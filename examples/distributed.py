"""The quantum term on several processes: DDP or FSDP2, with checkpoints for any number of them.

DDP:         torchrun --nproc-per-node 2 examples/distributed.py
FSDP2:       torchrun --nproc-per-node 2 examples/distributed.py --fsdp
Go on:       torchrun --nproc-per-node 4 examples/distributed.py --fsdp --checkpoint runs/spirals
One process: python examples/distributed.py
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import qsgd_core as qsgd

GLOBAL_BATCH = 48
"""Rows of a step over all processes, each of which takes as many of them."""


def start() -> torch.device:
    """Join the processes that torchrun started, if it did; this one's device."""
    cuda = torch.cuda.is_available()
    if "RANK" in os.environ:
        if cuda:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if cuda else "gloo")
    return torch.device("cuda" if cuda else "cpu")


def world() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this one."""
    return dist.get_rank() if dist.is_initialized() else 0


def make_model() -> nn.Sequential:
    """The same weights in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(2, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 3)
    )


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows of this process in a batch: points (rows, 2) on three arms of a spiral; which arm?"""
    generator = torch.Generator().manual_seed(step)
    arm = torch.randint(3, (GLOBAL_BATCH,), generator=generator)
    along = torch.rand(GLOBAL_BATCH, generator=generator)
    angle = 4 * along + 2 * torch.pi / 3 * arm
    points = torch.stack((along * angle.cos(), along * angle.sin()), dim=1)
    own = slice(rank() * GLOBAL_BATCH // world(), (rank() + 1) * GLOBAL_BATCH // world())
    return points[own], arm[own]


def distributed(model: nn.Sequential, *, fsdp: bool) -> nn.Module:
    """The model cut over the processes, or copied to each of them."""
    if fsdp:
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        return fully_shard(model)
    return DistributedDataParallel(model) if dist.is_initialized() else model


def save(folder: Path, step: int, model: nn.Module, opt: torch.optim.Optimizer) -> None:
    """Weights and optimizer, what the term holds with it; every process writes its part."""
    weights, state = get_state_dict(model, opt)
    dcp.save({"model": weights, "optimizer": state}, checkpoint_id=folder / str(step))


def load(folder: Path, model: nn.Module, opt: torch.optim.Optimizer) -> None:
    """The last that :func:`save` finished, on as many processes as there are now."""
    finished = [int(path.parent.name) for path in folder.glob("*/.metadata")]
    if finished:
        weights, state = get_state_dict(model, opt)
        found = folder / str(max(finished))
        dcp.load({"model": weights, "optimizer": state}, checkpoint_id=found)
        set_state_dict(model, opt, model_state_dict=weights, optim_state_dict=state)


def main() -> None:
    """Train; say how it went."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fsdp", action="store_true", help="FSDP2 instead of DDP")
    parser.add_argument("--steps", type=int, default=400, help="in all, with those of a checkpoint")
    parser.add_argument("--double", action="store_true", help="train in float64")
    parser.add_argument("--checkpoint", type=Path, help="folder to go on from, and to save to")
    parser.add_argument("--weights", type=Path, help="file for the trained weights, whole")
    args = parser.parse_args()
    if args.fsdp and "RANK" not in os.environ:
        parser.error("--fsdp needs torchrun --nproc-per-node 2 examples/distributed.py --fsdp")

    device, dtype = start(), torch.float64 if args.double else torch.float32
    model = distributed(make_model().to(device, dtype), fsdp=args.fsdp)
    # After the model has been cut. QSGD_BACKEND says where circuits run; a paid backend is asked
    # by rank 0 alone.
    opt = qsgd.QSGD(
        model.parameters(), lr=1e-2, quantum_weight=0.5, named_parameters=model.named_parameters()
    )
    if args.checkpoint is not None:
        load(args.checkpoint, model, opt)
    first = opt.qsgd_stats().steps
    for step in range(first, args.steps):
        points, arms = batch(step)
        opt.zero_grad()
        logits = model(points.to(device, dtype))
        loss = nn.functional.cross_entropy(logits, arms.to(device))
        loss.backward()
        opt.step()
    if args.checkpoint is not None and first < args.steps:
        save(args.checkpoint, args.steps, model, opt)

    whole = StateDictOptions(full_state_dict=True, cpu_offload=True)
    weights = get_model_state_dict(model, options=whole)
    stats = opt.qsgd_stats()
    opt.close(finished=True)
    if rank() == 0:
        if args.weights is not None:
            torch.save(weights, args.weights)
        print(
            f"{world()} process(es), {stats.steps} steps: the term was "
            f"{stats.effect_size_mean:.2%} of the AdamW step"
        )
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
