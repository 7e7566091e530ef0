"""From what somebody typed to a device's ARN. Pure: the lists come from the SDK and the service."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

PREFIX = "braket:"
LOCAL = ("local", "dm")


def is_arn(name: str) -> bool:
    """Whether a name is a full ARN."""
    return name.startswith("arn:aws")


def short(arn: str) -> str:
    """``arn:aws:braket:us-east-1::device/qpu/ionq/Forte-1`` -> ``forte-1``."""
    return arn.rpartition("/")[2].lower()


def normal(name: str) -> str:
    """``braket:Forte 1`` -> ``forte-1``: case, blanks and underscores make no difference."""
    return "-".join(name.removeprefix(PREFIX).lower().replace("_", " ").split())


def match(name: str, arns: Iterable[str]) -> list[str]:
    """ARNs whose short name is ``name``, in order and without repeats."""
    return list(dict.fromkeys(arn for arn in arns if short(arn) == normal(name)))


def region(arn: str) -> str | None:
    """The region in an ARN; None for a simulator, which every region has."""
    return arn.split(":")[3] or None


def listed(arns: Iterable[str]) -> str:
    """Names to paste."""
    return ", ".join(sorted({PREFIX + short(arn) for arn in arns})) or "none"


def meant(name: str, arns: Iterable[str]) -> str:
    """A hint for a name that nobody serves."""
    close = get_close_matches(normal(name), [*(short(a) for a in arns), *LOCAL], n=1)
    return f" Did you mean {PREFIX}{close[0]}?" if close else ""
