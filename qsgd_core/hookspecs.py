"""The plugin contract: the hooks of :class:`PerturbationProvider`.

A provider is a pip distribution with an entry point in the group ``qsgd`` that names a module or
an object with some of these hooks::

    # pyproject.toml
    [project.entry-points.qsgd]
    mine = "my_package.plugin"

    # my_package/plugin.py
    from qsgd_core import BackendSpec, hookimpl

    @hookimpl
    def qsgd_register_backends(settings):
        yield BackendSpec(prefix="mine", kind="simulator", names=("mine",),
                          factory="my_package.backend:MySimulator")

All hooks are called together, once per process, plugin by plugin, when anything is first looked
up or listed. They return specs and touch no SDK, file or socket: importing the plugin module and
calling its hooks must stay light. A plugin is in as a whole or not at all: what one of its hooks
raises is recorded against its distribution and shown to whoever names what it would have served;
other plugins are not affected. A name of the core's is refused in the same way. Arguments a plugin
does not need may be left out; a plugin that asks for arguments this version does not have fails
alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from qsgd_core.settings import Settings
    from qsgd_core.specs import (
        BackendSpec,
        CommandSpec,
        ObserverSpec,
        PerturbationSpec,
        PolicySpec,
        ReportSpec,
        TaskSpec,
    )

PROJECT = "qsgd"
HOOK_API = 1
"""Version of this contract. A plugin may state the one it needs as ``QSGD_HOOK_API = 1``."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class PerturbationProvider:
    """Everything a provider may register. Implement any subset."""

    @hookspec
    def qsgd_register_backends(self, settings: Settings) -> Iterable[BackendSpec]:
        """Simulators and backends by name, glob or prefix.

        Called once per process. Must not read the network to find out which devices exist: a
        pattern is enough.

        Args:
            settings: the QSGD_* settings, read only.

        Returns:
            Specs; names from constants.
        """
        raise NotImplementedError

    @hookspec
    def qsgd_register_perturbations(self, settings: Settings) -> Iterable[PerturbationSpec]:
        """Perturbations by name. Called once per process."""
        raise NotImplementedError

    @hookspec
    def qsgd_register_policies(self, settings: Settings) -> Iterable[PolicySpec]:
        """Refresh policies by name. Called once per process."""
        raise NotImplementedError

    @hookspec
    def qsgd_register_observers(self, settings: Settings) -> Iterable[ObserverSpec]:
        """Observers by name. Called once per process.

        An observer runs only when named; what it raises is logged once and never reaches training.
        """
        raise NotImplementedError

    @hookspec
    def qsgd_register_tasks(self, settings: Settings) -> Iterable[TaskSpec]:
        """Tasks for ``qsgd train`` by name. Called once per process."""
        raise NotImplementedError

    @hookspec
    def qsgd_register_commands(self, settings: Settings) -> Iterable[CommandSpec]:
        """Subcommands of ``qsgd``. Called once per process; a name the core uses is refused."""
        raise NotImplementedError

    @hookspec
    def qsgd_register_reports(self, settings: Settings) -> Iterable[ReportSpec]:
        """Kinds of folder that ``qsgd report`` can read. Called once per process.

        A report is made only when somebody asks for one of such a folder; what it raises is that
        command's error.
        """
        raise NotImplementedError
