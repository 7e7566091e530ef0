"""What a workload lacks, as sentences a user can act on."""

from __future__ import annotations

import numpy as np
import pytest

from qsgd_core.capabilities import Capabilities
from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import CapabilityError, ConfigError

WORK = Workload(
    (
        CircuitBatch(ansatz(3, 1), np.zeros((4, 3))),
        CircuitBatch(ansatz(5, 2, phases=True), np.zeros((2, 15))),
    )
)


@pytest.mark.parametrize(
    "capabilities, shots, sentence",
    [
        (Capabilities(), None, "It cannot compute expectation values exactly: give shots."),
        (
            Capabilities(exact=True, sampled=False),
            100,
            "takes no shots; 100 were asked for. Leave shots out, or use a backend that samples",
        ),
        (Capabilities(gates=frozenset({"h", "ry"})), 100, "It has no cx, rz gate."),
        (
            Capabilities(max_qubits=4),
            100,
            "up to 4 qubits; 5 were asked for. Use n_qubits=4 or less.",
        ),
        (Capabilities(max_rows=5), 100, "up to 5 rows a call; found 6."),
        (Capabilities(min_shots=101), 100, "at least 101 shots a row; 100 asked for."),
        (Capabilities(max_shots=99), 100, "at most 99 shots a row; 100 asked for."),
        (Capabilities(max_executions=599), 100, "at most 599 executions a call; 600 asked for."),
        (Capabilities(), 0, "at least 1 shots a row; 0 asked for."),
    ],
)
def test_each_unmet_need_is_one_sentence(capabilities, shots, sentence):
    (problem,) = capabilities.missing(WORK, shots=shots)
    assert sentence in problem


@pytest.mark.parametrize(
    "capabilities, shots",
    [
        (Capabilities(exact=True, sampled=False), None),
        (Capabilities(exact=True), 1),
        (Capabilities(max_qubits=5, max_rows=6, min_shots=100, max_shots=100), 100),
        (Capabilities(max_executions=600), 100),
        # Shot limits say nothing about a call without shots.
        (Capabilities(exact=True, min_shots=100, max_executions=1), None),
    ],
)
def test_a_workload_at_the_limits_fits(capabilities, shots):
    assert capabilities.missing(WORK, shots=shots) == ()
    capabilities.require("mine", WORK, shots=shots)


def test_all_unmet_needs_are_named_at_once_in_a_configuration_error():
    capabilities = Capabilities(max_qubits=2, max_rows=1, max_shots=10)
    with pytest.raises(CapabilityError, match="Backend 'mine' cannot run this") as caught:
        capabilities.require("mine", WORK, shots=11)
    assert len(caught.value.missing) == 3
    assert all(sentence in str(caught.value) for sentence in caught.value.missing)
    assert isinstance(caught.value, ConfigError)
    assert caught.value.exit_code == 2
