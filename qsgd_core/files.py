"""Files that are either the old version or the new one, never half of each."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import IO, Any

from qsgd_core.errors import QSGDError

MAX_NAME = 200
"""Bytes that may stand before a suffix: file systems end names at 255, and SQLite adds to them."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Call ``write`` on a temporary file beside ``path``, flush it to disk, move it into place.

    Raises:
        QSGDError: the file could not be written; ``path`` is as it was.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise QSGDError(
            f"{path} could not be written: {error}. What was there before is untouched. "
            "Free some space or fix the folder's permissions, then resume the run."
        ) from error
    _sync_folder(path.parent)


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Write one JSON object, indented."""
    text = json.dumps(plain(data), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, lambda file: file.write(_encoded(text)))


def write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write one JSON object per line."""
    lines = [json.dumps(plain(row), ensure_ascii=False, allow_nan=False) + "\n" for row in rows]
    write_atomically(path, lambda file: file.write(_encoded("".join(lines))))


def named_after(text: str, suffix: str) -> str:
    """The name of a file for ``text``: itself where that can be one, else a part and a digest.

    Args:
        text: anything, such as the id that a user gave a run.
        suffix: what the name ends in, such as ``.log``.
    """
    if len(os.fsencode(text)) <= MAX_NAME and re.fullmatch(r"[^/\0.][^/\0]*", text):
        return text + suffix
    digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:16]
    return f"{re.sub(r'[^A-Za-z0-9_-]+', '-', text)[:80]}-{digest}{suffix}"


def plain(data: Any) -> Any:
    """``data`` with NaN and infinities, which JSON does not have, as None."""
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, Mapping):
        return {key: plain(value) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [plain(value) for value in data]
    return data


def not_finite(data: Mapping[str, Any], path: str = "") -> list[str]:
    """What :func:`plain` makes null of, as dotted paths: ``["effect_size.mean"]``."""
    found = []
    for key, value in data.items():
        if isinstance(value, Mapping):
            found += not_finite(value, f"{path}{key}.")
        elif isinstance(value, float) and not math.isfinite(value):
            found.append(f"{path}{key}")
    return found


def _encoded(json_text: str) -> bytes:
    """As UTF-8; halves of a file's name that is no text become JSON's own escapes."""
    return json_text.encode(errors="backslashreplace")


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
