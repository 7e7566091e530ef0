"""A class name says one thing in the whole project."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCES = ("qsgd_core", "adapters/*/qsgd_*", "plugins/*/qsgd_*")
TEMPLATE = ROOT / "qsgd_core" / "template"
# What users import from the integration of their library: the same thing in either.
SHARED = {"QSGDCallback": {"qsgd_core/integrations"}}


def classes_of(root: Path, patterns: tuple[str, ...] = SOURCES) -> dict[str, list[Path]]:
    """Every class by name, private and nested ones too, with the files that define it."""
    found: dict[str, list[Path]] = defaultdict(list)
    for package in (p for pattern in patterns for p in sorted(root.glob(pattern))):
        for path in sorted(package.rglob("*.py")):
            if TEMPLATE in path.parents:
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    found[node.name].append(path.relative_to(root))
    return found


def repeated(found: dict[str, list[Path]]) -> dict[str, list[str]]:
    """Names that stand more than once, but for :data:`SHARED`."""
    return {
        name: [p.as_posix() for p in paths]
        for name, paths in found.items()
        if len(paths) > 1 and {p.parent.as_posix() for p in paths} != SHARED.get(name)
    }


def test_each_class_name_stands_once_in_the_project() -> None:
    found = classes_of(ROOT)
    assert {"Backend", "Scheduler", "IBMBackend"} <= found.keys()
    assert repeated(found) == {}


def test_a_second_class_of_a_name_is_found_wherever_it_hides(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "qsgd_core" / name).mkdir(parents=True)
    (tmp_path / "qsgd_core/one/a.py").write_text("class _Plan:\n    pass\n")
    (tmp_path / "qsgd_core/two/b.py").write_text(
        "def make():\n    class Outer:\n        class _Plan: ...\n"
    )
    assert repeated(classes_of(tmp_path)) == {"_Plan": ["qsgd_core/one/a.py", "qsgd_core/two/b.py"]}
