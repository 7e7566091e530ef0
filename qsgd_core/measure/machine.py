"""What the bits of a computation depend on beside its inputs: where it runs."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qsgd_core.installed import version


def describe_machine() -> dict[str, Any]:
    """Versions, threads and processor, plain JSON values."""
    return {
        "qsgd-core": version("qsgd-core") or "a checkout that was never installed",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torch build": torch.version.git_version,
        "numpy": np.__version__,
        "threads": torch.get_num_threads(),
        "processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "processor model": _model(),
    }


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is not as it was: ``threads 4 then, 1 now``; of what was not noted then, nothing."""
    return [
        f"{name} {then.get(name)} then, {value} now"
        for name, value in now.items()
        if name in then and then[name] != value
    ]


def _model() -> str:
    """Vendor and model of the processor: libraries choose their kernels by it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:  # not Linux
        return platform.processor()
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.processor()
