"""A budget as a bar of characters."""

from __future__ import annotations

WIDTH = 40


def bar(share: float, block: str = "█") -> str:
    """``share`` of the full width, from 0 to 1."""
    return block * round(WIDTH * min(max(share, 0.0), 1.0))


def budget_bar(spent: float, held: float, planned: float | None) -> str:
    """Shares of the cap: spent █, held ▒, free ·, and │ where the plan is, if there is one."""
    cells = list((bar(spent) + bar(held, "▒")).ljust(WIDTH, "·")[:WIDTH])
    if planned is not None:
        cells[min(int(WIDTH * max(planned, 0.0)), WIDTH - 1)] = "│"
    return "".join(cells)
