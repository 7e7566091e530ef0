"""What a page is made of. Text is plain text throughout: whoever renders it escapes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Tone: TypeAlias = Literal["better", "worse", "none", "open", "plain"]
"""Of a tag: found better, found worse, none found, cannot tell, or neither of these."""


@dataclass(frozen=True)
class Paragraph:
    """Running text; an ``answer`` is what the page is for, an ``alert`` must not be passed over."""

    text: str
    tone: Literal["", "answer", "alert"] = ""


@dataclass(frozen=True)
class Item:
    """A line of a list, with a word before it if it has a ``tag``."""

    text: str
    tag: str | None = None
    tone: Tone = "plain"


@dataclass(frozen=True)
class Bullets:
    """A list; ``small`` for what only explains."""

    items: tuple[Item, ...]
    small: bool = False


@dataclass(frozen=True)
class Table:
    """Cells of text, a row each.

    Attributes:
        columns: their heads; empty where the first column names its row and that is enough.
        rows: as long as each other.
        words: columns that hold words, which are set left and may wrap; others hold numbers.
        note: what must be known to read it.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[int, ...] = (0,)
    note: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a figure's legend.

    Attributes:
        label: what it stands for.
        colour: a name of the palette.
        dash: as plotly has it; ``band`` for an area.
        symbol: of plotly's; None for a bare line.
        group: ``legendgroup`` of the traces that it shows and hides; None: it only explains.
    """

    label: str
    colour: str
    dash: str = "solid"
    symbol: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Figure:
    """A figure of plotly, and what stands beside it.

    Attributes:
        name: identifies it on the page; letters and dashes.
        title: what it shows.
        caption: how to read it.
        traces, layout: plotly's own, plain JSON values; colours are names of the palette.
        height_px: of the drawing.
        keys: its legend.
        numbers: what it draws, for whoever does not see it; None where another table has it.
    """

    name: str
    title: str
    caption: str
    traces: tuple[Mapping[str, Any], ...]
    layout: Mapping[str, Any]
    height_px: int = 360
    keys: tuple[Key, ...] = ()
    numbers: Table | None = None


@dataclass(frozen=True)
class Code:
    """Lines to paste."""

    text: str


@dataclass(frozen=True)
class Fold:
    """Blocks that are there for whoever opens them."""

    title: str
    blocks: tuple[Block, ...]


Block: TypeAlias = Paragraph | Bullets | Table | Figure | Code | Fold


@dataclass(frozen=True)
class Section:
    """Blocks under a heading."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Document:
    """A page.

    Attributes:
        kind: what it is about, in a word or two.
        title: its name.
        lead: what must be known first.
        sections: in order; those without blocks are left out.
    """

    kind: str
    title: str
    lead: str
    sections: tuple[Section, ...]

    @property
    def shown(self) -> tuple[Section, ...]:
        """Sections that have something to show."""
        return tuple(section for section in self.sections if section.blocks)

    def figures(self) -> Iterator[Figure]:
        """Every figure, in order."""
        for section in self.sections:
            yield from _figures(section.blocks)


def _figures(blocks: Sequence[Block]) -> Iterator[Figure]:
    for block in blocks:
        if isinstance(block, Figure):
            yield block
        elif isinstance(block, Fold):
            yield from _figures(block.blocks)


def pairs(rows: Sequence[tuple[str, str]]) -> Table:
    """Names and values."""
    return Table(columns=(), rows=tuple(rows), words=(0, 1))
