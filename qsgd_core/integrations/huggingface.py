"""``QSGDCallback``: the term in a Hugging Face ``Trainer``. Needs transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from qsgd_core.errors import ConfigError, nearest
from qsgd_core.integrations.readings import readings
from qsgd_core.optim.attach import Attachment, attach, attached
from qsgd_core.optim.config import TermArguments, TermConfig
from qsgd_core.optim.counters import RECORD_KEY
from qsgd_core.optim.term.effect import Stats


class QSGDCallback(TrainerCallback):  # type: ignore[misc]  # mypy does not read transformers
    """Puts the term on the Trainer's optimizer, logs what it does, and takes it off at the end.

    For an optimizer that has the term already (``optimizer_cls_and_kwargs=(QSGD, {...})``), leave
    ``term`` out: then it logs, and ends what runs beside the loop.

    A checkpoint of the Trainer holds the term's state; a resumed run goes on with it, to the bit
    unless the weights are bf16 and an s is held: the Trainer loads that in the weights' dtype. The
    Trainer tells no callback of an exception: on a paid backend train inside ``with callback:``,
    or the courier lives on until this process ends.

    Args:
        term: the arguments of :func:`qsgd_core.attach`. ``named_parameters`` and ``total_steps``
            come from the Trainer if they are left out. None: the optimizer brings the term.

    Attributes:
        attachment: the term of the last training, or of the present one; None before the first.

    Raises:
        ConfigError: an argument that ``attach`` does not take, or a value that it cannot use.
    """

    def __init__(self, term: Mapping[str, Any] | None = None) -> None:
        self._term = None if term is None else _checked(term)
        self.attachment: Attachment | None = None

    def __enter__(self) -> QSGDCallback:
        return self

    def __exit__(self, *failure: object) -> None:
        if self.attachment is not None:
            self.attachment.close(finished=None if failure[0] is None else False)

    def qsgd_stats(self) -> Stats:
        """Steps, effect size and sources of the last training, or of the present one.

        Raises:
            ConfigError: there was none.
        """
        if self.attachment is None:
            raise ConfigError("There is nothing to tell before training: call trainer.train().")
        return self.attachment.qsgd_stats()

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Attach; what was read from a checkpoint of such a run goes on."""
        optimizer, term = given["optimizer"], attached(given["optimizer"])
        if self._term is None:
            if term is None:
                raise ConfigError(
                    f"QSGDCallback() found no term on {_name(optimizer)}. Say what it shall be, "
                    "QSGDCallback({'quantum_weight': 0.5}), or train with "
                    "optimizer_cls_and_kwargs=(QSGD, {...})."
                )
            self.attachment = term
            return
        kept = _kept(optimizer) if state.global_step else None
        if term is not None and term is self.attachment:  # of a training that did not end
            term.detach()
        names = list(given["model"].named_parameters())
        told = {"named_parameters": names, "total_steps": state.max_steps}
        self.attachment = attach(optimizer, **{**told, **self._term})
        if kept is not None:
            optimizer.load_state_dict(kept)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Add readings to what is logged with a training loss."""
        logs = given["logs"]
        if self.attachment is None or "loss" not in logs or not state.is_world_process_zero:
            return
        told = readings(self.attachment.qsgd_stats())
        logs |= told  # for the callbacks that come after this one
        state.log_history[-1] |= told

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **given: Any,
    ) -> None:
        """Close, and take off what this callback has put on.

        Jobs that still wait in a queue are cancelled if all steps have been taken.
        """
        if self.attachment is None:
            return
        self.attachment.close(finished=state.global_step >= state.max_steps)
        if self._term is not None:
            self.attachment.detach()


def _checked(term: Mapping[str, Any]) -> dict[str, Any]:
    known = (*TermArguments.__annotations__, "named_parameters")
    for name in term:
        if name not in known:
            close = nearest(name, known)
            hint = f"Did you mean {close[0]!r}?" if close else "See help(qsgd_core.attach)."
            raise ConfigError(f"QSGDCallback: attach() has no argument {name!r}. {hint}")
    TermConfig(**{name: value for name, value in term.items() if name != "named_parameters"})
    return dict(term)


def _kept(optimizer: torch.optim.Optimizer) -> dict[str, Any] | None:
    """The state that a term has left in the optimizer; None if there has been none.

    The Trainer loads a checkpoint before any callback is called, so into an optimizer that knows
    of no term. It keeps what it does not know, but in the parameters' dtype.
    """
    state = optimizer.state_dict()
    if not state["param_groups"][0].get(RECORD_KEY):
        return None
    # A copy: attaching anew clears the optimizer's own entries.
    return {**state, "state": {k: dict(v) for k, v in state["state"].items()}}


def _name(optimizer: torch.optim.Optimizer) -> str:
    return type(getattr(optimizer, "optimizer", optimizer)).__name__
