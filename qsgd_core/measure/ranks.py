"""The processes that train one model together: sums over them, and what only rank 0 knows.

Every method is a collective: all ranks call it, at the same steps and in the same order, or the
run hangs. Without torch.distributed, or alone in it, each is what one process would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.distributed as dist

from qsgd_core.errors import BackendError, QSGDError
from qsgd_core.schedule.failures import pack_error, unpack_error

_NOTHING, _BYTES, _ERROR, _WAIT = range(4)


@dataclass(unsafe_hash=True)
class Ranks:
    """The ranks of a process group.

    Attributes:
        group: the process group; None for the default one, which may be set up later than this.
    """

    group: dist.ProcessGroup | None = None
    _waited_for: bool = field(default=False, init=False, repr=False, compare=False)

    @property
    def world(self) -> int:
        """Number of ranks; 1 without torch.distributed."""
        if not (dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self.group)

    @property
    def rank(self) -> int:
        """Of this process, from 0."""
        return 0 if self.world == 1 else dist.get_rank(self.group)

    @property
    def is_lead(self) -> bool:
        """Whether this is the rank that has the courier, the ledger and the run's folder."""
        return self.rank == 0

    def share(self, payload: bytes | None) -> bytes | None:
        """Rank 0's payload, on every rank.

        Args:
            payload: of rank 0; None when there is nothing new, which costs one broadcast of 16
                bytes. What other ranks pass is ignored.
        """
        return self.lead_does(lambda: payload)

    def lead_does(self, work: Callable[[], bytes | None]) -> bytes | None:
        """What ``work`` gives on rank 0, on every rank; it runs on rank 0 alone.

        The others wait for it, and the process group's timeout runs meanwhile: work that may take
        longer than seconds calls :meth:`go_on_waiting` now and then.

        Raises:
            QSGDError: what ``work`` raised, on every rank; of any other error the other ranks
                hear as a BackendError.
        """
        if self.world == 1:
            return work()
        if not self.is_lead:
            return self._receive()
        self._waited_for = True
        try:
            payload = work()
        except Exception as error:  # whatever it is: the other ranks must not be left waiting
            self._send(_ERROR, _packed(error))
            raise
        finally:
            self._waited_for = False
        if payload is None:
            self._send(_NOTHING, b"")
        else:
            self._send(_BYTES, payload)
        return payload

    def go_on_waiting(self) -> None:
        """A sign of life to the ranks that wait for rank 0 in :meth:`lead_does`, if they do."""
        if self._waited_for:
            self._send(_WAIT, b"")

    def sum_(self, tensors: Sequence[torch.Tensor]) -> None:
        """Replace each tensor by its sum over the ranks: one collective for all.

        Args:
            tensors: float, any shapes and devices; the same on every rank.
        """
        if not tensors or self.world == 1:
            return
        wide = any(t.dtype == torch.float64 for t in tensors)
        dtype, device = torch.float64 if wide else torch.float32, self._device(tensors[0].device)
        joined = torch.cat([t.reshape(-1).to(device, dtype) for t in tensors])
        dist.all_reduce(joined, group=self.group)
        for tensor, total in zip(tensors, joined.split([t.numel() for t in tensors]), strict=True):
            tensor.copy_(total.view(tensor.shape))

    def _send(self, kind: int, payload: bytes) -> None:
        """Two broadcasts, or one if there is nothing but the kind to say."""
        device = self._device()
        header = torch.tensor([kind, len(payload)], dtype=torch.int64, device=device)
        dist.broadcast(header, self._source(), self.group)
        if payload:
            data = torch.frombuffer(bytearray(payload), dtype=torch.uint8)
            dist.broadcast(data.to(device), self._source(), self.group)

    def _receive(self) -> bytes | None:
        header = torch.tensor([_WAIT, 0], dtype=torch.int64, device=self._device())
        while (kind := int(header[0])) == _WAIT:
            dist.broadcast(header, self._source(), self.group)
        data = torch.empty(int(header[1]), dtype=torch.uint8, device=self._device())
        if len(data):
            dist.broadcast(data, self._source(), self.group)
        payload = data.cpu().numpy().tobytes()
        if kind == _ERROR:
            raise unpack_error(payload.decode())
        return None if kind == _NOTHING else payload

    def _source(self) -> int:
        """Rank 0 of the group, by the number that torch.distributed wants."""
        return 0 if self.group is None else dist.get_global_rank(self.group, 0)

    def _device(self, wanted: torch.device | None = None) -> torch.device:
        """``wanted`` if the group speaks it, else one that it speaks: NCCL knows no CPU tensors."""
        spoken = [pair.split(":")[0] for pair in dist.get_backend_config(self.group).split(",")]
        if wanted is not None and wanted.type in spoken:
            return wanted
        return torch.device("cpu" if "cpu" in spoken else spoken[0])


def _packed(error: Exception) -> bytes:
    if not isinstance(error, QSGDError):
        error = BackendError(f"Rank 0 failed: {error!r}. Its own log has the traceback.")
    return pack_error(error).encode()
