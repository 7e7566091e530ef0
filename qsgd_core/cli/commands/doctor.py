"""``qsgd doctor``: what is installed and within reach, and what is wrong. Never shows a secret."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import typer

from qsgd_core.cli.commands.listing import plugin_record
from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json, print_table
from qsgd_core.installed import damaged, version
from qsgd_core.plugins.registry import default_registry
from qsgd_core.settings import credentials_present

EXTRAS = {"scikit-learn": "demo", "matplotlib": "demo", "tensorboard": "tensorboard"}
"""Optional package -> the extra of qsgd-core that brings it."""


def doctor(as_json: Json = False, debug: Debug = False) -> None:
    """Check the installation; exits with 1 if something is wrong."""
    facts = examine()
    if as_json:
        print_json(facts)
    else:
        print_table(("what", "found"), _rows(facts))
        for note in facts["notes"]:
            typer.echo(f"Note: {note}")
        for problem in facts["problems"]:
            typer.echo(f"Problem: {problem}")
        if not facts["problems"]:
            typer.echo("No problem found.")
    if facts["problems"]:
        raise typer.Exit(1)


def examine() -> dict[str, Any]:
    """Everything that ``qsgd doctor`` knows, as JSON values."""
    import torch

    registry = default_registry()
    folders = {"QSGD_RUNS": registry.settings.runs}
    if registry.settings.home is not None:
        folders["QSGD_HOME"] = registry.settings.home
    writable = {name: _writable(path) for name, path in folders.items()}
    plugins = [plugin_record(record, registry) for record in registry.plugins.records]
    failed = {p["name"] for p in plugins if p["error"]}
    problems = [f"Plugin {p['name']} failed: {p['error']}" for p in plugins if p["error"]]
    problems += [
        f"{name}={folders[name]} cannot be written. Set {name} to a folder that can."
        for name, fine in writable.items()
        if not fine
    ]
    broken = damaged()
    problems += [d.problem for d in broken if d.points is not None and d.name not in failed]
    notes = [d.problem for d in broken if d.points is None]
    if registry.settings.home is None:
        problems.append("There is no home folder, and paid backends need one. Set QSGD_HOME.")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "qsgd_core": version("qsgd-core"),
        "torch": torch.__version__,
        "gpu": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "backend": registry.settings.backend,
        "extras": {name: version(name) for name in EXTRAS},
        "plugins": plugins,
        "credentials": credentials_present(),
        "folders": {
            name: {"path": str(path), "writable": writable[name]} for name, path in folders.items()
        },
        "notes": notes,
        "problems": problems,
    }


def _rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("python", f"{facts['python']} on {facts['platform']}"),
        ("qsgd-core", facts["qsgd_core"] or "not installed, running from a checkout"),
        ("torch", facts["torch"]),
        ("GPU", ", ".join(facts["gpu"]) or "none that torch can use"),
        ("backend (QSGD_BACKEND)", facts["backend"]),
    ]
    for name, found in facts["extras"].items():
        rows.append((name, found or f"not installed: pip install 'qsgd-core[{EXTRAS[name]}]'"))
    for plugin in facts["plugins"]:
        rows.append((f"plugin {plugin['name']}", f"{plugin['version']} {plugin['status']}"))
    for name, present in facts["credentials"].items():
        rows.append((name, "present" if present else "not set"))
    for name, folder in facts["folders"].items():
        state = "writable" if folder["writable"] else "NOT writable"
        rows.append((name, f"{folder['path']} ({state})"))
    return rows


def _writable(path: Path) -> bool:
    """Whether ``path`` is a folder that can be written, or could be made one. Makes nothing."""
    existing = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
