"""docs/protocol.md, from the classes: ``python tests/schedule/protocol_page.py`` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

from qsgd_core.schedule import messages
from qsgd_core.schedule.paid_run import PaidRun

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
            text += described(f"`{kind.kind}` ({name})", kind)
    return "\n".join(text + described("PaidRun, within `open`", PaidRun)) + "\n"


def described(title: str, kind: type) -> list[str]:
    """A class's docstring and the types of its fields."""
    types = [f"- `{k}`: `{v}`" for k, v in kind.__annotations__.items() if k != "model_config"]
    lines = ["", f"## {title}", "", inspect.cleandoc(kind.__doc__ or "")]
    return lines + (["", "Types:", "", *types] if types else [])


if __name__ == "__main__":
    PAGE.write_text(page())
