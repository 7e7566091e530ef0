"""What ``step`` was given: where its closure is, and how many steps are under way."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

Closure: TypeAlias = Callable[..., Any]
Args: TypeAlias = tuple[Any, ...]
Kwargs: TypeAlias = dict[str, Any]


class ClosurePlace:
    """Where an optimizer's ``step`` takes its closure, by its signature.

    Args:
        step: the method of the class, hooked by torch or not.
    """

    def __init__(self, step: Callable[..., Any]) -> None:
        try:
            parameters = list(inspect.signature(step).parameters.values())
        except (TypeError, ValueError):  # written in C, or hidden by a decorator
            parameters = []
        named = [p.name for p in parameters if "closure" in p.name]
        self._name = "closure" if "closure" in named or not named else named[0]
        self._index: int | None = None
        for i, parameter in enumerate(parameters):
            if parameter.name == self._name and parameter.kind is not parameter.KEYWORD_ONLY:
                self._index = i
        self._anywhere = not named

    def find(self, args: Args, kwargs: Kwargs) -> tuple[str | int, Closure] | None:
        """The closure that ``step`` was given, and where; None if it was given none.

        Args:
            args: of ``step``, the optimizer first.
            kwargs: of ``step``.
        """
        given = kwargs.get(self._name)
        if given is not None and _is_closure(given):
            return self._name, given
        if self._index is not None and self._index < len(args):
            given = args[self._index]
            return (self._index, given) if _is_closure(given) else None
        if self._anywhere:  # step(*args, **kwargs): what can be called is the closure
            for i, given in enumerate(args[1:], start=1):
                if _is_closure(given):
                    return i, given
        return None


def put_closure(where: str | int, closure: Closure, args: Args, kwargs: Kwargs) -> Any:
    """(args, kwargs) with another closure in its place, and everything else as it was."""
    if isinstance(where, str):
        return args, {**kwargs, where: closure}
    return (*args[:where], closure, *args[where + 1 :]), kwargs


def around(closure: Closure, *, before: Callable[[], None], after: Callable[[], None]) -> Closure:
    """A closure that looks like ``closure`` and is told when it begins and ends."""

    @functools.wraps(closure, updated=())
    def evaluate(*args: Any, **kwargs: Any) -> Any:
        before()
        loss = closure(*args, **kwargs)
        after()
        return loss

    return evaluate


def steps_under_way(optimizer: torch.optim.Optimizer) -> int:
    """How many calls of its ``step`` have begun and not ended: one may call its parent's."""
    count, frame = 0, sys._getframe()
    while (frame := frame.f_back) is not None:  # type: ignore[assignment]
        if frame.f_code is _HOOKED and frame.f_locals.get("self") is optimizer:
            count += 1
    return count


_HOOKED = torch.optim.Optimizer.profile_hook_step(lambda self: None).__code__
"""The code of torch's wrapper that runs a step's hooks; one for all optimizers."""


def _is_closure(given: object) -> bool:
    return callable(given) and not isinstance(given, torch.Tensor)
