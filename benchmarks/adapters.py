"""What an adapter costs beside its SDK: 64 rows × 1024 shots, the same circuit, in one process.

Each simulator runs beside the bare SDK call that does the same work, from angles to outcomes the
way the SDK hands them over (counts or an array of bits); what can be made once (device, simulator,
translated circuit) is made before. Process CPU time, one thread; the two take turns, in a new order
each round; medians. The two ⟨Z⟩ are compared: ``sigma`` is the largest difference in units of its
standard deviation, so that nothing fast and wrong looks good.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qsgd_core.backend import Simulator
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import QSGDError
from qsgd_core.plugins.registry import default_registry

N_QUBITS, DEPTH = 4, 2

Z = NDArray[np.float64]
Bare = tuple[Callable[[int], Any], Callable[[Any], Z]]
"""The SDK's call for a seed, and how to read ⟨Z⟩, float64 (rows, qubits), from what it gives."""


@dataclass(frozen=True)
class Case:
    """One row of the table: at most ``goal`` times the SDK's CPU time."""

    name: str
    goal: float | None
    bare: Callable[[Simulator, Workload, int], Bare]
    rounds: int | None = None


def from_counts(counts: list[dict[str, int]]) -> Z:
    """⟨Z⟩ of rows of counts whose keys have qubit 0 at the right."""
    rows = []
    for row in counts:
        signs = np.array([[1 - 2 * int(bit) for bit in key[::-1]] for key in row])
        weights = np.array(list(row.values()))
        rows.append(weights @ signs / weights.sum())
    return np.array(rows)


def aer(simulator: Simulator, work: Workload, shots: int) -> Bare:
    """``AerSimulator.run`` with ``parameter_binds``, and the counts of every row."""
    from qiskit_aer import AerSimulator

    circuit, parameters = qiskit_ansatz()
    device = AerSimulator(method=simulator.name.partition(":")[2], max_parallel_threads=1)

    def call(seed: int) -> list[dict[str, int]]:
        columns = work.batches[0].angles.T.tolist()
        binds = [dict(zip(parameters, columns, strict=True))]
        job = device.run(circuit, shots=shots, parameter_binds=binds, seed_simulator=seed)
        counts: list[dict[str, int]] = job.result().get_counts()
        return counts

    return call, from_counts


def qiskit_ansatz() -> tuple[Any, list[Any]]:
    """The circuit of the workload and its parameters."""
    from qiskit import QuantumCircuit
    from qiskit.circuit import Parameter

    circuit = QuantumCircuit(N_QUBITS, N_QUBITS)
    parameters = [Parameter(f"p{i}") for i in range(N_QUBITS)]
    circuit.h(range(N_QUBITS))
    for _ in range(DEPTH):
        for qubit in range(N_QUBITS):
            circuit.ry(parameters[qubit], qubit)
        for qubit in range(N_QUBITS - 1):
            circuit.cx(qubit, qubit + 1)
    circuit.measure(range(N_QUBITS), range(N_QUBITS))
    return circuit, parameters


def pennylane(simulator: Simulator, work: Workload, shots: int) -> Bare:
    """``qml.execute`` of one broadcast tape."""
    import pennylane as qml

    def call(seed: int) -> Any:
        device = qml.device(simulator.name.partition(":")[2], wires=N_QUBITS, seed=seed)
        angles = work.batches[0].angles
        operations = [qml.Hadamard(i) for i in range(N_QUBITS)]
        for _ in range(DEPTH):
            operations += [qml.RY(angles[:, i], wires=i) for i in range(N_QUBITS)]
            operations += [qml.CNOT([i, i + 1]) for i in range(N_QUBITS - 1)]
        tape = qml.tape.QuantumScript(operations, [qml.sample(wires=range(N_QUBITS))], shots=shots)
        return qml.execute([tape], device, diff_method=None, cache=False)[0]

    return call, lambda samples: 1 - 2 * np.asarray(samples).mean(axis=1)


def braket(simulator: Simulator, work: Workload, shots: int) -> Bare:
    """``LocalSimulator.run`` for each row, its parameters as inputs."""
    from braket.circuits import Circuit, FreeParameter
    from braket.devices import LocalSimulator

    device = LocalSimulator({"local": "braket_sv", "dm": "braket_dm"}[simulator.name[7:]])
    circuit = Circuit()
    circuit.h(range(N_QUBITS))
    for _ in range(DEPTH):
        for qubit in range(N_QUBITS):
            circuit.ry(qubit, FreeParameter(f"p{qubit}"))
        for qubit in range(N_QUBITS - 1):
            circuit.cnot(qubit, qubit + 1)

    def call(seed: int) -> list[Any]:
        rows = [{f"p{i}": a for i, a in enumerate(row)} for row in work.batches[0].angles.tolist()]
        return [device.run(circuit, shots=shots, inputs=row).result().measurements for row in rows]

    return call, lambda rows: 1 - 2 * np.stack(rows).mean(axis=1)


def fake(simulator: Simulator, work: Workload, shots: int) -> Bare:
    """IBM's local mode: ``SamplerV2`` on the recorded device, on the adapter's qubits."""
    from qiskit.transpiler import generate_preset_pass_manager
    from qiskit_ibm_runtime import SamplerV2
    from qiskit_ibm_runtime.fake_provider import FakeBrisbane

    device = FakeBrisbane()
    circuit, parameters = qiskit_ansatz()
    layout = simulator.run(work, shots=1, seed=0).physical_qubits
    isa = generate_preset_pass_manager(
        backend=device,
        optimization_level=1,
        initial_layout=None if layout is None else list(layout),
        seed_transpiler=0,
    ).run(circuit)
    order = [parameters.index(parameter) for parameter in isa.parameters]

    def call(seed: int) -> list[dict[str, int]]:
        sampler = SamplerV2(mode=device, options={"simulator": {"seed_simulator": seed}})
        data = sampler.run([(isa, work.batches[0].angles[:, order])], shots=shots).result()[0].data
        return [data.c.get_counts(row) for row in range(work.n_rows)]

    return call, from_counts


CASES = (
    Case("aer:statevector", 1.2, aer),
    Case("aer:density_matrix", 1.2, aer),
    Case("aer:matrix_product_state", 1.2, aer),
    Case("pennylane:default.qubit", 1.2, pennylane),
    Case("pennylane:lightning.qubit", 1.2, pennylane),
    Case("braket:local", 1.1, braket, rounds=3),
    Case("braket:dm", None, braket, rounds=3),
    Case("fake_brisbane", 0.1, fake, rounds=2),
)


def measure(case: Case, work: Workload, shots: int, rounds: int) -> dict[str, Any]:
    """Medians, ratio and agreement of one case."""
    simulator = default_registry().make_backend(case.name)
    assert isinstance(simulator, Simulator)
    bare, read = case.bare(simulator, work, shots)
    calls: dict[str, Callable[[int], Any]] = {
        "adapter": lambda seed: simulator.run(work, shots=shots, seed=seed),
        "sdk": bare,
    }
    times: dict[str, list[float]] = {who: [] for who in calls}
    last: dict[str, Any] = {}
    for turn in range(1 + (case.rounds or rounds)):
        for who in random.sample(sorted(calls), len(calls)):
            start = time.process_time()
            last[who] = calls[who](1 + turn)
            if turn:  # the first is a warm-up
                times[who].append(time.process_time() - start)
    (ours,), theirs = last["adapter"].expectations(work), read(last["sdk"])
    spread = np.sqrt(np.maximum(2 - ours**2 - theirs**2, 1 / shots) / shots)
    medians = {who: 1e3 * statistics.median(values) for who, values in times.items()}
    ratio = medians["adapter"] / medians["sdk"]
    return {
        "name": case.name,
        "adapter_ms": round(medians["adapter"], 2),
        "sdk_ms": round(medians["sdk"], 2),
        "ratio": round(ratio, 3),
        "goal": case.goal,
        "met": None if case.goal is None else ratio <= case.goal,
        "sigma": round(float((np.abs(ours - theirs) / spread).max()), 2),
    }


def main() -> None:
    """Measure every case whose adapter is installed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--shots", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=15, help="of the fast ones")
    parser.add_argument("--only", nargs="*", help="names to measure")
    args = parser.parse_args()
    random.seed(0)
    warnings.simplefilter("ignore")
    angles = np.random.default_rng(0).uniform(-np.pi, np.pi, (args.rows, N_QUBITS))
    work = Workload((CircuitBatch(ansatz(N_QUBITS, DEPTH), angles),))
    results: list[dict[str, Any]] = []
    for case in CASES:
        if args.only and case.name not in args.only:
            continue
        print(f"measuring {case.name} …", file=sys.stderr)
        try:
            results.append(measure(case, work, args.shots, args.rounds))
        except (ImportError, QSGDError) as error:
            results.append({"name": case.name, "skipped": f"{type(error).__name__}: {error}"})
    if args.json:
        settings = {"rows": args.rows, "shots": args.shots, "qubits": N_QUBITS, "depth": DEPTH}
        print(json.dumps({**settings, "unit": "ms of CPU time", "results": results}))
        return
    print(f"{'':26} {'adapter ms':>11} {'SDK ms':>11} {'ratio':>7} {'goal':>6} {'sigma':>6}")
    for row in results:
        if "skipped" in row:
            print(f"{row['name']:26} skipped: {row['skipped']}")
            continue
        goal = "" if row["goal"] is None else f"≤ {row['goal']}"
        print(
            f"{row['name']:26} {row['adapter_ms']:11.1f} {row['sdk_ms']:11.1f} "
            f"{row['ratio']:7.3f} {goal:>6} {row['sigma']:6.2f}"
        )


if __name__ == "__main__":
    # Before an SDK starts its threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
