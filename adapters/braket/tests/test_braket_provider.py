"""What the plugin registers, and that it stays light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import qsgd_braket.plugin
from qsgd_braket.options import DeviceOptions
from qsgd_core.errors import ConfigError
from qsgd_core.plugins.loading import load_plugins
from qsgd_core.plugins.registry import Registry
from qsgd_core.settings import load_settings


@pytest.fixture(scope="module")
def registry() -> Registry:
    settings = load_settings(load_plugins=())
    extra = [("qsgd-braket", "0", qsgd_braket.plugin)]
    return Registry(settings, load_plugins(settings, extra=extra))


@pytest.mark.parametrize("name", ["braket:local", "braket:dm"])
def test_the_local_names_are_free_simulators(registry, name):
    spec = registry.resolve_backend(name).spec
    assert (spec.kind, spec.paid) == ("simulator", False)


@pytest.mark.parametrize(
    "name",
    [
        "braket:sv1",
        "braket:dm1",
        "braket:garnet",
        "braket:cepheus-1-108q",
        "arn:aws:braket:eu-north-1::device/qpu/iqm/Garnet",
        "arn:aws:braket:::device/quantum-simulator/amazon/sv1",
    ],
)
def test_every_other_name_is_a_paid_backend(registry, name):
    spec = registry.resolve_backend(name).spec
    assert (spec.kind, spec.paid) == ("backend", True)
    assert registry.make_backend(name).capabilities.paid


def test_options_are_checked_before_anything_is_contacted(registry):
    with pytest.raises(ConfigError, match="price_per_shot"):
        registry.make_backend("braket:garnet", {"price_per_shot_usd": -1})
    with pytest.raises(ConfigError, match="s3_buckit"):
        registry.make_backend("braket:garnet", {"s3_buckit": "mine"})
    with pytest.raises(ConfigError, match=r"NoiseModel.to_dict"):
        registry.make_backend("braket:dm", {"noise_model": {"wrong": 1}})


def test_no_option_can_hold_a_credential():
    assert not [name for name in DeviceOptions.model_fields if "key" in name or "secret" in name]


def test_listing_and_making_options_import_no_sdk():
    code = (
        "import json, sys, qsgd_braket.plugin as p, qsgd_braket.options;"
        "p.qsgd_register_backends();"
        "print(json.dumps([m for m in ('braket', 'boto3', 'botocore', 'numpy', 'torch')"
        " if m in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE)
    assert json.loads(done.stdout) == []
