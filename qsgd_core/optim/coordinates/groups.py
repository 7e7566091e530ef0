"""The term's settings of each parameter group: filled in, checked, moved by the schedule of λ.

A setting that a group brings is the group's own. Those it lacks are filled in from the arguments,
and the group says which they are: they follow a schedule, they go when the term is taken off, and
in a copy of the optimizer that is attached anew they give way to the new arguments.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from qsgd_core.errors import ConfigError, nearest
from qsgd_core.optim.base_optimizer import check_differentiable, is_zero
from qsgd_core.optim.config import GROUP_KEYS, TermConfig, check_group, check_weight

FILLED_KEY = "qsgd_filled"
"""tuple[str, ...] in each group: its settings that came from the arguments."""

WRAPPERS = {"_orig_mod", "_checkpoint_wrapped_module"}
"""What torch.compile and activation checkpointing put into a parameter's name."""


class Groups:
    """What the term knows of an optimizer's parameter groups.

    Args:
        optimizer: whose groups they are; kept weakly.
        config: the arguments.
        named_parameters: the model's; None if it did not tell.
        resumed: the groups were this term's before a copy or a pickle: all they hold is theirs.

    Attributes:
        n_adopted: groups that have all settings; a later one needs :meth:`adopt`.
        moving: at the last :meth:`active`, some group had an lr other than 0: time passes.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TermConfig,
        *,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None,
        resumed: bool,
    ) -> None:
        self._optimizer = weakref.ref(optimizer)
        self._config = config
        self._ranks: dict[str, int] | None = None
        self._names = _no_names()
        if named_parameters is not None:
            named = list(named_parameters)
            for pair in named:
                if not isinstance(pair, tuple) or len(pair) != 2 or not isinstance(pair[0], str):
                    raise ConfigError(
                        "named_parameters must be pairs of a name and a parameter, as "
                        f"model.named_parameters() gives them, not {pair!r:.80}."
                    )
            own = unwrapped([name for name, _ in named])
            self._ranks = {name: k for k, name in enumerate(own)}
            self._names.update((p, name) for (_, p), name in zip(named, own, strict=True))
            self._check_names()
        self._places: list[list[str]] = []
        self.n_adopted = len(optimizer.param_groups) if resumed else 0
        self.moving = True
        self._order = _no_names()

    @property
    def all(self) -> list[dict[str, Any]]:
        """The optimizer's own list; it is another one after ``load_state_dict``.

        Raises:
            ReferenceError: the optimizer is gone.
        """
        optimizer = self._optimizer()
        if optimizer is None:
            raise ReferenceError("The optimizer that carried this term is gone.")
        return optimizer.param_groups

    @property
    def complete(self) -> bool:
        """Whether every group has been adopted; groups come late, and one may replace another."""
        groups = self.all
        return len(groups) == self.n_adopted and all(FILLED_KEY in g for g in groups)

    @property
    def order(self) -> MutableMapping[torch.Tensor, str]:
        """Every parameter's name, in the model's order where it is known.

        It keeps no parameter alive: one whose place another takes is freed.
        """
        if any(p not in self._order for group in self.all for p in group["params"]):
            self._name_parameters()
        return self._order

    def adopt(self, check_block: Callable[[int], None], *, step: int) -> None:
        """Give groups the settings they lack and name every parameter; or raise, changing none.

        Args:
            check_block: raises unless blocks of that many qubits can be done.
            step: at which schedules are asked.

        Raises:
            ConfigError: settings that cannot be used, with the value.
        """
        defaults = self._config.group_defaults(step=step)
        for group in self.all[self.n_adopted :]:
            self._check_keys(group)
        own = [self._own(i, group) for i, group in enumerate(self.all)]
        settings = [defaults | values for values in own]
        settings = [check_group(chosen) for chosen in settings]
        for group, chosen in zip(self.all, settings, strict=True):
            check_differentiable(group)
            check_block(chosen["n_qubits"])
        self._check_order(settings)
        for group, values, chosen in zip(self.all, own, settings, strict=True):
            filled = group.get(FILLED_KEY, ())
            group[FILLED_KEY] = tuple(k for k in GROUP_KEYS if k in filled or k not in values)
            group.update(chosen)
        self._name_parameters()
        self.n_adopted = len(self.all)

    def active(self, step: int) -> list[int]:
        """Indices of the groups whose λ and lr are not 0 at ``step``, after schedules."""
        groups = self.all
        if callable(self._config.quantum_weight):
            weight = check_weight(self._config.quantum_weight(step))
            for group in groups:
                if "quantum_weight" in group[FILLED_KEY]:
                    group["quantum_weight"] = weight
        check_differentiable(*groups)
        moving = [i for i, g in enumerate(groups) if not is_zero(g["lr"])]
        self.moving = bool(moving)
        return [i for i in moving if groups[i]["quantum_weight"] != 0]

    def settings(self) -> list[dict[str, Any]]:
        """Each group's settings and which of them were filled in, to :meth:`put_back`."""
        return [{k: g[k] for k in (*GROUP_KEYS, FILLED_KEY) if k in g} for g in self.all]

    def put_back(self, kept: Sequence[Mapping[str, Any]]) -> None:
        """After a load: the checkpoint's settings hold, the kept ones where it has none.

        Which were filled in is this process's to say: its arguments hold the schedule.
        """
        for group, settings in zip(self.all, kept, strict=True):
            group.update({k: v for k, v in settings.items() if k not in group or k == FILLED_KEY})

    def release(self) -> None:
        """Take out of the groups what was filled in; what they brought stays."""
        for group in self.all:
            for key in group.pop(FILLED_KEY, ()):
                group.pop(key, None)

    def _own(self, index: int, group: Mapping[str, Any]) -> dict[str, Any]:
        """The settings to keep: all of a group that is ours, without the leftovers of one before.

        A copy of an attached optimizer, or one that loaded its checkpoint, has such leftovers.
        """
        left = () if index < self.n_adopted else group.get(FILLED_KEY, ())
        return {k: group[k] for k in GROUP_KEYS if k in group and k not in left}

    def _check_keys(self, group: Mapping[str, Any]) -> None:
        """Raise for a key that looks like a setting of the term, misspelt.

        Other keys are the user's or the optimizer's own: torch lets groups carry any.
        """
        optimizer = self._optimizer()
        known = {*GROUP_KEYS, FILLED_KEY, *(optimizer.defaults if optimizer else ())}
        for key in group:
            if key not in known and (meant := nearest(key, GROUP_KEYS, like=0.85)):
                raise ConfigError(
                    f"A parameter group has the key {key!r}, which nothing reads. Did you mean "
                    f"{meant[0]!r}?"
                )

    def _check_order(self, settings: Sequence[Mapping[str, Any]]) -> None:
        unordered = self._ranks is None and len(settings) > 1
        if unordered and any(g["scope"] == "model" for g in settings):
            raise ConfigError(
                'scope="model" takes the first coordinates in the model\'s order, which '
                f"{len(settings)} parameter groups do not tell. "
                "Pass named_parameters=model.named_parameters()."
            )

    def _name_parameters(self) -> None:
        """Name the parameters that are there now.

        One that took the place of another takes its name: accelerate puts the shards of FSDP2
        where the whole parameters were.
        """
        found: dict[torch.Tensor, str] = {}
        for i, group in enumerate(self.all):
            own = unwrapped(group.get("param_names") or ())
            before = self._places[i] if i < len(self._places) else []
            fits = len(before) == len(group["params"])
            for k, p in enumerate(group["params"]):
                place = before[k] if fits else f"{i}.{k}"
                found[p] = self._names.get(p) or (own[k] if own else place)
        self._places = [[found[p] for p in group["params"]] for group in self.all]
        ranks = self._ranks or {}
        self._order = _no_names()
        self._order.update(sorted(found.items(), key=lambda item: ranks.get(item[1], len(ranks))))

    def _check_names(self) -> None:
        params = [p for group in self.all for p in group["params"]]
        if params and not any(p in self._names for p in params):
            raise ConfigError(
                f"named_parameters has {len(self._names)} parameters and none of this optimizer's. "
                "They are another model's, or come from a generator that has been used up. "
                "Pass named_parameters=list(model.named_parameters())."
            )


def _no_names() -> MutableMapping[torch.Tensor, str]:
    """Names by parameter, in the order they came, for as long as somebody else has the parameter.

    Compared by identity, as parameters are.
    """
    names: MutableMapping[torch.Tensor, str] = WeakTensorKeyDictionary()
    return names


def unwrapped(names: Sequence[str]) -> list[str]:
    """Parameter names without those of wrappers: seeds are the same compiled, under DDP and bare.

    Args:
        names: of one model or group; ``module.`` is DDP's if they all begin with it.
    """
    parts = [[part for part in name.split(".") if part not in WRAPPERS] for name in names]
    while parts and all(len(path) > 1 and path[0] == "module" for path in parts):
        parts = [path[1:] for path in parts]
    return [".".join(path) for path in parts]
