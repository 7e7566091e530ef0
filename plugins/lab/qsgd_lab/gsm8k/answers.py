"""The number that an answer comes to: what stands after ``####``, as in the data set's own code."""

from __future__ import annotations

import re
from decimal import Decimal, InvalidOperation

_FINAL = re.compile(r"#### *\$?(-?[0-9.,]+)")


def final_number(text: str) -> Decimal | None:
    """The first number after ``####``, without thousands' commas; None if there is none.

    ``#### 1,000`` and ``#### 1000.00`` are the same number.
    """
    found = _FINAL.search(text)
    if found is None:
        return None
    try:
        return Decimal(found.group(1).replace(",", "").rstrip("."))
    except InvalidOperation:
        return None


def is_right(written: str, answer: str) -> bool:
    """Whether what a model wrote comes to the answer's number."""
    number = final_number(written)
    return number is not None and number == final_number(answer)
