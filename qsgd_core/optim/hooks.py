"""A hook of ``step`` that runs after every other pre-hook."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

PreHook: TypeAlias = Callable[[torch.optim.Optimizer, tuple[Any, ...], dict[str, Any]], Any]


class LastPreHook:
    """What it calls sees the gradients as later pre-hooks (clipping, say) have left them.

    Hooks run in the order in which they were registered, and the order cannot be changed while
    they run. So a hook that was registered later lends its place for one step, and between steps
    this one moves to the end.

    Args:
        optimizer: whose step it is.
        hook: a bound method, kept weakly; it returns None or new (args, kwargs), as torch's
            hooks do.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, hook: PreHook) -> None:
        self._hook = weakref.WeakMethod(hook)
        self._handle = optimizer.register_step_pre_hook(torch.compiler.disable(self._first))

    def move(self, optimizer: torch.optim.Optimizer) -> None:
        """Go to the end; not while hooks run."""
        hooks: Any = optimizer._optimizer_step_pre_hooks  # an OrderedDict
        if self._handle.id in hooks and next(reversed(hooks)) != self._handle.id:
            hooks.move_to_end(self._handle.id)

    def remove(self) -> None:
        """Be registered no more."""
        self._handle.remove()

    def _first(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        hooks = optimizer._optimizer_step_pre_hooks
        last = next(reversed(hooks))
        if last == self._handle.id:
            return self._call(optimizer, args, kwargs)
        # Another value under a key that is there is no change that an iteration would notice.
        hooks[last] = _Lent(_owner(hooks[last]), self._call, hooks, last)
        return None

    def _call(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        hook = self._hook()
        return None if hook is None else hook(optimizer, args, kwargs)


class _Lent:
    """A pre-hook, once with ours behind it."""

    def __init__(self, theirs: PreHook, ours: PreHook, hooks: Any, key: int) -> None:
        self.theirs, self.ours, self.hooks, self.key = theirs, ours, hooks, key

    def __call__(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        self.hooks[self.key] = self.theirs
        changed = self.theirs(optimizer, args, kwargs)
        if changed is not None:
            args, kwargs = changed
        return self.ours(optimizer, args, kwargs) or changed


def _owner(hook: PreHook) -> PreHook:
    """The hook whose place it is: a step that raised has not given it back."""
    return hook.theirs if isinstance(hook, _Lent) else hook
