"""Circuits as data: what is refused, what a digest sees, and that qiskit reads the text back."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import qasm3
from qiskit.quantum_info import Operator, Statevector

from qsgd_core.circuits import (
    GATES,
    Circuit,
    CircuitBatch,
    Gate,
    Slot,
    Workload,
    ansatz,
    entangler_pairs,
)
from qsgd_core.errors import ConfigError
from qsgd_core.simulate import statevector


@st.composite
def circuits(draw: st.DrawFn) -> Circuit:
    n = draw(st.integers(1, 4))
    gates, slots = [], 0
    for name in draw(
        st.lists(st.sampled_from([g for g in GATES if GATES[g][0] <= n]), max_size=12)
    ):
        qubits = tuple(draw(st.permutations(range(n)))[: GATES[name][0]])
        angle: float | Slot | None = None
        if GATES[name][1]:
            angle = draw(st.none() | st.floats(-1e3, 1e3))
            if angle is None:
                angle, slots = Slot(slots), slots + 1
        gates.append(Gate(name, qubits, angle))
    return Circuit(n, tuple(gates))


@pytest.mark.parametrize(
    "n, gate, sentence",
    [
        (2, Gate("swap", (0, 1)), "Unknown gate 'swap'; the gate set is h, x, rx"),
        (2, Gate("h", (2,)), r"1 distinct qubit\(s\) below 2; found \(2,\)"),
        (2, Gate("h", (-1,)), "below 2"),
        (2, Gate("cx", (0, 0)), r"2 distinct qubit\(s\)"),
        (2, Gate("cx", (0,)), r"2 distinct qubit\(s\)"),
        (2, Gate("ry", (0,)), r"ry takes 1 angle\(s\); found None"),
        (2, Gate("x", (0,), 0.5), r"x takes 0 angle\(s\); found 0.5"),
        (2, Gate("rz", (0,), float("nan")), "finite angle; found nan"),
        (2, Gate("rz", (0,), Slot(1)), r"numbered 0 … k-1 without gaps; found \[1\]"),
        (0, Gate("h", (0,)), "at least one qubit, not 0"),
    ],
)
def test_a_circuit_that_cannot_run_is_refused_with_the_reason(n, gate, sentence):
    with pytest.raises(ConfigError, match=sentence):
        Circuit(n, (gate,))


def test_the_ansatz_has_the_papers_gates_in_order():
    circuit = ansatz(3, 2, "chain", phases=True)
    layer = ["ry", "rz", "ry", "rz", "ry", "rz", "cx", "cx"]
    assert [g.name for g in circuit.gates] == ["h"] * 3 + layer * 2
    angles = [g.angle.index for g in circuit.gates if isinstance(g.angle, Slot)]
    # θ_0 φ_00 θ_1 φ_01 θ_2 φ_02, then the same θ with the next layer's φ.
    assert angles == [0, 3, 1, 4, 2, 5, 0, 6, 1, 7, 2, 8]
    assert ansatz(3, 2, "chain").n_slots == 3
    assert ansatz(3, 1, "none").gates[:3] == tuple(Gate("h", (i,)) for i in range(3))


@pytest.mark.parametrize(
    "n, entangler, pairs",
    [
        (3, "none", []),
        (1, "chain", []),
        (3, "chain", [(0, 1), (1, 2)]),
        (3, "ring", [(0, 1), (1, 2), (2, 0)]),
        (2, "ring", [(0, 1)]),
    ],
)
def test_the_entanglers_cnots(n, entangler, pairs):
    assert entangler_pairs(n, entangler) == pairs


def test_an_ansatz_that_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match="depth must be at least 1, not 0"):
        ansatz(4, 0)
    with pytest.raises(ConfigError, match="none, chain or ring, not 'star'"):
        ansatz(4, 1, "star")


@settings(max_examples=60)
@given(circuits())
def test_the_json_form_reads_back_equal_with_the_same_digest(circuit):
    text = json.dumps(circuit.to_dict())
    again = Circuit.from_dict(json.loads(text))
    assert again == circuit
    assert again.digest == circuit.digest


def test_the_digest_is_the_same_in_every_process():
    # Recorded once: a change here orphans every stored result that is found by digest.
    assert ansatz(2, 1, "chain", phases=True).digest == (
        "4238a1adb4e7b786e2f8e29705b0b02a92103bb1a3c6ecf70321936d6153cf47"
    )


def test_the_digest_sees_every_part_of_a_circuit():
    base = (Gate("h", (0,)), Gate("ry", (0,), 0.5), Gate("cx", (0, 1)))
    variants = [
        Circuit(2, base),
        Circuit(3, base),
        Circuit(2, base[:2]),
        Circuit(2, base[::-1]),
        Circuit(2, (base[0], Gate("ry", (0,), np.nextafter(0.5, 1)), base[2])),
        Circuit(2, (base[0], Gate("rx", (0,), 0.5), base[2])),
        Circuit(2, (base[0], Gate("ry", (0,), Slot(0)), base[2])),
        Circuit(2, (*base[:2], Gate("cx", (1, 0)))),
    ]
    assert len({c.digest for c in variants}) == len(variants)
    integer = Circuit(1, (Gate("ry", (0,), 1),))
    assert integer.digest == Circuit(1, (Gate("ry", (0,), 1.0),)).digest


def test_a_workloads_digest_sees_angles_to_the_bit_and_observables_and_order():
    circuit = ansatz(2, 1)
    angles = np.array([[0.1, 0.2], [0.3, 0.4]])
    nudged = angles.copy()
    nudged[1, 1] = np.nextafter(0.4, 1)
    batch = CircuitBatch(circuit, angles)
    workloads = [
        Workload((batch,)),
        Workload((CircuitBatch(circuit, nudged),)),
        Workload((CircuitBatch(circuit, angles[::-1]),)),
        Workload((CircuitBatch(circuit, angles, ((0, 1),)),)),
        Workload((CircuitBatch(ansatz(2, 2), angles),)),
        Workload((batch, batch)),
        Workload((CircuitBatch(circuit, angles[:1]), CircuitBatch(circuit, angles[1:]))),
    ]
    assert len({w.digest() for w in workloads}) == len(workloads)
    assert Workload((CircuitBatch(circuit, angles.tolist()),)).digest() == workloads[0].digest()


def test_a_batch_takes_single_z_observables_unless_told_otherwise():
    batch = CircuitBatch(ansatz(3, 1), np.zeros((5, 3)))
    assert batch.observables == ((0,), (1,), (2,))
    assert batch.n_rows == 5
    wide = CircuitBatch(ansatz(4, 1), np.zeros((2, 4)))
    assert (Workload((batch, wide)).n_rows, Workload((batch, wide)).n_qubits) == (7, 4)


@pytest.mark.parametrize(
    "angles, observables, sentence",
    [
        (np.zeros((2, 2)), (), r"shape \(rows, 3\); found \(2, 2\)"),
        (np.zeros(3), (), r"found \(3,\)"),
        (np.full((1, 3), np.nan), (), "finite; found NaN"),
        (np.full((1, 3), np.inf), (), "finite"),
        (np.zeros((1, 3)), ((3,),), r"Observable \(3,\) does not fit 3 qubits"),
        (np.zeros((1, 3)), ((1, 1),), r"Observable \(1, 1\)"),
    ],
)
def test_a_batch_that_does_not_fit_its_circuit_is_refused(angles, observables, sentence):
    with pytest.raises(ConfigError, match=sentence):
        CircuitBatch(ansatz(3, 1), angles, observables)


def test_a_workload_needs_batches_and_rows():
    with pytest.raises(ConfigError, match="at least one batch"):
        Workload(())
    with pytest.raises(ConfigError, match="each batch one row"):
        Workload((CircuitBatch(ansatz(3, 1), np.zeros((0, 3))),))


def test_records_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        ansatz(2, 1).n_qubits = 3


def read_back(text: str):
    circuit = qasm3.loads(text)
    assert [(r.name, r.size) for r in circuit.cregs] == [("c", circuit.num_qubits)]
    measured = [
        (circuit.find_bit(i.qubits[0]).index, circuit.find_bit(i.clbits[0]).index)
        for i in circuit.data
        if i.operation.name == "measure"
    ]
    assert measured == [(j, j) for j in range(circuit.num_qubits)]
    circuit.remove_final_measurements()
    return circuit


@settings(max_examples=30)
@given(circuits(), st.integers(0, 2**32 - 1))
def test_qiskit_reads_the_openqasm_text_back_bound_and_unbound(circuit, seed):
    angles = np.random.default_rng(seed).normal(scale=5, size=circuit.n_slots)
    expected = statevector.amplitudes(circuit, torch.from_numpy(angles[None]))[0].numpy()
    bound = read_back(circuit.to_qasm3(angles))
    assert np.abs(Statevector(bound).data - expected).max() <= 1e-13
    unbound = read_back(circuit.to_qasm3())
    assert {p.name for p in unbound.parameters} == {f"p{i}" for i in range(circuit.n_slots)}
    bound_later = unbound.assign_parameters({f"p{i}": a for i, a in enumerate(angles)})
    assert np.abs(Operator(bound_later).data - Operator(bound).data).max() <= 1e-13


def test_openqasm_keeps_tiny_and_huge_angles_to_the_bit():
    circuit = Circuit(1, (Gate("rz", (0,), Slot(0)), Gate("ry", (0,), -1e22)))
    read = read_back(circuit.to_qasm3(np.array([1e-17])))
    assert [float(i.operation.params[0]) for i in read.data] == [1e-17, -1e22]


def test_openqasm_refuses_the_wrong_number_of_angles():
    with pytest.raises(ConfigError, match="has 3 slots; 2 angles given"):
        ansatz(3, 1).to_qasm3(np.zeros(2))
