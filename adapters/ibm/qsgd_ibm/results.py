"""From the text of a result to a Result, checked to be of the very job that was asked for.

The circuits' metadata says what was sent (see :func:`sent_with`) and comes back with the result, so
a job found by its tag alone can be read as well as one whose handle was kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qsgd_core.errors import ResultCorruptError
from qsgd_core.jobs import Result
from qsgd_ibm.states import read_billed, read_executed_at
from qsgd_ibm.translate import bits, decode, metadata_of

if TYPE_CHECKING:
    from qsgd_core.circuits import Workload
    from qsgd_core.jobs import JobHandle


def sent_with(work: Workload, *, shots: int, layout: tuple[int, ...], stamp: str) -> dict[str, Any]:
    """What reading the result takes, as plain JSON; in the handle and in every circuit."""
    return {
        "rows": [batch.n_rows for batch in work.batches],
        "n_qubits": [batch.circuit.n_qubits for batch in work.batches],
        "shots": shots,
        "layout": list(layout),
        "stamp": stamp,
    }


def read_result(
    handle: JobHandle, text: str, metrics: dict[str, Any], *, usd_per_s: float | None
) -> Result:
    """The result in ``text``.

    Args:
        handle: whose result it should be.
        text: of ``GET /jobs/{id}/results``.
        metrics: of ``GET /jobs/{id}/metrics``; may be empty.
        usd_per_s: price of a QPU second; None is unknown.

    Raises:
        ResultCorruptError: it is not, or not whole.
    """
    entries = decode(text)
    facts = [metadata_of(entry) for entry in entries]
    if not facts or any(fact.get("tag") != handle.tag for fact in facts):
        found = sorted({str(fact.get("tag")) for fact in facts}) or "nobody"
        raise ResultCorruptError(f"It belongs to {found}, not to {handle.tag!r}.")
    sent = facts[0]
    if handle.extra and any(sent.get(key) != value for key, value in handle.extra.items()):
        raise ResultCorruptError("It is not of the circuits that were sent.")
    try:
        parts = tuple(
            bits(
                [e for e, fact in zip(entries, facts, strict=True) if fact["batch"] == index],
                rows=rows,
                shots=sent["shots"],
                n_qubits=n_qubits,
            )
            for index, (rows, n_qubits) in enumerate(
                zip(sent["rows"], sent["n_qubits"], strict=True)
            )
        )
        return Result(
            parts,
            executed_at=read_executed_at(metrics),
            physical_qubits=tuple(sent["layout"]),
            calibration_stamp=sent["stamp"],
            billed=read_billed(
                metrics, shots=sum(sent["rows"]) * sent["shots"], usd_per_s=usd_per_s
            ),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ResultCorruptError(f"What was sent along is damaged: {error!r}.") from error
