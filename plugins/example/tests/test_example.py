"""The conformance kit on the simulator and on the whole distribution."""

from __future__ import annotations

import pytest

from qsgd_core.testing import ProviderConformance, SimulatorConformance
from qsgd_example.simulator import ExampleSimulator


class TestExampleSimulator(SimulatorConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def simulator(cls):
        return ExampleSimulator("example")


class TestProvider(ProviderConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def distribution(cls):
        return "qsgd-example"
