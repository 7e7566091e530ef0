"""The contracts of pyproject.toml notice what they forbid, and a listing stays light."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import qsgd_core

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = [contract["name"] for contract in PROJECT["tool"]["importlinter"]["contracts"]]
PACKAGES = {
    root: next(ROOT.glob(f"**/{root}/__init__.py")).parent
    for root in PROJECT["tool"]["importlinter"]["root_packages"]
}
LINTER = "from importlinter.cli import lint_imports_command; lint_imports_command()"

# A contract -> modules of ours, and what each imports below against that contract.
FORBIDDEN = {
    "Core: each layer imports only lower ones": [
        ("qsgd_core.errors", "qsgd_core.circuits"),
        ("qsgd_core.capabilities", "qsgd_core.settings"),
        ("qsgd_core.circuits", "qsgd_core.simulate.chain"),
        ("qsgd_core.measure.runner", "qsgd_core.optim.config"),
        ("qsgd_core.optim.config", "qsgd_core.training.config"),
        ("qsgd_core.optim.attach", "qsgd_core.builtin.perturbations"),
        ("qsgd_core.training.config", "qsgd_core.cli.app"),
    ],
    "Schedule: what both processes speak is below both, and neither sees the other": [
        ("qsgd_core.schedule.courier.desk", "qsgd_core.schedule.trainer.purse"),
        ("qsgd_core.schedule.packing.tiles", "qsgd_core.schedule.twin.models"),
    ],
    "Plugins: each layer imports only lower ones": [
        ("qsgd_core.plugins.checks", "qsgd_core.plugins.registry")
    ],
    "The training thread reaches no ledger, no record and no database": [
        ("qsgd_core.schedule.trainer.line", "qsgd_core.schedule.ledger.rows"),
        ("qsgd_core.schedule.trainer.ladder", "qsgd_core.schedule.courier.judge"),
        ("qsgd_core.schedule.trainer.purse", "sqlalchemy"),
    ],
    "What measures takes a backend, and never looks one up": [
        ("qsgd_core.measure.counts", "qsgd_core.plugins.registry"),
        ("qsgd_core.schedule.money", "qsgd_core.plugins.loading"),
    ],
    "Simulators know circuits; a new project's files know errors": [
        ("qsgd_core.simulate.noise", "qsgd_core.backend")
    ],
    "Arithmetic has no clock, disk, process or network": [
        ("qsgd_core.schedule.packing.turns", "time"),
        ("qsgd_core.schedule.twin.kalman", "os"),
    ],
    "The children that import an SDK train nothing": [
        ("qsgd_core.children.survey", "qsgd_core.measure.paid")
    ],
    "The conformance kit needs no scheduler and no optimizer": [
        ("qsgd_core.testing.probes", "qsgd_core.schedule.money")
    ],
    "Integrations drive the term and nothing below it": [
        ("qsgd_core.integrations.lightning", "qsgd_core.measure.counts")
    ],
    "A provider imports the core's root and nothing deeper": [
        ("qsgd_aer.options", "qsgd_core.plugins.options"),
        ("qsgd_core.builtin.digits", "qsgd_core.plugins.registry"),
    ],
    "Only the built-in simulators use the core's simulation": [
        ("qsgd_lab.markov", "qsgd_core.simulate.chain")
    ],
    "No provider imports another": [("qsgd_controls.matching", "qsgd_lab.models")],
    "Names come from their own modules; `from qsgd_core import ...` is for users": [
        ("qsgd_controls.controls", "qsgd_core"),
        ("qsgd_core.specs", "qsgd_core"),
    ],
    "A vendor's SDK is imported in its adapter alone": [("qsgd_example.vendor", "qiskit")],
}


def lint_imports(folder: Path, *arguments: str) -> tuple[int, str]:
    """Exit code of import-linter over packages in ``folder``, and what it printed on one line."""
    done = subprocess.run(
        [sys.executable, "-c", LINTER, "--no-cache", *arguments],
        cwd=folder,
        env={"PYTHONPATH": str(folder), "PATH": "/usr/bin:/bin", "COLUMNS": "400"},
        capture_output=True,
        text=True,
    )
    return done.returncode, " ".join(done.stdout.split())


@pytest.fixture(scope="module")
def copied(tmp_path_factory) -> Path:
    """The packages' sources beside a copy of pyproject.toml."""
    folder = tmp_path_factory.mktemp("sources")
    shutil.copy(ROOT / "pyproject.toml", folder)
    for root, package in PACKAGES.items():
        shutil.copytree(package, folder / root, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def test_every_import_of_the_project_keeps_the_contracts(copied):
    code, said = lint_imports(copied)
    assert code == 0, said
    assert f"{len(CONTRACTS)} kept, 0 broken" in said


def test_every_contract_notices_an_import_that_it_forbids(copied):
    assert list(FORBIDDEN) == CONTRACTS
    (copied / "qsgd_core" / "newcomer.py").write_text("")  # in no layer
    for arrows in FORBIDDEN.values():
        for module, target in arrows:
            path = copied / (module.replace(".", "/") + ".py")
            path.write_text(f"{path.read_text()}\n\ndef seeded():\n    import {target}\n")
    code, said = lint_imports(copied)
    assert code == 1
    assert f"0 kept, {len(CONTRACTS)} broken" in said
    details = {name: said.split(f" {name} ---")[1].split("-- ---")[0] for name in CONTRACTS}
    for name, arrows in FORBIDDEN.items():
        for module, target in arrows:
            assert f"{module} -> {target}" in details[name]
    assert "qsgd_core.newcomer" in said


@pytest.mark.parametrize(
    "path, line, rule",
    [
        ("qsgd_core/jobs.py", "import torch", "TID253"),
        ("qsgd_core/plugins/hints.py", "import numpy", "TID253"),
        ("qsgd_core/builtin/options.py", "from torch import nn", "TID253"),
        ("qsgd_core/cli/commands/new.py", "import numpy", "TID253"),
        ("adapters/aer/qsgd_aer/plugin.py", "import qiskit_aer", "TID253"),
        ("plugins/lab/qsgd_lab/plugin.py", "import torch", "TID253"),
        ("qsgd_core/optim/attach.py", "import os; os.environ['A']", "TID251"),
        ("adapters/braket/qsgd_braket/options.py", "import os; os.getenv('A')", "TID251"),
        ("plugins/lab/qsgd_lab/markov.py", "from os import environ", "TID251"),
    ],
)
def test_ruff_notices_an_import_that_is_too_heavy_and_a_read_of_the_environment(path, line, rule):
    assert (ROOT / path).is_file()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "ruff",
            "check",
            "--output-format=concise",
            "--stdin-filename",
            path,
        ],
        cwd=ROOT,
        input=f"{line}\n",
        capture_output=True,
        text=True,
    )
    assert f" {rule} " in done.stdout, done.stdout


def test_every_name_that_the_package_offers_is_there():
    for name in qsgd_core.__all__:
        assert getattr(qsgd_core, name) is not None


LISTING = """
import importlib, json, sys
import qsgd_core
import qsgd_core.plugins.loading
import qsgd_core.plugins.registry
import qsgd_core.settings
settings = qsgd_core.settings.load_settings(load_plugins=())
extra = [(name, "0", importlib.import_module(f"{name}.plugin")) for name in sys.argv[1:]]
plugins = qsgd_core.plugins.loading.load_plugins(settings, extra=extra)
registry = qsgd_core.plugins.registry.Registry(settings, plugins)
lists = [registry.backends(), registry.perturbations(), registry.tasks(), registry.observers()]
lists += [registry.policies(), registry.commands()]
registry.resolve_backend("exact")
print(json.dumps({
    "loaded": [record.name for record in plugins.records if record.status == "loaded"],
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


def test_listing_and_looking_up_import_neither_torch_nor_numpy_nor_an_sdk():
    names = [name for name in PACKAGES if name != "qsgd_core"]
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *names],
        env={
            "PYTHONPATH": ":".join(str(package.parent) for package in PACKAGES.values()),
            "PATH": "/usr/bin:/bin",
        },
        check=True,
        stdout=subprocess.PIPE,
    )
    said = json.loads(done.stdout)
    assert said["loaded"] == ["qsgd-core", *(name.replace("_", "-") for name in names)]
    heavy = set(
        PROJECT["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-module-level-imports"]
    )
    assert not heavy & set(said["modules"])
