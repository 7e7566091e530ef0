"""examples/distributed.py under torchrun: every layout ends with the weights of one process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from patience import PATIENCE_S

EXAMPLE = Path(__file__).parents[2] / "examples" / "distributed.py"
TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
STEPS = 20
ABORTED = "terminate called without an active exception"
"""torch's gloo threads may outlive the interpreter, and then abort a process that has done its
work: pytorch/pytorch#179291; 1 in 30 times on a busy machine."""


def run(*arguments: str | Path, processes: int | None = None) -> str:
    """The example's output, under torchrun or in one process."""
    launcher = () if processes is None else (*TORCHRUN, str(processes))
    line = [sys.executable, *launcher, EXAMPLE, "--double", *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    for _ in range(3):
        done = subprocess.run(
            line, env=environment, capture_output=True, text=True, timeout=PATIENCE_S
        )
        if ABORTED not in done.stderr:
            break
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def weights(path: Path) -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): w for name, w in torch.load(path).items()}


def steps(count: int) -> tuple[str, str]:
    return "--steps", str(count)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """What one process ends with, in float64, without dropout, on the same global batches."""
    path = tmp_path_factory.mktemp("alone") / "weights.pt"
    said = run(*steps(STEPS), "--weights", path)
    assert re.fullmatch(r"1 process\(es\), 20 steps: the term was 0\.\d\d% of the AdamW step", said)
    return weights(path)


def assert_same(found: dict[str, torch.Tensor], alone: dict[str, torch.Tensor]) -> None:
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        assert value.dtype == torch.float64
        torch.testing.assert_close(found[name].cpu(), value, rtol=0, atol=1e-10)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(), ("--fsdp",)], ids=["DDP", "FSDP2"])
def test_two_processes_end_with_the_weights_of_one(alone, tmp_path, layout):
    said = run(*layout, *steps(STEPS), "--weights", tmp_path / "weights.pt", processes=2)
    assert said.startswith("2 process(es), 20 steps: the term was 0.")
    assert_same(weights(tmp_path / "weights.pt"), alone)


@pytest.mark.slow
def test_a_run_goes_on_on_any_number_of_processes_in_any_layout(alone, tmp_path):
    kept = ("--checkpoint", tmp_path / "kept")
    run("--fsdp", *steps(5), *kept, processes=2)
    run(*steps(9), *kept, processes=2)
    run(*steps(13), *kept)
    said = run("--fsdp", *steps(STEPS), *kept, "--weights", tmp_path / "weights.pt", processes=3)
    assert said.startswith("3 process(es), 20 steps: ")
    assert_same(weights(tmp_path / "weights.pt"), alone)
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"5", "9", "13", "20"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("layout", [(), ("--fsdp",)], ids=["DDP", "FSDP2"])
def test_on_a_gpu_nccl_ends_with_the_weights_of_one_process(alone, tmp_path, layout):
    """As many processes as there are GPUs."""
    found = tmp_path / "weights.pt"
    run(*layout, *steps(STEPS), "--weights", found, processes=torch.cuda.device_count())
    assert_same(weights(found), alone)


def test_fsdp_without_torchrun_says_how_to_start_it():
    line = [sys.executable, EXAMPLE, "--fsdp"]
    done = subprocess.run(line, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 2
    assert "torchrun --nproc-per-node 2 examples/distributed.py --fsdp" in done.stderr
