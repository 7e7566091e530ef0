"""The paper's quantum attention: softmax attention with a circuit's number added to each score.

Attention = softmax( Q Kᵀ / √d_k + Φ(Q, K, C) ) V                       (arXiv 2511.01918, Eq. 3)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 (as everywhere)

from qsgd_core.errors import ConfigError
from qsgd_core.seeds import derive_seed
from qsgd_lab.models.feature import Feature, ScoreFeature


class QuantumAttention(nn.MultiheadAttention):
    """Multi-head attention by Eq. 3–4, in the place of a :class:`torch.nn.MultiheadAttention`.

    Same call, same parameters under the same names, initialised to the same bits from the same
    state of torch's generator, and one more submodule: ``score_feature``, the circuit. So the
    weights of a classical module can be loaded with ``strict=False``, and a classical and a quantum
    model of one seed start as a pair.

    **Reading**: Φ takes the score as Eq. 4 writes it, Q Kᵀ without the 1/√d_k. One circuit serves
    all heads and positions of a module. Masks act after Φ, and a position with nothing to attend
    to gets weights 0 (torch: 0 or NaN, depending on ``need_weights``).

    ``add_bias_kv`` and ``add_zero_attn`` are not offered.

    Args:
        embed_dim: width of the queries and of the output; a multiple of ``num_heads``.
        num_heads: heads.
        dropout: probability, on the attention weights.
        bias: whether the projections have one.
        kdim: width of the keys, ``embed_dim`` if None.
        vdim: width of the values, ``embed_dim`` if None.
        batch_first: (batch, length, width) instead of (length, batch, width).
        n_qubits: of the circuit; the paper's is 4.
        depth: layers of the circuit; the paper's is 2.
        feature: what of the circuit's state is added, see :mod:`qsgd_lab.models.feature`.
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ConfigError: ``n_qubits``, ``depth`` or ``feature`` out of range.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        *,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        n_qubits: int = 4,
        depth: int = 2,
        feature: Feature = "amplitude",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            embed_dim,
            num_heads,
            dropout=dropout,
            bias=bias,
            kdim=kdim,
            vdim=vdim,
            batch_first=batch_first,
            device=device,
            dtype=dtype,
        )
        # In eval mode torch.nn.TransformerEncoderLayer takes the weights out of its self_attn and
        # calls a fused classical kernel instead of it; it reads this attribute to see if it may.
        self._qkv_same_embed_dim = False
        self.score_feature = ScoreFeature(
            n_qubits,
            depth,
            feature=feature,
            generator=_own_generator(self.out_proj.weight),
            device=device,
            dtype=dtype,
        )

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """As :meth:`torch.nn.MultiheadAttention.forward`.

        Args:
            query: (N, L, embed_dim), (L, N, embed_dim) without ``batch_first``, or (L, embed_dim).
            key: (N, S, kdim), with the same choices.
            value: (N, S, vdim), with the same choices.
            key_padding_mask: (N, S), or (S,) for unbatched input. Bool: True hides the key.
                Floating: added to the scores.
            need_weights: whether to return the weights.
            attn_mask: (L, S) or (N·num_heads, L, S), bool or floating as above.
            average_attn_weights: mean over the heads instead of one matrix per head.
            is_causal: says that ``attn_mask`` is causal. Only a hint, and needs the mask.

        Returns:
            Output in the layout of ``query``, and weights after dropout, (N, L, S) or
            (N, num_heads, L, S), without N for unbatched input; None without ``need_weights``.

        Raises:
            ConfigError: a number of axes, a mask's shape or a mask's dtype that does not fit.
        """
        if is_causal and attn_mask is None:
            raise ConfigError("is_causal is a hint about attn_mask: give the mask too.")
        batched = query.dim() == 3
        if query.dim() not in (2, 3) or not query.dim() == key.dim() == value.dim():
            raise ConfigError(
                "query, key and value must all have 3 axes, or 2 without a batch; found shapes "
                f"{tuple(query.shape)}, {tuple(key.shape)} and {tuple(value.shape)}."
            )
        q, k, v = (self._to_heads(x, batched) for x in self._projected(query, key, value))
        masks = _masks(q, k, key_padding_mask if batched else _row(key_padding_mask), attn_mask)

        scaled = (q / math.sqrt(self.head_dim)) @ k.mT
        # The logits in float32 at least, as torch's own softmax under autocast.
        scaled = scaled.to(torch.promote_types(scaled.dtype, torch.float32))
        logits = scaled + self.score_feature(scaled * math.sqrt(self.head_dim))
        weights = _masked_softmax(logits, masks).to(v.dtype)
        weights = F.dropout(weights, self.dropout, self.training)
        output = self.out_proj((weights @ v).transpose(1, 2).flatten(2))

        if not batched:
            output = output.squeeze(0)
        elif not self.batch_first:
            output = output.transpose(0, 1)
        if not need_weights:
            return output, None
        if average_attn_weights:
            weights = weights.mean(dim=1)
        return output, weights if batched else weights.squeeze(0)

    def _projected(self, query: Tensor, key: Tensor, value: Tensor) -> Sequence[Tensor]:
        """Q, K and V in the layout of the input."""
        packed: Tensor | None = self.in_proj_weight
        if packed is not None and query is key and key is value:
            return F.linear(query, packed, self.in_proj_bias).chunk(3, dim=-1)
        matrices = (
            packed.chunk(3)
            if packed is not None
            else (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
        )
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        inputs = (query, key, value)
        return [F.linear(x, w, b) for x, w, b in zip(inputs, matrices, biases, strict=True)]

    def _to_heads(self, x: Tensor, batched: bool) -> Tensor:
        """(N, num_heads, length, head_dim) of a projection."""
        if not batched:
            x = x.unsqueeze(0)
        elif not self.batch_first:
            x = x.transpose(0, 1)
        heads: Tensor = x.unflatten(-1, (self.num_heads, self.head_dim))
        return heads.transpose(1, 2)


def _own_generator(weight: Tensor) -> torch.Generator | None:
    """A generator for the angles that depends on torch's seed and takes nothing from its stream.

    The circuit's angles must not shift what is drawn after them, or a quantum model would share
    neither weights nor dropout with the classical one of the same seed. So the generator is seeded
    with what the classical part has drawn; on the meta device, where nothing has, None.
    """
    if weight.is_meta:
        return None
    drawn = weight.detach().to("cpu", torch.float64).numpy().tobytes()
    return torch.Generator().manual_seed(derive_seed("score circuit", drawn.hex()))


def _row(mask: Tensor | None) -> Tensor | None:
    return None if mask is None else mask.unsqueeze(0)


def _masks(
    q: Tensor, k: Tensor, key_padding_mask: Tensor | None, attn_mask: Tensor | None
) -> list[Tensor]:
    """The masks that were given, each in a shape that broadcasts over (N, num_heads, L, S)."""
    n, heads, n_queries, n_keys = *q.shape[:3], k.shape[2]
    masks = []
    if key_padding_mask is not None:
        _check_mask("key_padding_mask", key_padding_mask, [(n, n_keys)])
        masks.append(key_padding_mask[:, None, None, :])
    if attn_mask is not None:
        each = (n * heads, n_queries, n_keys)
        _check_mask("attn_mask", attn_mask, [(n_queries, n_keys), each])
        masks.append(attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (n, heads)))
    return masks


def _check_mask(name: str, mask: Tensor, shapes: list[tuple[int, ...]]) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ConfigError(
            f"{name} must be bool (True hides) or floating (added), not {mask.dtype}: "
            f"use {name}.bool() if non-zero hides."
        )
    if tuple(mask.shape) not in shapes:
        expected = " or ".join(str(shape) for shape in shapes)
        raise ConfigError(f"{name} must have shape {expected}; found {tuple(mask.shape)}.")


def _masked_softmax(logits: Tensor, masks: list[Tensor]) -> Tensor:
    """Softmax over the last axis; 0, with gradient 0, in a row where everything is masked."""
    if not masks:
        return logits.softmax(-1)
    for mask in masks:
        hides = mask.dtype == torch.bool
        logits = logits.masked_fill(mask, -math.inf) if hides else logits + mask
    # Not `> -inf`: a row of NaN is a fault that must show, not an empty row.
    empty = (logits == -math.inf).all(-1, keepdim=True)
    return logits.masked_fill(empty, 0.0).softmax(-1).masked_fill(empty, 0.0)
