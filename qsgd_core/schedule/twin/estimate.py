"""What is known of a device's noise, as data: where every site stands, and how surely."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

Kind: TypeAlias = Literal["channel", "affine"]
"""How a site's noise is modelled: ``channel`` compiles it into the circuit (blocks of up to 6
qubits), ``affine`` maps the ideal ⟨Z⟩ to a + b·⟨Z⟩ (wider blocks)."""


@dataclass(frozen=True)
class Nominal:
    """A site's noise as the vendor states it.

    Attributes:
        depolarising: per qubit of a two-qubit gate, see
            :func:`qsgd_core.simulate.noise.depolarising_of`.
        e01: P(read 1 | 0).
        e10: P(read 0 | 1).
    """

    depolarising: float
    e01: float
    e10: float


@dataclass(frozen=True)
class Group:
    """Sites that share circuits, and so share one covariance.

    Parameters are in units of their prior's standard deviation: 0 is the vendor's figure.

    Attributes:
        kind: which parameters these are.
        sites: register positions, ascending.
        mean: sites × parameters, site by site.
        covariance: the lower triangle of a symmetric matrix, row by row.
        at: when the latest result that it learned ran, seconds since the epoch.
        since: results that ran before this were measured under another calibration; None when
            there is no such moment.
    """

    kind: Kind
    sites: tuple[int, ...]
    mean: tuple[float, ...]
    covariance: tuple[float, ...]
    at: float
    since: float | None = None


@dataclass(frozen=True)
class Estimate:
    """All that a twin predicts from. Frozen; its JSON form keeps every number to the bit.

    Attributes:
        version: how many results were learned.
        stamp: the vendor's calibration that the nominal values are from, or "typical".
        typical: nominal values of a site that ``nominal`` does not name.
        nominal: per site.
        groups: what results have taught; a site in none of them is at its nominal values.
        physical: the physical qubit of each site, where results have said so.
    """

    version: int
    stamp: str
    typical: Nominal
    nominal: dict[int, Nominal] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    physical: dict[int, int] = field(default_factory=dict)

    def of_site(self, site: int) -> Nominal:
        """Nominal values of one site."""
        return self.nominal.get(site, self.typical)

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Estimate:
        """Read the JSON form."""
        data: dict[str, Any] = json.loads(text)
        return cls(
            version=data["version"],
            stamp=data["stamp"],
            typical=Nominal(**data["typical"]),
            nominal={int(site): Nominal(**value) for site, value in data["nominal"].items()},
            groups=tuple(_group(group) for group in data["groups"]),
            physical={int(site): qubit for site, qubit in data["physical"].items()},
        )


def _group(data: dict[str, Any]) -> Group:
    tuples = {name: tuple(data[name]) for name in ("sites", "mean", "covariance")}
    return Group(**{**data, **tuples})
