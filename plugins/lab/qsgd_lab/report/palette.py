"""How arms look: the same in every figure and legend.

Colours are names, here and in the figures; style.css says what they are by day and by night. They
are after Okabe and Ito's and Tol's sets for colour-blind readers, of 3:1 contrast at least to the
page. None carries meaning alone: a control has its quantum arm's colour, and broken lines and open
marks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

from qsgd_lab.compare.table import Comparison
from qsgd_lab.report.document import Key
from qsgd_lab.stats.pairs import Metric

COLOURS = ("blue", "orange", "green", "purple", "ochre", "cyan")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "star", "hexagon")
DASHES = ("dash", "dot", "dashdot", "longdash")


@dataclass(frozen=True)
class Look:
    """How an arm is drawn.

    Attributes:
        colour: a name of the palette.
        dash: as plotly has it.
        symbol: of its marks.
    """

    colour: str
    dash: str
    symbol: str

    @property
    def band(self) -> str:
        """Its colour, thin enough to see through."""
        return f"{self.colour}-thin"


BASELINE = Look("ink", "solid", "x")


def looks(comparison: Comparison) -> dict[str, Look]:
    """Arm -> how it is drawn."""
    arms = comparison.arms.values()
    found = {comparison.plan.baseline: BASELINE}
    for arm in arms:
        if arm.name not in found and not arm.control:
            n = len(found) - 1
            symbol = SYMBOLS[n % len(SYMBOLS)] if comparison.plan.arm(arm.name).term else "x"
            found[arm.name] = Look(COLOURS[n % len(COLOURS)], "solid", symbol)
    own = len(found) - 1
    seen: dict[str, int] = {}
    for arm in (arm for arm in arms if arm.name not in found):
        match = found.get(arm.match or "")
        if match is None:
            match = Look(COLOURS[own % len(COLOURS)], "", SYMBOLS[own % len(SYMBOLS)])
            own += 1
        n = seen[match.colour] = seen.get(match.colour, -1) + 1
        found[arm.name] = Look(match.colour, DASHES[n % len(DASHES)], f"{match.symbol}-open")
    return found


def keys(names: Iterable[str], found: Mapping[str, Look]) -> tuple[Key, ...]:
    """A legend, whose entries show and hide what they are of."""
    return tuple(
        Key(name, look.colour, look.dash, look.symbol, group=name)
        for name in names
        for look in (found[name],)
    )


def label(text: str) -> str:
    """A name as plotly draws it: its texts know some HTML, and names are none."""
    return escape(text, quote=False)


def scaled(value: float, metric: Metric) -> float:
    """As it is drawn: accuracies in percent."""
    return 100 * value if metric == "accuracy" else value
