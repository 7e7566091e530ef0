"""What ``qsgd new`` writes: a distribution that works from the first minute, with its tests.

The files are in the folder of their kind, in ``common`` and, for what runs circuits, in
``circuits``. Their names end in ``.tmpl``; ``$name`` and the like are replaced in them and in their
paths.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Literal, TypeAlias, get_args

from qsgd_core.errors import ConfigError

Kind: TypeAlias = Literal["simulator", "backend", "perturbation"]
KINDS: tuple[Kind, ...] = get_args(Kind)

SUFFIX = ".tmpl"
TAKEN = frozenset(
    [
        "core",
        "exact",
        "sampled",
        "sine",
        "circuit",
        "digits",
        "tensorboard",
        "controls",
        "lab",
        "aer",
        "pennylane",
        "ibm",
        "braket",
    ]
)
"""Names of the project's own distributions and of what the core serves."""


@dataclass(frozen=True)
class Names:
    """Every spelling of a provider's name.

    Attributes:
        name: what users type, e.g. ``my-device``; also the folder.
        distribution: what pip installs, ``qsgd-my-device``.
        package: what Python imports, ``qsgd_my_device``.
        module: ``my_device``.
        title: ``MyDevice``.
    """

    name: str
    distribution: str
    package: str
    module: str
    title: str

    @classmethod
    def of(cls, asked: str) -> Names:
        """From the name that was asked for, with or without ``qsgd-`` before it.

        Raises:
            ConfigError: it cannot be the name of a distribution, or it is the project's own.
        """
        if not re.fullmatch(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?", asked):
            raise ConfigError(
                f"{asked!r} cannot be the name of a distribution: it takes ASCII letters, digits, "
                "'-', '_' and '.', begins with a letter and ends with a letter or digit (PEP 508). "
                "For example: qsgd new my-device"
            )
        name = re.sub(r"[-_.]+", "-", asked).lower().removeprefix("qsgd-")  # PEP 503
        if name in TAKEN or not name[0].isalpha():
            raise ConfigError(
                f"{asked!r} cannot be used: {name!r} belongs to QSGD itself or does not begin with "
                f"a letter. For example: qsgd new my-{name}"
            )
        module = name.replace("-", "_")
        title = "".join(part.capitalize() for part in name.split("-"))
        return cls(name, f"qsgd-{name}", f"qsgd_{module}", module, title)


def render(asked: str, kind: Kind) -> dict[str, str]:
    """Path inside the new folder -> text, for every file.

    Raises:
        ConfigError: a name that cannot be used.
    """
    values = vars(Names.of(asked))
    folders = ["common", kind] if kind == "perturbation" else ["common", "circuits", kind]
    found: dict[str, str] = {}
    for folder in folders:
        found |= _templates(files(__name__) / folder)
    return {
        Template(path).substitute(values): Template(text).substitute(values)
        for path, text in sorted(found.items())
    }


def _templates(folder: Traversable, inside: str = "") -> dict[str, str]:
    """Path -> text of every template under a folder, without the suffix."""
    found: dict[str, str] = {}
    for entry in folder.iterdir():
        if entry.is_dir():
            found |= _templates(entry, f"{inside}{entry.name}/")
        elif entry.name.endswith(SUFFIX):
            path = inside + entry.name.removesuffix(SUFFIX)
            found[path] = entry.read_text(encoding="utf-8")
    return found
