"""From a name to an object: the selection rules, the options, and what factories may do."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from qsgd_core.backend import Backend, Simulator
from qsgd_core.capabilities import Capabilities
from qsgd_core.errors import (
    AmbiguousBackendError,
    AuthError,
    ConfigError,
    DuplicateNameError,
    PluginHookError,
    PluginLoadError,
    UnknownBackendError,
    UnknownNameError,
)
from qsgd_core.hookspecs import hookimpl
from qsgd_core.perturbation import ClassicalPerturbation, Perturbation
from qsgd_core.plugins.loading import load_plugins
from qsgd_core.plugins.registry import Registry, default_registry, parse_options
from qsgd_core.policy import Policy
from qsgd_core.settings import Settings
from qsgd_core.specs import BackendSpec, ObserverSpec, PerturbationSpec, PolicySpec, TaskSpec
from qsgd_core.task import Task

pytestmark = pytest.mark.usefixtures("own_plugins_not_installed")


def registry(*, prefer: tuple[str, ...] = (), **distributions: list) -> Registry:
    """A registry of the core and of in-memory distributions: a=[spec, …] becomes qsgd-a 1.0."""
    settings = Settings(load_plugins=(), prefer=prefer)
    extra = [(f"qsgd-{name}", "1.0", provider(specs)) for name, specs in distributions.items()]
    plugins = load_plugins(settings, extra=extra)
    assert plugins.failures == []
    return Registry(settings, plugins)


def provider(specs: list) -> ModuleType:
    module = ModuleType("fake")
    for hook, kind in {
        "qsgd_register_backends": BackendSpec,
        "qsgd_register_perturbations": PerturbationSpec,
        "qsgd_register_policies": PolicySpec,
        "qsgd_register_observers": ObserverSpec,
        "qsgd_register_tasks": TaskSpec,
    }.items():
        mine = [spec for spec in specs if isinstance(spec, kind)]
        setattr(module, hook, hookimpl(lambda mine=tuple(mine): list(mine)))
    return module


def simulator(prefix: str, *names: str, factory: str = "fakes:Sim", **fields) -> BackendSpec:
    return BackendSpec(prefix=prefix, kind="simulator", factory=factory, names=names, **fields)


class Sim(Simulator):
    capabilities = Capabilities()

    def __init__(self, name, options):
        self.name, self.options = name, options

    def run(self, work, *, shots, seed):
        raise NotImplementedError


class SimOptions(BaseModel):
    method: str = "automatic"
    threads: int = Field(1, ge=1)
    access_token: int = 0


class Strict(BaseModel):
    region: str


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Classical(ClassicalPerturbation):
    def __init__(self, depth, options):
        self.depth = depth

    def modulation(self, theta, grad, *, step, name, seed, reference):
        return theta


class Quantum(Perturbation):
    def __init__(self, depth, options):
        self.depth = depth

    def plan(self, theta, grad, *, step):
        return []

    def decode(self, z):
        return z


class Nightly(Policy):
    def __init__(self, options):
        self.options = options

    def due(self, view):
        return False


class Silly:
    def __init__(self, options):
        pass


class NightlyOptions(BaseModel):
    hour: int = Field(3, ge=0, lt=24)


class Job(Task):
    name = "job"

    def build(self, seed):
        raise NotImplementedError

    def loss(self, model, batch):
        raise NotImplementedError


def raising(error: BaseException):
    def factory(*args):
        raise error

    return factory


@pytest.fixture(autouse=True)
def fakes(monkeypatch) -> ModuleType:
    """The module that the specs of this file refer to."""
    module = ModuleType("fakes")
    for cls in (
        Sim, SimOptions, Strict, Open, Classical, Quantum, Nightly, NightlyOptions, Silly, Job
    ):  # fmt: skip
        setattr(module, cls.__name__, cls)
    monkeypatch.setitem(sys.modules, "fakes", module)
    return module


def message(error: type[Exception], call, *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# --- which spec serves a backend name ------------------------------------------------------------


def test_within_a_distribution_an_exact_name_comes_before_a_pattern_before_a_prefix():
    exact = simulator("p", "x:1", summary="exact")
    pattern = simulator("q", patterns=("x:*",), summary="pattern")
    prefix = simulator("x", devices=("*",), summary="prefix")
    for order in ([exact, pattern, prefix], [prefix, pattern, exact]):
        found = registry(a=order)
        assert found.resolve_backend("x:1").spec.summary == "exact"
        assert found.resolve_backend("x:2").spec.summary == "pattern"
        assert registry(a=[prefix]).resolve_backend("x:2").spec.summary == "prefix"


def test_a_name_with_colons_is_tried_as_a_whole_before_it_is_split():
    spec = simulator("braket", patterns=("arn:aws:braket:*",))
    name = "arn:aws:braket:us-west-1::device/qpu/x/1"
    assert registry(a=[spec]).resolve_backend(name).spec == spec


def test_only_the_first_colon_splits_prefix_and_device():
    spec = simulator("pennylane", devices=("lightning:*",))
    assert registry(a=[spec]).resolve_backend("pennylane:lightning:gpu").spec == spec


@pytest.mark.parametrize("name", ["aer", "aer:", "aer:gpu", "Aer:cpu", "aer :cpu", ""])
def test_a_prefix_serves_only_its_devices(name):
    found = registry(a=[simulator("aer", devices=("cpu",))])
    assert found.resolve_backend("aer:cpu").distribution == "qsgd-a"
    with pytest.raises(UnknownBackendError):
        found.resolve_backend(name)


def test_the_choice_records_name_distribution_and_version():
    choice = registry(a=[simulator("x", "x")]).resolve_backend("x")
    assert (choice.spec.names, choice.distribution, choice.version) == (("x",), "qsgd-a", "1.0")


WAYS = {
    "name": simulator("other", "x:1"),
    "pattern": simulator("other", patterns=("x:?",)),
    "prefix": simulator("x", devices=("1",)),
}


@pytest.mark.parametrize("theirs", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("mine", WAYS.values(), ids=WAYS)
def test_whichever_way_two_distributions_serve_a_name_it_is_an_error_until_one_is_preferred(
    mine, theirs
):
    kind = DuplicateNameError if mine is theirs is WAYS["prefix"] else AmbiguousBackendError
    said = message(kind, registry(a=[mine], b=[theirs]).resolve_backend, "x:1")
    assert "qsgd-a and qsgd-b" in said
    assert "QSGD_PREFER=qsgd-a" in said
    for wanted in ("qsgd-a", "qsgd-b"):
        preferring = registry(prefer=("qsgd-other", wanted), a=[mine], b=[theirs])
        assert preferring.resolve_backend("x:1").distribution == wanted


def test_the_first_preferred_distribution_wins():
    both = {"a": [simulator("a", "x")], "b": [simulator("b", "x")]}
    assert registry(prefer=("qsgd-b", "qsgd-a"), **both).resolve_backend("x").distribution == (
        "qsgd-b"
    )


def test_an_ambiguous_name_offers_full_names_to_paste_where_they_are_unambiguous():
    found = registry(
        a=[simulator("a", "fez", devices=("*",))], b=[simulator("b", "fez", devices=("fez",))]
    )
    said = message(AmbiguousBackendError, found.resolve_backend, "fez")
    assert "name one of a:fez and b:fez" in said
    assert found.resolve_backend("b:fez").distribution == "qsgd-b"


def test_a_preference_that_names_no_rival_is_mentioned():
    found = registry(prefer=("qsgd-c",), a=[simulator("a", "x")], b=[simulator("b", "x")])
    assert "QSGD_PREFER=qsgd-c names none of them" in message(
        AmbiguousBackendError, found.resolve_backend, "x"
    )


def test_claiming_a_prefix_without_the_device_is_a_clash_on_that_prefix_all_the_same():
    found = registry(
        a=[simulator("aer", "plain", devices=("cpu",))], b=[simulator("aer", devices=("gpu",))]
    )
    message(DuplicateNameError, found.resolve_backend, "aer:cpu")
    assert found.resolve_backend("plain").distribution == "qsgd-a"


@given(
    st.lists(
        st.sampled_from(
            [
                simulator("ex", devices=("*",)),
                simulator("z", "exact2", "exactly"),
                simulator("sampling", patterns=("sampled_*",)),
                PerturbationSpec(name="sines", factory="m:F"),
                TaskSpec(name="exact", factory="m:F"),
            ]
        ),
        max_size=4,
        unique=True,
    )
)
def test_whatever_is_installed_the_names_of_the_core_mean_the_core(specs):
    bare, full = registry(), registry(a=specs)
    for name in ("exact", "sampled"):
        assert full.resolve_backend(name) == bare.resolve_backend(name)


# --- names nobody serves -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, distribution",
    [
        ("aer:statevector", "qsgd-aer"),
        ("aer", "qsgd-aer"),
        ("pennylane:default.qubit", "qsgd-pennylane"),
        ("ibm:least_busy", "qsgd-ibm"),
        ("ibm_fez", "qsgd-ibm"),
        ("fake_brisbane", "qsgd-ibm"),
        ("braket:sv1", "qsgd-braket"),
        ("arn:aws:braket:us-west-1::device/qpu/rigetti/Ankaa-3", "qsgd-braket"),
    ],
)
def test_a_known_backend_that_is_not_installed_is_answered_with_the_install_line(
    name, distribution
):
    said = message(UnknownBackendError, registry().resolve_backend, name)
    assert said.endswith(f"pip install {distribution}")


@pytest.mark.parametrize("name", ["rademacher", "uniform", "gaussian", "permuted", "frozen"])
def test_a_known_control_is_answered_with_the_install_line(name):
    said = message(UnknownNameError, registry().make_perturbation, name, depth=2)
    assert said.endswith("pip install qsgd-controls")


@pytest.mark.parametrize("name", ["sequences", "sequences-quantum"])
def test_a_known_task_is_answered_with_the_install_line(name):
    assert message(UnknownNameError, registry().make_task, name).endswith("pip install qsgd-lab")


def test_a_name_close_to_an_installed_one_is_suggested():
    assert "Did you mean 'sampled'?" in message(
        UnknownBackendError, registry().resolve_backend, "sample"
    )
    assert "Did you mean 'sine'?" in message(
        UnknownNameError, registry().make_perturbation, "sin", depth=1
    )
    assert "Did you mean 'digits'?" in message(UnknownNameError, registry().make_task, "digit")


def test_a_name_close_to_nothing_gets_the_list():
    said = message(UnknownBackendError, registry().resolve_backend, "zzz")
    assert "Installed: exact, sampled." in said
    assert "pip install" not in said


def test_an_unknown_device_of_a_known_prefix_gets_the_devices():
    found = registry(a=[simulator("aer", devices=("statevector", "mps"))])
    said = message(UnknownBackendError, found.resolve_backend, "aer:gpu")
    assert "Under 'aer' there are: aer:statevector, aer:mps." in said


def failed(name: str, *specs, error: BaseException | None = None) -> Registry:
    def hook():
        yield from specs
        raise error or RuntimeError("boom")

    module = ModuleType("fake")
    module.qsgd_register_backends = hookimpl(hook)
    settings = Settings(load_plugins=())
    return Registry(settings, load_plugins(settings, extra=[(name, "2.1", module)]))


@pytest.mark.parametrize(
    "distribution, name",
    [
        ("qsgd-ibm", "ibm_fez"),
        ("qsgd-ibm", "fake_oslo"),
        ("qsgd-ibm", "qsgd-ibm"),
        ("qsgd-mine", "mine"),
        ("qsgd-mine", "mine:device"),
        ("other-name", "other-name:device"),
        ("qsgd-mine", "declared"),
    ],
)
def test_a_failed_plugin_is_quoted_for_each_name_it_would_have_served(distribution, name):
    found = failed(distribution, simulator("p", "declared"))
    with pytest.raises(PluginHookError) as caught:
        found.resolve_backend(name)
    said = str(caught.value)
    assert repr(name) in said
    assert f"{distribution} 2.1" in said
    assert "RuntimeError: boom" in said
    assert f"QSGD_DISABLED_PLUGINS={distribution}" in said
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_a_name_the_failed_plugin_had_nothing_to_do_with_is_unknown_and_the_failure_mentioned():
    said = message(UnknownBackendError, failed("qsgd-mine").resolve_backend, "zzz")
    assert "qsgd-mine: " in said
    assert "RuntimeError: boom" in said


def test_a_failed_plugin_does_not_stand_in_the_way_of_a_name_that_another_serves():
    settings = Settings(load_plugins=())
    bad = ModuleType("fake")
    bad.qsgd_register_backends = hookimpl(raising(RuntimeError("boom")))
    plugins = load_plugins(
        settings, extra=[("qsgd-x", "1", bad), ("qsgd-y", "1", provider([simulator("x", "x")]))]
    )
    assert Registry(settings, plugins).resolve_backend("x").distribution == "qsgd-y"


# --- perturbations, tasks and observers ----------------------------------------------------------

NAMED = {
    "perturbation": (
        PerturbationSpec(name="n", factory="fakes:Quantum"),
        lambda r: r.make_perturbation("n", depth=1),
    ),
    "policy": (PolicySpec(name="n", factory="fakes:Nightly"), lambda r: r.make_policy("n")),
    "task": (TaskSpec(name="n", factory="fakes:Job"), lambda r: r.make_task("n")),
    "observer": (
        ObserverSpec(name="n", factory="fakes:Job"),
        lambda r: r.make_observer("n", None),
    ),
}


@pytest.mark.parametrize("kind", NAMED)
def test_a_name_of_two_distributions_is_a_duplicate_until_one_is_preferred(kind, fakes):
    spec, make = NAMED[kind]
    fakes.Watch = lambda run_dir: print
    spec = ObserverSpec(name="n", factory="fakes:Watch") if kind == "observer" else spec
    said = message(DuplicateNameError, make, registry(a=[spec], b=[spec]))
    assert f"The {kind} 'n' is registered by qsgd-a and qsgd-b." in said
    assert make(registry(prefer=("qsgd-b",), a=[spec], b=[spec])) is not None


def test_a_name_registered_twice_by_one_distribution_is_that_distributions_error():
    twice = [PerturbationSpec(name="n", factory="fakes:Quantum")] * 2
    said = message(DuplicateNameError, registry(a=twice).make_perturbation, "n", depth=1)
    assert "an error in qsgd-a" in said


def test_listings_hold_what_each_distribution_registered_the_core_first():
    found = registry(a=[TaskSpec(name="job", factory="fakes:Job")])
    assert [r.spec.name for r in found.tasks()] == ["digits", "job"]
    assert [r.distribution for r in found.tasks()] == ["qsgd-core", "qsgd-a"]
    assert {"sine", "circuit"} <= {r.spec.name for r in found.perturbations()}
    assert "tensorboard" in {r.spec.name for r in found.observers()}
    assert {r.distribution for r in [*found.policies(), *found.commands()]} <= {"qsgd-core"}


def test_a_perturbation_gets_depth_and_options():
    made = registry(a=[PerturbationSpec(name="n", factory="fakes:Quantum")])
    assert made.make_perturbation("n", depth=5).depth == 5


@pytest.mark.parametrize(
    "factory, uses_backend, promised",
    [("Classical", True, "a Perturbation"), ("Quantum", False, "a ClassicalPerturbation")],
)
def test_a_perturbation_of_the_kind_its_spec_denies_is_refused(factory, uses_backend, promised):
    spec = PerturbationSpec(name="n", factory=f"fakes:{factory}", uses_backend=uses_backend)
    said = message(PluginHookError, registry(a=[spec]).make_perturbation, "n", depth=1)
    assert promised in said
    right = PerturbationSpec(name="n", factory=f"fakes:{factory}", uses_backend=not uses_backend)
    assert registry(a=[right]).make_perturbation("n", depth=1).depth == 1


def test_policies_come_with_the_core_and_from_others():
    found = registry(a=[PolicySpec(name="nightly", factory="fakes:Nightly")])
    assert [r.spec.name for r in found.policies()] == ["tracked", "hold", "twin", "sync", "nightly"]
    for record in found.policies():
        policy = found.make_policy(record.spec.name)
        assert isinstance(policy, Policy)
        assert policy.between in ("twin", "hold")
    assert found.make_policy("sync").waits
    assert not found.make_policy("twin").measures
    said = message(UnknownNameError, found.make_policy, "trackd")
    assert "Did you mean 'tracked'?" in said


def test_a_policys_options_are_validated():
    spec = PolicySpec(name="n", factory="fakes:Nightly", options="fakes:NightlyOptions")
    found = registry(a=[spec])
    assert found.make_policy("n", {"hour": 5}).options.hour == 5
    assert "'hour'" in message(ConfigError, found.make_policy, "n", {"hour": 25})
    assert "takes no options" in message(ConfigError, found.make_policy, "hold", {"hour": 5})


def test_a_policy_factory_that_returns_something_else_is_refused():
    found = registry(a=[PolicySpec(name="n", factory="fakes:Silly")])
    assert "a Policy" in message(PluginHookError, found.make_policy, "n")


def test_an_observer_gets_the_run_folder_and_must_be_callable(fakes, tmp_path):
    seen = []
    fakes.Watch = lambda run_dir: seen.append(run_dir) or print
    found = registry(a=[ObserverSpec(name="n", factory="fakes:Watch")])
    assert found.make_observer("n", tmp_path) is print
    assert seen == [tmp_path]
    fakes.Watch = lambda run_dir: "deaf"
    assert "'deaf'" in message(PluginHookError, found.make_observer, "n", None)


def test_a_task_factory_that_returns_something_else_is_refused(fakes):
    fakes.Job = lambda: 3
    found = registry(a=[TaskSpec(name="n", factory="fakes:Job")])
    assert "returned int, and the spec promises a Task" in message(
        PluginHookError, found.make_task, "n"
    )


# --- factories that go wrong ---------------------------------------------------------------------


def make_x(factory: str = "fakes:Sim", *, kind: str = "simulator", **options: object):
    spec = BackendSpec(prefix="x", kind=kind, factory=factory, names=("x",))
    return registry(a=[spec]).make_backend("x", options)


def test_a_factory_gets_the_full_name_that_was_asked_for():
    found = registry(a=[simulator("x", devices=("*",))])
    assert found.make_backend("x:y:z").name == "x:y:z"


@pytest.mark.parametrize("where", ["an_sdk_nobody_has.backend:F", "fakes:Late"])
def test_a_missing_sdk_is_a_load_error_with_the_install_line(where, fakes):
    fakes.Late = raising(ModuleNotFoundError("No module named 'an_sdk_nobody_has'"))
    with pytest.raises(PluginLoadError) as caught:
        make_x(where)
    assert "No module named 'an_sdk_nobody_has'" in str(caught.value)
    assert str(caught.value).endswith("pip install --upgrade qsgd-a")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_factory_that_does_not_exist_is_a_load_error():
    assert "Nothing" in message(PluginLoadError, make_x, "fakes:Nothing")


@pytest.mark.parametrize("error", [ValueError("bad luck"), SystemExit(3)])
def test_what_a_factory_raises_is_blamed_on_its_distribution(error, fakes):
    fakes.Raises = raising(error)
    with pytest.raises(PluginHookError, match=r"fakes:Raises of qsgd-a 1\.0 failed") as caught:
        make_x("fakes:Raises")
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("error", [AuthError("no token"), ConfigError("no"), KeyboardInterrupt()])
def test_what_a_factory_raises_on_purpose_goes_through(error, fakes):
    fakes.Raises = raising(error)
    with pytest.raises(type(error)) as caught:
        make_x("fakes:Raises")
    assert caught.value is error


def test_a_factory_that_returns_the_wrong_type_is_refused():
    said = message(PluginHookError, make_x, "fakes:Sim", kind="backend")
    assert f"returned Sim, and the spec promises a {Backend.__name__}" in said


def test_a_backend_without_capabilities_is_refused(fakes):
    fakes.Bare = type("Bare", (Sim,), {"capabilities": None})
    assert "self.capabilities = Capabilities(" in message(PluginHookError, make_x, "fakes:Bare")


# --- options -------------------------------------------------------------------------------------


def with_model(model: str, given: object) -> Simulator | Backend:
    return registry(a=[simulator("x", "x", options=f"fakes:{model}")]).make_backend("x", given)


@pytest.mark.parametrize("given", [None, {}])
def test_without_options_the_factory_gets_the_models_defaults(given):
    assert with_model("SimOptions", given).options == SimOptions()


def test_options_are_validated_and_handed_over_as_the_model():
    made = with_model("SimOptions", {"method": "mps", "threads": 4})
    assert made.options == SimOptions(method="mps", threads=4)


def test_a_bad_value_names_the_option_what_was_found_and_the_options_there_are():
    said = message(ConfigError, with_model, "SimOptions", {"threads": 0})
    assert "Backend 'x': option 'threads' cannot be 0" in said
    assert "Its options: access_token, method, threads." in said


def test_an_unknown_option_is_refused_even_if_the_model_would_ignore_it():
    said = message(ConfigError, with_model, "SimOptions", {"thread": 2})
    assert "has no option 'thread'. Did you mean 'threads'?" in said
    assert with_model("Open", {"thread": 2}).options.thread == 2


def test_a_required_option_that_is_missing_is_named():
    assert "option 'region' must be given" in message(ConfigError, with_model, "Strict", None)


def test_a_value_that_may_be_a_secret_is_not_repeated():
    said = message(ConfigError, with_model, "SimOptions", {"access_token": "s3cr3t"})
    assert "access_token" in said
    assert "s3cr3t" not in said


def test_options_for_something_that_takes_none_are_refused_by_name():
    said = message(ConfigError, registry().make_backend, "exact", {"method": "mps"})
    assert said == "Backend 'exact' takes no options; found method. Leave them out."
    said = message(ConfigError, registry().make_perturbation, "sine", depth=1, options={"a": 1})
    assert "Perturbation 'sine' takes no options; found a." in said


def test_an_options_model_that_is_no_model_is_the_plugins_error():
    assert "pydantic.BaseModel" in message(PluginHookError, with_model, "Sim", {})


def test_wrong_options_are_reported_before_the_factory_is_imported():
    spec = simulator("x", "x", factory="an_sdk_nobody_has:F", options="fakes:SimOptions")
    with pytest.raises(ConfigError, match="has no option 'wrong'"):
        registry(a=[spec]).make_backend("x", {"wrong": 1})


def test_option_pairs_hold_json_where_it_parses_and_text_elsewhere():
    pairs = ["n=3", "x=1.5", "on=true", "m=mps", "l=[1,2]", "e=", "eq=a=b", "nan=NaN", 'q="3"']
    assert parse_options(pairs) == {
        "n": 3,
        "x": 1.5,
        "on": True,
        "m": "mps",
        "l": [1, 2],
        "e": "",
        "eq": "a=b",
        "nan": "NaN",
        "q": "3",
    }


@pytest.mark.parametrize(
    "pairs, said",
    [(["method"], "'method'"), (["=3"], "'=3'"), (["a=1", "a=2"], "a is given twice")],
)
def test_option_pairs_that_cannot_be_meant_are_refused(pairs, said):
    assert said in message(ConfigError, parse_options, pairs)


# --- the default registry ------------------------------------------------------------------------


def test_the_default_registry_is_loaded_once_per_value_of_the_settings(monkeypatch):
    first = default_registry()
    assert default_registry() is first
    monkeypatch.setenv("QSGD_PREFER", "qsgd-a")
    assert default_registry() is not first
    assert default_registry().settings.prefer == ("qsgd-a",)
