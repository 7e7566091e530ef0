"""Devices as described, names, windows and prices. Nothing is contacted."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import aws_devices
import pytest

from qsgd_braket.cloud import names
from qsgd_braket.cloud.device import Device, read_device
from qsgd_braket.cloud.pricing import billed, quote
from qsgd_braket.options import DeviceOptions
from qsgd_core.errors import CapabilityError, ResultCorruptError

MONDAY = datetime(2026, 6, 1, tzinfo=UTC)


def answer(arn: str, **service: object) -> dict:
    found = aws_devices.catalogue()[arn]
    found["deviceCapabilities"]["service"].update(service)
    return aws_devices.as_answer(found)


def device(arn: str, **service: object) -> Device:
    return read_device(answer(arn, **service))


def test_a_qpu_s_limits_are_its_program_set_s():
    has = device(aws_devices.CEPHEUS).capabilities()
    assert (has.max_rows, has.max_executions, has.max_qubits) == (100, 1_000_000, 108)
    assert (has.min_shots, has.max_shots) == (10, 50_000)
    assert has.noisy
    assert has.paid
    assert has.max_total_qubits is None


def test_an_on_demand_simulator_takes_rows_side_by_side():
    sv1, dm1 = (device(a).capabilities() for a in (aws_devices.SV1, aws_devices.DM1))
    assert (sv1.max_qubits, sv1.max_total_qubits) == (34, 20)
    assert (dm1.max_qubits, dm1.max_total_qubits) == (17, 10)
    assert not sv1.noisy


def test_a_device_without_program_sets_takes_one_row_a_task():
    found = aws_devices.catalogue()[aws_devices.GARNET]
    del found["deviceCapabilities"]["action"][aws_devices.PROGRAM_SET]
    assert read_device(aws_devices.as_answer(found)).capabilities().max_rows == 1


def test_gates_that_a_device_lacks_are_not_claimed():
    found = aws_devices.catalogue()[aws_devices.GARNET]
    actions = found["deviceCapabilities"]["action"]
    actions[aws_devices.OPENQASM]["supportedOperations"] = ["CNot", "h"]
    assert read_device(aws_devices.as_answer(found)).gates == {"cx", "h"}


def test_an_analog_device_is_refused_by_what_it_takes():
    with pytest.raises(CapabilityError, match=r"'Aquila' runs no gate circuits; .*ahs"):
        device(aws_devices.AQUILA)


@pytest.mark.parametrize("broken", ["", "{}", '{"action": {"braket.ir.openqasm.program": {}}}'])
def test_a_description_that_cannot_be_read_says_so(broken):
    with pytest.raises(ResultCorruptError, match="pip install --upgrade"):
        read_device(answer(aws_devices.GARNET) | {"deviceCapabilities": broken})


# --- windows --------------------------------------------------------------------------------------


def window(day: str, start: str, end: str) -> dict[str, str]:
    return {"executionDay": day, "windowStartHour": start, "windowEndHour": end}


@pytest.mark.parametrize(
    "windows, now, wait",
    [
        ([window("Everyday", "09:00:00", "10:00:00")], MONDAY, timedelta(hours=9)),
        ([window("Everyday", "09:00:00", "10:00:00")], MONDAY.replace(hour=9), timedelta()),
        ([window("Everyday", "09:00", "10:00")], MONDAY.replace(hour=10), timedelta(hours=23)),
        ([window("Weekend", "00:00:00", "23:59:59")], MONDAY, timedelta(days=5)),
        ([window("Weekdays", "12:00:00", "13:00:00")], MONDAY, timedelta(hours=12)),
        ([window("Monday", "00:00:00", "01:00:00")], MONDAY.replace(hour=2),
         timedelta(days=7, hours=-2)),
        ([window("Sunday", "22:00:00", "02:00:00")], MONDAY.replace(hour=1), timedelta()),
        ([window("Sunday", "22:00:00", "02:00:00"), window("Tuesday", "05:00", "06:00")],
         MONDAY.replace(hour=3), timedelta(hours=26)),
        ([], MONDAY, None),
    ],
)  # fmt: skip
def test_the_wait_for_a_window_is_known(windows, now, wait):
    assert device(aws_devices.GARNET, executionWindows=windows).opens_in(now) == wait


# --- prices ---------------------------------------------------------------------------------------


def test_a_qpu_task_is_its_fee_and_its_shots_and_says_where_from():
    found = quote(device(aws_devices.GARNET), DeviceOptions(), total_shots=6400, width=4)
    assert found.worst == found.expected
    assert found.worst.usd == pytest.approx(0.30 + 6400 * 0.00145)
    assert found.worst.shots == 6400
    assert "not authoritative" in found.source
    assert "$0.30" in found.source
    assert found.effective_date == "2026-06-01T00:00:00"


def test_the_user_s_own_prices_win():
    own = DeviceOptions(price_per_task_usd=1.0, price_per_shot_usd=0.5)
    assert quote(device(aws_devices.GARNET), own, total_shots=2, width=4).worst.usd == 2.0


def test_without_a_price_of_the_devices_own_the_price_table_says_when_it_is_from():
    found = quote(
        device(aws_devices.GARNET, deviceCost=None), DeviceOptions(), total_shots=100, width=4
    )
    assert found.worst.usd == pytest.approx(0.30 + 100 * 0.00145)
    assert "$0.30 and $0.00145 a shot from: AWS price list" in found.source
    assert "not authoritative" not in found.source
    assert found.effective_date == "2026-06"


def test_the_users_own_price_table_replaces_the_row_but_not_what_the_device_says(
    monkeypatch, tmp_path
):
    own = tmp_path / "prices.toml"
    own.write_text(
        "[[price]]\n"
        'devices = ["braket:garnet"]\n'
        "per_job_usd = 1.0\n"
        "per_shot_usd = 0.5\n"
        'source = "my contract"\n'
        "effective_date = 2026-11-01\n"
    )
    monkeypatch.setenv("QSGD_PRICES", str(own))
    found = quote(device(aws_devices.GARNET), DeviceOptions(), total_shots=2, width=4)
    assert found.worst.usd == pytest.approx(1.0 + 2 * 0.00145)
    assert "my contract" in found.source
    bare = device(aws_devices.GARNET, deviceCost=None)
    found = quote(bare, DeviceOptions(), total_shots=2, width=4)
    assert (found.worst.usd, found.effective_date) == (2.0, "2026-11-01")


def test_an_unknown_price_is_none_and_never_zero():
    unknown = device(aws_devices.NOVEL, deviceCost=None)
    found = quote(unknown, DeviceOptions(), total_shots=100, width=4)
    assert found.worst.usd is None
    assert found.expected.usd is None
    assert billed(unknown, DeviceOptions(), shots=100).usd is None
    assert "not authoritative" not in found.source


def test_a_simulator_bills_three_seconds_at_least_and_its_time_above():
    sv1 = device(aws_devices.SV1)
    found = quote(sv1, DeviceOptions(), total_shots=100, width=20)
    assert found.expected.usd == pytest.approx(0.075 * 3 / 60)
    assert found.worst.usd == pytest.approx(0.075)
    assert quote(sv1, DeviceOptions(), total_shots=100, width=21).worst.usd is None
    assert billed(sv1, DeviceOptions(), shots=1, seconds=6.0).usd == pytest.approx(0.0075)


# --- names ----------------------------------------------------------------------------------------


def test_names_do_not_care_for_case_blanks_or_underscores():
    arns = list(aws_devices.catalogue())
    for name in ("braket:forte-1", "braket:Forte 1", "braket:FORTE_1"):
        assert names.match(name, arns) == [aws_devices.FORTE]
    assert names.match("braket:forte", arns) == []
    assert names.region(aws_devices.FORTE) == "us-east-1"
    assert names.region(aws_devices.SV1) is None


def test_a_near_miss_is_recognised():
    assert "braket:local" in names.meant("braket:lokal", [])
    assert "braket:garnet" in names.meant("braket:granet", [aws_devices.GARNET])
    assert names.meant("braket:zzzz", [aws_devices.GARNET]) == ""


def test_the_double_s_devices_are_valid_in_the_real_schemas():
    from braket.schema_common import BraketSchemaBase

    for arn, found in aws_devices.catalogue().items():
        if arn != aws_devices.AQUILA:
            BraketSchemaBase.parse_raw_schema(json.dumps(found["deviceCapabilities"]))
