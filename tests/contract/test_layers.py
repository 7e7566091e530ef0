"""Who may import whom. This table is the architecture; any arrow that is not in it is an error."""

from __future__ import annotations

import ast
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CORE = ROOT / "qsgd_core"

# The contract, lowest first. A module may import any module of a line above its own.
CONTRACT = """
errors        seeds
circuits
capabilities  settings  isolate  options  files
jobs          events
backend       perturbation  policy  task  observing  scalars  prices
specs
hookspecs
checks
plugins
naming
hints
registry
"""

# What providers see: the words they speak, not the machinery that finds and chooses them.
PUBLIC = """errors seeds circuits capabilities settings jobs events backend perturbation policy task
specs hookspecs prices scalars"""

# What stands on the contract, each with everything it may import.
ABOVE = {
    "simulate": "errors seeds circuits",
    "schedule": """errors seeds circuits capabilities jobs events backend perturbation policy
                   prices simulate""",
    "optim": f"{PUBLIC} observing registry schedule",
    "training": f"{PUBLIC} files observing registry schedule optim",
    "integrations": "errors optim",
    "builtin": f"{PUBLIC} simulate",
    "testing": f"{PUBLIC} plugins registry simulate",
    "template": "errors",
    "cli": "*",
    "__main__": "*",
    "__init__": "*",
}

# The distributions beside the core. None may import another.
PROVIDERS = {
    "adapters/*": PUBLIC,
    "plugins/*": PUBLIC,
    # It trains, and brings commands of its own.
    "plugins/lab": f"{PUBLIC} options files registry schedule optim training cli",
}

# torch may be imported when one of these is imported; everywhere else only where it is used.
TORCH = {"simulate", "schedule", "optim", "training", "integrations", "builtin", "testing"}

# A vendor's SDK may be imported by any module of an adapter but these, which listings import.
LIGHT_MODULES = {"__init__", "plugin", "options"}
SDKS = {"qiskit", "qiskit_aer", "qiskit_ibm_runtime", "pennylane", "braket", "boto3", "cirq"}

# Only this module reads the environment.
ENVIRONMENT = {"settings"}


@dataclass(frozen=True)
class Import:
    """One imported module or name, absolute; ``runs`` is when: import, use or never (typing)."""

    target: str
    runs: str
    line: int


def allowed() -> dict[str, set[str]]:
    """Module or package directly under qsgd_core -> those it may import."""
    table: dict[str, set[str]] = {}
    lower: set[str] = set()
    for line in CONTRACT.split("\n"):
        table |= {name: set(lower) for name in line.split()}
        lower |= set(line.split())
    return table | {name: set(text.split()) for name, text in ABOVE.items()}


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import of a module's text; ``package`` is what relative imports start from."""

    def walk(node: ast.AST, runs: str) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inner = runs
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                inner = "use" if runs == "import" else runs
            elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                for statement in child.body:
                    yield from walk(ast.Module([statement], []), "never")
                for statement in child.orelse:
                    yield from walk(ast.Module([statement], []), runs)
                continue
            elif isinstance(child, ast.Import):
                yield from (Import(a.name, runs, child.lineno) for a in child.names)
            elif isinstance(child, ast.ImportFrom):
                base = child.module or ""
                if child.level:
                    start = package.split(".")[: len(package.split(".")) - child.level + 1]
                    base = ".".join([*start, *([child.module] if child.module else [])])
                yield from (Import(f"{base}.{a.name}", runs, child.lineno) for a in child.names)
            yield from walk(child, inner)

    return walk(ast.parse(source), "import")


def part(target: str) -> str | None:
    """The module or package under qsgd_core that an import reaches; None for anything else.

    A name taken from ``qsgd_core`` itself counts as an import of the module that defines it.
    """
    names = target.split(".")
    if names[0] != "qsgd_core":
        return None
    if len(names) == 1:
        return "__init__"
    if (CORE / names[1]).is_dir() or (CORE / f"{names[1]}.py").is_file():
        return names[1]
    value = getattr(importlib.import_module("qsgd_core"), names[1])
    home = getattr(value, "__module__", "qsgd_core.hookspecs")
    return part(home) if home.startswith("qsgd_core.") else "hookspecs"


def core_violations(name: str, source: str, package: str) -> list[str]:
    """Imports in the text of a module under ``qsgd_core/name`` that the table does not have."""
    may = allowed()[name]
    return [
        f"{name}:{found.line} imports {found.target} ({found.runs})"
        for found in imports_of(source, package)
        if (target := part(found.target)) is not None
        and target != name
        and "*" not in may
        and target not in may
        and not (found.runs == "never" and _same_line(name, target))
    ]


def _same_line(name: str, other: str) -> bool:
    return any({name, other} <= set(line.split()) for line in CONTRACT.split("\n"))


def provider_violations(own: str, folder: str, source: str) -> list[str]:
    """Imports in the text of a module of the distribution ``own`` that it may not have."""
    may = set(PROVIDERS.get(folder, PROVIDERS[f"{folder.split('/')[0]}/*"]).split())
    bad = []
    for found in imports_of(source, own):
        top = found.target.split(".")[0]
        target = part(found.target)
        if top.startswith("qsgd_") and top not in (own, "qsgd_core"):
            bad.append(f"{own}:{found.line} imports the provider {found.target}")
        if target is not None and target not in may:
            bad.append(f"{own}:{found.line} imports {found.target}")
    return bad


def on_import(source: str, package: str, modules: set[str]) -> list[str]:
    """Which of ``modules`` the text imports as soon as it is imported itself."""
    tops = {f.target.split(".")[0] for f in imports_of(source, package) if f.runs == "import"}
    return sorted(tops & modules)


def environment_reads(source: str) -> list[int]:
    """Lines that touch the process's environment."""
    names = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
    lines = []
    for node in ast.walk(ast.parse(source)):
        attribute = isinstance(node, ast.Attribute) and node.attr in names
        if attribute and ast.unparse(node.value) == "os":  # type: ignore[attr-defined]
            lines.append(node.lineno)  # type: ignore[attr-defined]
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            lines += [node.lineno for alias in node.names if alias.name in names]
    return lines


def core_files() -> list[Path]:
    return sorted(CORE.rglob("*.py"))


def place(path: Path) -> str:
    """The row of the table that a file of the core belongs to."""
    return path.relative_to(CORE).parts[0].removesuffix(".py")


def package_of(path: Path, root: Path) -> str:
    return ".".join(path.parent.relative_to(root).parts)


def provider_files() -> list[tuple[str, str, Path]]:
    """(folder, package, file) of every module of every distribution beside the core."""
    return [
        ("/".join(package.parent.relative_to(ROOT).parts), package.name, path)
        for group in ("adapters", "plugins")
        for package in sorted(ROOT.glob(f"{group}/*/qsgd_*"))
        for path in sorted(package.rglob("*.py"))
    ]


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- the code keeps to the table -----------------------------------------------------------------


@pytest.mark.parametrize("path", core_files(), ids=label)
def test_a_module_of_the_core_imports_only_what_its_row_allows(path):
    assert place(path) in allowed(), f"give {place(path)} a row in the table of this file"
    assert core_violations(place(path), path.read_text(), package_of(path, ROOT)) == []


@pytest.mark.parametrize("path", core_files(), ids=label)
def test_torch_and_sdks_are_not_imported_with_the_contract(path):
    found = on_import(path.read_text(), package_of(path, ROOT), SDKS | {"torch", "numpy"})
    assert set(found) <= ({"torch", "numpy"} if place(path) in TORCH else set())


@pytest.mark.parametrize("path", core_files(), ids=label)
def test_only_the_settings_touch_the_environment(path):
    assert place(path) in ENVIRONMENT or environment_reads(path.read_text()) == []


@pytest.mark.parametrize(
    "folder, package, path", [pytest.param(*f, id=label(f[2])) for f in provider_files()]
)
def test_a_provider_speaks_only_to_the_public_contract(folder, package, path):
    source = path.read_text()
    assert provider_violations(package, folder, source) == []
    sdks = {f.target.split(".")[0] for f in imports_of(source, package)} & SDKS
    assert not sdks or (folder.startswith("adapters/") and path.stem not in LIGHT_MODULES)


def test_the_table_has_no_row_that_the_contract_has_already_and_no_unknown_name():
    rows = CONTRACT.split()
    assert len(rows) == len(set(rows))
    assert not set(rows) & set(ABOVE)
    known = set(rows) | set(ABOVE) | {"*"}
    for text in [PUBLIC, *ABOVE.values(), *PROVIDERS.values()]:
        assert set(text.split()) <= known
    assert set(rows) == {name for name in rows if (CORE / f"{name}.py").is_file()}


# --- and the checks would notice if it did not ---------------------------------------------------

FORBIDDEN = [
    ("errors", "from qsgd_core.circuits import Circuit"),
    ("jobs", "import qsgd_core.backend"),
    ("jobs", "from . import backend"),
    ("jobs", "from .backend import Backend"),
    ("backend", "def f():\n    from qsgd_core.plugins.registry import Registry"),
    ("circuits", "if TYPE_CHECKING:\n    from qsgd_core.jobs import Result"),
    ("capabilities", "from qsgd_core.settings import Settings"),
    ("simulate", "from qsgd_core.backend import Simulator"),
    ("schedule", "from qsgd_core import registry"),
    ("schedule", "from qsgd_core.plugins.loading import Plugins"),
    ("optim", "from qsgd_core.builtin.perturbations import Sine"),
    ("builtin", "from qsgd_core.plugins.registry import Registry"),
    ("builtin", "from qsgd_core import QSGD"),
    ("training", "from qsgd_core.cli import main"),
    ("specs", "import qsgd_core"),
]


@pytest.mark.parametrize("name, source", FORBIDDEN)
def test_an_arrow_that_is_not_in_the_table_is_noticed(name, source):
    assert len(core_violations(name, source, "qsgd_core")) == 1


@pytest.mark.parametrize(
    "name, source",
    [
        ("backend", "from qsgd_core.jobs import Result"),
        ("jobs", "if TYPE_CHECKING:\n    from qsgd_core.events import Event"),
        ("builtin", "from qsgd_core import Perturbation, hookimpl"),
        ("simulate", "import numpy\nfrom qsgd_core.simulate import chain"),
    ],
)
def test_an_arrow_that_is_in_the_table_is_not_held_against_a_module(name, source):
    assert core_violations(name, source, "qsgd_core") == []


@pytest.mark.parametrize(
    "source",
    [
        "import qsgd_lab.models",
        "from qsgd_core.plugins.registry import Registry",
        "from qsgd_core import QSGD",
        "from qsgd_core.simulate import chain",
    ],
)
def test_a_provider_that_reaches_past_the_contract_is_noticed(source):
    assert len(provider_violations("qsgd_aer", "adapters/aer", source)) == 1


def test_lab_may_train_and_no_other_provider_may():
    source = "from qsgd_core import QSGD"
    assert provider_violations("qsgd_lab", "plugins/lab", source) == []
    assert provider_violations("qsgd_controls", "plugins/controls", source) != []


def test_an_import_counts_where_it_runs():
    source = (
        "import torch\nif TYPE_CHECKING:\n    import a\nelse:\n    import b\ndef f():\n    import c"
    )
    assert [(i.target, i.runs) for i in imports_of(source, "qsgd_core")] == [
        ("torch", "import"),
        ("a", "never"),
        ("b", "import"),
        ("c", "use"),
    ]
    assert on_import("try:\n    import torch\nexcept ImportError:\n    pass", "", {"torch"})


@pytest.mark.parametrize(
    "source", ["import os\nos.environ['A']", "import os\nos.getenv('A')", "from os import environ"]
)
def test_a_read_of_the_environment_is_noticed(source):
    assert len(environment_reads(source)) == 1


# --- what an import brings along -----------------------------------------------------------------

LISTING = """
import importlib, json, sys
import qsgd_core
import qsgd_core.plugins.loading
import qsgd_core.plugins.registry
import qsgd_core.settings
settings = qsgd_core.settings.load_settings(load_plugins=())
extra = [(name, "0", importlib.import_module(f"{name}.plugin")) for name in sys.argv[1:]]
plugins = qsgd_core.plugins.loading.load_plugins(settings, extra=extra)
registry = qsgd_core.plugins.registry.Registry(settings, plugins)
lists = [registry.backends(), registry.perturbations(), registry.tasks(), registry.observers()]
lists += [registry.policies(), registry.commands()]
registry.resolve_backend("exact")
print(json.dumps({
    "loaded": [record.name for record in plugins.records if record.status == "loaded"],
    "modules": sorted({name.split(".")[0] for name in sys.modules}),
}))
"""


@pytest.mark.parametrize("package", [None, *sorted({(f[0], f[1]) for f in provider_files()})])
def test_listing_and_looking_up_import_neither_torch_nor_numpy_nor_an_sdk(package):
    folder, name = package or (".", None)
    done = subprocess.run(
        [sys.executable, "-c", LISTING, *([name] if name else [])],
        env={"PYTHONPATH": f"{ROOT / folder}:{ROOT}", "PATH": "/usr/bin:/bin"},
        check=True,
        timeout=120,
        stdout=subprocess.PIPE,
    )
    said = json.loads(done.stdout)
    assert said["loaded"] == ["qsgd-core", *([name.replace("_", "-")] if name else [])]
    heavy = SDKS | {"torch", "numpy", "scipy", "sklearn", "matplotlib", "tensorboard"}
    assert not heavy & set(said["modules"])
