"""A document as Markdown: the same words and numbers; figures are the tables of what they draw."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from qsgd_lab.report.document import Block, Bullets, Code, Document, Figure, Fold, Paragraph, Table


def markdown(document: Document) -> str:
    """The page. What users named is escaped: it can be neither markup nor HTML."""
    parts = [f"# {escape(document.title)}", escape(document.lead)]
    for section in document.shown:
        parts.append(f"## {escape(section.title)}")
        parts += _blocks(section.blocks)
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """``text`` on one line, none of it markup."""
    text = " ".join(text.split())
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*\[\]|])", r"\\\1", text)
    return re.sub(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\_", text)


def _blocks(blocks: Sequence[Block]) -> Iterator[str]:
    for block in blocks:
        match block:
            case Paragraph():
                text = escape(block.text)
                yield {"alert": f"> **{text}**", "answer": f"**{text}**"}.get(block.tone, text)
            case Bullets():
                yield "\n".join(f"* {_item(item.tag, item.text)}" for item in block.items)
            case Table():
                yield _table(block)
            case Code():
                fence = "`" * max(3, 1 + max(map(len, re.findall("`+", block.text)), default=0))
                yield f"{fence}\n{block.text}\n{fence}"
            case Fold():
                yield f"### {escape(block.title)}"
                yield from _blocks(block.blocks)
            case Figure():
                if block.numbers is not None:
                    yield f"### {escape(block.title)}"
                    yield _table(block.numbers)


def _item(tag: str | None, text: str) -> str:
    return escape(text) if tag is None else f"**{escape(tag)}**: {escape(text)}"


def _table(table: Table) -> str:
    columns = table.columns or ("",) * len(table.rows[0])
    rule = ["---" if i in table.words else "---:" for i in range(len(columns))]
    lines = [_line([escape(c) for c in columns]), _line(rule)]
    lines += [_line([escape(cell) for cell in row]) for row in table.rows]
    note = f"\n\n{escape(table.note)}" if table.note else ""
    return "\n".join(lines) + note


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
