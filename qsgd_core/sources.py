"""Where a step's s comes from, in one word: the names that every count, file and message uses."""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Rung: TypeAlias = Literal["measured", "tracked", "nominal", "random", "zero"]
"""What a paid run's snapshot is: a result, a twin that results have corrected, one that none has,
chance, nothing."""

SourceName: TypeAlias = Literal["measured", "held", "tracked", "nominal", "random", "zero", "exact"]
"""``measured``: by this step's own circuits; ``held``: from an earlier step, used again as it was;
``exact``: computed without shots; the others as in :data:`Rung`."""

RUNGS: tuple[Rung, ...] = get_args(Rung)
"""Best first: the fallback ladder."""

SOURCES: tuple[SourceName, ...] = get_args(SourceName)
