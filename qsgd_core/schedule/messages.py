"""What trainer and courier say to each other: one frozen dataclass a kind, and how it is sent.

On the wire a message is a frame: a mark, two little-endian uint32 (length of the head, length of
the rest), the head as JSON, and the bytes of the arrays one after the other. Encoding one costs a
few microseconds: the training thread does it. What is no message, or has a field too many, too few
or of another type, is refused. docs/protocol.md is made from the classes below.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, ClassVar, Literal, Self, get_type_hints

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from qsgd_core.circuits import Workload
from qsgd_core.errors import ConfigError, ResultCorruptError
from qsgd_core.schedule.paid_run import PaidRun
from qsgd_core.schedule.workloads import read_workload, workload_values
from qsgd_core.sources import Rung

PROTOCOL = 4
"""Goes up when a kind or a field changes. Trainer and courier compare it when they meet."""

_START = struct.Struct("<4sII")
_MARK = b"QSGD"
_GARBLED = "The stream between trainer and courier is garbled."


@dataclass(frozen=True, eq=False)
class Frame:
    """One message.

    Attributes:
        kind: what it is about.
        values: plain JSON values.
        arrays: anything that must arrive to the bit.
    """

    kind: str
    values: Mapping[str, Any] = field(default_factory=dict)
    arrays: Sequence[np.ndarray[Any, Any]] = ()

    @classmethod
    def decode(cls, data: bytes) -> Frame:
        """Read :meth:`encode`.

        Raises:
            ResultCorruptError: the bytes are not one frame.
        """
        frames = list(Decoder().feed(data))
        if len(frames) != 1:
            raise ResultCorruptError(f"{len(data)} bytes hold {len(frames)} frames instead of one.")
        return frames[0]

    def encode(self) -> bytes:
        """The frame as bytes."""
        arrays = [np.asarray(a, order="C") for a in self.arrays]
        forms = [(a.dtype.str, a.shape) for a in arrays]
        head = json.dumps([self.kind, self.values, forms]).encode()
        body = b"".join(a.tobytes() for a in arrays)
        return _START.pack(_MARK, len(head), len(body)) + head + body


class Decoder:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """The frames that ``data`` completes.

        Raises:
            ResultCorruptError: the bytes are not frames.
        """
        self._buffer += data
        while self._buffer:
            if not _MARK.startswith(bytes(self._buffer[: len(_MARK)])):
                raise ResultCorruptError(_GARBLED)
            if len(self._buffer) < _START.size:
                return
            _, head, body = _START.unpack_from(self._buffer)
            stop = _START.size + head + body
            if len(self._buffer) < stop:
                return
            frame = bytes(self._buffer[_START.size : stop])
            del self._buffer[:stop]
            yield _decode(frame, head)


def _decode(data: bytes, head: int) -> Frame:
    try:
        kind, values, forms = json.loads(data[:head])
        arrays = []
        start = head
        for dtype, shape in forms:
            kind_of = np.dtype(dtype)
            count = int(np.prod(shape, dtype=np.int64))
            arrays.append(np.frombuffer(data, kind_of, count, start).reshape(shape).copy())
            start += count * kind_of.itemsize
    except (ValueError, TypeError) as error:
        raise ResultCorruptError(_GARBLED) from error
    return Frame(kind, values, arrays)


class Message:
    """A kind of message; a subclass names it and is a frozen dataclass of plain JSON values.

    Attributes:
        kind: what it is called on the wire.
    """

    kind: ClassVar[str]
    known: ClassVar[dict[str, type[Message]]] = {}

    def __init_subclass__(cls, kind: str) -> None:
        cls.kind = kind
        Message.known[kind] = cls

    def to_frame(self) -> Frame:
        """As it is sent; :meth:`from_frame` reads it back to the bit."""
        return Frame(self.kind, {f.name: getattr(self, f.name) for f in fields(self)})  # type: ignore[arg-type]

    @classmethod
    def from_frame(cls, frame: Frame) -> Self:
        """Read the frame.

        Raises:
            ResultCorruptError: a field is missing, not known, or of another type.
        """
        if frame.arrays:
            raise ResultCorruptError(f"A message {frame.kind!r} has no arrays. {_GARBLED}")
        return cls.checked(frame.values)

    @classmethod
    def checked(cls, values: Mapping[str, Any]) -> Self:
        """The message with these fields, each of its type."""
        try:
            found = _FORMS[cls.kind].model_validate(dict(values))
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"]) or "?"
            raise ResultCorruptError(
                f"Field {name!r} of a message {cls.kind!r}: {first['msg']}. {_GARBLED}"
            ) from error
        return cls(**{name: getattr(found, name) for name in type(found).model_fields})


def read_message(frame: Frame) -> Message:
    """The message in a frame.

    Raises:
        ConfigError: the other process speaks another version of the protocol.
        ResultCorruptError: there is no such kind, or it has other fields.
    """
    kind = Message.known.get(frame.kind)
    if kind is None:
        raise ResultCorruptError(
            f"There is no message {frame.kind!r}; there are {', '.join(sorted(Message.known))}. "
            f"{_GARBLED}"
        )
    if "protocol" in kind.__annotations__ and frame.values.get("protocol") != PROTOCOL:
        raise ConfigError(
            f"Trainer and courier are of two versions of qsgd-core: this process speaks version "
            f"{PROTOCOL} of their protocol, the other {frame.values.get('protocol')!r}. Was the "
            "package changed while the run went on? Stop it and start it again with --resume; what "
            "was sent is on the ledger."
        )
    return kind.from_frame(frame)


Floats = NDArray[np.float64]
BESIDE = "not JSON: in the frame's arrays"
Bytes = Annotated[NDArray[np.uint8], BESIDE]

# -- what the trainer says ---------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Open(Message, kind="open"):
    """The trainer starts, comes back, or has a new courier: where the run stands.

    Attributes:
        protocol: version of these messages.
        step: steps taken.
        learned: steps whose refreshes the trainer has the answer to.
        waits: whether it stands still for results: then what was paid for ahead of ``step`` is
            left until it asks again.
        waits_for_each: whether it does so for every result that it asks for.
        between: what stands in between refreshes: the twin, or the last result.
        run: what the run is.
        latest: the newest snapshot as a frame's bytes, uint8 (n,); None before the first.
    """

    protocol: int
    step: int
    learned: list[int]
    waits: bool
    waits_for_each: bool
    between: Literal["twin", "hold"]
    run: PaidRun
    latest: Annotated[NDArray[np.uint8] | None, BESIDE] = None

    def to_frame(self) -> Frame:
        """See :class:`Message`."""
        frame = _beside(self, latest=[] if self.latest is None else [self.latest])
        return replace(frame, values={**frame.values, "run": self.run.model_dump()})

    @classmethod
    def from_frame(cls, frame: Frame) -> Open:
        """See :class:`Message`."""
        latest = _one_of_bytes(frame) if frame.arrays else None
        return cls.checked({**frame.values, "latest": latest})


@dataclass(frozen=True, eq=False)
class QuoteAsked(Message, kind="quote"):
    """What would a refresh of these blocks cost? Answered by ``account`` or ``refused``.

    Attributes:
        work: every block, at angles float64 (B, n_slots) a batch.
        shots: per circuit; None leaves it to the service.
    """

    work: Annotated[Workload, BESIDE]
    shots: int | None

    def to_frame(self) -> Frame:
        """See :class:`Message`."""
        values = {"work": workload_values(self.work), "shots": self.shots}
        return Frame(self.kind, values, [b.angles for b in self.work.batches])

    @classmethod
    def from_frame(cls, frame: Frame) -> QuoteAsked:
        """See :class:`Message`."""
        work, rest = _work(frame)
        _no_more(rest, frame)
        return cls.checked({**frame.values, "work": work})


@dataclass(frozen=True, eq=False)
class Ask(Message, kind="ask"):
    """A refresh is wanted. Kept on the ledger with its first job, so its form may not change.

    Attributes:
        step: steps taken; the refresh's name in its run.
        work: every block, at angles float64 (B, n_slots) a batch; its digest names the question.
        used: ⟨observables⟩ that the trainer uses at this step, float64 (B, n_observables) a batch.
        shots: per circuit.
        seed: of whatever the service lets us seed.
        tiles: blocks side by side in a circuit.
        per_refresh: blocks that it measures; None for all.
        turn: which of them, where it is not all.
        planned: share of the budget that is to be spent by now; None without a plan.
    """

    step: int
    work: Annotated[Workload, BESIDE]
    used: Annotated[list[Floats], BESIDE]
    shots: int
    seed: int
    tiles: int
    per_refresh: int | None
    turn: int
    planned: float | None

    def to_frame(self) -> Frame:
        """See :class:`Message`."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        del plain["used"]
        values = plain | {"work": workload_values(self.work)}
        return Frame(self.kind, values, [*(b.angles for b in self.work.batches), *self.used])

    @classmethod
    def from_frame(cls, frame: Frame) -> Ask:
        """See :class:`Message`."""
        work, rest = _work(frame)
        if [a.shape for a in rest] != [(b.n_rows, len(b.observables)) for b in work.batches]:
            raise ResultCorruptError(f"'used' does not fit 'work' in a message 'ask'. {_GARBLED}")
        return cls.checked({**frame.values, "work": work, "used": rest})


@dataclass(frozen=True, eq=False)
class Applied(Message, kind="applied"):
    """The trainer uses a snapshot from a step on. Answered by ``noted``.

    Attributes:
        step: the first step.
        refresh: the step whose refresh it was made from; None for none.
        rung: where its ⟨observables⟩ come from: measured, tracked, nominal, random or zero.
        tiles: blocks side by side in a circuit.
        snapshot: it as a frame's bytes, uint8 (n,).
    """

    step: int
    refresh: int | None
    rung: Rung
    tiles: int
    snapshot: Bytes

    def to_frame(self) -> Frame:
        """See :class:`Message`."""
        return _beside(self, snapshot=[self.snapshot])

    @classmethod
    def from_frame(cls, frame: Frame) -> Applied:
        """See :class:`Message`."""
        return cls.checked({**frame.values, "snapshot": _one_of_bytes(frame)})


@dataclass(frozen=True)
class Finish(Message, kind="finish"):
    """The run is over: cancel what waits in a queue. Answered by ``finished``.

    Attributes:
        step: steps taken.
    """

    step: int


# -- what both say -----------------------------------------------------------------------------


@dataclass(frozen=True)
class News(Message, kind="news"):
    """The ledger has changed; see for yourself."""


@dataclass(frozen=True)
class Happened(Message, kind="event"):
    """Something that belongs into the record, or on the panel.

    Attributes:
        what: one word.
        message: in words.
        step: of the trainer's events; None for the courier's.
    """

    what: str
    message: str
    step: int | None = None


# -- what the courier says ---------------------------------------------------------------------


@dataclass(frozen=True)
class Ready(Message, kind="ready"):
    """The courier has looked at the service and serves the run.

    Attributes:
        protocol: version of these messages.
    """

    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Opened(Message, kind="opened"):
    """The answer to ``open``: what the ledger knows of the run.

    Attributes:
        asked_at: the newest step whose refresh is under way or done; None for none.
        ahead: steps from the trainer's on that have been paid for, ascending.
    """

    asked_at: int | None
    ahead: list[int]


@dataclass(frozen=True)
class Account(Message, kind="account"):
    """Where the money stands, and what a refresh costs.

    Attributes:
        caps: budget, unit, cap, reserved, spent and overrun of each capped unit.
        quote: expected and worst cost of a refresh, and where that is from; None: not known yet.
        shots: per circuit; None: not known yet.
        tiles: blocks side by side in a circuit.
        queue_s: seconds from submission to result of the newest jobs on this backend.
        backend: its resolved name.
    """

    caps: list[dict[str, Any]]
    quote: dict[str, Any] | None
    shots: int | None
    tiles: int
    queue_s: list[float]
    backend: str


@dataclass(frozen=True)
class Refused(Message, kind="refused"):
    """The service would not say what a refresh costs.

    Attributes:
        error: packed, see :func:`~qsgd_core.schedule.failures.pack_error`.
    """

    error: str


@dataclass(frozen=True, eq=False)
class Answer(Message, kind="answer"):
    """A refresh is over; what it taught has come before, as a ``snapshot``.

    Attributes:
        step: the refresh.
        error: packed, if it brought nothing.
        denied: whether the budget did not pay for it.
        asked_at: when an earlier life of the run asked for it, seconds since the epoch; None: this
            one did.
        angles: at which it was asked then, float64 (B, n_slots) a batch.
    """

    step: int
    error: str | None = None
    denied: bool = False
    asked_at: float | None = None
    angles: Annotated[Sequence[Floats], BESIDE] = ()

    def to_frame(self) -> Frame:
        """See :class:`Message`."""
        return _beside(self, angles=self.angles)

    @classmethod
    def from_frame(cls, frame: Frame) -> Answer:
        """See :class:`Message`."""
        if frame.arrays and frame.values.get("asked_at") is None:
            raise ResultCorruptError(f"Angles in an answer that was asked for now. {_GARBLED}")
        return cls.checked({**frame.values, "angles": tuple(frame.arrays)})


@dataclass(frozen=True)
class Noted(Message, kind="noted"):
    """What was applied is in the record.

    Attributes:
        step: that of ``applied``.
    """

    step: int


@dataclass(frozen=True)
class Finished(Message, kind="finished"):
    """The answer to ``finish``.

    Attributes:
        left: tags of jobs that run on.
    """

    left: list[str]


@dataclass(frozen=True)
class Written(Message, kind="written"):
    """The newest write of the ledger that the courier has seen; the next courier looks for it.

    Attributes:
        number: of the write.
        name: of the write.
    """

    number: int
    name: str


@dataclass(frozen=True)
class Stopped(Message, kind="stopped"):
    """The courier cannot go on, and ends.

    Attributes:
        error: packed.
    """

    error: str


# -- how it is written -------------------------------------------------------------------------


def _beside(message: Message, **arrays: Sequence[NDArray[Any]]) -> Frame:
    """A frame in which one field is not JSON but an array, or none."""
    (name, given), *_ = arrays.items()
    values = {f.name: getattr(message, f.name) for f in fields(message)}  # type: ignore[arg-type]
    del values[name]
    return Frame(message.kind, values, given)


def _one_of_bytes(frame: Frame) -> NDArray[np.uint8]:
    if [(a.dtype, a.ndim) for a in frame.arrays] != [(np.dtype(np.uint8), 1)]:
        raise ResultCorruptError(f"A message {frame.kind!r} has one array of bytes. {_GARBLED}")
    return frame.arrays[0]


def _work(frame: Frame) -> tuple[Workload, list[NDArray[Any]]]:
    """The workload of a frame, and the arrays after its angles."""
    try:
        values = frame.values["work"]
        return read_workload(values, frame.arrays[: len(values)]), list(frame.arrays[len(values) :])
    except Exception as error:  # whatever a circuit's checks raise
        raise ResultCorruptError(
            f"Field 'work' of a message {frame.kind!r} is no workload: {error!r}. {_GARBLED}"
        ) from error


def _no_more(arrays: Sequence[NDArray[Any]], frame: Frame) -> None:
    if arrays:
        raise ResultCorruptError(f"A message {frame.kind!r} has too many arrays. {_GARBLED}")


def _form(cls: type[Message]) -> type[BaseModel]:
    """A model with the fields of ``cls`` that takes nothing else, and no type for another.

    Defaults are for whoever writes a message: on the wire every field is there.
    """
    config = ConfigDict(extra="forbid", strict=True, protected_namespaces=())
    hints = get_type_hints(cls, include_extras=True)
    beside = {name for name, hint in hints.items() if BESIDE in getattr(hint, "__metadata__", ())}
    hints |= dict.fromkeys(beside, Any)
    given = {f.name: (hints[f.name], ...) for f in fields(cls)}  # type: ignore[arg-type]
    return create_model(cls.__name__, __config__=config, **given)  # type: ignore[call-overload, no-any-return]


# Made here and not when they are needed: that compiles code, and the training thread has no time.
_FORMS = {kind: _form(cls) for kind, cls in Message.known.items()}
