"""A document as one HTML file that loads nothing: styles, scripts and plotly are in it.

The browser is told so too: the page's Content-Security-Policy forbids every request, and every
script but the two whose SHA-256 it names. Text is escaped by Jinja.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from qsgd_lab.report.document import (
    Block,
    Bullets,
    Code,
    Document,
    Figure,
    Fold,
    Paragraph,
    Table,
)

KINDS: Mapping[type, str] = {
    Paragraph: "paragraph",
    Bullets: "bullets",
    Table: "table",
    Figure: "figure",
    Code: "code",
    Fold: "fold",
}
_DASHES = {"dash": "6 4", "dot": "2 3", "dashdot": "6 3 2 3", "longdash": "9 4",
           "longdashdot": "9 3 2 3"}  # fmt: skip


def html(document: Document) -> str:
    """The page; plotly is in it if there is anything to draw."""
    page = _environment()
    figures = list(document.figures())
    scripts = [] if not figures else [_plotly(), _text("draw.js")]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data: blob:; script-src "
    policy += " ".join(f"'sha256-{_digest(script)}'" for script in scripts) or "'none'"
    return page.get_template("page.html").render(
        document=document,
        policy=policy,
        style=Markup(_text("style.css")),  # noqa: S704 - a file of this package
        scripts=[Markup(script) for script in scripts],  # noqa: S704 - so are these, and plotly's
        figures={f.name: _spec(f) for f in figures},
    )


@cache
def _environment() -> Environment:
    found = Environment(
        loader=PackageLoader("qsgd_lab.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["kind"] = _kind
    found.filters["breakable"] = _breakable
    found.filters["dashes"] = lambda dash: _DASHES.get(dash, "none")
    return found


def _kind(block: Block) -> str:
    return KINDS[type(block)]


def _breakable(name: str) -> Markup:
    """A long name may go on after these marks on the next line."""
    parts = re.split(r"(?<=[:=,/])", name)
    return Markup("<wbr>").join(parts)


def _spec(figure: Figure) -> dict[str, Any]:
    """What draw.js needs."""
    return {"data": figure.traces, "layout": figure.layout, "height": figure.height_px}


def _text(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None  # noqa: S101 - set above
    return environment.loader.get_source(environment, name)[0]


@cache
def _plotly() -> str:
    """plotly.js, without anything that would end its script element."""
    return str(get_plotlyjs()).replace("</script", "<\\/script")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
