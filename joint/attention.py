"""The joint attention: one sequence a request, full, no mask. Backends are chosen by name.

Because every query sees the keys of all streams, the packed sequence needs no mask and K/V are never repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec

import torch.nn.functional as F
from torch import Tensor

# (q, k, v each [N, T, H*d], heads) -> [N, Tq, H*d]; scale 1/sqrt(d)
Attention = Callable[[Tensor, Tensor, Tensor, int], Tensor]


def sdpa(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """PyTorch's scaled_dot_product_attention. q [N, Tq, H*d], k and v [N, Tk, H*d] -> [N, Tq, H*d]."""
    q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))  # [N, H, T, d]
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def flash3(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """FlashAttention 3 (Hopper; bf16 or fp16). Shapes as `sdpa`."""
    attend = import_module("flash_attn_interface").flash_attn_func
    out = attend(*(t.unflatten(-1, (heads, -1)) for t in (q, k, v)))
    # Older builds return (out, log-sum-exp).
    return (out[0] if isinstance(out, tuple) else out).flatten(2)


def sage(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """SageAttention (INT8 QK, bf16 or fp16). Shapes as `sdpa`."""
    attend = import_module("sageattention").sageattn
    # Sage's own smoothing subtracts the mean of K in place, which would spoil a K that is read again. Attention is
    # unchanged by a shift of K common to all keys, so we subtract it out of place and switch Sage's off.
    k = k - k.mean(dim=1, keepdim=True)
    q, k, v = (t.unflatten(-1, (heads, -1)) for t in (q, k, v))
    return attend(q, k, v, tensor_layout="NHD", smooth_k=False).flatten(2)


BACKENDS: dict[str, tuple[Attention, str | None]] = {
    "sdpa": (sdpa, None),
    "flash3": (flash3, "flash_attn_interface"),
    "sage": (sage, "sageattention"),
}


def get_attention(name: str = "sdpa") -> Attention:
    """The backend called `name`. Raises ValueError for an unknown name, RuntimeError when its package is absent."""
    if name not in BACKENDS:
        raise ValueError(f"There is no attention backend '{name}'; choose one of {', '.join(BACKENDS)}.")
    function, package = BACKENDS[name]
    if package is not None and find_spec(package) is None:
        raise RuntimeError(f"The attention backend '{name}' needs the Python package '{package}', which is not "
                           "installed: install it, or choose 'sdpa'.")
    return function
