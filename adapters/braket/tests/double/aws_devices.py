"""The devices of the AWS double: real ARNs, invented properties and prices in the real schemas."""

from __future__ import annotations

import copy
import json
from typing import Any

OPENQASM = "braket.ir.openqasm.program"
PROGRAM_SET = "braket.ir.openqasm.program_set"
SCHEMA = "braket.device_schema"
GATES = ["cnot", "cz", "h", "i", "rx", "ry", "rz", "x"]
ALWAYS = {"executionDay": "Everyday", "windowStartHour": "00:00:00", "windowEndHour": "23:59:59.99"}


def header(name: str, version: str = "1") -> dict[str, str]:
    return {"name": f"{SCHEMA}.{name}", "version": version}


def properties(
    kind: str,
    *,
    qubits: int,
    price: tuple[float, str],
    shots: tuple[int, int],
    sets: dict[str, int] | None,
    windows: list[dict[str, str]] | None = None,
) -> dict[str, Any]:
    """Device capabilities as GetDevice gives them."""
    simulator = kind.startswith("simulators.")
    actions: dict[str, Any] = {
        OPENQASM: {
            "actionType": OPENQASM,
            "version": ["1"],
            "supportedOperations": GATES,
            "supportedResultTypes": [],
        }
    }
    if sets is not None:
        actions[PROGRAM_SET] = {"actionType": PROGRAM_SET, "version": ["1"], **sets}
    about = "simulators.gate_model_simulator" if simulator else "gate_model_qpu"
    paradigm: dict[str, Any] = {
        "braketSchemaHeader": header(f"{about}_paradigm_properties"),
        "qubitCount": qubits,
    }
    if not simulator:
        paradigm["nativeGateSet"] = ["cz", "prx"]
        paradigm["connectivity"] = {"fullyConnected": True, "connectivityGraph": {}}
    return {
        "braketSchemaHeader": header(kind),
        "service": {
            "braketSchemaHeader": header("device_service_properties"),
            "executionWindows": [ALWAYS] if windows is None else windows,
            "shotsRange": list(shots),
            "deviceCost": {"price": price[0], "unit": price[1]},
            "updatedAt": "2026-06-01T00:00:00",
        },
        "action": actions,
        "paradigm": paradigm,
        "deviceParameters": {},
    }


def device(arn: str, name: str, provider: str, capabilities: dict[str, Any]) -> dict[str, Any]:
    return {
        "deviceArn": arn,
        "deviceName": name,
        "providerName": provider,
        "deviceType": "SIMULATOR" if "simulator" in arn else "QPU",
        "deviceStatus": "ONLINE",
        "deviceCapabilities": capabilities,
        "deviceQueueInfo": [],
    }


SV1 = "arn:aws:braket:::device/quantum-simulator/amazon/sv1"
DM1 = "arn:aws:braket:::device/quantum-simulator/amazon/dm1"
GARNET = "arn:aws:braket:eu-north-1::device/qpu/iqm/Garnet"
FORTE = "arn:aws:braket:us-east-1::device/qpu/ionq/Forte-1"
CEPHEUS = "arn:aws:braket:us-west-1::device/qpu/rigetti/Cepheus-1-108Q"
ANKAA = "arn:aws:braket:us-west-1::device/qpu/rigetti/Ankaa-3"
AQUILA = "arn:aws:braket:us-east-1::device/qpu/quera/Aquila"
NOVEL = "arn:aws:braket:us-west-2::device/qpu/startup/Novel-7"
"""A device that the installed SDK has never heard of."""

SETS = {"maximumExecutables": 100, "maximumTotalShots": 1_000_000}
SIMULATOR = "simulators.gate_model_simulator_device_capabilities"


def catalogue() -> dict[str, dict[str, Any]]:
    """ARN -> device, fresh."""
    aquila = properties("quera.quera_device_capabilities", qubits=256, price=(0.01, "shot"),
                        shots=(1, 1000), sets=None)  # fmt: skip
    aquila["action"] = {
        "braket.ir.ahs.program": {"actionType": "braket.ir.ahs.program", "version": ["1"]}
    }
    found = [
        device(SV1, "SV1", "Amazon Braket",
               properties(SIMULATOR, qubits=34, price=(0.075, "minute"), shots=(0, 100_000),
                          sets=None)),
        device(DM1, "dm1", "Amazon Braket",
               properties(SIMULATOR, qubits=17, price=(0.075, "minute"), shots=(0, 100_000),
                          sets=None)),
        device(GARNET, "Garnet", "IQM",
               properties("iqm.iqm_device_capabilities", qubits=20, price=(0.00145, "shot"),
                          shots=(1, 20_000), sets=SETS)),
        device(FORTE, "Forte 1", "IonQ",
               properties("ionq.ionq_device_capabilities", qubits=36, price=(0.08, "shot"),
                          shots=(1, 5_000), sets={**SETS, "minimumTotalShots": 500})),
        device(CEPHEUS, "Cepheus-1-108Q", "Rigetti",
               properties("rigetti.rigetti_device_capabilities", qubits=108,
                          price=(0.000425, "shot"), shots=(10, 50_000), sets=SETS)),
        device(ANKAA, "Ankaa-3", "Rigetti",
               properties("rigetti.rigetti_device_capabilities", qubits=82, price=(0.0009, "shot"),
                          shots=(10, 50_000), sets=SETS)) | {"deviceStatus": "RETIRED"},
        device(AQUILA, "Aquila", "QuEra", aquila),
        device(NOVEL, "Novel 7", "Startup",
               properties("iqm.iqm_device_capabilities", qubits=7, price=(0.001, "shot"),
                          shots=(1, 1_000), sets=SETS)),
    ]  # fmt: skip
    return {d["deviceArn"]: copy.deepcopy(d) for d in found}


def region_of(arn: str) -> str:
    return arn.split(":")[3]


def as_answer(found: dict[str, Any]) -> dict[str, Any]:
    """GetDevice's form: the capabilities are a JSON string."""
    return found | {"deviceCapabilities": json.dumps(found["deviceCapabilities"])}


def as_summary(found: dict[str, Any]) -> dict[str, Any]:
    keys = ("deviceArn", "deviceName", "providerName", "deviceType", "deviceStatus")
    return {key: found[key] for key in keys}
