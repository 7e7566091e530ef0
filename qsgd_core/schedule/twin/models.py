"""From a site's parameters to ⟨observables⟩, and the slope: one model for each kind of estimate.

``channel`` (up to 6 qubits): the noise compiled into the circuit, see
:mod:`qsgd_core.simulate.noise`. ``affine`` (wider): ⟨S⟩ of the ideal circuit times a damping from
the gates in the observable's light cone, times (1 + b) for each qubit that is read, plus a for a
single qubit. Both take parameters in units of their prior's spread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from qsgd_core.circuits import Circuit, CircuitBatch, ZString
from qsgd_core.errors import CapabilityError
from qsgd_core.schedule.twin import prior
from qsgd_core.schedule.twin.estimate import Estimate, Kind
from qsgd_core.simulate import ideal, noise

Floats = NDArray[np.float64]
Sites = NDArray[np.intp]

COUNT: dict[Kind, int] = {"channel": 5, "affine": 2}
"""Parameters of a site: those of :data:`noise.PARAMETERS`; a and b."""

STEP = 1e-3
"""Of a finite difference, in prior standard deviations: curvature then costs less than 1e-6."""

MOST_RATES = np.array([0.75, 0.45, 0.45])
"""Of depolarising, e01 and e10; none is below 0. A readout that is wrong more often than right is
not a calibration error."""

LEAST_SCALE = 1e-3


@dataclass(frozen=True, eq=False)
class SiteTable:
    """An estimate as arrays over sites; a site beyond the last has the typical values.

    Attributes:
        nominal: (S, 3): depolarising, e01, e10 as the vendor states them.
        state: (S, parameters) per kind, in prior standard deviations.
    """

    nominal: Floats
    state: dict[Kind, Floats]

    @classmethod
    def of(cls, estimate: Estimate, n_sites: int) -> SiteTable:
        """The first ``n_sites`` sites."""
        values = [estimate.of_site(site) for site in range(n_sites)]
        table = cls(
            np.array([(v.depolarising, v.e01, v.e10) for v in values]).reshape(-1, 3),
            {kind: np.zeros((n_sites, count)) for kind, count in COUNT.items()},
        )
        for group in estimate.groups:
            mean = np.array(group.mean).reshape(len(group.sites), -1)
            for site, row in zip(group.sites, mean, strict=True):
                if site < n_sites:
                    table.state[group.kind][site] = row
        return table


def kind_of(circuit: Circuit) -> Kind:
    """Which model a circuit gets."""
    return "channel" if circuit.n_qubits <= noise.MAX_QUBITS else "affine"


def check(batch: CircuitBatch) -> None:
    """Raise unless the batch's circuit has a twin.

    Raises:
        CapabilityError: it has none; says what to do.
    """
    if kind_of(batch.circuit) == "channel":
        return
    try:
        ideal.check(batch.circuit, batch.observables)
    except CapabilityError as error:
        raise CapabilityError(
            f"No classical twin of this circuit of {batch.circuit.n_qubits} qubits is possible.",
            (*error.missing, "Use policy='hold' or policy='sync', which need no twin."),
        ) from error


def predict(batch: CircuitBatch, sites: Sites, table: SiteTable) -> Floats:
    """⟨observables⟩ as the device would give them, float64 (B, n_obs).

    Args:
        batch: circuit, angles, observables.
        sites: int (B, n), or (n,) if the same for every row.
        table: has all of them.
    """
    if kind_of(batch.circuit) == "affine":
        exact = ideal.ideal(batch.circuit, batch.angles, batch.observables)
        shift, scale = _affine(batch, sites, table)
        return shift + scale * exact
    values = _physical(table.state["channel"][sites], table.nominal[sites])
    return noise.compiled(batch.circuit, batch.observables)(batch.angles, values)


@dataclass(frozen=True, eq=False)
class Linear:
    """A prediction and its slope.

    Attributes:
        z: float64 (B, n_obs), what :func:`predict` gives.
        slope: float64 (B, n_obs, w, parameters), in 1 / prior standard deviations.
        qubits: int (n_obs, w), the qubits on which each observable depends; those of a shorter
            list are filled up with its first, at slope 0.
    """

    z: Floats
    slope: Floats
    qubits: Sites


def linearise(batch: CircuitBatch, sites: Sites, table: SiteTable) -> Linear:
    """What :func:`predict` gives, and how it changes with the parameters of each qubit's site.

    At a rate's limit the slope goes on beyond it: it would vanish there, and the state could never
    come back.

    Args:
        batch: circuit, angles, observables.
        sites: int (B, n).
        table: has all of them.
    """
    if kind_of(batch.circuit) == "affine":
        return _linearise_affine(batch, sites, table)
    n, rows = batch.circuit.n_qubits, batch.n_rows
    count = COUNT["channel"]
    # By forward differences, as one batch of (1 + n * count) copies of the rows:
    #     copy 0               the state as it is
    #     copy 1 + q*count + k parameter k of qubit q is moved by STEP
    # The compiled noise takes all copies in one call.
    state = np.broadcast_to(table.state["channel"][sites], (1 + n * count, rows, n, count)).copy()
    for qubit in range(n):
        for k in range(count):
            state[1 + qubit * count + k, :, qubit, k] += STEP
    values = _physical(state, table.nominal[sites], slack=1.0).reshape(-1, n, count)
    angles = np.tile(batch.angles, (1 + n * count, 1))
    z = noise.compiled(batch.circuit, batch.observables)(angles, values)
    z = z.reshape(1 + n * count, rows, -1)
    slope = ((z[1:] - z[0]) / STEP).reshape(n, count, rows, -1).transpose(2, 3, 0, 1)
    qubits = np.tile(np.arange(n), (len(batch.observables), 1))
    return Linear(predict(batch, sites, table), slope, qubits)


def limits(kind: Kind, nominal: Floats) -> tuple[Floats, Floats]:
    """Between what the state of each site can lie: (S, parameters) each, infinite where anywhere.

    Args:
        kind: which model.
        nominal: (S, 3), as in :class:`SiteTable`.
    """
    most = np.full((len(nominal), COUNT[kind]), np.inf)
    least = -most
    if kind == "channel":
        spread = _spread(nominal)
        least[:, 2:] = np.minimum(-nominal / spread, 0.0)
        most[:, 2:] = np.maximum((MOST_RATES - nominal) / spread, 0.0)
    else:
        least[:, 1] = (LEAST_SCALE - 1.0) / prior.SCALE_SD
    return least, most


def _spread(nominal: Floats) -> Floats:
    """Prior standard deviation of each rate, (…, 3)."""
    spread = np.full(nominal.shape, prior.READOUT_SD)
    relative = prior.DEPOLARISING_SD * nominal[..., 0]
    spread[..., 0] = np.maximum(relative, prior.DEPOLARISING_LEAST_SD)
    return spread


def _physical(state: Floats, nominal: Floats, *, slack: float = 0.0) -> Floats:
    """Columns of :data:`noise.PARAMETERS` from the state, rates within their limits ± ``slack``."""
    values = np.empty(state.shape)
    values[..., 0] = prior.OFFSET_SD * state[..., 0]
    values[..., 1] = prior.GAIN_SD * state[..., 1]
    rates = nominal + _spread(nominal) * state[..., 2:]
    values[..., 2:] = np.clip(rates, -slack, MOST_RATES + slack)
    return values


def _affine(batch: CircuitBatch, sites: Sites, table: SiteTable) -> tuple[Floats, Floats]:
    """(shift, scale) of every observable: (B, n_obs), or (n_obs,) for sites of shape (n,)."""
    read, powers = _cone(batch.circuit, batch.observables)
    vendor, state = table.nominal[sites], table.state["affine"][sites]
    bias = vendor[..., 2] - vendor[..., 1] + prior.BIAS_SD * state[..., 0]
    kept = np.log1p(-vendor[..., 1] - vendor[..., 2]) + np.log(_factor(state))
    scale = np.exp(kept @ read.T + np.log1p(-vendor[..., 0]) @ powers.T)
    return np.where(read.sum(axis=1) == 1, bias @ read.T, 0.0), scale


def _factor(state: Floats) -> Floats:
    """1 + b, kept above 0."""
    return np.maximum(1.0 + prior.SCALE_SD * state[..., 1], LEAST_SCALE)


def _linearise_affine(batch: CircuitBatch, sites: Sites, table: SiteTable) -> Linear:
    exact = ideal.ideal(batch.circuit, batch.angles, batch.observables)
    shift, scale = _affine(batch, sites, table)
    factor = _factor(table.state["affine"][sites])
    width = max(1, *(len(string) for string in batch.observables))
    qubits = np.zeros((len(batch.observables), width), dtype=np.intp)
    slope = np.zeros((*exact.shape, width, COUNT["affine"]))
    for o, string in enumerate(batch.observables):
        qubits[o] = (string + string[:1] * width)[:width] if string else 0
        slope[:, o, : len(string), 0] = prior.BIAS_SD if len(string) == 1 else 0.0
        for k, qubit in enumerate(string):
            slope[:, o, k, 1] = scale[:, o] * exact[:, o] * prior.SCALE_SD / factor[:, qubit]
    return Linear(shift + scale * exact, slope, qubits)


@lru_cache(maxsize=64)
def _cone(circuit: Circuit, observables: tuple[ZString, ...]) -> tuple[Floats, Floats]:
    """Which qubits an observable reads, and the power of each qubit's damping: (n_obs, n) each.

    A two-qubit gate that the observable depends on damps both its qubits, but only the part of
    the observable that acts on them: half, for want of better.
    """
    read = np.zeros((len(observables), circuit.n_qubits))
    powers = np.zeros_like(read)
    for row, string in enumerate(observables):
        read[row, list(string)] = 1.0
        reached = set(string)
        for gate in reversed(circuit.gates):
            if len(gate.qubits) == 2 and reached & set(gate.qubits):
                reached |= set(gate.qubits)
                powers[row, list(gate.qubits)] += 0.5
    return read, powers
