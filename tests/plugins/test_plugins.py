"""Plugins are isolated: real little packages, installed by pip, and providers in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from patience import PATIENCE_S

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import (
    AmbiguousBackendError,
    ConfigError,
    DuplicateNameError,
    PluginApiError,
    PluginError,
    PluginHookError,
    PluginLoadError,
    UnknownBackendError,
)
from qsgd_core.hookspecs import PerturbationProvider, hookimpl
from qsgd_core.plugins.loading import CORE, load_plugins
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_core.settings import Settings
from qsgd_core.specs import BackendSpec, PerturbationSpec, TaskSpec

pytestmark = pytest.mark.usefixtures("own_plugins_not_installed")

ROOT = Path(__file__).parents[2]
PACKAGES = sorted((Path(__file__).parents[1] / "packages").iterdir())
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
INSTALL = ["install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
OURS = ",".join(f"qsgd-{package.name}" for package in PACKAGES)
BAD = {
    "qsgd-broken": (PluginLoadError, "ModuleNotFoundError: No module named 'an_sdk_nobody_has'"),
    "qsgd-newarg": (PluginApiError, "account"),
    "qsgd-quits": (PluginLoadError, "SystemExit: 0"),
    "qsgd-thief": (PluginHookError, "claims 'exact'"),
    "qsgd-toonew": (PluginApiError, "needs hook API 99, and this qsgd-core has 1"),
}


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed every package of tests/packages."""
    target = tmp_path_factory.mktemp("site")
    subprocess.run([*PIP, *INSTALL, "--target", target, *PACKAGES], check=True, timeout=PATIENCE_S)
    return target


@pytest.fixture
def installed(site, monkeypatch) -> None:
    """All of tests/packages importable here, and no other third-party plugin in the way."""
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", OURS)
    yield
    ours = {f"qsgd_{package.name}" for package in PACKAGES}
    for name in [name for name in sys.modules if name.partition(".")[0] in ours]:
        del sys.modules[name]


def provider(name: str = "fake", **attributes: object) -> ModuleType:
    """A plugin module in memory."""
    module = ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    return module


def empty(**marks: bool):
    """A marked hook that registers nothing."""

    def hook():
        return []

    return hookimpl(**marks)(hook)


def serving(*specs: BackendSpec) -> ModuleType:
    return provider(qsgd_register_backends=hookimpl(lambda: list(specs)))


def simulator(prefix: str, *names: str, **fields: object) -> BackendSpec:
    return BackendSpec(prefix=prefix, kind="simulator", factory="m:F", names=names, **fields)


def load(*extra: tuple[str, str, object], **settings: object):
    return load_plugins(Settings(load_plugins=(), **settings), extra=extra)


def third_parties(plugins):
    return [record for record in plugins.records if record.name != CORE]


def one_failure(obj: object) -> PluginError:
    (failure,) = load(("qsgd-x", "1", obj)).failures
    assert failure.record.status == "failed"
    assert failure.record.error == str(failure.error)
    return failure.error


# --- installed by pip ----------------------------------------------------------------------------


def test_every_bad_package_fails_alone_with_its_real_cause_and_the_others_load(installed):
    plugins = default_registry().plugins
    status = {r.name: r.status for r in third_parties(plugins)}
    assert status == {
        **dict.fromkeys(BAD, "failed"),
        **dict.fromkeys(["qsgd-clash", "qsgd-good", "qsgd-pickpocket"], "loaded"),
    }
    for failure in plugins.failures:
        kind, cause = BAD[failure.record.name]
        assert type(failure.error) is kind
        assert cause in failure.record.error


def test_with_every_bad_package_installed_exact_still_computes_what_it_always_did(installed):
    assert default_registry().resolve_backend("exact").distribution == CORE
    exact = default_registry().make_backend("exact")
    work = Workload((CircuitBatch(ansatz(2, 1, "none"), np.array([[0.3, -0.7]]), ((0,), (1,))),))
    (z,) = exact.run(work, shots=None, seed=0).expectations(work)
    np.testing.assert_allclose(z, [[-np.sin(0.3), np.sin(0.7)]], atol=1e-12)


@pytest.mark.parametrize("distribution", BAD)
def test_a_bad_package_is_reported_with_its_cause_when_it_is_named(distribution, installed):
    kind, cause = BAD[distribution]
    with pytest.raises(kind) as caught:
        default_registry().resolve_backend(distribution.removeprefix("qsgd-"))
    assert cause in str(caught.value)
    assert f"QSGD_DISABLED_PLUGINS={distribution}" in str(caught.value)
    assert "qsgd plugins" in str(caught.value)
    assert caught.value.__cause__ is not None


def test_the_import_error_of_a_broken_package_is_chained(installed):
    with pytest.raises(PluginLoadError) as caught:
        default_registry().make_backend("broken:device")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.__cause__.name == "an_sdk_nobody_has"


def test_what_a_thief_declared_beside_the_stolen_name_is_answered_with_the_reason(installed):
    with pytest.raises(PluginHookError, match="'exact' belongs to qsgd-core"):
        default_registry().resolve_backend("loot")


def test_strict_mode_raises_and_names_every_failure(installed, monkeypatch):
    monkeypatch.setenv("QSGD_STRICT_PLUGINS", "1")
    with pytest.raises(PluginLoadError) as caught:
        default_registry()
    assert all(name in str(caught.value) for name in BAD)
    assert f"QSGD_DISABLED_PLUGINS={','.join(sorted(BAD))}" in str(caught.value)
    assert isinstance(caught.value.__cause__.__cause__, ModuleNotFoundError)


def test_strict_mode_is_content_once_the_failures_are_disabled(installed, monkeypatch):
    monkeypatch.setenv("QSGD_STRICT_PLUGINS", "1")
    monkeypatch.setenv("QSGD_DISABLED_PLUGINS", ",".join(BAD))
    assert {r.name for r in default_registry().plugins.records if r.status == "disabled"} == set(
        BAD
    )


def test_two_distributions_with_one_entry_point_name_both_load(installed):
    loaded = [r for r in default_registry().plugins.records if r.entry_point == "good"]
    assert [(r.name, r.version, r.status) for r in loaded] == [
        ("qsgd-clash", "0.1", "loaded"),
        ("qsgd-good", "1.2.3", "loaded"),
    ]


def test_a_name_of_two_distributions_is_ambiguous_until_one_is_preferred(installed, monkeypatch):
    with pytest.raises(AmbiguousBackendError, match="qsgd-clash and qsgd-good"):
        default_registry().resolve_backend("goodsim")
    with pytest.raises(DuplicateNameError, match="qsgd-clash and qsgd-good"):
        default_registry().make_perturbation("wave", depth=1)
    monkeypatch.setenv("QSGD_PREFER", "QSGD_Good")
    assert default_registry().resolve_backend("goodsim").distribution == "qsgd-good"
    assert default_registry().make_perturbation("wave", depth=3).depth == 3


def test_an_exact_name_does_not_take_over_what_another_distribution_serves_by_pattern(installed):
    with pytest.raises(AmbiguousBackendError, match="qsgd-clash and qsgd-good"):
        default_registry().resolve_backend("good_7")
    assert default_registry().resolve_backend("good_8").distribution == "qsgd-good"


def test_a_stolen_prefix_is_an_error_for_whoever_uses_it_and_for_nobody_else(
    installed, monkeypatch
):
    with pytest.raises(DuplicateNameError, match="qsgd-good and qsgd-pickpocket"):
        default_registry().resolve_backend("good:small")
    assert default_registry().resolve_backend("good_8").distribution == "qsgd-good"
    monkeypatch.setenv("QSGD_PREFER", "qsgd-good")
    assert default_registry().resolve_backend("good:small").distribution == "qsgd-good"
    monkeypatch.setenv("QSGD_DISABLED_PLUGINS", "qsgd-pickpocket")
    monkeypatch.delenv("QSGD_PREFER")
    assert default_registry().make_backend("good:small").name == "good:small"


def test_a_factory_whose_sdk_is_missing_says_what_to_install(installed):
    with pytest.raises(PluginLoadError) as caught:
        default_registry().make_backend("goodsdk")
    assert "No module named 'an_sdk_nobody_has'" in str(caught.value)
    assert "pip install --upgrade qsgd-good" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_disabled_package_is_not_imported_and_its_names_say_so(installed, monkeypatch):
    monkeypatch.setenv("QSGD_DISABLED_PLUGINS", "Qsgd.Good, qsgd-clash, qsgd-pickpocket")
    with pytest.raises(UnknownBackendError, match="turned off by QSGD_DISABLED_PLUGINS"):
        default_registry().resolve_backend("good:small")
    assert "qsgd_good.plugin" not in sys.modules
    assert "qsgd_quits" in sys.modules


def test_only_packages_on_the_allow_list_are_imported(installed, monkeypatch):
    monkeypatch.setenv("QSGD_LOAD_PLUGINS", "qsgd_good")
    status = {r.name: r.status for r in third_parties(default_registry().plugins)}
    assert status.pop("qsgd-good") == "loaded"
    assert set(status.values()) == {"not allowed"}
    assert "qsgd_quits" not in sys.modules
    with pytest.raises(UnknownBackendError, match="not in QSGD_LOAD_PLUGINS"):
        default_registry().resolve_backend("broken")


def test_records_are_sorted_by_distribution_after_the_core(installed):
    names = [r.name for r in default_registry().plugins.records]
    assert names[0] == CORE
    assert names[1:] == sorted(names[1:])


def test_a_real_environment_meets_a_package_when_installed_and_forgets_it_when_removed(tmp_path):
    venv.create(tmp_path / "env", with_pip=False)
    python = tmp_path / "env" / "bin" / "python"
    (purelib,) = (tmp_path / "env" / "lib").glob("python*/site-packages")
    paths = [sysconfig.get_path("purelib"), str(ROOT)]
    (purelib / "shared.pth").write_text("\n".join(paths) + "\n")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", python]
    broken = next(p for p in PACKAGES if p.name == "broken")
    script = (
        "import json\n"
        "from qsgd_core.plugins.registry import default_registry\n"
        "registry = default_registry()\n"
        "said = {'exact': registry.resolve_backend('exact').distribution}\n"
        "try:\n"
        "    registry.resolve_backend('broken')\n"
        "except Exception as error:\n"
        "    said['broken'] = type(error).__name__\n"
        "print(json.dumps(said))\n"
    )

    def ask() -> dict[str, str]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
        done = subprocess.run(
            [python, "-c", script], env=env, check=True, timeout=PATIENCE_S, stdout=subprocess.PIPE
        )
        return json.loads(done.stdout)

    assert ask() == {"exact": CORE, "broken": "UnknownBackendError"}
    subprocess.run([*pip, *INSTALL, broken], check=True, timeout=PATIENCE_S)
    assert ask() == {"exact": CORE, "broken": "PluginLoadError"}
    subprocess.run(
        [*pip, "uninstall", "--quiet", "--yes", "qsgd-broken"], check=True, timeout=PATIENCE_S
    )
    assert ask() == {"exact": CORE, "broken": "UnknownBackendError"}


# --- the built-in provider -----------------------------------------------------------------------


def test_the_core_registers_through_the_same_hooks_and_comes_first():
    plugins = load()
    assert plugins.records[0].name == CORE
    assert plugins.records[0].status == "loaded"
    assert "qsgd_register_backends" in plugins.records[0].hooks
    names = [n for r in plugins.collect(BackendSpec) for n in r.spec.names]
    assert "exact" in names


@pytest.mark.parametrize("spelling", ["qsgd-core", "QSGD_Core"])
def test_the_core_cannot_be_disabled(spelling):
    with pytest.raises(ConfigError, match="Take qsgd-core off the list"):
        load(disabled_plugins=(spelling,))


def test_an_allow_list_without_the_core_does_not_shut_it_out():
    assert [r.name for r in load().records if r.status == "loaded"] == [CORE]


def test_a_stranger_cannot_register_as_the_core():
    (failure,) = load((CORE, "9", serving(simulator("mine", "mine")))).failures
    assert isinstance(failure.error, PluginApiError)


CLAIMS = {
    "the name": simulator("mine", "exact"),
    "the prefix": simulator("exact", devices=("fast",)),
    "a name under the prefix": simulator("mine", "exact:fast"),
    "a pattern over it": simulator("mine", patterns=("ex*",)),
    "a pattern over everything": simulator("mine", patterns=("*",)),
}


@pytest.mark.parametrize("claim", CLAIMS.values(), ids=CLAIMS)
def test_installing_a_plugin_never_changes_what_exact_means(claim):
    before = Registry(Settings(load_plugins=()), load()).resolve_backend("exact")
    plugins = load(("qsgd-x", "1", serving(claim)), prefer=("qsgd-x",))
    after = Registry(Settings(load_plugins=(), prefer=("qsgd-x",)), plugins)
    assert after.resolve_backend("exact") == before
    (failure,) = plugins.failures
    assert isinstance(failure.error, PluginHookError)
    assert "belongs to qsgd-core" in str(failure.error)


def test_a_builtin_perturbation_and_task_cannot_be_replaced_either():
    for hook, spec in [
        ("qsgd_register_perturbations", PerturbationSpec(name="sine", factory="m:F")),
        ("qsgd_register_tasks", TaskSpec(name="digits", factory="m:F")),
    ]:
        plugins = load(("qsgd-x", "1", provider(**{hook: hookimpl(lambda s=spec: [s])})))
        assert "belongs to qsgd-core" in plugins.failures[0].record.error
        (kept,) = [r for r in plugins.collect(type(spec)) if r.spec.name == spec.name]
        assert kept.distribution == CORE


def test_a_name_of_another_kind_is_no_claim_on_the_cores_name():
    spec = TaskSpec(name="exact", factory="m:F")
    plugins = load(("qsgd-x", "1", provider(qsgd_register_tasks=hookimpl(lambda: [spec]))))
    assert plugins.failures == []


# --- hooks that go wrong -------------------------------------------------------------------------


def test_a_misspelt_hook_is_found():
    plugin = provider(qsgd_register_backend=empty())
    error = one_failure(plugin)
    assert isinstance(error, PluginApiError)
    assert "Did you mean qsgd_register_backends?" in str(error)


def test_a_misspelt_hook_of_one_plugin_is_not_held_against_another():
    misspelt = provider(qsgd_register_backend=empty())
    plugins = load(("qsgd-a", "1", misspelt), ("qsgd-b", "1", serving(simulator("b", "b"))))
    assert [(r.name, r.status) for r in third_parties(plugins)] == [
        ("qsgd-a", "failed"),
        ("qsgd-b", "loaded"),
    ]


def test_an_unknown_hook_marked_optional_is_for_a_later_core_and_no_error():
    plugin = provider(qsgd_register_schedules=empty(optionalhook=True))
    assert load(("qsgd-x", "1", plugin)).failures == []


def test_a_hook_without_its_mark_is_found():
    error = one_failure(provider(qsgd_register_backends=lambda settings: []))
    assert isinstance(error, PluginApiError)
    assert "Put @hookimpl above it" in str(error)


def test_a_provider_may_derive_from_the_specification_and_implement_part_of_it():
    class Mine(PerturbationProvider):
        @hookimpl
        def qsgd_register_backends(self):
            yield simulator("mine", "mine")

    plugins = load(("qsgd-x", "1", Mine()))
    assert third_parties(plugins)[0].hooks == ("qsgd_register_backends",)


def test_a_class_in_place_of_an_instance_is_refused():
    class Mine:
        @hookimpl
        def qsgd_register_backends(self):
            return []

    assert "provider = Mine()" in str(one_failure(Mine))


@pytest.mark.parametrize("stated", ["1", None, 2])
def test_a_hook_api_that_is_newer_or_no_number_is_refused(stated):
    error = one_failure(provider(QSGD_HOOK_API=stated))
    assert isinstance(error, PluginApiError)


def test_a_hook_that_raises_takes_its_whole_plugin_out_and_no_other():
    @hookimpl
    def qsgd_register_tasks():
        yield TaskSpec(name="half", factory="m:F")
        raise RuntimeError("boom")

    plugin = serving(simulator("x", "x"))
    plugin.qsgd_register_tasks = qsgd_register_tasks
    plugins = load(("qsgd-x", "1", plugin), ("qsgd-y", "1", serving(simulator("y", "y"))))
    (failure,) = plugins.failures
    assert isinstance(failure.error, PluginHookError)
    assert "qsgd_register_tasks" in failure.record.error
    assert "RuntimeError: boom" in failure.record.error
    assert "qsgd-x" not in {r.distribution for r in plugins.collect(BackendSpec)}
    with pytest.raises(PluginHookError, match="boom") as caught:
        Registry(Settings(), plugins).make_task("half")
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert Registry(Settings(), plugins).resolve_backend("y").distribution == "qsgd-y"


def test_a_keyboard_interrupt_is_the_users_and_not_the_plugins():
    @hookimpl
    def qsgd_register_tasks():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load(("qsgd-x", "1", provider(qsgd_register_tasks=qsgd_register_tasks)))


WRONG = {
    "another spec": (TaskSpec(name="t", factory="m:F"), "expected BackendSpec"),
    "a string": ("aer", "expected BackendSpec, found 'aer'"),
    "names that are a string": (simulator("x", "x", patterns="x*"), "BackendSpec.patterns='x*'"),
    "an unknown kind": (BackendSpec("x", "cloud", "m:F", ("x",)), "BackendSpec.kind='cloud'"),
    "a factory without a colon": (BackendSpec("x", "backend", "m.F", ("x",)), "'m.F'"),
    "options without a colon": (simulator("x", "x", options="Options"), "'Options'"),
    "a blank in a name": (simulator("x", "my sim"), "'my sim'"),
    "an empty name": (simulator("x", ""), "''"),
    "a colon in the prefix": (simulator("x:y", "x"), "'x:y'"),
    "nothing served": (simulator("x"), "no names, patterns or devices"),
}


@pytest.mark.parametrize("value, said", WRONG.values(), ids=WRONG)
def test_what_is_not_a_sound_spec_is_refused_with_what_was_found(value, said):
    error = one_failure(provider(qsgd_register_backends=hookimpl(lambda: [value])))
    assert isinstance(error, PluginHookError)
    assert said in str(error)


def test_a_single_spec_in_place_of_a_list_is_refused():
    spec = simulator("x", "x")
    error = one_failure(provider(qsgd_register_backends=hookimpl(lambda: spec)))
    assert "found a single spec" in str(error)


def test_lists_in_a_spec_become_tuples():
    spec = BackendSpec("x", "simulator", "m:F", names=["x", "y"])
    plugins = load(("qsgd-x", "1", serving(spec)))
    assert plugins.collect(BackendSpec)[-1].spec.names == ("x", "y")


def test_a_wrapper_of_one_plugin_does_not_see_the_specs_of_another():
    @hookimpl(wrapper=True)
    def qsgd_register_backends():
        yield
        return []

    plugins = load(
        ("qsgd-a", "1", serving(simulator("a", "a"))),
        ("qsgd-w", "1", provider(qsgd_register_backends=qsgd_register_backends)),
    )
    served = {r.distribution for r in plugins.collect(BackendSpec)}
    assert served == {CORE, "qsgd-a"}


def test_hooks_get_the_settings_they_are_loaded_with():
    seen = []
    plugin = provider(qsgd_register_tasks=hookimpl(lambda settings: seen.append(settings) or []))
    load(("qsgd-x", "1", plugin), shots=77)
    assert [s.shots for s in seen] == [77]


def test_a_distribution_on_the_allow_list_that_is_not_installed_is_recorded_and_strict_refuses():
    settings = Settings(load_plugins=("qsgd-nowhere",))
    (failure,) = load_plugins(settings).failures
    assert "pip install qsgd-nowhere" in failure.record.error
    with pytest.raises(PluginLoadError, match="pip install qsgd-nowhere"):
        load_plugins(settings.model_copy(update={"strict_plugins": True}))
