"""Reading and writing selected coordinates of one tensor by logical row-major index.

Complex tensors count as their real view: (real, imag) pairs. Non-contiguous tensors are indexed
logically, never by storage. Sparse gradients are read without making the whole tensor dense.
"""

from __future__ import annotations

import torch

Index = tuple[torch.Tensor, ...]


def real_view(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, or for a complex one its real view with a last axis of 2. Shares memory."""
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def count(tensor: torch.Tensor) -> int:
    """Number of real coordinates."""
    return tensor.numel() * (2 if tensor.is_complex() else 1)


def window(tensor: torch.Tensor, length: int) -> torch.Tensor | None:
    """A 1-D view of the first ``length`` coordinates, or None when memory order is not logical."""
    real = real_view(tensor)
    if not real.is_contiguous():
        return None
    return real.as_strided((length,), (1,))


def index_of(tensor: torch.Tensor, length: int) -> Index:
    """Index tensors of the first ``length`` coordinates, for a tensor that has no window."""
    real = real_view(tensor)
    flat = torch.arange(length, device=tensor.device)
    return torch.unravel_index(flat, real.shape) if real.dim() else ()


def read(tensor: torch.Tensor, length: int) -> torch.Tensor:
    """The first ``length`` coordinates, 1-D, native dtype; a view or a copy.

    ``tensor`` is a parameter or a gradient, dense or sparse COO.
    """
    if tensor.is_sparse:
        return _read_sparse(tensor, length)
    view = window(tensor, length)
    return real_view(tensor)[index_of(tensor, length)] if view is None else view


def add_(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Add ``values`` (1-D, computed in their own dtype) to the first coordinates, in place."""
    view = window(tensor, len(values))
    if view is not None:
        view.add_(values)
        return
    real, index = real_view(tensor), index_of(tensor, len(values))
    real[index] = (real[index] + values).to(real.dtype)


def write_(tensor: torch.Tensor, values: torch.Tensor) -> None:
    """Set the first coordinates to ``values`` (1-D), in place."""
    view = window(tensor, len(values))
    if view is not None:
        view.copy_(values)
        return
    real_view(tensor)[index_of(tensor, len(values))] = values.to(real_view(tensor).dtype)


def _read_sparse(grad: torch.Tensor, length: int) -> torch.Tensor:
    """Dense values of the first rows of a sparse COO gradient, cut to ``length``."""
    row = count(grad) // grad.shape[0]
    rows = torch.arange(-(-length // row), device=grad.device)
    dense = grad.coalesce().index_select(0, rows).to_dense()
    return real_view(dense).reshape(-1)[:length]
