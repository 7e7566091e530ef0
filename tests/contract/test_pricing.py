"""The price table: what ships, what a user's file changes, and what a bad file says."""

from __future__ import annotations

import pytest

from qsgd_core.errors import ConfigError
from qsgd_core.prices import find_price, load_prices
from qsgd_core.settings import load_settings

CEPHEUS = "arn:aws:braket:us-west-1::device/qpu/rigetti/Cepheus-1-108Q"
ROW = """
[[price]]
devices = ["my_device"]
per_job_usd = 1.0
per_shot_usd = 0.5
per_second_usd = 0.0
source = "a letter"
effective_date = "2026-11"
"""


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("QSGD_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def own(monkeypatch, tmp_path):
    """Writes a price table and names it in QSGD_PRICES."""

    def write(text: str):
        path = tmp_path / "own.toml"
        path.write_text(text)
        monkeypatch.setenv("QSGD_PRICES", str(path))
        return path

    return write


# --- what ships ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "device, plan, usd, qpu_s",
    [
        ("ibm_fez", "pay-as-you-go", 7.36, 4.6),
        ("ibm_fez", "Open", 0.0, 4.6),
        ("braket:cepheus-1-108q", None, 3.46, None),
        (CEPHEUS, None, 3.46, None),
        ("braket:garnet", None, 11.06, None),
        ("braket:forte-1", None, 594.22, None),
    ],
)
def test_29_circuits_of_256_shots_cost_what_the_vendors_lists_say(device, plan, usd, qpu_s):
    cost = find_price(device, plan=plan).cost(29 * 256)
    assert cost.usd == pytest.approx(usd, abs=0.005)
    assert cost.qpu_s == (None if qpu_s is None else pytest.approx(qpu_s, abs=0.005))


def test_every_row_says_where_it_is_from_and_since_when_it_holds():
    rows = load_prices(load_settings())
    assert len(rows) > 10
    assert all(row.source and row.effective_date[:4].isdigit() for row in rows)


def test_where_the_plan_is_not_known_dollars_are_not_and_seconds_are():
    for plan in (None, "unknown"):
        cost = find_price("ibm_fez", plan=plan).cost(1000)
        assert cost.usd is None
        assert cost.qpu_s == pytest.approx(2.35)


def test_a_device_that_only_has_a_task_fee_has_an_unknown_price_not_a_low_one():
    row = find_price("arn:aws:braket:us-west-2::device/qpu/startup/Novel-7")
    assert row.per_job_usd == 0.30
    assert row.cost(100).usd is None


def test_a_device_that_nobody_lists_has_no_row():
    assert find_price("acme:9000") is None


def test_the_first_of_several_names_that_has_a_row_will_do():
    assert find_price("acme:9000", "braket:garnet").per_shot_usd == 0.00145


# --- the user's own ------------------------------------------------------------------------------


def test_a_row_of_ones_own_replaces_that_row_and_no_other(own):
    before = find_price("braket:garnet")
    own(ROW.replace("my_device", CEPHEUS.lower()))
    assert find_price(CEPHEUS).source == "a letter"
    assert find_price(CEPHEUS).cost(2).usd == 2.0
    assert find_price("braket:garnet") == before


def test_a_row_for_one_plan_leaves_the_other_plans(own):
    own(ROW.replace("my_device", "ibm_*") + 'plan = "premium"\n')
    assert find_price("ibm_fez", plan="Premium").source == "a letter"
    assert find_price("ibm_fez", plan="flex").per_second_usd == 1.20


def test_the_file_in_the_home_folder_is_found_and_QSGD_PRICES_goes_before_it(home, own):
    (home / "prices.toml").write_text(ROW.replace("a letter", "home"))
    assert find_price("my_device").source == "home"
    own(ROW)
    assert find_price("my_device").source == "a letter"


def test_an_empty_file_changes_nothing(own):
    before = list(load_prices(load_settings()))
    own("")
    assert list(load_prices(load_settings())) == before


def test_a_date_may_be_written_as_toml_has_them(own):
    own(ROW.replace('"2026-11"', "2026-11-21"))
    assert find_price("my_device").effective_date == "2026-11-21"


@pytest.mark.parametrize(
    "text, needles",
    [
        (ROW.replace('source = "a letter"\n', ""), ["row 1, source is missing"]),
        (ROW.replace('effective_date = "2026-11"\n', ""), ["effective_date is missing"]),
        (ROW.replace("2026-11", "last week"), ["row 1, effective_date = 'last week'"]),
        (ROW.replace("0.5", "-0.5"), ["row 1, per_shot_usd = -0.5", "greater than or equal to 0"]),
        (ROW.replace("0.5", "nan"), ["row 1, per_shot_usd", "finite"]),
        (ROW.replace("0.5", '"cheap"'), ["per_shot_usd = 'cheap'"]),
        (ROW + ROW.replace("per_shot_usd", "per_shot"), ["row 2, per_shot is not known", "plan"]),
        (ROW.replace('["my_device"]', "[]"), ["row 1, devices"]),
        ("[prices]\n", ["prices is not known. Known: price"]),
        ("price = 3\n", ["price = 3"]),
        ("[[price]\n", ["cannot be read", "QSGD_PRICES"]),
    ],
)
def test_a_bad_file_is_refused_with_the_row_and_the_column(own, text, needles):
    path = own(text)
    with pytest.raises(ConfigError) as caught:
        find_price("my_device")
    for needle in (str(path), *needles):
        assert needle in str(caught.value)


def test_a_file_that_is_named_and_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("QSGD_PRICES", "/nowhere/prices.toml")
    with pytest.raises(ConfigError, match=r"/nowhere/prices\.toml cannot be read"):
        find_price("ibm_fez")
