"""The trainer's part of a run's record: gathered in memory, written at checkpoints.

What a simulator gave, where every step's s came from, and a fingerprint of the weights at every
checkpoint. What a paid run was told is written by its courier, into the same file.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from qsgd_core.circuits import Workload
from qsgd_core.measure.runner import Runner, Sample
from qsgd_core.schedule.record.entries import Sampled, Stretch
from qsgd_core.schedule.record.writer import RecordWriter
from qsgd_core.sources import SourceName

MOST_BYTES = 16 * 2**20
"""More than this is not kept in memory until the next checkpoint."""
MOST_ON_DISK = 2**30
"""What a simulator gave is recorded up to so many bytes; a replay can then go as far as that."""
ANGLES_EVERY = 100
"""One in so many samples is kept with its angles, by which a replay is compared."""


logger = logging.getLogger("qsgd_core")


class Recording:
    """Gathers and writes; no file is opened before there is something to write.

    Args:
        path: where the record goes.

    Attributes:
        header: what it will say of the run, plain JSON values.
    """

    def __init__(self, path: Path) -> None:
        self.header: dict[str, Any] = {}
        self._path = path
        self._writer: RecordWriter | None = None
        self._rows: list[Sampled] = []
        self._n_bytes = 0
        self._n_written = 0
        self._count = 0
        self._stretches: list[Stretch] = []

    def sample(self, step: int, work: Workload, sample: Sample) -> None:
        """A simulator gave ``sample`` to ``step``."""
        if self._n_written > MOST_ON_DISK:
            return
        angles = [b.angles for b in work.batches] if self._count % ANGLES_EVERY == 0 else []
        self._count += 1
        row = Sampled(step, tuple(sample.z), sample.source, tuple(a.copy() for a in angles))
        self._rows.append(row)
        self._n_bytes += sum(a.nbytes for a in (*row.z, *row.angles))
        if self._n_bytes > MOST_BYTES:
            self._write_samples()

    def source(self, step: int, source: SourceName) -> None:
        """``step`` has been taken with s from ``source``."""
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.source == source and last.last == step - 1:
            self._stretches[-1] = Stretch(last.first, step, source)
        else:
            self._stretches.append(Stretch(step, step, source))

    def checkpoint(self, step: int, weights: str) -> None:
        """Write everything up to here, and that the weights are these after ``step`` steps."""
        self.flush()
        self._open().mark(step, weights)

    def flush(self) -> None:
        """Write everything up to here."""
        self._write_samples()
        stretches, self._stretches = self._stretches, []
        self._open().sources(*stretches)

    def rewind(self, step: int) -> None:
        """The run goes on from a checkpoint after ``step`` steps."""
        self._rows, self._stretches, self._count = [], [], 0
        self._n_bytes = self._n_written = 0
        if self._writer is not None or self._path.exists():
            self._open().rewind(step)

    def close(self) -> None:
        """Write what is left, and let go of the file; a later step opens it again."""
        if self._rows or self._stretches or self._writer is not None:
            self.flush()
            self._open().close()
            self._writer = None

    def _open(self) -> RecordWriter:
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = RecordWriter(self._path)
            self._writer.header(self.header)
        return self._writer

    def _write_samples(self) -> None:
        rows, self._rows = self._rows, []
        if not rows:
            return
        self._open().samples(rows)
        self._n_written, self._n_bytes = self._n_written + self._n_bytes, 0
        if self._n_written > MOST_ON_DISK:
            ends = rows[-1].step + 1
            self._open().header({"samples_end": ends})
            logger.warning(
                "The record %s has grown to its limit of %.1f GB: the run goes on and can be "
                "replayed up to step %d.",
                self._path,
                MOST_ON_DISK / 1e9,
                ends,
            )


class RecordedRunner:
    """A runner whose every answer is recorded."""

    def __init__(self, runner: Runner, recording: Recording) -> None:
        self.runner = runner
        self.recording = recording

    def run(self, work: Workload, *, shots: int | None, step: int) -> Sample:
        """See :class:`.runner.Runner`."""
        sample = self.runner.run(work, shots=shots, step=step)
        self.recording.sample(step, work, sample)
        return sample

    def check(self, work: Workload, *, shots: int | None) -> None:
        """See :class:`.runner.Runner`."""
        self.runner.check(work, shots=shots)


@torch.no_grad()
def fingerprint(tensors: Iterable[torch.Tensor]) -> str:
    """SHA-256 over dtype, shape and bytes of each tensor; of a sharded one this rank's part."""
    digest = hashlib.sha256()
    for tensor in tensors:
        own = tensor.to_local() if hasattr(tensor, "to_local") else tensor
        digest.update(f"{own.dtype} {tuple(own.shape)};".encode())
        data = own.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(data.numpy().tobytes())
    return digest.hexdigest()
