"""What the devices of the AWS double measure: Braket's own local simulator, seeded.

The result documents are built here in the service's schemas, which reads them back to be sure.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from braket.default_simulator import StateVectorSimulator
from braket.ir.openqasm import Program
from braket.schema_common import BraketSchemaBase


def run(
    action: dict[str, Any], *, shots: int, seed: int, failures: int, task: str, device: str
) -> str:
    """results.json of a task.

    Args:
        action: a program or program set.
        shots: of the whole task.
        seed: for the bits.
        failures: executables, from the first, that fail.
        task: its ARN.
        device: its ARN.
    """
    rng = np.random.default_rng(seed)
    if "programs" in action:
        text = _program_set(action, shots, rng, failures, task, device)
    else:
        text = _program(action, shots, rng, task, device)
    BraketSchemaBase.parse_raw_schema(text)
    return text


def _program(
    action: dict[str, Any], shots: int, rng: np.random.Generator, task: str, device: str
) -> str:
    bits = _measure(action["source"], action.get("inputs"), shots, rng)
    return json.dumps(
        {
            "braketSchemaHeader": _header("gate_model_task_result"),
            "measurements": bits.tolist(),
            "measuredQubits": list(range(bits.shape[1])),
            "resultTypes": [],
            "taskMetadata": {
                "braketSchemaHeader": _header("task_metadata"),
                "id": task,
                "shots": shots,
                "deviceId": device,
            },
            "additionalMetadata": {
                "action": action,
                "simulatorMetadata": {
                    "braketSchemaHeader": _header("simulator_metadata"),
                    "executionDuration": 12,
                },
            },
        }
    )


def _program_set(
    action: dict[str, Any],
    shots: int,
    rng: np.random.Generator,
    failures: int,
    task: str,
    device: str,
) -> str:
    rows = [_rows(p) for p in action["programs"]]
    each = shots // sum(len(r) for r in rows)
    results, metadata, left = [], [], failures
    for program, inputs in zip(action["programs"], rows, strict=True):
        entries: list[dict[str, Any]] = []
        for index, row in enumerate(inputs):
            if left:
                left -= 1
                entries.append(_failure(index))
            else:
                entries.append(_success(index, _measure(program["source"], row, each, rng)))
        # The service promises no order; each entry says which input it belongs to.
        order = rng.permutation(len(entries))
        results.append(
            {
                "braketSchemaHeader": _header("program_result"),
                "executableResults": [entries[i] for i in order],
                "source": program,
                "additionalMetadata": {},
            }
        )
        metadata.append({"executables": [e.get("failureMetadata", {}) for e in entries]})
    return json.dumps(
        {
            "braketSchemaHeader": _header("program_set_task_result"),
            "programResults": results,
            "taskMetadata": {
                "braketSchemaHeader": _header("program_set_task_metadata"),
                "id": task,
                "deviceId": device,
                "requestedShots": shots,
                "successfulShots": shots - each * failures,
                "programMetadata": metadata,
                "totalFailedExecutables": failures,
            },
        }
    )


def _success(index: int, bits: np.ndarray) -> dict[str, Any]:
    return {
        "braketSchemaHeader": _header("program_set_executable_result"),
        "inputsIndex": index,
        "measurements": bits.tolist(),
        "measuredQubits": list(range(bits.shape[1])),
    }


def _failure(index: int) -> dict[str, Any]:
    return {
        "braketSchemaHeader": _header("program_set_executable_failure"),
        "inputsIndex": index,
        "failureMetadata": {
            "failureReason": "The pulse was lost.",
            "retryable": True,
            "category": "DEVICE",
        },
    }


def _rows(program: dict[str, Any]) -> list[dict[str, float] | None]:
    inputs = program.get("inputs")
    if not inputs:
        return [None]
    return [dict(zip(inputs, values, strict=True)) for values in zip(*inputs.values(), strict=True)]


def _measure(
    source: str, inputs: dict[str, float] | None, shots: int, rng: np.random.Generator
) -> np.ndarray:
    """Bits of one circuit: its probabilities by the local simulator, drawn once per shot."""
    kept = [line for line in source.split("\n") if "measure" not in line and "bit[" not in line[:4]]
    text = "\n".join([*kept, "#pragma braket result probability all"])
    result = StateVectorSimulator().run(Program(source=text, inputs=inputs), shots=0)
    probabilities = np.asarray(result.resultTypes[0].value)
    n = len(probabilities).bit_length() - 1
    states = rng.choice(len(probabilities), size=shots, p=probabilities / probabilities.sum())
    return (states[:, None] >> np.arange(n)[::-1]) & 1


def _header(name: str) -> dict[str, str]:
    return {"name": f"braket.task_result.{name}", "version": "1"}
