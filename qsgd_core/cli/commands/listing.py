"""``qsgd backends``, ``perturbations`` and ``plugins``: what is installed. No torch, no SDK."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, distribution
from typing import Any

from qsgd_core.cli.options import Debug, Json
from qsgd_core.cli.show.output import print_json, print_table
from qsgd_core.installed import fact
from qsgd_core.plugins.loading import PluginRecord, Registered
from qsgd_core.plugins.registry import Registry, default_registry

Rec = dict[str, Any]


def backends(as_json: Json = False, debug: Debug = False) -> None:
    """List simulators and backends, and plugins that failed."""
    registry = default_registry()
    records = [
        _record(
            entry.spec.prefix,
            entry,
            kind=entry.spec.kind,
            paid=entry.spec.paid,
            names=list(entry.spec.names),
            patterns=list(entry.spec.patterns),
            devices=[f"{entry.spec.prefix}:{device}" for device in entry.spec.devices],
            examples=list(entry.spec.examples),
        )
        for entry in registry.backends()
    ]
    records += _failed(
        registry, kind=None, paid=None, names=[], patterns=[], devices=[], examples=[]
    )
    if as_json:
        print_json(records)
        return
    rows = [
        (
            ", ".join(_shown(r)) or r["name"],
            _kind(r),
            _provider(r),
            r["error"] or r["summary"],
        )
        for r in records
    ]
    print_table(("name", "kind", "provider", "summary"), rows)


def perturbations(as_json: Json = False, debug: Debug = False) -> None:
    """List perturbations, and plugins that failed."""
    registry = default_registry()
    records = [
        _record(entry.spec.name, entry, uses_backend=entry.spec.uses_backend)
        for entry in registry.perturbations()
    ]
    records += _failed(registry, uses_backend=None)
    if as_json:
        print_json(records)
        return
    rows = [
        (
            r["name"],
            {True: "quantum", False: "classical", None: r["status"]}[r["uses_backend"]],
            _provider(r),
            r["error"] or r["summary"],
        )
        for r in records
    ]
    print_table(("name", "kind", "provider", "summary"), rows)


def plugins(as_json: Json = False, debug: Debug = False) -> None:
    """List plugins, what they provide, and why those that failed did."""
    registry = default_registry()
    records = [plugin_record(record, registry) for record in registry.plugins.records]
    if as_json:
        print_json(records)
        return
    rows = [
        (r["name"], r["version"], r["status"], r["error"] or _provided(r["provides"]))
        for r in records
    ]
    print_table(("plugin", "version", "status", "provides"), rows)


def plugin_record(record: PluginRecord, registry: Registry) -> Rec:
    """One plugin as JSON."""
    return {
        "name": record.name,
        "provider": record.name,
        "version": record.version,
        "summary": _summary(record.name),
        "status": record.status,
        "error": record.error,
        "entry_point": record.entry_point,
        "module": record.module,
        "hooks": list(record.hooks),
        "provides": _provides(record, registry),
    }


def _provides(record: PluginRecord, registry: Registry) -> dict[str, list[str]]:
    if record.status != "loaded":
        return {}
    kinds: dict[str, list[Registered[Any]]] = {
        "backends": list(registry.backends()),
        "perturbations": list(registry.perturbations()),
        "policies": list(registry.policies()),
        "observers": list(registry.observers()),
        "tasks": list(registry.tasks()),
        "commands": list(registry.commands()),
        "reports": list(registry.reports()),
    }
    return {
        kind: names
        for kind, entries in kinds.items()
        if (
            names := [
                getattr(entry.spec, "name", None) or entry.spec.prefix
                for entry in entries
                if entry.distribution == record.name
            ]
        )
    }


def _provided(provides: dict[str, list[str]]) -> str:
    return "; ".join(f"{kind}: {', '.join(names)}" for kind, names in provides.items())


def _record(name: str, entry: Registered[Any], **more: Any) -> Rec:
    return {
        "name": name,
        "provider": entry.distribution,
        "version": entry.version,
        "summary": entry.spec.summary,
        "status": "loaded",
        "error": None,
        **more,
    }


def _failed(registry: Registry, **more: Any) -> list[Rec]:
    """Plugins that failed, which may have served more names than anybody knows."""
    return [
        {
            "name": failure.record.name,
            "provider": failure.record.name,
            "version": failure.record.version,
            "summary": "",
            "status": failure.record.status,
            "error": failure.record.error,
            **more,
        }
        for failure in registry.plugins.failures
    ]


def _shown(record: Rec) -> list[str]:
    """What may be typed as a backend."""
    return [*record["names"], *record["patterns"], *record["devices"], *record["examples"]]


def _kind(record: Rec) -> str:
    return f"{record['kind'] or record['status']}{', paid' if record['paid'] else ''}"


def _provider(record: Rec) -> str:
    return f"{record['provider']} {record['version']}".strip()


def _summary(name: str) -> str:
    try:
        return fact(distribution(name), "Summary") or ""
    except PackageNotFoundError:
        return ""
