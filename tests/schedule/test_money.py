"""Amounts: what people type, what vendors bill, integers in between."""

from __future__ import annotations

import math
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qsgd_core.errors import ConfigError
from qsgd_core.jobs import Cost
from qsgd_core.schedule.money import MOST, UNITS, Amount, parse_budget, say


@pytest.mark.parametrize(
    "text, unit, cap",
    [
        ("600s", "qpu_us", 600_000_000),
        (" 0.5 s ", "qpu_us", 500_000),
        ("10min", "qpu_us", 600_000_000),
        ("$25", "micro_usd", 25_000_000),
        ("$ 0.30", "micro_usd", 300_000),
        ("1.10usd", "micro_usd", 1_100_000),
        ("12 USD", "micro_usd", 12_000_000),
        ("1e6shots", "shots", 1_000_000),
        ("1 shot", "shots", 1),
        ("4096 shots", "shots", 4096),
        ("$0.0000019", "micro_usd", 1),
        ("$0.1", "micro_usd", 100_000),
    ],
)
def test_what_people_type_becomes_integers_and_never_more_than_was_typed(text, unit, cap):
    assert parse_budget(text) == {unit: cap}


@pytest.mark.parametrize("text", ["$25,600s", " $25 , 600s", "600s,$25", "10min,25usd"])
def test_several_amounts_cap_several_units(text):
    assert parse_budget(text) == {"micro_usd": 25_000_000, "qpu_us": 600_000_000}


@pytest.mark.parametrize("text", ["$25,$30", "600s,1shot,10min", "$25,$25"])
def test_two_amounts_in_one_unit_are_refused(text):
    with pytest.raises(ConfigError, match=r"two amounts in one unit, .* and .*\$25,600s"):
        parse_budget(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "25",
        ",",
        "$25,",
        "$25,25",
        "$25;600s",
        "$",
        "s",
        "shots",
        "$1,000",
        "600 seconds",
        "€5",
        "1e6",
        "a$5",
        "$5 s",
    ],
)
def test_another_form_is_refused_with_forms_to_paste(text):
    with pytest.raises(ConfigError, match=r"600s.*\$25.*1e6shots"):
        parse_budget(text)


@pytest.mark.parametrize(
    "text", ["0s", "-1s", "$0", "$-3", "nans", "infs", "$1e300", "0.4shots", "$0.0000001"]
)
def test_an_amount_that_is_nothing_or_absurd_is_refused(text):
    with pytest.raises(ConfigError, match="must be more than 0 and no more than"):
        parse_budget(text)


@pytest.mark.parametrize(
    "unit, amount, said",
    [
        ("micro_usd", 1_250_000, "$1.25"),
        ("micro_usd", 1, "$0.000001"),
        ("micro_usd", 2_000_000_000, "$2,000"),
        ("micro_usd", 0, "$0"),
        ("qpu_us", 42_000_000, "42 s of QPU time"),
        ("qpu_us", 1, "0.000001 s of QPU time"),
        ("shots", 4096, "4,096 shots"),
        ("shots", 0, "0 shots"),
    ],
)
def test_amounts_are_said_to_the_last_digit(unit, amount, said):
    assert say(unit, amount) == said


@given(st.sampled_from(UNITS), st.integers(1, MOST))
def test_what_is_said_of_a_cap_reads_back_as_the_cap(unit, amount):
    text = say(unit, amount).replace(",", "").replace(" of QPU time", "")
    # 15 digits at most are exact in a float; above, the last microdollar may go
    ((found, cap),) = parse_budget(text).items()
    assert found == unit
    assert cap == amount or (amount > 10**14 and abs(cap - amount) <= 1)


@given(st.integers(0, 10**12))
def test_a_price_in_whole_micro_units_survives_the_vendors_float(micro):
    amount = Amount.from_cost(Cost(usd=micro / 1e6, qpu_s=micro / 1e6, shots=micro))
    assert amount == Amount(micro, micro, micro)
    assert Amount.from_cost(amount.to_cost()) == amount


@given(st.floats(0, 1e6))
def test_a_hold_is_never_less_than_the_price(usd):
    micro = Amount.from_cost(Cost(usd=usd)).micro_usd
    assert micro is not None
    assert -1e-3 <= micro - usd * 1e6 < 1 + 1e-3  # a thousandth of a microdollar is float noise


@pytest.mark.parametrize("nonsense", [None, math.nan, math.inf, -1.0, 1e300])
def test_what_is_not_an_amount_is_unknown_and_not_zero(nonsense):
    shots = nonsense if nonsense is None else -1
    assert Amount.from_cost(Cost(nonsense, nonsense, shots)) == Amount(None, None, None)
    assert Amount.from_cost(None) == Amount()


@given(st.dictionaries(st.sampled_from(UNITS), st.integers(1, 10**12), min_size=1))
def test_caps_in_several_units_read_back_whatever_their_order(limits):
    forms = {"micro_usd": ("$", "", 10**6), "qpu_us": ("", "s", 10**6), "shots": ("", "shots", 1)}
    parts = [f"{b}{Decimal(cap) / n:f}{a}" for u, cap in limits.items() for b, a, n in [forms[u]]]
    assert parse_budget(",".join(parts)) == limits
    assert parse_budget(" , ".join(reversed(parts))) == limits
