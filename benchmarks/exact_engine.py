"""CPU time of the exact engine: closed form, state vector and shots, beside ``torch.sin``.

Run with one thread; times are process CPU time, the best of five repeats, so that neighbours on
the machine do not show. ``--json`` prints one object: microseconds per call by engine and batch.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable

import numpy as np
import torch

from qsgd_core.circuits import ansatz
from qsgd_core.simulate import chain, statevector

N_QUBITS = 4
SHOTS = 1024


def cpu_us(call: Callable[[], object], target_s: float = 0.1) -> float:
    """Microseconds of CPU time per call: the best of five repeats of about ``target_s`` each."""
    call()
    start = time.process_time()
    call()
    loops = max(1, min(5000, int(target_s / max(time.process_time() - start, 1e-6))))
    best = math.inf
    for _ in range(5):
        start = time.process_time()
        for _ in range(loops):
            call()
        best = min(best, (time.process_time() - start) / loops)
    return best * 1e6


def engines(blocks: int) -> dict[str, Callable[[], object]]:
    """What is timed, for ``blocks`` blocks of four qubits."""
    theta = 0.1 * torch.randn(blocks, N_QUBITS)
    radians = (math.pi * theta).double()
    circuit = ansatz(N_QUBITS, 2, "chain")
    observables = [(i,) for i in range(N_QUBITS)]
    calls: dict[str, Callable[[], object]] = {"torch.sin": lambda: torch.sin(theta)}
    for depth in (1, 2, 3, 6):
        calls[f"chain depth {depth} float32"] = lambda depth=depth: chain.expectations(
            theta, depth=depth, entangler="chain"
        )
    calls["state vector depth 2 float64"] = lambda: statevector.expectations(
        circuit, radians, observables
    )
    calls[f"state vector depth 2, {SHOTS} shots"] = lambda: statevector.sample(
        circuit, radians, shots=SHOTS, rng=np.random.default_rng(0)
    )
    return calls


def main() -> None:
    """Time every engine at three batch sizes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    as_json = parser.parse_args().json
    torch.set_num_threads(1)
    torch.manual_seed(0)
    times = {
        str(blocks): {name: round(cpu_us(call), 1) for name, call in engines(blocks).items()}
        for blocks in (1, 28, 4096)
    }
    if as_json:
        print(json.dumps({"n_qubits": N_QUBITS, "unit": "us", "blocks": times}))
        return
    for blocks, row in times.items():
        print(f"{blocks} blocks of {N_QUBITS} qubits")
        for name, value in row.items():
            print(f"  {name:34} {value:12.1f} us")


if __name__ == "__main__":
    main()
