from __future__ import annotations

from pathlib import Path

import pytest

from qsgd_core.errors import ConfigError
from qsgd_core.settings import Settings, load_settings


def test_an_empty_environment_means_the_exact_simulator_and_no_plugin_restrictions():
    settings = load_settings()
    assert settings.backend == "exact"
    assert settings.shots is None
    assert settings.load_plugins is None
    assert settings.disabled_plugins == ()
    assert not settings.strict_plugins
    assert settings.runs == Path("runs")


@pytest.mark.parametrize("field", ["prefer", "observers", "load_plugins", "disabled_plugins"])
def test_lists_are_comma_separated_with_blanks_and_empty_parts_dropped(field, monkeypatch):
    monkeypatch.setenv(f"QSGD_{field.upper()}", " qsgd-aer, qsgd-ibm ,,")
    assert getattr(load_settings(), field) == ("qsgd-aer", "qsgd-ibm")


def test_an_empty_allow_list_allows_nothing_and_an_unset_one_everything(monkeypatch):
    assert load_settings().load_plugins is None
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "")
    assert load_settings().load_plugins == ()


def test_a_blank_backend_means_the_default(monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND", "  ")
    assert load_settings().backend == "exact"


def test_backend_options_are_read_as_json(monkeypatch):
    monkeypatch.setenv("QSGD_BACKEND_OPTIONS", '{"method": "statevector", "threads": 2}')
    assert load_settings().backend_options == {"method": "statevector", "threads": 2}


def test_policy_and_wait_come_from_the_environment(monkeypatch):
    assert (load_settings().policy, load_settings().wait) == ("tracked", "first")
    monkeypatch.setenv("QSGD_POLICY", "sync")
    monkeypatch.setenv("QSGD_WAIT", "never")
    assert (load_settings().policy, load_settings().wait) == ("sync", "never")


def test_a_tilde_in_a_folder_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("QSGD_HOME", "~/state")
    monkeypatch.setenv("QSGD_RUNS", "~/runs")
    settings = load_settings()
    assert (settings.home, settings.runs) == (Path("/somewhere/state"), Path("/somewhere/runs"))


def test_an_argument_wins_over_the_environment(monkeypatch):
    monkeypatch.setenv("QSGD_SHOTS", "100")
    assert load_settings().shots == 100
    assert load_settings(shots=7).shots == 7


@pytest.mark.parametrize(
    "name, value",
    [
        ("QSGD_SHOTS", "0"),
        ("QSGD_SHOTS", "-1"),
        ("QSGD_SHOTS", "many"),
        ("QSGD_STRICT_PLUGINS", "maybe"),
        ("QSGD_BACKEND_OPTIONS", "[1]"),
        ("QSGD_BACKEND_OPTIONS", "{not json"),
        ("QSGD_WAIT", "sometimes"),
    ],
)
def test_a_value_that_cannot_be_read_is_a_config_error_that_names_the_variable(
    name, value, monkeypatch
):
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name) as caught:
        load_settings()
    assert caught.value.exit_code == 2
    assert caught.value.__cause__ is not None


def test_settings_cannot_be_changed_after_they_were_read():
    with pytest.raises(ValueError, match="frozen"):
        load_settings().shots = 3


def test_every_setting_says_what_it_is_for():
    assert all(field.description for field in Settings.model_fields.values())
