"""What a plugin registers: names and where the code is. Making one imports nothing.

``factory`` and ``options`` are strings ``"package.module:Attribute"``; they are imported only
when somebody names the thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal


class Spec:
    """What every kind of spec has. A new kind is a subclass here and a hook of its own.

    Attributes:
        hook: the hook that registers it.
        noun: what people call one of these.
    """

    hook: ClassVar[str]
    noun: ClassVar[str]
    factory: str

    @property
    def claims(self) -> tuple[str, ...]:
        """The names it claims; globs too."""
        name: str = vars(self)["name"]
        return (name,)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names that can be typed, or look like one that can."""
        return self.claims


@dataclass(frozen=True)
class BackendSpec(Spec):
    """A family of simulators or backends under one prefix.

    Attributes:
        prefix: what comes before the first colon in ``prefix:device``; the provider's own.
        kind: ``simulator`` runs here and now; ``backend`` is a queued service.
        factory: called as ``factory(name, options)`` with the full name that was asked for and
            an instance of ``options`` (None when there is no options model).
        names: full names served, e.g. ``("exact", "sampled")``.
        patterns: globs of full names served, e.g. ``("ibm_*",)``.
        devices: what may follow the prefix, as globs, e.g. ``("statevector",)``; empty means that
            ``prefix:…`` is not served.
        options: a pydantic model of vendor options, validated before use.
        summary: one line for listings.
        paid: whether jobs cost money or metered QPU time.
        examples: names to show for families that are open-ended.
    """

    hook: ClassVar[str] = "qsgd_register_backends"
    noun: ClassVar[str] = "backend"

    prefix: str
    kind: Literal["simulator", "backend"]
    factory: str
    names: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    options: str | None = None
    summary: str = ""
    paid: bool = False
    examples: tuple[str, ...] = ()

    @property
    def claims(self) -> tuple[str, ...]:
        """Names, patterns and the prefix."""
        return (*self.names, *self.patterns, self.prefix)

    @property
    def shown(self) -> tuple[str, ...]:
        """Names, patterns, devices under the prefix, and examples."""
        devices = (f"{self.prefix}:{device}" for device in self.devices)
        return (*self.names, *self.patterns, *devices, *self.examples)


@dataclass(frozen=True)
class PerturbationSpec(Spec):
    """A perturbation by name.

    Attributes:
        name: what users type.
        factory: called as ``factory(depth, options)``; returns a Perturbation or a
            ClassicalPerturbation.
        options: a pydantic model of its options; None when it takes none.
        uses_backend: False for a ClassicalPerturbation, which measures nothing itself.
        summary: one line for listings.
    """

    hook: ClassVar[str] = "qsgd_register_perturbations"
    noun: ClassVar[str] = "perturbation"

    name: str
    factory: str
    options: str | None = None
    uses_backend: bool = True
    summary: str = ""


@dataclass(frozen=True)
class PolicySpec(Spec):
    """A refresh policy of the shot-budget scheduler by name; ``factory(options)``."""

    hook: ClassVar[str] = "qsgd_register_policies"
    noun: ClassVar[str] = "policy"

    name: str
    factory: str
    options: str | None = None
    summary: str = ""


@dataclass(frozen=True)
class ObserverSpec(Spec):
    """Something that is told of events, when named; ``factory(run_dir)`` -> ``(event) -> None``.

    ``run_dir`` is a :class:`pathlib.Path` or None when there is no run folder.
    """

    hook: ClassVar[str] = "qsgd_register_observers"
    noun: ClassVar[str] = "observer"

    name: str
    factory: str
    summary: str = ""


@dataclass(frozen=True)
class TaskSpec(Spec):
    """A task by name; ``factory()`` returns a Task."""

    hook: ClassVar[str] = "qsgd_register_tasks"
    noun: ClassVar[str] = "task"

    name: str
    factory: str
    summary: str = ""


@dataclass(frozen=True)
class CommandSpec(Spec):
    """A subcommand of ``qsgd``; ``factory`` names a function with typer annotations, or a
    :class:`typer.Typer` with several.
    """

    hook: ClassVar[str] = "qsgd_register_commands"
    noun: ClassVar[str] = "command"

    name: str
    factory: str
    summary: str = ""


@dataclass(frozen=True)
class ReportSpec(Spec):
    """What ``qsgd report`` says of one kind of folder; ``factory(folder, form)`` -> text.

    ``folder`` is a :class:`pathlib.Path`; ``form`` is ``text`` (for a terminal), ``json`` (one
    object), ``markdown`` or ``html`` (a page that loads nothing). The text is returned, and
    whoever asked writes it down.

    Attributes:
        name: the kind. Of a ``run``, only ``markdown`` and ``html`` are asked for: the core says
            the rest itself.
        marker: name of the file by which such a folder is known, e.g. ``plan.json``.
    """

    hook: ClassVar[str] = "qsgd_register_reports"
    noun: ClassVar[str] = "report"

    name: str
    factory: str
    marker: str
    summary: str = ""
