"""The double itself: the SDK's own classes, as users call them, run against it."""

from __future__ import annotations

import aws_devices
import numpy as np
import pytest
from aws_double import AwsDouble
from braket.aws import AwsDevice, AwsQuantumTask
from braket.circuits import Circuit, FreeParameter
from braket.program_sets import CircuitBinding, ProgramSet


def test_aws_device_runs_a_circuit_on_the_simulator(double: AwsDouble):
    device = AwsDevice(aws_devices.SV1)
    task = device.run(Circuit().x(0).i(1), shots=10, poll_interval_seconds=0.001)
    assert task.result().measurement_counts == {"10": 10}
    assert device.is_available


def test_aws_device_runs_a_program_set_on_a_qpu_in_another_region(double: AwsDouble):
    binding = CircuitBinding(Circuit().rx(0, FreeParameter("a")), {"a": [0.0, np.pi]})
    device = AwsDevice(aws_devices.GARNET)
    task = device.run(ProgramSet(binding), shots=20, poll_interval_seconds=0.001)
    entries = sorted(task.result()[0].entries, key=lambda e: e.inputs["a"])
    assert [e.measurements.mean() for e in entries] == [0.0, 1.0]
    assert device.properties.paradigm.qubitCount == 20


def test_the_sdk_reads_a_failed_task_as_none(double: AwsDouble):
    double.outcome("FAILED", reason="No.")
    device = AwsDevice(aws_devices.SV1)
    task = device.run(Circuit().x(0), shots=10, poll_interval_seconds=0.001)
    assert task.result() is None
    again = AwsQuantumTask(task.id)
    assert again.metadata()["failureReason"] == "No."


def test_a_filter_that_the_api_does_not_have_is_refused(double: AwsDouble):
    client = AwsDevice(aws_devices.SV1).aws_session.braket_client
    with pytest.raises(client.exceptions.ValidationException, match="tags"):
        client.search_quantum_tasks(
            filters=[{"name": "tags:qsgd-tag", "operator": "EQUAL", "values": ["t"]}]
        )
