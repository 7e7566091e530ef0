"""What is known of a device before any result: the vendor's figures, and how far to trust them.

The spreads are code, never read from a device generator. Each is held against published
calibrations: the property files of IBM's Heron processors stored in qiskit-ibm-runtime 0.51 (fez
and marrakesh of 2025-02-26, kingston and aachen of 2026-04-15 and 17; 156 qubits each). They are
round figures and were known to be near those of the simulated benchmark when they were chosen; all
halved or all doubled, the tracked twin's error in it rises by up to 14 %.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Workload
from qsgd_core.jobs import NoiseSnapshot
from qsgd_core.schedule.twin.estimate import Estimate, Nominal
from qsgd_core.simulate.noise import depolarising_of

TYPICAL = Nominal(depolarising=depolarising_of(0.0035), e01=0.006, e10=0.012)
"""Stands in where the vendor gives no figures. Medians of fez, marrakesh, kingston: cz error
0.0038, 0.0032, 0.0018; P(1|0) 0.0039, 0.0054, 0.0088; P(0|1) 0.0115, 0.0134, 0.0115."""

OFFSET_SD = 0.03
"""Radians. No vendor publishes it; 0.03 rad is an average gate error of 1.5e-4, of the order of
the whole sx error there (median 2.3e-4), so a calibrated gate is hardly further off."""

GAIN_SD = 0.01
"""Relative error of a rotation's angle; at π/2 it costs 4e-5 of gate error, see above."""

DEPOLARISING_SD = 0.4
"""Relative: from qubit to qubit of one device the logarithm of the cz error has an interquartile
range of 1.35 times 0.34 … 0.45."""

DEPOLARISING_LEAST_SD = 0.004
"""An assumption: vendors state gates run alone, and nobody states by how much crosstalk and idling
add to them. Twice the interquartile range of the cz errors on fez and marrakesh (0.18 %)."""

READOUT_SD = 0.006
"""Interquartile range over 1.35 of P(1|0): 0.0055 on fez, 0.0044 on aachen, 0.008 on marrakesh."""

BIAS_SD = 0.01
"""Of a in a + b·⟨Z⟩: the two readout errors' spread, 0.006·√2."""

SCALE_SD = 0.1
"""Relative, of b: the damping of a wide circuit is only roughly estimated from its gates."""


def nominal(
    snapshot: NoiseSnapshot | None,
    work: Workload,
    sites: Sequence[NDArray[np.intp]] | None = None,
) -> Estimate:
    """The estimate before any result: the vendor's figures, or typical published ones.

    A gate error counts for both qubits of the pairs that ``work`` really uses; a site whose pairs
    the vendor does not list gets the mean over the pairs of its qubit, or the typical value.

    Args:
        snapshot: the device's calibration for the submitted circuit's qubits, site by site; None
            if the vendor gives none.
        work: the logical workload.
        sites: int (B, n) per batch, the site of each row's qubits; None means 0 … n-1.
    """
    if snapshot is None:
        return Estimate(version=0, stamp="typical", typical=TYPICAL)
    errors = _pair_errors(snapshot)
    used = _pairs(work, sites)
    values: dict[int, Nominal] = {}
    for site, (qubit, (e01, e10)) in enumerate(
        zip(snapshot.physical_qubits, snapshot.readout, strict=True)
    ):
        physical = snapshot.physical_qubits
        partners = {
            frozenset((qubit, physical[b if a == site else a]))
            for a, b in used
            if site in (a, b) and max(a, b) < len(physical)
        }
        found = [errors[pair] for pair in partners if pair in errors]
        found = found or [error for pair, error in errors.items() if qubit in pair]
        rates = [depolarising_of(error) for error in sorted(found)]
        mean = sum(rates) / len(rates) if rates else TYPICAL.depolarising
        values[site] = Nominal(mean, float(e01), float(e10))
    physical_of = {site: int(qubit) for site, qubit in enumerate(snapshot.physical_qubits)}
    return Estimate(0, snapshot.stamp, TYPICAL, values, physical=physical_of)


def moved_to(estimate: Estimate, physical: Mapping[int, int]) -> Estimate:
    """The estimate with other physical qubits under some sites, and the vendor's figures of those.

    Args:
        estimate: before; its groups are left as they are.
        physical: the new physical qubit of each site that moved. One whose figures are not known
            gets typical ones.
    """
    known = {
        qubit: estimate.nominal[site]
        for site, qubit in estimate.physical.items()
        if site in estimate.nominal
    }
    values = {site: known.get(qubit, estimate.typical) for site, qubit in physical.items()}
    return replace(
        estimate,
        nominal={**estimate.nominal, **values},
        physical={**estimate.physical, **physical},
    )


def _pair_errors(snapshot: NoiseSnapshot) -> dict[frozenset[int], float]:
    """Error of each pair of physical qubits: the best of its two-qubit gates, either way round."""
    errors: dict[frozenset[int], float] = {}
    for gates in snapshot.gate_error.values():
        for qubits, error in gates.items():
            if len(qubits) == 2:
                pair = frozenset(qubits)
                errors[pair] = min(errors.get(pair, 1.0), float(error))
    return errors


def _pairs(work: Workload, sites: Sequence[NDArray[np.intp]] | None) -> set[tuple[int, int]]:
    """Pairs of sites that some row's two-qubit gate runs on."""
    pairs = set()
    for i, batch in enumerate(work.batches):
        local = {gate.qubits for gate in batch.circuit.gates if len(gate.qubits) == 2}
        rows = (
            np.arange(batch.circuit.n_qubits)[None]
            if sites is None
            else np.unique(sites[i], axis=0)
        )
        pairs |= {(int(row[a]), int(row[b])) for row in rows for a, b in local}
    return pairs
