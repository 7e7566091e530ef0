"""Every kind of message: to the bit and back, documented, and nothing else is taken."""

from __future__ import annotations

import dataclasses
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_core.schedule import messages as m
from qsgd_core.schedule.messages import PROTOCOL, Frame, Message, read_message
from qsgd_core.schedule.paid_run import PaidRun

sys.path.insert(0, str(Path(__file__).parent))
import protocol_page

KINDS = [kind for kind in vars(m).values() if inspect.isclass(kind) and "kind" in vars(kind)]
TEXT = st.text(max_size=5)
COUNT = st.integers(0, 2**53)
NUMBER = st.floats(allow_nan=False, width=64)
PLAIN = st.dictionaries(TEXT, TEXT | COUNT | NUMBER | st.none(), max_size=3)
BYTES = st.binary(max_size=20).map(lambda data: np.frombuffer(data, np.uint8))


@st.composite
def works(draw) -> Workload:
    circuit = ansatz(draw(st.integers(1, 3)), 1)
    rows = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return Workload((CircuitBatch(circuit, rng.normal(size=(rows, circuit.n_slots)), ((0,),)),))


@st.composite
def asks(draw) -> m.Ask:
    work = draw(works())
    used = [np.linspace(-1, 1, b.n_rows)[:, None] for b in work.batches]
    turn, planned = draw(COUNT), draw(NUMBER | st.none())
    return m.Ask(draw(COUNT), work, used, 8, draw(COUNT), 1, draw(st.none() | COUNT), turn, planned)


def maybe(some: st.SearchStrategy) -> st.SearchStrategy:
    return st.none() | some


RUNS = st.builds(
    PaidRun, run_id=TEXT, backend=TEXT, backend_options=PLAIN, budget_name=TEXT, policy=TEXT,
    wait=st.sampled_from(["never", "first", "always"]), every=maybe(COUNT), shots=maybe(COUNT),
    total_steps=maybe(COUNT), seed=COUNT, record=maybe(TEXT), origin=PLAIN,
)  # fmt: skip
SAID = st.one_of(
    st.builds(
        m.Open, st.just(PROTOCOL), COUNT, st.lists(COUNT), st.booleans(), st.booleans(),
        st.sampled_from(["twin", "hold"]), RUNS, maybe(BYTES),
    ),
    st.builds(m.QuoteAsked, works(), maybe(COUNT)),
    asks(),
    st.builds(m.Applied, COUNT, maybe(COUNT), st.sampled_from(["measured", "zero"]), COUNT, BYTES),
    st.builds(m.Finish, COUNT),
    st.builds(m.News),
    st.builds(m.Happened, TEXT, TEXT, maybe(COUNT)),
    st.builds(m.Ready, st.just(PROTOCOL)),
    st.builds(m.Opened, maybe(COUNT), st.lists(COUNT)),
    st.builds(
        m.Account, st.lists(PLAIN), maybe(PLAIN), maybe(COUNT), COUNT, st.lists(NUMBER), TEXT
    ),
    st.builds(m.Refused, TEXT),
    st.builds(m.Answer, COUNT, maybe(TEXT), st.booleans(), maybe(NUMBER)),
    st.builds(m.Noted, COUNT),
    st.builds(m.Finished, st.lists(TEXT)),
    st.builds(m.Written, COUNT, TEXT),
    st.builds(m.Stopped, TEXT),
)  # fmt: skip


@settings(deadline=None, max_examples=150)
@given(SAID)
def test_a_message_arrives_to_the_bit(message):
    data = message.to_frame().encode()
    back = read_message(Frame.decode(data))
    assert type(back) is type(message)
    assert back.to_frame().encode() == data


@settings(deadline=None, max_examples=100)
@given(SAID, st.data())
def test_a_field_too_many_too_few_or_of_another_type_is_an_error(message, data):
    frame = message.to_frame()
    bad = [{**frame.values, "extra": 1}]
    if frame.values:
        name = data.draw(st.sampled_from(sorted(frame.values)))
        bad += [{k: v for k, v in frame.values.items() if k != name}]
        bad += [{**frame.values, name: {"not": ["this"], "nor": object}}]
        if name == "quote":  # these are mappings of anything
            del bad[-1]
    for values in bad:
        with pytest.raises((ResultCorruptError, ConfigError)):
            read_message(Frame(frame.kind, values, frame.arrays))
    if frame.values.get("asked_at") is None:  # angles of any number come with it
        with pytest.raises(ResultCorruptError):
            read_message(Frame(frame.kind, frame.values, [*frame.arrays, np.zeros(2), np.zeros(1)]))


def test_an_unknown_kind_is_an_error_that_names_it():
    with pytest.raises(ResultCorruptError, match="no message 'surprise'; there are account, "):
        read_message(Frame("surprise"))


def test_another_version_of_the_protocol_is_told_from_garbage():
    """Even if its greeting has other fields."""
    for frame in (Frame("ready", {"protocol": 99}), Frame("open", {"protocol": 0, "new": 1})):
        with pytest.raises(ConfigError, match=f"version {PROTOCOL} of their protocol, the other "):
            read_message(frame)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_field_is_explained(kind):
    fields = {field.name for field in dataclasses.fields(kind)}
    _, _, attributes = inspect.cleandoc(kind.__doc__).partition("Attributes:\n")
    said = {line.strip().partition(":")[0] for line in attributes.splitlines() if line[4:5] != " "}
    assert fields == said


def test_the_page_is_the_code():
    assert protocol_page.PAGE.read_text() == protocol_page.page()


def test_every_kind_is_tried_here():
    assert {kind.kind for kind in KINDS} <= set(Message.known)
    assert len(KINDS) == 16
