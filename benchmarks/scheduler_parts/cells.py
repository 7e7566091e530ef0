"""What is compared: traces, devices and budgets, and every policy on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qsgd_core.builtin.perturbations import CircuitPerturbation
from qsgd_core.circuits import Circuit, Workload
from qsgd_core.perturbation import Perturbation
from qsgd_core.schedule.money import Amount, parse_budget
from qsgd_core.simulate.statevector import expectations as ideal_expectations
from scheduler_parts.device import IBM, N_QUBITS, RIGETTI, SimulatedDevice
from scheduler_parts.naive import hold
from scheduler_parts.perturbations import Reupload
from scheduler_parts.physics import Errors, expectations
from scheduler_parts.simulation import Clock, Market, Run, simulate
from scheduler_parts.weather import OUTSIDE, RESEARCH, errors_over_time

Floats = NDArray[np.float64]

MARKETS = {
    "ibm600": Market(IBM, "600s"),
    "rigetti100": Market(RIGETTI, "$100"),
}
TUNED_SHOTS = {"ibm600": (64, 256, 1024, 4096), "rigetti100": (64, 256, 1024)}
"""What hold is tuned over. 4,096 shots cost more than $100 in a single refresh."""
HARDWARE = {"research": RESEARCH, "outside": OUTSIDE}


@dataclass(frozen=True)
class Unit:
    """One device under one trace: what is worked through in one go, on all budgets.

    Attributes:
        trace: ``fast``, ``raw`` or ``circuit``.
        hardware: a key of :data:`HARDWARE`.
        seed: of the device's errors, its queue and its shots.
        delays: median times in the queue, in steps; only the first is for all policies, the
            others are for ``tracked`` alone.
    """

    trace: str
    hardware: str
    seed: int
    delays: tuple[float, ...] = (40.0,)


@dataclass(frozen=True, eq=False)
class Outcome:
    """One policy on one cell with one device.

    Attributes:
        market: a key of :data:`MARKETS`.
        policy: ``tracked``, ``hold`` and ``twin`` by the scheduler, ``ideal``, or the naive hold
            and its shots, as in ``hold 64``.
        delay: median time in the queue, in steps.
        e_sq: E², by the truth.
        run: what the scheduler did; None where it had no part, in ``ideal`` and ``hold 64``.
    """

    unit: Unit
    market: str
    policy: str
    delay: float
    e_sq: float
    run: Run | None


def perturbation(trace: str) -> Perturbation:
    """What turns the trace's coordinates into circuits."""
    if trace == "circuit":
        return CircuitPerturbation(2)
    return Reupload({"fast": 4.0, "raw": 1.0}[trace])


def work_through(unit: Unit, coordinates: Floats) -> list[Outcome]:
    """Every policy on both budgets.

    Args:
        unit: which.
        coordinates: float64 (steps, blocks, n), the trace.
    """
    errors = errors_over_time(
        HARDWARE[unit.hardware], steps=len(coordinates), n_qubits=N_QUBITS, seed=unit.seed
    )
    made = perturbation(unit.trace)
    circuit, angles = _circuits(made, coordinates)
    n_steps, n_rows = len(coordinates), len(angles) // len(coordinates)
    step_of_row = np.repeat(np.arange(n_steps), n_rows)
    truth = expectations(circuit, angles, errors.rows(step_of_row)).reshape(n_steps, n_rows, -1)
    outcomes = []

    def note(market: str, policy: str, delay: float, run: Run | None, z: Floats) -> None:
        e_sq = float(np.mean((z.reshape(truth.shape) - truth) ** 2))
        outcomes.append(Outcome(unit, market, policy, delay, e_sq, run))

    ideal = _ideal(circuit, angles)
    twin = None
    for name, market in MARKETS.items():
        usual = Market(market.tariff, market.budget, unit.delays[0])
        # The free twin knows neither prices nor queues: one run stands for all.
        twin = twin or simulate(coordinates, made, errors, usual, policy="twin", seed=unit.seed)
        note(name, "ideal", usual.delay_steps, None, ideal)
        note(name, "twin", usual.delay_steps, twin, twin.z)
        for delay in unit.delays:
            now = Market(market.tariff, market.budget, delay)
            run = simulate(coordinates, made, errors, now, policy="tracked", seed=unit.seed)
            note(name, "tracked", delay, run, run.z)
        run = simulate(coordinates, made, errors, usual, policy="hold", seed=unit.seed)
        note(name, "hold", usual.delay_steps, run, run.z)
        for shots in TUNED_SHOTS[name]:
            z = _naive(coordinates, made, errors, usual, unit.seed, shots)
            note(name, f"hold {shots}", usual.delay_steps, None, z)
    return outcomes


def _naive(
    coordinates: Floats, made: Perturbation, errors: Errors, market: Market, seed: int, shots: int
) -> Floats:
    """Hold with this number of shots, and as many refreshes as the budget pays for."""
    clock = Clock()
    device = SimulatedDevice(
        market.tariff, errors, delay_steps=market.delay_steps, seed=seed, clock=clock
    )

    def work_at(step: int) -> Workload:
        theta = coordinates[step]
        return Workload(tuple(made.plan(theta, np.zeros_like(theta), step=step)))

    ((unit, cap),) = parse_budget(market.budget).items()
    each = Amount.from_cost(device.quote(work_at(0), shots=shots).worst).of(unit)
    assert each, "the tariff has a price in the budget's unit"
    return hold(
        len(coordinates),
        work_at,
        device,
        refreshes=cap // each,
        shots=shots,
        delay_steps=market.delay_steps,
        start_step=clock.set_step,
    )


def _circuits(made: Perturbation, coordinates: Floats) -> tuple[Circuit, Floats]:
    """The circuit, and the angles of every step's rows one after the other."""
    angles = []
    for step, theta in enumerate(coordinates):
        (batch,) = made.plan(theta, np.zeros_like(theta), step=step)
        angles.append(batch.angles)
    return batch.circuit, np.concatenate(angles)


def _ideal(circuit: Circuit, angles: Floats) -> Floats:
    import torch

    strings: Sequence[tuple[int, ...]] = [(q,) for q in range(circuit.n_qubits)]
    return ideal_expectations(circuit, torch.from_numpy(angles), strings).numpy()
