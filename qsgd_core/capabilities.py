"""What a simulator or backend has, and which of a workload's needs it lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from qsgd_core.circuits import GATES
from qsgd_core.errors import CapabilityError

if TYPE_CHECKING:
    from qsgd_core.circuits import Workload

ALL_GATES = frozenset(GATES)


@dataclass(frozen=True)
class Capabilities:
    """What may be asked of a simulator or backend. None means "no limit is known"."""

    exact: bool = False
    """``shots=None`` gives expectation values without shot noise."""
    sampled: bool = True
    """``shots=N`` gives N measured bit strings per row."""
    seeded: bool = False
    """The same seed gives the same bits."""
    closed_form: bool = False
    """Ideal and local: a perturbation's closed form may stand in for running its circuit."""
    noisy: bool = False
    """Results deviate from the ideal circuit beyond shot noise."""
    paid: bool = False
    """A job costs money or metered QPU time."""
    gates: frozenset[str] = ALL_GATES
    """Gates of the closed set that are accepted; a backend that transpiles accepts all."""
    max_qubits: int | None = None
    """Qubits of one circuit."""
    max_rows: int | None = None
    """Rows of one call or job."""
    max_total_qubits: int | None = None
    """Qubits of all rows of one job together, where rows run side by side in one register; a row
    that runs alone may have ``max_qubits``."""
    min_shots: int = 1
    """Shots per row, at least."""
    max_shots: int | None = None
    """Shots per row, at most."""
    max_executions: int | None = None
    """Rows × shots of one call or job, at most."""
    default_shots: int | None = None
    """Shots per row when the caller names none; None means exact."""
    find_horizon_s: float = 0.0
    """For this long after a submission, "not found by tag" does not mean "does not exist"."""

    def missing(self, work: Workload, *, shots: int | None) -> tuple[str, ...]:
        """One sentence per need of ``work`` at ``shots`` per row that is not met."""
        problems: list[str] = []
        if shots is None and not self.exact:
            problems.append("It cannot compute expectation values exactly: give shots.")
        if shots is not None and not self.sampled:
            problems.append(
                f"It computes expectation values exactly and takes no shots; {shots} were asked "
                "for. Leave shots out, or use a backend that samples, such as 'sampled'."
            )
        gates = {g.name for b in work.batches for g in b.circuit.gates}
        if extra := sorted(gates - self.gates):
            problems.append(f"It has no {', '.join(extra)} gate.")
        if self.max_qubits is not None and work.n_qubits > self.max_qubits:
            problems.append(
                f"It takes circuits of up to {self.max_qubits} qubits; {work.n_qubits} were asked "
                f"for. Use n_qubits={self.max_qubits} or less."
            )
        if self.max_rows is not None and work.n_rows > self.max_rows:
            problems.append(f"It takes up to {self.max_rows} rows a call; found {work.n_rows}.")
        total = sum(b.n_rows * b.circuit.n_qubits for b in work.batches)
        if self.max_total_qubits is not None and work.n_rows > 1 and total > self.max_total_qubits:
            problems.append(
                f"Its rows share a register of {self.max_total_qubits} qubits; {work.n_rows} rows "
                f"with {total} qubits together were asked for."
            )
        if shots is not None and self.sampled:
            problems += self._missing_shots(work, shots)
        return tuple(problems)

    def _missing_shots(self, work: Workload, shots: int) -> list[str]:
        problems = []
        if shots < self.min_shots:
            problems.append(f"It takes at least {self.min_shots} shots a row; {shots} asked for.")
        if self.max_shots is not None and shots > self.max_shots:
            problems.append(f"It takes at most {self.max_shots} shots a row; {shots} asked for.")
        executions = work.n_rows * shots
        if self.max_executions is not None and executions > self.max_executions:
            problems.append(
                f"It takes at most {self.max_executions} executions a call; {executions} asked for."
            )
        return problems

    def require(self, name: str, work: Workload, *, shots: int | None) -> None:
        """Raise :class:`CapabilityError` naming ``name`` unless the workload can run."""
        if problems := self.missing(work, shots=shots):
            raise CapabilityError(f"Backend {name!r} cannot run this.", problems)
