"""What pip has installed, read so that a damaged distribution hides nothing but itself.

``importlib.metadata`` stops at the first distribution that it cannot read: METADATA that is gone or
not UTF-8, a malformed ``entry_points.txt``. pydantic, torch and others look for their own plugins
by it, so one broken stranger would keep everything from starting.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import Distribution, EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

_read_points = Distribution.entry_points.fget  # type: ignore[attr-defined]
"""As the standard library has it, whatever :func:`tolerate_damage` does."""
POINTS = "entry_points.txt"
AGAIN = "Install it again, or remove that folder."
LEFTOVER = "~"
"""What pip puts before a distribution that it is removing; it stays when that is interrupted."""


@dataclass(frozen=True)
class Damaged:
    """A distribution that cannot be read as it should.

    Attributes:
        name: its own, or as its folder says it.
        problem: what is wrong and what to do, with its path.
        points: what its entry points are, as far as they can be read; None if they were.
    """

    name: str
    problem: str
    points: str | None


def tolerate_damage() -> None:
    """Let whoever asks for entry points in this process get those that can be read.

    Changes nothing where all of them can.
    """
    try:
        metadata.entry_points(group="qsgd")
    except Exception:  # noqa: BLE001 - whatever a stranger's file makes the parser raise
        Distribution.entry_points = property(_readable_points)  # type: ignore[assignment]


def entry_points(*, group: str) -> list[EntryPoint]:
    """The entry points of ``group``; a distribution found twice on the path counts once."""
    return [
        point
        for distribution in _distributions()
        for point in _readable_points(distribution)
        if point.group == group
    ]


def normalise(distribution: str) -> str:
    """A distribution's name in the one spelling that is compared (PEP 503)."""
    return re.sub(r"[-_.]+", "-", distribution.strip()).lower()


def name_of(distribution: Distribution) -> str:
    """The distribution's name; as its folder says it, if its METADATA does not."""
    return fact(distribution, "Name") or _of_folder(distribution)[0]


def version_of(distribution: Distribution) -> str:
    """The distribution's version, likewise; empty if nothing says it."""
    return fact(distribution, "Version") or _of_folder(distribution)[1]


def version(name: str) -> str | None:
    """The version of the installed distribution ``name``; None if there is none."""
    try:
        return version_of(metadata.distribution(name))
    except metadata.PackageNotFoundError:
        return None


def damaged() -> list[Damaged]:
    """Every distribution on the path with which something is wrong."""
    return [
        found
        for each in _distributions(leftovers=True)
        if (found := _unreadable(each) or _incomplete(each))
    ] + list(_hidden())


def unreadable() -> list[Damaged]:
    """Those whose entry points cannot be read, so that they might be anybody's plugin."""
    return [found for each in _distributions() if (found := _unreadable(each))]


def _unreadable(distribution: Distribution) -> Damaged | None:
    where = getattr(distribution, "_path", "")
    text: str | None = ""
    try:
        text = distribution.read_text(POINTS)
        list(_read_points(distribution))
    except Exception as error:  # noqa: BLE001 - as above
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        problem = f"the entry points of {where} cannot be read ({said}). {AGAIN}"
        return Damaged(name_of(distribution), problem, text or "")
    if text is None and where and _is_there(where):  # the library passes over it
        problem = f"{where}/{POINTS} cannot be read. Give it to its readers. {AGAIN}"
        return Damaged(name_of(distribution), problem, "")
    return None


def _is_there(where: Any) -> bool:
    """Whether a distribution, in a folder or in a zip, has a file of entry points."""
    try:
        return bool(where.joinpath(POINTS).exists())
    except OSError:  # a folder that may not be looked into: nobody can tell
        return True


def _hidden() -> Iterator[Damaged]:
    """Plugins of which another version comes later on the path, where nobody sees it."""
    first: dict[str, Distribution] = {}
    for each in metadata.distributions():
        seen = first.setdefault(normalise(_of_folder(each)[0]), each)
        if seen is each or not any(p.group == "qsgd" for p in _readable_points(seen)):
            continue
        own, other = version_of(seen), version_of(each)
        if own != other:
            problem = (
                f"version {own} of {getattr(seen, '_path', '')} is used, and hides version "
                f"{other} in {getattr(each, '_path', '')}. Uninstall one of them."
            )
            yield Damaged(name_of(seen), problem, None)


def _incomplete(distribution: Distribution) -> Damaged | None:
    where, name = getattr(distribution, "_path", ""), name_of(distribution)
    if _folder(distribution).startswith(LEFTOVER):
        problem = f"{where} was left over when pip was interrupted. Remove that folder."
        return Damaged(name, problem, None)
    if lacking := [key for key in ("Name", "Version") if fact(distribution, key) is None]:
        problem = f"the METADATA of {where} is missing, or says no {' and no '.join(lacking)}."
        return Damaged(name, f"{problem} {AGAIN}", None)
    return None


def _readable_points(distribution: Distribution) -> EntryPoints:
    try:
        points: EntryPoints = _read_points(distribution)
    except Exception:  # noqa: BLE001 - as above; damaged() says so
        return EntryPoints(())
    return points


def _distributions(*, leftovers: bool = False) -> Iterator[Distribution]:
    """Each distribution once, as the first on the path has it."""
    seen = set()
    for distribution in metadata.distributions():
        name = normalise(_of_folder(distribution)[0])
        if name not in seen and (leftovers or not name.startswith(LEFTOVER)):
            seen.add(name)
            yield distribution


def fact(distribution: Distribution, key: str) -> str | None:
    """A field of the distribution's METADATA; None if it is not there."""
    try:
        found = distribution.metadata[key]
    except Exception:  # noqa: BLE001 - the library raises TypeError for METADATA that is not there
        return None
    return str(found) if found else None


def _folder(distribution: Distribution) -> str:
    # A distribution says where it is only here; one that is not in a folder has no such thing.
    return Path(str(getattr(distribution, "_path", ""))).name


def _of_folder(distribution: Distribution) -> tuple[str, str]:
    """Name and version by the folder: ``qsgd_aer-0.1.0.dist-info``."""
    stem = re.sub(r"\.(dist|egg)-info$", "", _folder(distribution))
    name, _, version = stem.partition("-")
    if not name:
        return fact(distribution, "Name") or "", ""
    return name.replace("_", "-"), version.partition("-")[0]
