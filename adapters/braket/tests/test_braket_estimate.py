"""``qsgd estimate`` on Braket: dollars from the device's own price and the task fee; no task."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aws_devices
import pytest
from asking import ask_in_this_process

from qsgd_core.cli import main

SMALL = Path(__file__).parents[3] / "tests" / "scripts" / "noisy_task.py"
LINE = ["estimate", f"{SMALL}:make_task", "--shots", "256", "--json"]


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def here(monkeypatch):
    ask_in_this_process(monkeypatch)


@pytest.fixture
def estimate(home, capsys):
    def run(*arguments: str) -> dict[str, Any]:
        assert main([*LINE, *arguments]) == 0, capsys.readouterr().err
        return dict(json.loads(capsys.readouterr().out))

    return run


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("backend", ["braket:cepheus-1-108q", aws_devices.CEPHEUS])
def test_a_refresh_is_one_task_at_the_devices_own_price(double, estimate, home, backend):
    packed = ["--schedule", "tiles=auto"]
    found = estimate("--backend", backend, "--steps", "2000", "--budget", "$25", *packed)
    one = 0.30 + 256 * 0.000425  # four blocks side by side on 108 qubits
    assert (found["device"], found["jobs_per_refresh"]) == (aws_devices.CEPHEUS, 1)
    assert (found["blocks"], found["circuits_per_refresh"]) == (4, 1)
    assert found["refresh_usd"] == pytest.approx(one)
    assert found["every"] == -(-2000 // int(25 / one))
    assert found["cost_usd"] == pytest.approx(found["refreshes"] * one, abs=1e-5)
    assert 25 - 2 * one < found["cost_usd"] <= 25
    assert found["qpu_s"] is None  # AWS bills shots
    assert "properties of the device" in found["price"]["source"]
    assert double.ledger()["requests"].get("CreateQuantumTask", 0) == 0
    assert not (home / "home").exists()


@pytest.mark.usefixtures("here")
def test_a_price_that_the_device_does_not_give_is_from_the_table(double, estimate):
    found = aws_devices.catalogue()[aws_devices.GARNET]["deviceCapabilities"]
    del found["service"]["deviceCost"]
    double.device(aws_devices.GARNET, deviceCapabilities=found)
    said = estimate("--backend", "braket:garnet", "--steps", "100", "--budget", "$25")
    assert said["refresh_usd"] == pytest.approx(0.30 + 4 * 256 * 0.00145)
    assert said["price"]["effective_date"] == "2026-06"


@pytest.mark.usefixtures("here")
def test_an_unknown_price_is_refused_under_a_budget_in_dollars(double, home, capsys):
    found = aws_devices.catalogue()[aws_devices.NOVEL]["deviceCapabilities"]
    del found["service"]["deviceCost"]
    double.device(aws_devices.NOVEL, deviceCapabilities=found)
    assert main([*LINE, "--backend", "braket:novel-7", "--steps", "9", "--budget", "$25"]) == 1
    said = capsys.readouterr()
    assert "capped in dollars" in said.err
    assert "unknown" in said.err


@pytest.mark.usefixtures("here")
def test_without_credentials_the_table_answers_and_says_so(no_aws, estimate):
    said = estimate("--backend", "braket:garnet", "--steps", "100", "--budget", "$25")
    assert said["refresh_usd"] == pytest.approx(0.30 + 4 * 256 * 0.00145)
    assert "price table alone" in said["notes"][0]
    assert said["price"]["source"] == "AWS price list, as resold by qBraid"


@pytest.mark.usefixtures("here")
def test_a_budget_below_one_task_says_what_a_task_costs(double, home, capsys):
    assert main([*LINE, "--backend", "braket:garnet", "--steps", "9", "--budget", "$0.3"]) == 1
    assert "can cost up to $1.7848" in capsys.readouterr().err


def test_a_retired_device_is_an_error_that_says_what_there_is(double, home, capsys):
    assert main([*LINE, "--backend", aws_devices.ANKAA, "--steps", "9"]) == 2
    said = capsys.readouterr()
    assert "RETIRED" in said.err
    assert "braket:cepheus-1-108q" in said.err
