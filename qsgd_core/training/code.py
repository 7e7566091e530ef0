"""Which files of its own folder a task script is made of: a run's code beside its configuration.

Files are found in two ways. What was executed is heard from python, whichever way it was loaded
(``import``, importlib, runpy); imports that stand in the text and have not happened yet, as inside
``build()``, are read there. Installed packages are not of the script's own: their versions say
which they are.
"""

from __future__ import annotations

import ast
import hashlib
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType

_watched: set[str] = set()
_executed: dict[Path, str] = {}
_being_loaded: list[Path] = []
_at_load: dict[Path, set[Path]] = {}
_listening = False
_INSTALLED = tuple(
    {Path(sysconfig.get_path(name)) for name in ("purelib", "platlib", "stdlib")}
    | {Path(__file__).parents[1]}
)


@contextmanager
def loading(script: Path) -> Iterator[None]:
    """While entered, ``script`` is loaded; what is executed from its folder later is noted too."""
    global _listening
    _watched.add(f"{str(script.parent).rstrip('/')}/")
    if not _listening:
        _listening = True
        sys.addaudithook(_hear)
    _being_loaded.append(script)
    try:
        yield
    finally:
        _being_loaded.remove(script)


def code_of(source: str | None, *, when_loaded: bool = False) -> dict[str, str]:
    """SHA-256 of each python file that a task is made of, by its path from the script's folder.

    Args:
        source: ``/path/script.py:function``; empty for anything else, such as a registered task.
        when_loaded: without what ran later in this process, such as what ``build()`` looked up by
            a name that stands in no import: the same in any process.
    """
    if source is None:
        return {}
    path, colon, _ = source.rpartition(":")
    if not (colon and path.endswith(".py")):
        return {}
    script = Path(path)
    ran = _executed.keys() & (_at_load.get(script, set()) if when_loaded else _executed.keys())
    found = {file: _digest(file) for file in _imports(script)}
    found |= {file: _executed[file] for file in ran if _is_own(file, script.parent)}
    return {
        str(file.relative_to(script.parent)): digest
        for file, digest in sorted(found.items())
        if digest
    }


def edited_since(recorded: Mapping[str, str], source: str | None) -> list[str]:
    """Which of the files that :func:`code_of` gave for a run are others now, or gone."""
    if source is None:
        return []
    folder = Path(source.rpartition(":")[0]).parent
    return sorted(file for file, digest in recorded.items() if _digest(folder / file) != digest)


def _hear(event: str, args: tuple[object, ...]) -> None:
    if event != "exec" or not isinstance(args[0], CodeType):
        return
    name = args[0].co_filename
    if any(name.startswith(folder) for folder in _watched):
        file = Path(name)
        if file.suffix == ".py":
            _executed[file] = _digest(file)
            for script in _being_loaded:
                _at_load.setdefault(script, set()).add(file)


def _digest(file: Path) -> str:
    """Empty for a file that cannot be read (any more)."""
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError:
        return ""


def _is_own(file: Path, folder: Path) -> bool:
    installed = any(file.is_relative_to(where) for where in _INSTALLED)
    return file.is_relative_to(folder) and not installed and "site-packages" not in file.parts


def _imports(script: Path) -> set[Path]:
    """The script, and every file of its folder that it imports, directly or not."""
    found: set[Path] = set()
    left = [script]
    while left:
        file = left.pop()
        if file in found or not file.is_file():
            continue
        found.add(file)
        left += [f for f in _named_in(file, script.parent) if _is_own(f, script.parent)]
    return found


def _named_in(file: Path, root: Path) -> Iterator[Path]:
    """Where the modules would be that ``file`` names in its imports, wherever these stand."""
    try:
        tree = ast.parse(file.read_bytes())
    except (OSError, SyntaxError, ValueError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _files(root, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            start = file.parents[node.level - 1] if node.level else root
            module = node.module.split(".") if node.module else []
            for alias in node.names:
                yield from _files(start, [*module, alias.name])


def _files(start: Path, parts: list[str]) -> Iterator[Path]:
    """Files of a dotted name: its packages', and its own."""
    here = start
    for part in parts:
        yield here / f"{part}.py"
        here = here / part
        yield here / "__init__.py"
