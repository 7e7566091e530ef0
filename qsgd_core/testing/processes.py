"""Second processes: one that lists a plugin, one that collects a job. Both see this one's path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from qsgd_core.jobs import JobHandle

TIMEOUT_S = 300.0

_START = """
import json, sys
asked = json.loads(sys.stdin.read())
sys.path[:0] = asked["path"]
"""

_LIST = """
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import load_settings
def listed(*distributions):
    settings = load_settings(
        load_plugins=distributions, disabled_plugins=(), strict_plugins=False
    )
    registry = Registry(settings)
    registry.backends(), registry.perturbations()
    return registry
listed()
before = set(sys.modules)
listed(asked["distribution"])
print(json.dumps({"new": sorted(set(sys.modules) - before), "all": sorted(sys.modules)}))
"""

_COLLECT = """
import hashlib
from qsgd_core.jobs import JobHandle
from qsgd_core.plugins.registry import default_registry
backend = default_registry().make_backend(asked["name"], asked["options"])
result = backend.fetch(JobHandle.from_json(asked["handle"]))
print(json.dumps([hashlib.sha256(part.values.tobytes()).hexdigest() for part in result.parts]))
"""


def heavy_imports(distribution: str, package: str) -> list[str]:
    """Top-level modules that listing the plugin imports and should not.

    Args:
        distribution: the plugin, alone.
        package: its own top-level package, which it may import.
    """
    found = _run(_LIST, {"distribution": distribution})
    new = {name.partition(".")[0] for name in found["new"]}
    heavy = {name for name in ("torch", "numpy") if name in found["all"]}
    return sorted(new - sys.stdlib_module_names - {package, "qsgd_core"} | heavy)


def collect_elsewhere(name: str, options: Mapping[str, Any], handle: JobHandle) -> list[str]:
    """SHA-256 of each part of a job's result, fetched by another process by the backend's name."""
    digests: list[str] = _run(
        _COLLECT, {"name": name, "options": dict(options), "handle": handle.to_json()}
    )
    return digests


def _run(script: str, asked: dict[str, Any]) -> Any:
    done = subprocess.run(  # noqa: S603  (this interpreter, a script of this file)
        [sys.executable, "-P", "-c", _START + script],
        input=json.dumps({**asked, "path": sys.path}),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, f"a second process failed: {done.stderr.strip()[-1500:]}"
    return json.loads(done.stdout.splitlines()[-1])
