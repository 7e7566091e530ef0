"""What the bits of a run depend on beside its configuration."""

from __future__ import annotations

import logging
from typing import Any

from qsgd_core.events import Warned
from qsgd_core.measure.machine import describe_machine, differences
from qsgd_core.training.code import edited_since
from qsgd_core.training.folder.folder import RunRecord
from qsgd_core.training.loop.loading import repeats_workers
from qsgd_core.training.loop.session import Parts

DEFAULT_SHOTS = "shots by default"
"""Key of a simulator's own number of shots, where nobody asked for another."""

logger = logging.getLogger("qsgd_core")


def describe(parts: Parts) -> dict[str, Any]:
    """Versions, threads, processor, device and default shots, as recorded in config.json."""
    parameter = next(parts.built.model.parameters(), None)
    term = parts.term.qsgd_describe()
    found = {
        **describe_machine(),
        "backend served by": term.distribution,
        "device": "cpu" if parameter is None else parameter.device.type,
    }
    if parts.config.term.shots is None and term.shots is not None:
        found[DEFAULT_SHOTS] = term.shots
    return found


def warn_of_differences(record: RunRecord, parts: Parts) -> None:
    """Say once what may keep a resumed run from the bits of one that never stopped."""
    if edited := edited_since(record.code, record.source):
        _warn(
            parts,
            f"The task's code is not what the run was started with: {', '.join(edited)} changed "
            "since. It goes on with the code of now.",
        )
    if different := differences(record.environment, describe(parts)):
        _warn(
            parts,
            f"The run goes on elsewhere, so its last bits may differ: {'; '.join(different)}.",
        )
    if not repeats_workers(parts.built.train_loader):
        _warn(
            parts,
            "The train_loader keeps its worker processes from epoch to epoch, whose random states "
            "cannot be saved: random augmentation done there is not repeated to the bit. "
            "Set persistent_workers=False to have it so.",
        )


def _warn(parts: Parts, message: str) -> None:
    logger.warning(message)
    parts.tell(Warned(0, message=message))
