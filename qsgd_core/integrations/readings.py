"""What a trainer's log is told about the term."""

from __future__ import annotations

from qsgd_core.optim.term.effect import Stats


def readings(stats: Stats, *, prefix: str = "qsgd") -> dict[str, float]:
    """Numbers for a log, by name.

    Args:
        stats: of the term so far.
        prefix: of every name.

    Returns:
        ``qsgd_effect_size``: of the last step that had a term, if it is known. ``qsgd_measured``
        and so on: the share of the steps so far, from 0 to 1, whose s came from each source;
        sources that gave none are left out. On a paid backend also ``qsgd_jobs``, ``qsgd_shots``,
        and as far as they are known ``qsgd_cost_usd`` and ``qsgd_qpu_s``.
    """
    told = {} if stats.effect_size is None else {"effect_size": stats.effect_size}
    told |= {name: count / stats.steps for name, count in stats.sources.items() if count}
    told |= {k: float(v) for k, v in (stats.spending or {}).items() if v is not None}
    return {f"{prefix}_{name}": value for name, value in told.items()}
