"""States of a job on the ledger, and the moves between them. Nothing else names them."""

from __future__ import annotations

from enum import StrEnum


class LedgerState(StrEnum):
    """Where a job stands."""

    INTENT = "intent"
    """Asked for; nothing is held for it."""
    DENIED = "denied"
    """Its budget does not pay for it; tried again when the budget is raised."""
    RESERVED = "reserved"
    """What it costs at worst is held."""
    SUBMITTING = "submitting"
    """One process may submit it; whether it exists is known when that has answered."""
    SUBMITTED = "submitted"
    """It exists at the vendor, under the handle that is noted."""
    STORED = "stored"
    """Its result is here; what was held is not yet spending."""
    SETTLED = "settled"
    """It has a result and is paid for."""
    FAILED = "failed"
    """It has none; what it cost all the same is spent."""
    REFUNDED = "refunded"
    """It does not exist at the vendor; the hold was given back."""
    STRAY = "stray"
    """It exists at the vendor although nobody waits for it: to be cancelled."""

    @property
    def is_open(self) -> bool:
        """Whether something still has to happen to it."""
        return self in _OPEN

    @property
    def is_unsent(self) -> bool:
        """Whether it is known not to exist at the vendor because nobody has sent it."""
        return self in _UNSENT

    @property
    def is_holding(self) -> bool:
        """Whether its hold is reserved in its budget."""
        return self in _HOLDING

    @property
    def never_arrived(self) -> bool:
        """Whether it did not reach the vendor in time."""
        return self in (LedgerState.REFUNDED, LedgerState.STRAY)

    @property
    def is_lost(self) -> bool:
        """Whether it will not give a result."""
        return self is LedgerState.FAILED or self.never_arrived

    @property
    def has_result(self) -> bool:
        """Whether its result is on the ledger."""
        return self in (LedgerState.STORED, LedgerState.SETTLED)

    @property
    def has_cost(self) -> bool:
        """Whether it is over at the vendor, which says what it cost or will."""
        return self in (LedgerState.SETTLED, LedgerState.FAILED)

    @property
    def needs_the_service(self) -> bool:
        """Whether it can only be brought forward with an answer from the service."""
        return self in (LedgerState.SUBMITTING, LedgerState.SUBMITTED, LedgerState.STRAY)


_S = LedgerState

MOVES: dict[LedgerState, tuple[LedgerState, ...]] = {
    _S.INTENT: (_S.RESERVED, _S.DENIED, _S.FAILED),
    _S.DENIED: (_S.INTENT, _S.FAILED),
    _S.RESERVED: (_S.SUBMITTING, _S.FAILED),
    _S.SUBMITTING: (_S.SUBMITTED, _S.RESERVED, _S.REFUNDED, _S.FAILED),
    _S.SUBMITTED: (_S.STORED, _S.FAILED),
    _S.STORED: (_S.SETTLED,),
    _S.SETTLED: (),
    _S.FAILED: (_S.STRAY,),  # it was given up unseen, and turned up
    _S.REFUNDED: (_S.STRAY,),
    _S.STRAY: (_S.FAILED,),
}
"""Every move that a job may make; the ledger makes no other, and its database takes no other."""

_UNSENT = (_S.INTENT, _S.DENIED, _S.RESERVED)
_HOLDING = (_S.RESERVED, _S.SUBMITTING, _S.SUBMITTED, _S.STORED)
_OPEN = (_S.INTENT, *_HOLDING, _S.STRAY)
OPEN = tuple(state for state in LedgerState if state.is_open)
UNSENT = tuple(state for state in LedgerState if state.is_unsent)


def before(after: LedgerState) -> tuple[LedgerState, ...]:
    """The states from which a job may come to ``after``."""
    return tuple(state for state, moves in MOVES.items() if after in moves)


def known_state() -> str:
    """The CHECK that a job's state is one of these."""
    return f"state IN ({', '.join(repr(str(state)) for state in LedgerState)})"


def allowed_move() -> str:
    """The CHECK that a job came to its state by one of the moves.

    Null where it began: a row is made in its first state, and ledgers of schema 1 kept no past.
    """
    pairs = [f"{old}>{new}" for old, moves in MOVES.items() for new in moves]
    return f"came_from IS NULL OR came_from || '>' || state IN ({', '.join(map(repr, pairs))})"
