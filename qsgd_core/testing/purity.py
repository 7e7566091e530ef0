"""Whether code that should be pure touches the process's global random generators."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def no_global_randomness() -> Iterator[None]:
    """Fail if what runs inside draws from, or seeds, a global generator."""
    before = _states()
    yield
    after = _states()
    used = [name for name in before if before[name] != after[name]]
    assert not used, f"it draws from the global generator of {', '.join(used)}"


def _states() -> dict[str, object]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "random": random.getstate(),
        "numpy": (name, bytes(keys), *rest),  # type: ignore[arg-type]
        "torch": bytes(torch.get_rng_state().numpy()),
    }
