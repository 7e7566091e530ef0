"""Frames between trainer and courier, and the pipes that carry them."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from qsgd_core.circuits import CircuitBatch, Workload, ansatz
from qsgd_core.errors import BackendError, ResultCorruptError
from qsgd_core.schedule.messages import Decoder, Frame
from qsgd_core.schedule.trainer import process
from qsgd_core.schedule.trainer.process import MAX_DEATHS, CourierProcess
from qsgd_core.schedule.workloads import read_workload, workload_values

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.intp, np.uint8, np.bool_]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
)
FRAMES = st.builds(
    Frame, st.text(), st.dictionaries(st.text(), PLAIN, max_size=3), st.lists(ARRAYS, max_size=3)
)


def assert_same(one: Frame, two: Frame) -> None:
    assert (one.kind, one.values) == (two.kind, two.values)
    assert len(one.arrays) == len(two.arrays)
    for a, b in zip(one.arrays, two.arrays, strict=True):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


@given(frames=st.lists(FRAMES, min_size=1, max_size=4), data=st.data())
def test_frames_arrive_to_the_bit_wherever_the_stream_is_cut(frames, data):
    stream = b"".join(frame.encode() for frame in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    decoder, arrived = Decoder(), []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        arrived += decoder.feed(stream[start:stop])
    for sent, got in zip(frames, arrived, strict=True):
        assert_same(sent, got)


def test_not_even_the_last_byte_may_be_missing():
    data = Frame("x", {"a": 1}, [np.arange(3.0)]).encode()
    decoder = Decoder()
    assert list(decoder.feed(data[:-1])) == []
    assert [frame.kind for frame in decoder.feed(data[-1:])] == ["x"]


def test_nan_infinity_and_minus_zero_are_carried_by_arrays():
    odd = np.array([np.nan, np.inf, -np.inf, -0.0])
    (frame,) = Decoder().feed(Frame("x", arrays=[odd]).encode())
    assert frame.arrays[0].tobytes() == odd.tobytes()


def test_an_array_that_is_not_contiguous_is_sent_as_it_reads():
    array = np.arange(12.0).reshape(3, 4)[:, ::2]
    (frame,) = Decoder().feed(Frame("x", arrays=[array]).encode())
    np.testing.assert_array_equal(frame.arrays[0], array)


def test_what_arrives_may_be_written_to():
    (frame,) = Decoder().feed(Frame("x", arrays=[np.zeros(2)]).encode())
    frame.arrays[0][0] = 1.0


GARBAGE = [
    b"Traceback (most recent call last):\n",
    b"\n",
    b"Qiskit 2.6.2 loaded\n",
    b"\xff" * 8,
    b"QSGX",
    b"QSGD\x08\0\0\0\0\0\0\0not json",
    b"QSGD\x06\0\0\0\0\0\0\0[1, 2]",
    b'QSGD\x17\0\0\0\x04\0\0\0["x", {}, [["<f8", [1]]]]four',
    Frame("x").encode() + b" ",
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_what_is_not_a_frame_is_known_at_once(garbage):
    with pytest.raises(ResultCorruptError, match="garbled"):
        list(Decoder().feed(garbage))


@given(
    shapes=st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), min_size=1, max_size=3),
    phases=st.booleans(),
)
def test_a_workload_arrives_to_the_bit(shapes, phases):
    rng = np.random.default_rng(1)
    circuits = [ansatz(n, 2, phases=phases) for _, n in shapes]
    work = Workload(
        tuple(
            CircuitBatch(c, rng.normal(size=(rows, c.n_slots)), ((0,),))
            for c, (rows, _) in zip(circuits, shapes, strict=True)
        )
    )
    values = json.loads(json.dumps(workload_values(work)))
    assert read_workload(values, [b.angles for b in work.batches]).digest() == work.digest()


# --- pipes ---------------------------------------------------------------------------------------


@pytest.fixture
def courier(tmp_path, monkeypatch):
    """Starts a program in the place of the courier."""
    made = []

    def start(program: str) -> CourierProcess:
        (tmp_path / "stand_in.py").write_text(program)
        root = Path(__file__).parents[2]
        monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{root}")
        monkeypatch.setattr(process, "COURIER_MODULE", "stand_in")
        made.append(CourierProcess("sqlite://", "r", log=tmp_path / "log"))
        return made[-1]

    yield start
    for one in made:
        if one.pid is not None:
            os.kill(one.pid, 9)
        one.stop()


def no_time(monkeypatch) -> list[float]:
    """Whoever sleeps wakes up at once, that much later; how long each slept."""
    slept: list[float] = []
    clock = SimpleNamespace(
        sleep=slept.append, monotonic=lambda: time.monotonic() + sum(slept), time=time.time
    )
    monkeypatch.setattr(process, "time", clock)
    return slept


TELL = """
import sys, json, time
from qsgd_core.schedule.messages import Decoder, Frame
config = sys.stdin.buffer.readline()
def tell(*kinds):
    for kind in kinds:
        sys.stdout.buffer.write(Frame(kind).encode())
    sys.stdout.buffer.flush()
"""


def test_a_courier_that_does_not_read_never_holds_up_the_trainer(courier):
    """Ten megabytes are far more than a pipe holds; what is measured is this thread's time."""
    line = courier("import time; time.sleep(600)")
    line.receive()
    frame = Frame("ask", arrays=[np.zeros(10 * 2**17)])
    began = time.monotonic()
    line.send(frame)
    assert line.receive() == []
    line.send(Frame("event"))
    assert time.monotonic() - began < 2.0
    assert len(line._unsent) > 10 * 2**20 - 2**20


def test_a_long_frame_arrives_while_the_trainer_waits(courier):
    line = courier(
        TELL
        + """
decoder = Decoder()
while True:
    for frame in decoder.feed(sys.stdin.buffer.read1(65536)):
        tell(str(frame.arrays[0].sum()))
"""
    )
    line.send(Frame("ask", arrays=[np.ones(10 * 2**17)]))
    began = time.monotonic()
    assert [frame.kind for frame in line.receive(60.0)] == [f"{10.0 * 2**17}"]
    assert time.monotonic() - began < 55.0


def test_all_that_a_courier_has_said_is_heard_even_if_it_is_gone(courier):
    line = courier(TELL + "tell('news', 'answer', 'finished')")
    heard = []
    while len(heard) < 3:
        heard += [frame.kind for frame in line.receive(30.0)]
    assert heard == ["news", "answer", "finished"]


@pytest.mark.parametrize(
    "program", ["", "print('Welcome to the SDK!', flush=True); import time; time.sleep(600)"]
)
def test_a_courier_that_dies_or_talks_nonsense_is_replaced_a_few_times_and_then_given_up(
    courier, monkeypatch, program
):
    rested = no_time(monkeypatch)
    line = courier(program)
    while line.starts < MAX_DEATHS or line.pid is not None:
        assert line.receive(30.0) == []
    with pytest.raises(BackendError, match=f"died {MAX_DEATHS} times in a row; its log is "):
        line.receive(30.0)
    assert rested == sorted(rested)
    assert len(rested) == MAX_DEATHS - 1
    line.receive(30.0)  # who goes on all the same may try again
    assert line.starts == MAX_DEATHS + 1


@pytest.mark.parametrize(
    "said, given_up",
    [("ready", True), ("opened", True), ("account", True), ("snapshot", True),
     ("stopped", True), ("answer", False), ("news", False)],
)  # fmt: skip
def test_only_a_courier_that_has_brought_something_forward_counts_as_alive(
    courier, monkeypatch, said, given_up
):
    """What each one says when it begins is no progress: it may die of the same thing each time."""
    no_time(monkeypatch)
    line = courier(TELL + f"tell({said!r})")
    try:
        while line.starts < MAX_DEATHS + 2:
            line.receive(30.0)
        gone = False
    except BackendError:
        gone = True
    assert gone is given_up


def test_a_courier_that_rests_is_not_started(courier, monkeypatch):
    line = courier(TELL + "tell('news')\ntime.sleep(600)")
    slept = no_time(monkeypatch)
    line.rest(100.0)
    line.send(Frame("event"))
    assert line.receive() == []
    assert line.receive(3.0) == []
    assert (line.starts, line.pid) == (0, None)
    assert slept[-1] == 3.0
    line.receive(99.0)
    assert line.starts == 1


def test_a_courier_that_dies_does_not_cut_its_rest_short(courier, monkeypatch):
    line = courier(TELL + "tell('stopped')")
    while not line.receive(30.0):
        pass
    line.rest(100.0)
    while line.pid is not None:
        line.receive(0.1)
    no_time(monkeypatch)
    line.receive(50.0)
    assert line.starts == 1


def test_a_forked_process_says_nothing_and_starts_nothing(courier):
    """A DataLoader's worker has a copy of the trainer's memory, and must not touch its pipes."""
    line = courier(TELL + "tell('news')\ntime.sleep(600)")
    while not line.receive(30.0):
        pass
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        line.send(Frame("ask"))
        heard = line.receive(0.0)
        line.stop()
        os.write(theirs, b"%d %d" % (len(heard), line.starts))
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(ours, 99) == b"0 1"
    os.close(ours)
    os.close(theirs)
    os.kill(line.pid, 0)  # the parent's courier lives
    assert line._unsent == b""


def test_stop_lets_the_courier_end_by_itself(courier):
    line = courier(TELL + "tell('news')\nsys.stdin.buffer.read()\nsys.exit(7)")
    while not line.receive(30.0):
        pass
    child = line._child
    line.stop()
    assert child.returncode == 7
    line.stop()
