"""Arms by name: what is read, what is refused, and what controls are matched to."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.errors import ConfigError
from qsgd_core.plugins.registry import Registry, default_registry
from qsgd_lab.compare.arms import WORDS, matching_arm, parse_arm, parse_arms, split
from qsgd_lab.compare.plan import ArmPlan, ComparisonPlan
from qsgd_lab.compare.planning import Asked, make_plan
from qsgd_lab.compare.presets import preset_arms


@pytest.fixture(scope="module")
def registry() -> Registry:
    return default_registry()


def planned(names: str, registry: Registry, **asked: object) -> ComparisonPlan:
    return make_plan(Asked("digits", split(names), 1, **asked), registry)


def arm_of(names: str, name: str, registry: Registry, **asked: object) -> ArmPlan:
    return planned(names, registry, **asked).arm(name)


@given(
    perturbation=st.sampled_from(["sine", "circuit"]),
    weight=st.floats(1e-6, 1e3),
    words=st.lists(st.sampled_from(["gradient", "all"]), unique=True),
    depth=st.none() | st.integers(1, 5),
)
@settings(max_examples=50)
def test_what_a_name_says_is_what_its_arm_has(registry, perturbation, weight, words, depth):
    name = ":".join([f"{perturbation}@{weight!r}", *words, *([f"depth={depth}"] if depth else [])])
    arm = parse_arm(name, registry)
    assert (arm.name, arm.perturbation, arm.quantum_weight) == (name, perturbation, weight)
    expected = {key: value for word in words for key, value in WORDS[word].items()}
    assert arm.settings == expected | ({"depth": depth} if depth else {})
    assert not arm.control


@given(text=st.text(st.characters(exclude_characters=","), max_size=20))
@settings(max_examples=200)
def test_any_text_is_an_arm_or_a_config_error_that_names_it(registry, text):
    try:
        said = repr(parse_arm(text, registry))
    except ConfigError as error:
        said = str(error)
    assert repr(text.split(":")[0].partition("@")[0])[1:-1] in said


@pytest.mark.parametrize(
    "names, says",
    [
        ("adamw,sin@0.5", r"no arm 'sin' .* Did you mean sine\?"),
        ("adamw,unifrom@0.5", r"Did you mean uniform\?"),
        ("admw,sine@0.5", r"no arm 'admw'.* Did you mean .*adamw"),
        ("adamw,sine", "no strength λ. Write sine@0.5"),
        ("adamw,circuit:gradient", "no strength λ. Write circuit@0.5:gradient"),
        ("adamw,sine@", "no strength λ"),
        ("adamw,sine@strong", "must be a number above 0, not 'strong'"),
        ("adamw,sine@-1", "must be a number above 0"),
        ("adamw,sine@nan", "must be a number above 0"),
        ("adamw,sine@0", "Write adamw"),
        ("adamw@0.5,sine@0.5", "is an optimizer, which has no λ"),
        ("adamw,sine@0.5,sine@0.5", "'sine@0.5' is there twice"),
        ("adamw,sine@0.5,sine@.50:update", "twice, as 'sine@0.5' too"),
        ("sine@0.5,uniform@0.5", "no baseline.*--arms adamw,sine@0.5,uniform@0.5"),
        ("adamw", "nothing to compare"),
        ("adamw,sine@0.5:gradent", r"Did you mean gradient\?"),
        ("adamw,sine@0.5:update:gradient", "says both inject=update and inject=gradient"),
        ("adamw,sine@0.5:match=circuit", "no control"),
        ("adamw,sine@0.5:dept=4", "dept"),
        ("adamw,sine@0.5:depth=0", "Arm 'sine@0.5:depth=0'|depth"),
        ("adamw,sine@0.5:normalized:gradient", "Arm 'sine@0.5:normalized:gradient'"),
        ("adamw,sine@0.5:backend=nowhere:x", "nowhere:x"),
        ("adamw,sine@0.5:shots=10", "takes no shots"),
    ],
)
def test_an_arm_that_cannot_be_is_refused_with_what_to_write(registry, names, says):
    with pytest.raises(ConfigError, match=says):
        planned(names, registry)


def test_a_baseline_is_the_first_optimizer_and_all_terms_sit_on_it(registry):
    plan = planned("sgd,adamw,sine@0.5,sine@0.1:optimizer=adamw", registry)
    assert plan.baseline == "sgd"
    assert [arm.config["optimizer"] for arm in plan.arms] == ["sgd", "adamw", "sgd", "adamw"]
    assert plan.arm("adamw").config["quantum_weight"] == 0


def test_the_backend_belongs_to_the_arms_that_use_one(registry):
    names = "adamw,sine@0.5,uniform@0.5,sine@0.1:shots=7:backend=sampled"
    plan = planned(names, registry, backend="sampled", shots=64)
    said = [(arm.config["backend"], arm.config["shots"]) for arm in plan.arms]
    assert said == [("exact", None), ("sampled", 64), ("sampled", 64), ("sampled", 7)]


def test_a_backend_with_colons_is_read_to_the_end(registry):
    arm = parse_arm("sine@0.5:shots=64:backend=aer:statevector", registry)
    assert arm.settings == {"shots": 64, "backend": "aer:statevector"}


def test_a_control_is_matched_to_the_arm_of_its_strength_and_kind(registry):
    arms = parse_arms(
        split("adamw,sine@0.1,sine@0.5,sine@0.5:gradient,uniform@0.5,uniform@0.5:gradient"),
        registry,
    )
    matches = {arm.name: matching_arm(arm, arms) for arm in arms if arm.control}
    assert {name: arm.name for name, arm in matches.items() if arm} == {
        "uniform@0.5": "sine@0.5",
        "uniform@0.5:gradient": "sine@0.5:gradient",
    }


def test_a_control_follows_the_circuit_it_stands_beside(registry):
    control = arm_of("adamw,circuit@0.5:depth=3,permuted@0.5", "permuted@0.5", registry)
    assert control.match == "circuit@0.5:depth=3"
    assert control.config["depth"] == 3
    assert control.config["perturbation_options"] == {"match": "circuit"}


def test_a_control_that_names_its_match_keeps_it(registry):
    names = "adamw,sine@0.5,circuit@0.5,uniform@0.5:circuit"
    assert arm_of(names, "uniform@0.5:circuit", registry).match == "circuit@0.5"


def test_the_papers_preset_has_its_four_arms_and_a_control_for_each_term(registry):
    four = ["adamw", "sine@0.5:gradient", "sine@0.1", "sine@0.5"]
    assert preset_arms("paper", controls=False) == four
    plan = planned(",".join(preset_arms("paper")), registry)
    controls = {arm.match: arm.name for arm in plan.arms if arm.control}
    assert controls == {arm: arm.replace("sine", "uniform") for arm in four[1:]}
    with pytest.raises(ConfigError, match="There is paper"):
        preset_arms("papre")


def test_shots_in_the_environment_are_refused_for_arms_without_circuits(monkeypatch):
    monkeypatch.setenv("QSGD_SHOTS", "64")
    with pytest.raises(ConfigError, match="--shots 64"):
        planned("adamw,sine@0.5", default_registry())


@pytest.mark.parametrize(
    "asked, says",
    [
        ({"budget": "$5"}, "no arm uses one"),
        ({"target": 90.0}, "--target 0.9"),
        ({"backend": "smapled"}, "smapled"),
    ],
)
def test_a_comparison_that_cannot_be_is_refused_before_anything_runs(registry, asked, says):
    with pytest.raises(ConfigError, match=says):
        planned("adamw,sine@0.5", registry, **asked)


def test_no_data_folder_goes_to_a_task_that_takes_none(registry, tmp_path):
    with pytest.raises(ConfigError, match="takes no --data"):
        planned("adamw,sine@0.5", registry, data=tmp_path)
