"""The command that starts one of our own modules in a second process."""

from __future__ import annotations

import sys
from pathlib import Path

# What a `-m` would do, without the current folder in front of the standard library: a file
# secrets.py that lies there is not ours to import.
_START = (
    "import runpy, sys; module, *path = sys.argv[1:]; del sys.argv[1:]; "
    "sys.path += [p for p in path if p not in sys.path]; "
    "runpy.run_module(module, run_name='__main__', alter_sys=True)"
)


def command(module: str) -> list[str]:
    """The words that run ``module`` as ``__main__`` in a new interpreter.

    It finds whatever this process finds, the plugins beside a script included, but the standard
    library, ``PYTHONPATH`` and what is installed come first there: a name that this process has
    imported long ago may mean a file of the script's folder by now. A process that ignores the
    environment (``python -I``, ``-E``) has a child that does.

    Args:
        module: dotted name.
    """
    return [sys.executable, *_flags(), "-P", "-c", _START, module, *_path()]


def _flags() -> list[str]:
    flags = {
        "-I": sys.flags.isolated,
        "-E": sys.flags.ignore_environment,
        "-s": sys.flags.no_user_site,
    }
    return [flag for flag, is_set in flags.items() if is_set]


def _path() -> list[str]:
    """The path of this process, absolute: it may have changed its folder since it was set."""
    try:
        return list(dict.fromkeys(str(Path(entry).absolute()) for entry in sys.path))
    except FileNotFoundError:  # the current folder has been removed
        return [entry for entry in sys.path if Path(entry).is_absolute()]
