"""Training a task in a run folder, going on with a run, repeating one: what ``qsgd train`` does."""

from __future__ import annotations

from qsgd_core.training.config import TrainConfig
from qsgd_core.training.folder.summary import Summary
from qsgd_core.training.plan import Plan, plan
from qsgd_core.training.replaying import replay
from qsgd_core.training.run import resume, train
from qsgd_core.training.tasks import load_task, open_task

__all__ = [
    "Plan",
    "Summary",
    "TrainConfig",
    "load_task",
    "open_task",
    "plan",
    "replay",
    "resume",
    "train",
]
