"""What a source of s goes through with its run, beside giving s."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from qsgd_core.events import Observer
from qsgd_core.measure.machine import describe_machine
from qsgd_core.measure.paid import ScheduledRunner
from qsgd_core.measure.recording import Recording, fingerprint
from qsgd_core.measure.replay import Replay
from qsgd_core.sources import SourceName

Weights = Callable[[], str]
"""A fingerprint of the weights, computed when it is asked for."""


class Life:
    """The life of a source that keeps nothing: every method may be called and does nothing."""

    def begin(self, *, device: str, tell: Observer) -> list[str]:
        """The optimizer's parameters are on ``device``; events go to ``tell``.

        Returns:
            sentences that the user should read.
        """
        return []

    def stepped(self, step: int, source: SourceName) -> None:
        """``step`` was taken with s from ``source``."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: ``run`` and ``schedule``, plain JSON values."""
        return {}

    def save(self, step: int, weights: Weights) -> None:
        """A checkpoint is being made after ``step`` steps."""

    def load(self, step: int, state: dict[str, Any]) -> None:
        """Go on from a checkpoint that was made after ``step`` steps and kept ``state``."""

    def spending(self) -> dict[str, Any] | None:
        """Jobs, shots, dollars and QPU seconds; None where nothing is paid for."""
        return None

    def verdict(self) -> dict[str, Any] | None:
        """Of a replay, whether it has been the recorded run so far."""
        return None

    def close(self, *, finished: bool | None) -> None:
        """End what runs beside the loop."""


class PaidLife(Life):
    """A scheduler's."""

    def __init__(self, runner: ScheduledRunner) -> None:
        self._runner = runner

    def begin(self, *, device: str, tell: Observer) -> list[str]:
        """See :class:`Life`."""
        self._runner.tell = tell
        return []

    def state(self) -> dict[str, Any]:
        """See :class:`Life`."""
        return {"run": self._runner.run_id, "schedule": self._runner.state()}

    def load(self, step: int, state: dict[str, Any]) -> None:
        """See :class:`Life`."""
        if state["run"]:
            self._runner.go_on_with(state["run"], state["schedule"])

    def spending(self) -> dict[str, Any] | None:
        """See :class:`Life`."""
        return self._runner.spending()

    def close(self, *, finished: bool | None) -> None:
        """See :class:`Life`."""
        self._runner.close(finished=finished)


class RecordedLife(Life):
    """Written down."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    def begin(self, *, device: str, tell: Observer) -> list[str]:
        """See :class:`Life`."""
        self._recording.header["machine"] = describe_machine() | {"device": device}
        return []

    def stepped(self, step: int, source: SourceName) -> None:
        """See :class:`Life`."""
        self._recording.source(step, source)

    def save(self, step: int, weights: Weights) -> None:
        """See :class:`Life`."""
        self._recording.checkpoint(step, weights())

    def load(self, step: int, state: dict[str, Any]) -> None:
        """See :class:`Life`."""
        self._recording.rewind(step)

    def close(self, *, finished: bool | None) -> None:
        """See :class:`Life`."""
        self._recording.close()


class ReplayedLife(Life):
    """Compared with what was written down."""

    def __init__(self, replay: Replay) -> None:
        self._replay = replay

    def begin(self, *, device: str, tell: Observer) -> list[str]:
        """See :class:`Life`."""
        different = self._replay.elsewhere(describe_machine() | {"device": device})
        if not different:
            return []
        return [
            "The recorded run was made elsewhere, so the last bits of this one may differ: "
            f"{'; '.join(different)}."
        ]

    def save(self, step: int, weights: Weights) -> None:
        """See :class:`Life`."""
        self._replay.compare_weights(step, weights())

    def verdict(self) -> dict[str, Any] | None:
        """See :class:`Life`."""
        return self._replay.verdict()


class Lives(Life):
    """Several, one after the other."""

    def __init__(self, lives: Sequence[Life]) -> None:
        self._lives = lives

    def begin(self, *, device: str, tell: Observer) -> list[str]:
        """See :class:`Life`."""
        return [said for life in self._lives for said in life.begin(device=device, tell=tell)]

    def stepped(self, step: int, source: SourceName) -> None:
        """See :class:`Life`."""
        for life in self._lives:
            life.stepped(step, source)

    def state(self) -> dict[str, Any]:
        """See :class:`Life`."""
        return {key: value for life in self._lives for key, value in life.state().items()}

    def save(self, step: int, weights: Weights) -> None:
        """See :class:`Life`."""
        for life in self._lives:
            life.save(step, weights)

    def load(self, step: int, state: dict[str, Any]) -> None:
        """See :class:`Life`."""
        for life in self._lives:
            life.load(step, state)

    def spending(self) -> dict[str, Any] | None:
        """See :class:`Life`."""
        return next((x for life in self._lives if (x := life.spending()) is not None), None)

    def verdict(self) -> dict[str, Any] | None:
        """See :class:`Life`."""
        return next((x for life in self._lives if (x := life.verdict()) is not None), None)

    def close(self, *, finished: bool | None) -> None:
        """See :class:`Life`."""
        for life in self._lives:
            life.close(finished=finished)


def weights_of(tensors: Iterable[torch.Tensor]) -> Weights:
    """Their fingerprint, computed once at most."""
    found: list[str] = []

    def weights() -> str:
        if not found:
            found.append(fingerprint(tensors))
        return found[0]

    return weights
