"""Standard streams that cannot fail: what a terminal cannot show, or nobody reads, stops no run."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TextIO

_READER_LEFT = (errno.EPIPE, errno.ECONNRESET)


class _TakesAll(io.FileIO):
    """A descriptor that takes everything; :attr:`lost` is why some of it went nowhere."""

    lost: OSError | None = None

    def write(self, data: object) -> int:
        size = memoryview(data).nbytes  # type: ignore[arg-type]
        try:
            if self.lost is None:
                return super().write(data) or 0  # type: ignore[arg-type]
        except OSError as error:
            self.lost = error
        return size


@dataclass
class Streams:
    """The process's standard streams while a command runs.

    Attributes:
        trouble: once it is over, why output was lost although somebody is there to read it, such
            as a full disk; None if none was.
    """

    trouble: OSError | None = None


@contextmanager
def unfailing_streams() -> Iterator[Streams]:
    """While entered, printing does not raise.

    Characters that an encoding has not are replaced, as are halves of a file's name that is no
    text. A reader who leaves is no error, and a stream that the shell has closed leads nowhere: its
    descriptor must not become that of a database.
    """
    _open_closed_streams()
    streams = Streams()
    before = sys.stdout, sys.stderr
    replace_what_cannot_be_shown()
    out, err = (_descriptor(stream) for stream in before)
    sys.stdout, sys.stderr = _on(out, before[0]), _on(err, before[1])
    try:
        yield streams
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        sys.stdout, sys.stderr = before
        if out is not None and out.lost is not None and out.lost.errno not in _READER_LEFT:
            streams.trouble = out.lost


def replace_what_cannot_be_shown() -> None:
    """The same of encodings alone, for the rest of this process: for processes of our own."""
    for stream in (sys.stdout, sys.stderr):
        _replace(stream)


def _replace(stream: TextIO | None) -> None:
    if isinstance(stream, io.TextIOWrapper) and (handler := _handler(stream)) != stream.errors:
        stream.reconfigure(errors=handler)


def _handler(stream: io.TextIOWrapper) -> str:
    """How ``stream`` is to treat what it cannot encode: as it does, if that never raises."""
    escapes = stream.errors == "surrogateescape" and _is_utf8(stream.encoding)
    raises = stream.errors in (None, "strict", "surrogateescape") and not escapes
    return "replace" if raises else str(stream.errors)


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"


def _descriptor(stream: TextIO) -> _TakesAll | None:
    """What ``stream`` writes to, taking everything; None if that is no file of the system's."""
    if not isinstance(stream, io.TextIOWrapper):
        return None
    try:
        stream.flush()
        return _TakesAll(stream.fileno(), "wb", closefd=False)
    except (OSError, ValueError):
        return None


def _on(raw: _TakesAll | None, like: TextIO) -> TextIO:
    """A stream on ``raw`` that encodes and buffers as ``like`` does; ``like`` itself without."""
    if raw is None or not isinstance(like, io.TextIOWrapper):
        return like
    direct = like.write_through
    return io.TextIOWrapper(
        raw if direct else io.BufferedWriter(raw),
        encoding=like.encoding,
        errors=like.errors,
        line_buffering=like.line_buffering,
        write_through=direct,
    )


def _open_closed_streams() -> None:
    """Give a stream that the shell has closed (``>&-``) a descriptor that leads nowhere."""
    with suppress(OSError):
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)
        os.close(descriptor)
    for name, descriptor, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
