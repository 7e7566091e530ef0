"""The engine: the quantum term on a torch optimizer, by hooks alone.

A pre-hook hands the base optimizer a closure of ours; torch optimizers call it first thing in
``step``, after every other pre-hook has run. There θ and g of the selected coordinates are read: g
is what the base optimizer uses, clipped or accumulated, and after the user's own closure. A
post-hook adds -lr·λ·s⊙g. ``step`` is never overridden.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from qsgd_core.circuits import Circuit
from qsgd_core.errors import ConfigError
from qsgd_core.events import Event, Observer, StepTaken, Warned
from qsgd_core.optim import coordinates
from qsgd_core.optim.config import (
    GROUP_KEYS,
    TermConfig,
    at_step,
    check_group,
    check_weight,
    logger,
)
from qsgd_core.optim.effect import SOURCES, EffectSize, Stats
from qsgd_core.optim.modulation import Modulation
from qsgd_core.optim.record import (
    MEASURED_KEY,
    RECORD_KEY,
    S_KEY,
    Record,
    held_values,
    restore_held,
)
from qsgd_core.optim.selection import Bucket, select
from qsgd_core.optim.shadow import shadow_step
from qsgd_core.optim.source import build_source
from qsgd_core.optim.term import per_coordinate, update_term
from qsgd_core.registry import Registry

SHADOW_EVERY = 100
"""Steps between two measurements of the effect size of ``inject="gradient"``."""


@dataclass(frozen=True)
class Description:
    """What the term will touch, known before anything runs.

    Attributes:
        n_tensors: parameters with at least one selected coordinate.
        n_coordinates: selected coordinates of all of them.
        n_blocks: circuits of one refresh.
        block_sizes: number of blocks by number of qubits.
        first_circuit: the circuit of the largest block; None for a purely classical rule.
        backend: its full name.
        distribution: which distribution serves it, with its version.
    """

    n_tensors: int
    n_coordinates: int
    n_blocks: int
    block_sizes: dict[int, int]
    first_circuit: Circuit | None
    backend: str
    distribution: str


@dataclass
class _Step:
    """What the post-hook needs of a step in progress."""

    buckets: list[Bucket]
    theta: list[torch.Tensor]
    q: list[torch.Tensor]
    modulation: Modulation
    store: bool
    replaced: list[tuple[torch.Tensor, torch.Tensor, int]] = field(default_factory=list)
    shadow: list[torch.Tensor] | None = None


class Attachment:
    """The term on one optimizer. Made by :func:`attach`; :class:`~qsgd_core.QSGD` owns one.

    Hooks do not survive ``copy.deepcopy`` or pickling of a foreign optimizer (torch drops them):
    call :func:`attach` on the copy.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        config: TermConfig,
        *,
        registry: Registry,
        named_parameters: Iterable[tuple[str, torch.Tensor]] | None = None,
    ) -> None:
        self.optimizer = optimizer
        self.config = config
        self.source, self.origin = build_source(config, registry)
        self._names = None if named_parameters is None else {p: n for n, p in named_parameters}
        self._n_groups = 0
        self._order: dict[torch.Tensor, str] = {}
        self.following: set[int] = set()
        self._layout: list[Bucket] = []
        self._layout_key: list[Any] | None = None
        self._record = Record(sources=dict.fromkeys(SOURCES, 0), origin=asdict(self.origin))
        self._effect = EffectSize()
        self._current: _Step | None = None
        self._open = False
        self._advance = True
        self._carried: tuple[list[dict[str, Any]], dict[int, torch.Tensor]] | None = None
        self._said: set[str] = set()
        self._observers = _observers(config, registry)
        self._takes_closure = _check_optimizer(optimizer)
        self._waiting = False
        self.adopt_groups()
        self._announce()
        self._capture_eagerly = torch.compiler.disable(self._capture)
        self._handles = [
            optimizer.register_step_pre_hook(torch.compiler.disable(self._before)),
            optimizer.register_step_post_hook(torch.compiler.disable(self._after)),
            optimizer.register_state_dict_pre_hook(self._write_record),
            optimizer.register_load_state_dict_pre_hook(self._before_load),
            optimizer.register_load_state_dict_post_hook(self._after_load),
        ]
        vars(optimizer)["_qsgd_attachment"] = self

    # -- what users call -------------------------------------------------------------------

    def qsgd_stats(self) -> Stats:
        """Steps, effect size and sources so far. Synchronises the device."""
        last, mean, largest = self._effect.read()
        paid = self.source.paid
        spending = None if paid is None else paid.spending()
        return Stats(self._record.steps, last, mean, largest, dict(self._record.sources), spending)

    def qsgd_describe(self) -> Description:
        """What the term touches when every parameter has a gradient. Runs nothing."""
        groups = self.optimizer.param_groups
        buckets = select(groups, range(len(groups)), self._order, only=None)
        sizes: dict[int, int] = {}
        for blocks in (blocks for bucket in buckets for blocks in bucket.blocks):
            sizes[blocks.size] = sizes.get(blocks.size, 0) + blocks.n_blocks
        return Description(
            n_tensors=sum(len(b.members) for b in buckets),
            n_coordinates=sum(b.total for b in buckets),
            n_blocks=sum(sizes.values()),
            block_sizes=sizes,
            first_circuit=self.source.first_circuit(max(sizes)) if sizes else None,
            backend=self.origin.backend,
            distribution=f"{self.origin.distribution} {self.origin.version}",
        )

    def close(self) -> None:
        """End what runs beside the loop; a step reopens it. Jobs stay on the ledger."""
        if self.source.paid is not None:
            self.source.paid.close()

    def detach(self) -> None:
        """Take the term off: hooks, group keys and held state go; the optimizer is as before."""
        self.close()
        for handle in self._handles:
            handle.remove()
        for group in self.optimizer.param_groups:
            for key in (*GROUP_KEYS, RECORD_KEY):
                group.pop(key, None)
        for state in self.optimizer.state.values():
            if isinstance(state, dict):
                state.pop(S_KEY, None)
                state.pop(MEASURED_KEY, None)
        vars(self.optimizer).pop("_qsgd_attachment", None)

    # -- parameter groups ------------------------------------------------------------------

    def adopt_groups(self) -> None:
        """Give groups the settings they lack and name every parameter; or raise, changing none."""
        groups = self.optimizer.param_groups
        defaults = self.config.group_defaults(step=self._record.steps)
        settings = [defaults | {k: g[k] for k in GROUP_KEYS if k in g} for g in groups]
        for group, chosen in zip(groups, settings, strict=True):
            check_group(chosen)
            if chosen["inject"] == "gradient" and group.get("differentiable"):
                raise ConfigError('inject="gradient" cannot be used with differentiable=True.')
            self.source.check(chosen["n_qubits"])
        self._check_order(settings)
        for i, (group, chosen) in enumerate(zip(groups, settings, strict=True)):
            if "quantum_weight" not in group:
                self.following.add(i)
            group.update(chosen)
            if advice := self.source.advice(chosen["n_qubits"]):
                self._warn(advice)
        self._order = _name_parameters(groups, self._names)
        self._n_groups = len(groups)

    def names(self) -> dict[torch.Tensor, str]:
        """Every parameter's name, in the model's order where it is known."""
        return dict(self._order)

    def _check_order(self, settings: Sequence[Mapping[str, Any]]) -> None:
        if (
            self._names is None
            and len(settings) > 1
            and any(g["scope"] == "model" for g in settings)
        ):
            raise ConfigError(
                'scope="model" takes the first coordinates in the model\'s order, which '
                f"{len(settings)} parameter groups do not tell. "
                "Pass named_parameters=model.named_parameters()."
            )

    def _announce(self) -> None:
        asked_for = self.origin.backend != "exact"
        idle = all(g["quantum_weight"] == 0 for g in self.optimizer.param_groups)
        if asked_for and idle and not callable(self.config.quantum_weight):
            self._warn(
                f"Backend {self.origin.backend!r} is set, but quantum_weight is 0: "
                "nothing will be measured."
            )

    # -- a step ----------------------------------------------------------------------------

    def _before(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        if self._current is not None:
            self._abandon(self._current)
        self._current, self._open = None, True
        active = self._active_groups()
        if not active:
            return None
        if not self._takes_closure:
            self._capture(active)
            return None
        closure = kwargs.get("closure", args[1] if len(args) > 1 else None)
        self._waiting = True

        def evaluate() -> Any:
            loss = None if closure is None else closure()
            if self._waiting:
                self._waiting = False
                self._capture_eagerly(active)
            return loss

        rest = {k: v for k, v in kwargs.items() if k != "closure"}
        return (args[0], evaluate, *args[2:]), rest

    def _active_groups(self) -> list[int]:
        """Groups whose λ and lr are not 0, after schedules; also whether time passes."""
        groups = self.optimizer.param_groups
        if len(groups) != self._n_groups:
            self.adopt_groups()
        if callable(self.config.quantum_weight):
            weight = check_weight(self.config.quantum_weight(self._record.steps))
            for i in self.following:
                groups[i]["quantum_weight"] = weight
        moving = [i for i, g in enumerate(groups) if not _is_zero(g["lr"])]
        self._advance = bool(moving)
        return [i for i in moving if groups[i]["quantum_weight"] != 0]

    @torch.no_grad()
    def _capture(self, active: list[int]) -> None:
        """Read θ and g as the base optimizer is about to use them, and get s for them."""
        optimizer = self.optimizer
        buckets = self._buckets(active)
        if not buckets:
            return
        theta = [b.read_params() for b in buckets]
        raw = [b.read_grads() for b in buckets]
        grad = [self._as_gradient(b, g) for b, g in zip(buckets, raw, strict=True)]
        modulation, store = self._modulate(buckets, theta, grad)
        q = [s * g for s, g in zip(modulation.values, grad, strict=True)]
        self._current = step = _Step(buckets, theta, q, modulation, store)
        if any(optimizer.param_groups[i]["inject"] == "gradient" for i in active):
            self._inject(step, raw)

    def _buckets(self, active: list[int]) -> list[Bucket]:
        """The buckets for the parameters that have a gradient, kept while nothing changes."""
        groups = self.optimizer.param_groups
        key: list[Any] = [p.grad is None or id(p) for i in active for p in groups[i]["params"]]
        for i in active:
            key += (i, groups[i]["scope"], groups[i]["n_qubits"])
        if key != self._layout_key:
            only = {p for i in active for p in groups[i]["params"] if p.grad is not None}
            if not only <= self._order.keys():  # a parameter was put in another one's place
                self._order = _name_parameters(groups, self._names)
            self._layout = select(groups, active, self._order, only=only)
            self._layout_key = key
        for bucket in self._layout:
            bucket.look()
        return self._layout

    def _as_gradient(self, bucket: Bucket, grad: torch.Tensor) -> torch.Tensor:
        """g of the objective that is minimised: unscaled, and negated for ``maximize``."""
        scale = getattr(self.optimizer, "grad_scale", None)
        if scale is not None:
            grad = grad / scale.to(grad.device)
        signs = {
            i: -1.0 if self.optimizer.param_groups[i].get("maximize") else 1.0
            for i in bucket.groups
        }
        if all(sign > 0 for sign in signs.values()):
            return grad
        return grad * per_coordinate(bucket, signs)

    def _modulate(
        self, buckets: list[Bucket], theta: list[torch.Tensor], grad: list[torch.Tensor]
    ) -> tuple[Modulation, bool]:
        """s for this step, measured now or held; and whether to keep it."""
        step = self._record.steps
        every = 1 if self.config.every is None else at_step(self.config.every, step, "every")
        if every > 1 and (held := self._held(buckets, not_before=step - every + 1)):
            return held, False
        if not self.source.cheap and not _worth_measuring(grad):
            return Modulation([torch.zeros_like(g) for g in grad], "zero"), False
        modulation = self.source.modulate(buckets, theta, grad, step=step)
        self._record.measured_at, self._record.measured = step, modulation.source
        return modulation, every > 1

    def _held(self, buckets: list[Bucket], *, not_before: int) -> Modulation | None:
        """The held s, unless it is too old or a tensor that has a gradient now has none."""
        state, measured_at = self.optimizer.state, self._record.measured_at
        if measured_at is None or measured_at < not_before:
            return None
        values = []
        for bucket in buckets:
            parts = []
            for m in bucket.members:
                s = state[m.param].get(S_KEY) if m.param in state else None
                if m.param.grad is None:  # s is not used; only a place is kept for it
                    s = torch.zeros(m.length)
                if s is None or len(s) != m.length:
                    return None
                parts.append(s.to(bucket.device, bucket.dtype))
            values.append(torch.cat(parts))
        return Modulation(values, self._record.measured)

    def _inject(self, step: _Step, raw: list[torch.Tensor]) -> None:
        """Add λ·Q to the gradients the base optimizer will read; keep what was there."""
        groups = self.optimizer.param_groups
        if self._record.steps % SHADOW_EVERY == 0:
            step.shadow = shadow_step(self.optimizer, step.buckets)
        for bucket, s, g in zip(step.buckets, step.modulation.values, raw, strict=True):
            for member, part in zip(bucket.members, (s * g).split(bucket.lengths), strict=True):
                group, grad = groups[member.group], member.param.grad
                if group["inject"] != "gradient" or grad is None:
                    continue
                if grad.is_sparse:
                    raise ConfigError(
                        f"Parameter {member.name!r} has a sparse gradient, to which "
                        'inject="gradient" cannot add. Use inject="update" for its group.'
                    )
                kept = coordinates.read(grad.detach(), member.length).clone()
                coordinates.add_(grad.detach(), part * group["quantum_weight"])
                step.replaced.append((grad, kept, grad._version))

    @torch.no_grad()
    def _after(
        self, optimizer: torch.optim.Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not self._open:  # the outer end of a step in a step: see _abandon
            return
        step, self._current, self._open = self._current, None, False
        if self._waiting:
            self._waiting = self._takes_closure = False
            self._warn(
                f"{type(optimizer).__name__}.step ignores its closure, so this step got no term. "
                "From the next step on, g is read before the optimizer's later step hooks."
            )
        effect = None
        if step is not None:
            effect = self._finish(step)
            self._record.sources[step.modulation.source] += 1
            if step.store:
                self._keep(step)
        if self._advance:
            self._record.steps += 1
        if self._observers:
            source = step.modulation.source if step is not None else "zero"
            self._emit(StepTaken(self._record.steps, effect_size=effect, source=source))

    def _finish(self, step: _Step) -> torch.Tensor | None:
        """Add the term, put replaced gradients back, measure the effect size."""
        groups = self.optimizer.param_groups
        self._restore_gradients(step)
        found_inf = getattr(self.optimizer, "found_inf", None)
        term_sq, base_sq = [], []
        for i, bucket in enumerate(step.buckets):
            after = bucket.read_params()
            base = after - step.theta[i]
            if any(groups[g]["inject"] == "update" for g in bucket.groups):
                term = update_term(bucket, step.q[i], base, groups)
                if found_inf is not None:
                    term = torch.where(found_inf.to(term.device) == 0, term, 0.0)
                bucket.add_to_params(term)
                self._check_rounding(bucket, term, after)
            elif step.shadow is not None:
                term, base = base - step.shadow[i], step.shadow[i]
            else:
                continue
            term_sq.append(term.dot(term))
            base_sq.append(base.dot(base))
        if not term_sq:
            return None
        self._effect.add(_total(term_sq), _total(base_sq))
        return self._effect.last() if self._observers else None

    def _abandon(self, step: _Step) -> None:
        """Take back a step that began and did not end, in gradients that still are as it left them.

        It raised; or a subclass's ``step`` calls its parent's, which torch has given hooks too if
        the parent has instances: then the term belongs to the inner step.
        """
        for grad, kept, version in step.replaced:
            if grad._version == version:
                coordinates.write_(grad.detach(), kept)

    def _restore_gradients(self, step: _Step) -> None:
        """Undo ``inject="gradient"``; a fused optimizer has unscaled the gradients meanwhile."""
        scale = getattr(self.optimizer, "grad_scale", None)
        found_inf = getattr(self.optimizer, "found_inf", None)
        for grad, kept, _ in step.replaced:
            if scale is not None and found_inf is not None:
                device = kept.device
                kept = torch.where(found_inf.to(device) == 0, kept / scale.to(device), kept)
            coordinates.write_(grad.detach(), kept)

    def _keep(self, step: _Step) -> None:
        """Hold s for the next steps; written after the base optimizer made its own state."""
        for bucket, values in zip(step.buckets, step.modulation.values, strict=True):
            for member, s in zip(bucket.members, values.split(bucket.lengths), strict=True):
                if member.param.grad is None:  # the base optimizer has no state for it yet
                    continue
                state = self.optimizer.state[member.param]
                state[S_KEY] = s.nan_to_num()  # a copy; NaN where phases came from an infinite g
                state[MEASURED_KEY] = self._record.measured_at

    def _check_rounding(self, bucket: Bucket, term: torch.Tensor, after: torch.Tensor) -> None:
        """Once: say so if a low-precision parameter cannot hold any of the term."""
        key = f"rounding {bucket.members[0].param.dtype}"
        if key in self._said or bucket.members[0].param.element_size() >= 4:
            return
        if not bool(term.any()):
            return
        self._said.add(key)
        if torch.equal(bucket.read_params(), after):
            self._warn(
                f"The term rounds away: none of {bucket.total} "
                f"{str(bucket.members[0].param.dtype).removeprefix('torch.')} weights changed when "
                "it was added. Keep float32 weights (mixed precision), or raise lr or "
                "quantum_weight."
            )

    # -- checkpoints -----------------------------------------------------------------------

    def record_json(self) -> str:
        """The engine's counters as one line of JSON. Synchronises the device."""
        self._record.effect = self._effect.to_record()
        self._record.run = None if self.source.paid is None else self.source.paid.run_id
        return self._record.to_json()

    def load_record(self, text: str) -> None:
        """Go on from :meth:`record_json`."""
        record = Record.from_json(text)
        if record.origin != self._record.origin:
            logger.warning(
                "The checkpoint's modulation came from %s; from now on it comes from %s.",
                record.origin,
                self._record.origin,
            )
        record.origin = self._record.origin
        self._record = record
        if self.source.paid is not None and self.config.run is None:
            self.source.paid.run_id = record.run
        self._effect.from_record(record.effect, self._order_device())

    def _order_device(self) -> torch.device:
        return next((p.device for p in self._order), torch.device("cpu"))

    def _write_record(self, optimizer: torch.optim.Optimizer) -> None:
        optimizer.param_groups[0][RECORD_KEY] = self.record_json()

    def _before_load(self, optimizer: torch.optim.Optimizer, state_dict: dict[str, Any]) -> None:
        ours = [{k: g[k] for k in GROUP_KEYS if k in g} for g in optimizer.param_groups]
        self._carried = (ours, held_values(state_dict))

    def _after_load(self, optimizer: torch.optim.Optimizer) -> None:
        ours, held = self._carried or ([], {})
        self._carried = None
        for group, settings in zip(optimizer.param_groups, ours, strict=False):
            for key, value in settings.items():
                group.setdefault(key, value)
        params = [p for g in optimizer.param_groups for p in g["params"]]
        restore_held(params, optimizer.state, held)
        if text := optimizer.param_groups[0].get(RECORD_KEY):
            self.load_record(text)
        self._layout_key = None

    # -- telling ---------------------------------------------------------------------------

    def _warn(self, message: str) -> None:
        """Say something once."""
        if message not in self._said:
            self._said.add(message)
            logger.warning(message)
            self._emit(Warned(self._record.steps, message=message))

    def _emit(self, event: Event) -> None:
        for observer in list(self._observers):
            try:
                observer(event)
            except Exception:  # noqa: BLE001  an observer is a plugin: it never stops training
                self._observers.remove(observer)
                logger.exception("Observer %r failed and is not told of anything more.", observer)


def _check_optimizer(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` takes a closure; raises for optimizers that the term cannot sit on."""
    name = type(optimizer).__name__
    if "_qsgd_attachment" in vars(optimizer):
        raise ConfigError(f"This {name} already carries the term. Call detach() first.")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ConfigError(
            f"{name} cannot step without a closure that it calls several times, and its lr is not "
            "the size of a gradient step, so -lr·λ·Q has no meaning there. "
            "Use a first-order optimizer such as torch.optim.AdamW."
        )
    for group in optimizer.param_groups:
        if not isinstance(group.get("lr"), float | int | torch.Tensor):
            raise ConfigError(
                f"{name} has no learning rate in its parameter groups; the term is -lr·λ·Q. "
                "Use an optimizer with an lr."
            )
    return closure is not None


def _name_parameters(
    groups: Sequence[Mapping[str, Any]], names: Mapping[torch.Tensor, str] | None
) -> dict[torch.Tensor, str]:
    """Every parameter's name, in the model's order where it is known."""
    found: dict[torch.Tensor, str] = {}
    for i, group in enumerate(groups):
        own = group.get("param_names")
        for k, p in enumerate(group["params"]):
            found[p] = own[k] if own else f"{i}.{k}"
    if names is None:
        return found
    ordered = {p: n for p, n in names.items() if p in found}
    return ordered | {p: n for p, n in found.items() if p not in ordered}


def _observers(config: TermConfig, registry: Registry) -> list[Observer]:
    named = registry.settings.observers if config.observers is None else config.observers
    return [o if callable(o) else registry.make_observer(o, None) for o in named]


def _worth_measuring(grad: list[torch.Tensor]) -> bool:
    """Not all zero, and finite: an overflow that a GradScaler will skip has no modulation."""
    return any(bool(g.any()) for g in grad) and all(bool(g.isfinite().all()) for g in grad)


def _is_zero(lr: float | torch.Tensor) -> bool:
    """Whether lr is 0, without asking an accelerator."""
    if isinstance(lr, torch.Tensor):
        return lr.device.type == "cpu" and float(lr) == 0.0
    return lr == 0.0


def _total(parts: list[torch.Tensor]) -> torch.Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part.to(total.device)
    return total
