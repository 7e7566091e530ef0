"""Listing commands: records for scripts, tables for people, light enough for a shell prompt."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

from qsgd_core.cli import main
from qsgd_core.cli.commands import doctor, listing
from qsgd_core.errors import PluginLoadError
from qsgd_core.hookspecs import hookimpl
from qsgd_core.plugins.loading import load_plugins
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import load_settings
from qsgd_core.specs import BackendSpec

ROOT = Path(__file__).parents[2]
COMMON = {"name", "provider", "version", "summary", "status", "error"}


def run_json(capsys, *arguments: str):
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


class Vendor:
    @hookimpl
    def qsgd_register_backends(self):
        return [
            BackendSpec(
                prefix="vendor",
                kind="backend",
                factory="vendor.backend:V",
                patterns=("vendor_*",),
                devices=("big",),
                summary="Slow [and dear]",
                paid=True,
                examples=("vendor_one",),
            )
        ]


class Broken:
    @hookimpl
    def qsgd_register_backends(self):
        raise OSError("disk [on] fire")


@pytest.fixture
def with_vendors(monkeypatch):
    """One plugin that works and one that does not."""
    settings = load_settings(load_plugins=())
    extra = [("qsgd-vendor", "1.5", Vendor()), ("qsgd-broken", "0.1", Broken())]
    registry = Registry(settings, load_plugins(settings, extra=extra))
    for module in (listing, doctor):
        monkeypatch.setattr(module, "default_registry", lambda: registry)


@pytest.mark.parametrize("command", ["backends", "perturbations", "plugins"])
def test_every_record_has_the_keys_of_the_contract(capsys, with_vendors, command):
    records = run_json(capsys, command)
    assert all(set(record) >= COMMON for record in records)
    assert len({frozenset(record) for record in records}) == 1
    assert "qsgd-core" in {record["provider"] for record in records}


def test_backends_say_what_may_be_typed_and_what_costs_money(capsys, with_vendors):
    records = {record["name"]: record for record in run_json(capsys, "backends")}
    assert records["exact"]["names"] == ["exact"]
    assert (records["exact"]["kind"], records["exact"]["paid"]) == ("simulator", False)
    assert (records["vendor"]["kind"], records["vendor"]["paid"]) == ("backend", True)
    assert records["vendor"]["patterns"] == ["vendor_*"]
    assert records["vendor"]["devices"] == ["vendor:big"]
    assert records["vendor"]["examples"] == ["vendor_one"]


@pytest.mark.parametrize("command", ["backends", "perturbations", "plugins"])
def test_a_failed_plugin_is_listed_with_its_cause(capsys, with_vendors, command):
    records = {record["name"]: record for record in run_json(capsys, command)}
    assert records["qsgd-broken"]["status"] == "failed"
    assert "OSError: disk [on] fire" in records["qsgd-broken"]["error"]
    assert main([command]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "qsgd-broken" in text
    assert "[on]" in text  # brackets are text, not markup


def test_plugins_say_what_they_provide(capsys, with_vendors):
    records = {record["name"]: record for record in run_json(capsys, "plugins")}
    assert records["qsgd-vendor"]["provides"] == {"backends": ["vendor"]}
    assert records["qsgd-vendor"]["version"] == "1.5"
    core = records["qsgd-core"]["provides"]
    assert core["backends"] == ["exact", "sampled"]
    assert core["perturbations"] == ["sine", "circuit"]
    assert {"train", "plugins", "doctor"} <= set(core["commands"])


def test_perturbations_say_whether_a_backend_is_used(capsys):
    records = {record["name"]: record for record in run_json(capsys, "perturbations")}
    assert records["sine"]["uses_backend"]
    assert records["circuit"]["uses_backend"]


LIGHT = """
import sys
from qsgd_core.cli import main
code = main(["plugins", "--json"])
heavy = {"torch", "numpy", "scipy", "sklearn", "matplotlib", "qiskit", "rich", "sqlalchemy"}
heavy &= set(sys.modules)
print(code, sorted(heavy), file=sys.stderr)
"""


def test_plugins_json_imports_neither_torch_nor_an_sdk():
    """What keeps it under half a second of CPU: ``benchmarks/listing.py`` has the figure."""
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.stderr.splitlines()[-1] == "0 []"


def test_doctor_reports_and_exits_with_0_when_all_is_well(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "")
    facts = run_json(capsys, "doctor")
    assert facts["problems"] == []
    assert facts["torch"].startswith("2.")
    assert facts["folders"]["QSGD_HOME"] == {"path": str(tmp_path / "state"), "writable": True}
    assert not (tmp_path / "state").exists()
    assert main(["doctor"]) == 0
    assert "No problem found." in capsys.readouterr().out


def test_doctor_says_which_credentials_are_there_and_never_shows_one(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "s3cr3t-token")
    monkeypatch.setenv("AWS_PROFILE", "s3cr3t-profile")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.delenv("QISKIT_IBM_INSTANCE", raising=False)
    (tmp_path / ".qiskit").mkdir()
    (tmp_path / ".qiskit" / "qiskit-ibm.json").write_text('{"token": "s3cr3t-saved"}')
    main(["doctor", "--json"])
    text = capsys.readouterr().out
    assert json.loads(text)["credentials"] == {
        "QISKIT_IBM_TOKEN": True,
        "QISKIT_IBM_INSTANCE": False,
        "AWS_ACCESS_KEY_ID": False,
        "AWS_PROFILE": True,
        "~/.qiskit/qiskit-ibm.json": True,
        "~/.aws/credentials": False,
    }
    main(["doctor"])
    assert "s3cr3t" not in text + capsys.readouterr().out


def test_doctor_exits_with_1_and_names_what_is_wrong(capsys, monkeypatch, tmp_path, with_vendors):
    (tmp_path / "file").write_text("in the way")
    facts = doctor.examine()
    assert [p for p in facts["problems"] if "qsgd-broken failed: " in p]
    settings = load_settings(home=tmp_path / "file" / "state", load_plugins=())
    registry = Registry(settings, load_plugins(settings))
    monkeypatch.setattr(doctor, "default_registry", lambda: registry)
    assert main(["doctor"]) == 1
    text = " ".join(capsys.readouterr().out.split())
    assert "Problem: QSGD_HOME=" in text
    assert "cannot be written" in text


def test_a_plugin_that_failed_does_not_stop_the_lists(capsys, with_vendors):
    failure = listing.default_registry().plugins.failures[0]
    assert not isinstance(failure.error, PluginLoadError)  # its hook failed, not its import
    assert main(["backends"]) == 0
    assert "exact" in capsys.readouterr().out
