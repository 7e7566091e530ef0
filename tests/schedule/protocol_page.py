"""docs/protocol.md, from the classes: ``python tests/schedule/protocol_page.py`` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

from qsgd_core.schedule import messages

PAGE = Path(__file__).parents[2] / "docs" / "protocol.md"


def page() -> str:
    """The whole page."""
    text = [
        "# What trainer and courier say to each other",
        "",
        "Made from `qsgd_core/schedule/messages.py`; a test holds it to the code.",
        "",
        f"Version {messages.PROTOCOL}. {messages.__doc__.partition(chr(10))[2].strip()}",
    ]
    for name, kind in vars(messages).items():
        if inspect.isclass(kind) and issubclass(kind, messages.Message) and "kind" in vars(kind):
            text += ["", f"## `{kind.kind}` ({name})", "", inspect.cleandoc(kind.__doc__)]
            types = [f"- `{k}`: `{v}`" for k, v in kind.__annotations__.items()]
            text += ["", "Types:", "", *types] if types else []
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
