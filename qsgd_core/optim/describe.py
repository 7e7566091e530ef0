"""A look ahead at the coordinates, blocks and circuits of the term."""

from __future__ import annotations

from dataclasses import dataclass

from qsgd_core.circuits import Circuit
from qsgd_core.measure.counts import at_step
from qsgd_core.optim.coordinates.groups import Groups
from qsgd_core.optim.coordinates.selection import select
from qsgd_core.optim.source.build import Origin
from qsgd_core.optim.source.modulation import Source


@dataclass(frozen=True)
class Description:
    """What the term will touch, known before anything runs.

    Attributes:
        n_tensors: parameters with at least one selected coordinate.
        n_coordinates: selected coordinates of all of them.
        n_blocks: circuits of one refresh.
        block_sizes: number of blocks by number of qubits.
        shots: of a circuit, at the first step; None where none is sampled, or where they are a
            queued backend's own default.
        first_circuit: the circuit of the largest block; None for a purely classical rule.
        backend: its full name.
        distribution: which distribution serves it, with its version.
    """

    n_tensors: int
    n_coordinates: int
    n_blocks: int
    block_sizes: dict[int, int]
    shots: int | None
    first_circuit: Circuit | None
    backend: str
    distribution: str


def describe(groups: Groups, source: Source, origin: Origin) -> Description:
    """What the term touches when every parameter has a gradient. Runs nothing.

    Raises:
        ConfigError: a parameter whose coordinates lie on the ranks in an unknown way.
    """
    buckets = select(groups.all, range(len(groups.all)), groups.order, only=None)
    sizes: dict[int, int] = {}
    for blocks in (blocks for bucket in buckets for blocks in bucket.blocks):
        sizes[blocks.size] = sizes.get(blocks.size, 0) + blocks.n_blocks
    return Description(
        n_tensors=sum(len(b.members) for b in buckets),
        n_coordinates=sum(b.total for b in buckets),
        n_blocks=sum(sizes.values()),
        block_sizes=sizes,
        shots=None if source.shots is None else at_step(source.shots, 0, "shots"),
        first_circuit=source.first_circuit(max(sizes)) if sizes else None,
        backend=origin.backend,
        distribution=f"{origin.distribution} {origin.version}".strip(),
    )
