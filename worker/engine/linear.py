"""y = x Wᵀ at the machine's best rate.

On CPUs in fp32, oneDNN with weights laid out once for its kernels reaches about twice what `torch.nn.functional.linear` reaches
on AMD processors, whose AVX-512 units MKL leaves idle (docs/decisions/0005). Elsewhere the library's own linear is as good.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

Linear = Callable[[torch.Tensor], torch.Tensor]
ROWS_HINT = 512  # the size of x that the layout is chosen for; others work as well


def has_onednn(weight: torch.Tensor) -> bool:
    """Whether oneDNN's prepacked linear serves weights like this one."""
    return (
        type(weight) in (torch.Tensor, torch.nn.Parameter)  # not one that is quantized
        and weight.device.type == "cpu"
        and weight.dtype is torch.float32
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    )


def make_linear(weight: torch.Tensor) -> Linear:
    """A function (n, in) -> (n, out) for a weight (out, in). What it keeps of the weight may be a copy in another layout."""
    if not has_onednn(weight):
        return lambda x: functional.linear(x, weight)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS_HINT)  # noqa: SLF001 - its only name
    apply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda x: apply(x, packed, None, "none", [], "")


def make_product(like: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A function (n, k), (m, k) -> (n, m): x yᵀ for two tensors that are both new, such as queries and keys."""
    if not has_onednn(like):
        return functional.linear
    apply = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001
    return lambda x, y: apply(x, y, None, "none", [], "")
