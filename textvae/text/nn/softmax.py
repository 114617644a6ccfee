"""The negative log-likelihood of tokens under a softmax over the vocabulary, in bounded memory.

For a row of features x with target y, and logits l = W x + b over V tokens:

    nll = log sum_v exp(l_v) - l_y                 dnll/dl_v = p_v - [v = y],  p = softmax(l)
    dnll/dx = W^T (p - e_y);      dnll/dW = (p - e_y) x^T;      dnll/db = p - e_y

The N x V logits of a batch would take more memory than the rest of a training step. The rows are
therefore processed in chunks. Since dnll/dl depends only on the logits, it is computed, used, and
discarded while a chunk is in memory, and the backward pass only scales the result. This is
exact if the nll of every token has the same weight in the loss (a sum or mean over tokens or
sentences). Otherwise the backward pass computes the gradients again with the actual weights, and
``ahead=False`` saves computing them before.

A term that is the same for all tokens of a sentence, such as W_z z for a latent z, belongs in the
bias: one row of a table (S, V) for each sentence, where ``groups`` gives the row of each token.
Compared with concatenating z to x and W_z to W, this took a fifth to a third of the extra time on a
CPU.

Products use the autocast dtype when autocast is on. The bias and the log-sum-exp are always in
fp32, and gradients of W are summed over chunks in fp32.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from textvae.text.nn import kernels
from textvae.text.nn.double_backward import graph_is_needed, plain_gradients
from textvae.text.nn.products import (
    prepared,
    product,
    product_dtype,
    state_dtype,
    weight_gradient,
)

LOGITS = 10 * 2**20  # in memory at once; more was not faster
MORE_LOGITS = 50 * 2**20  # for large bf16 weights, which oneDNN reorders for every chunk
LARGE = 2**23  # weights: more than this does not stay in the cache
SHARE = 1 / 32  # of a GPU's memory for logits: few launches, and room for the rest of the step
ROWS_ON_DEVICES = 4096  # at once on devices whose memory is not known
BLOCK = 16  # rows of fp32 probabilities at once: few enough to stay in the cache of a core
COLUMNS = 512  # tokens whose weight gradient is summed at once, for the same reason


def token_nll(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int = 0,
    chunk: int | None = None,
    implementation: Literal["chunked", "plain"] = "chunked",
    groups: Tensor | None = None,
    ahead: bool = True,
) -> Tensor:
    """Compute -log softmax(features W^T + b)[target] for every token.

    Args:
        features: (N, F).
        weight: W, (V, F).
        bias: b, (V,); or (S, V) if ``groups`` are given.
        targets: (N,) int64.
        ignore_index: Targets with this id are ignored.
        chunk: Number of rows at once; does not change the result.
        implementation: ``chunked``, or ``plain`` to keep all logits in memory.
        groups: (N,) int64, the row of ``bias`` that each token uses.
        ahead: Whether to compute gradients with the loss: faster, unless its tokens have different
            weights.

    Returns:
        The nll in nats, (N,); 0 where the target is ignored.
    """
    if implementation == "plain":
        return _plain(features, weight, bias, targets, groups, ignore_index)
    if not torch.is_grad_enabled():  # otherwise forward would compute gradients
        features, weight = features.detach(), weight.detach()
        bias = None if bias is None else bias.detach()
    on_cpu, real = features.device.type == "cpu", targets != ignore_index
    dtype = product_dtype(features)
    options = chunk or _usual_chunk(weight, dtype), dtype, ahead
    if not on_cpu:  # selecting rows would make the host wait for the device: weight them by 0
        return _ChunkedNLL.apply(features, weight, bias, targets * real, groups, real, *options)
    rows = real.nonzero().squeeze(1)
    if len(rows) == len(targets):
        return _ChunkedNLL.apply(features, weight, bias, targets, groups, None, *options)
    groups = None if groups is None else groups[rows]
    chosen = features.index_select(0, rows), weight, bias, targets[rows], groups
    nll = _ChunkedNLL.apply(*chosen, None, *options)
    return nll.new_zeros(len(targets)).index_copy(0, rows, nll)


def _usual_chunk(weight: Tensor, dtype: torch.dtype) -> int:
    if weight.device.type == "cuda":
        memory = torch.cuda.get_device_properties(weight.device).total_memory
        row = len(weight) * (dtype.itemsize + 2 * state_dtype(dtype).itemsize)  # scores, p
        return max(1, int(SHARE * memory) // row)
    if weight.device.type != "cpu":
        return ROWS_ON_DEVICES
    more = weight.numel() > LARGE and dtype.itemsize == 2
    return max(1, (MORE_LOGITS if more else LOGITS) // len(weight))


def _plain(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    groups: Tensor | None,
    ignore_index: int = -100,
) -> Tensor:
    """All logits at once: the reference for the other implementation."""
    logits = F.linear(features, weight, bias if groups is None else None)  # (N, V)
    logits = logits.to(state_dtype(logits.dtype))
    logits = logits if groups is None or bias is None else logits + bias[groups]
    return F.cross_entropy(logits, targets, ignore_index=ignore_index, reduction="none")


class _Rows(NamedTuple):
    """Per-row data of the features, (N,) each."""

    targets: Tensor
    groups: Tensor | None  # the row of the bias
    weights: Tensor | None  # factor of the row's nll in the scalar to differentiate; None: 1

    def part(self, rows: slice) -> _Rows:
        groups = None if self.groups is None else self.groups[rows]
        weights = None if self.weights is None else self.weights[rows]
        return _Rows(self.targets[rows], groups, weights)


class _Gradients(NamedTuple):
    """The gradients of sum_n weight_n nll_n; None where they are not needed."""

    features: Tensor | None  # (N, F)
    weight: Tensor | None  # (V, F)
    bias: Tensor | None  # (V,) or (S, V)


class _ChunkedNLL(torch.autograd.Function):
    @staticmethod
    def forward(ctx, features, weight, bias, targets, groups, real, chunk, dtype, ahead):
        ctx.chunk, ctx.dtype = chunk, dtype
        need = ctx.needs_input_grad[:3] if ahead else (False, False, False)
        rows = _Rows(targets, groups, None if real is None else real.to(state_dtype(dtype)))
        nll, ready = _sweep(features, weight, bias, rows, chunk, dtype, need)
        ctx.ready = ready if ahead else None
        ctx.save_for_backward(features, weight, bias, targets, groups, real)
        return nll

    @staticmethod
    def backward(ctx, *grads_of_results):
        """Scale the gradients that ``forward`` prepared, or compute them again."""
        (grad,) = grads_of_results
        features, weight, bias, targets, groups, real = ctx.saved_tensors
        need, ready, ctx.ready = ctx.needs_input_grad[:3], ctx.ready, None
        grad = grad if real is None else grad * real
        if graph_is_needed():
            plain = partial(_plain, targets=targets, groups=groups)
            found = plain_gradients(plain, (features, weight, bias), need, grad, ctx.dtype)
            return *found, None, None, None, None, None, None
        shared = ready is not None and (need[1] or need[2])
        scale = _common_value(grad, real) if shared else grad.new_ones(())
        if ready is None or scale is None:
            rows = _Rows(targets, groups, grad)
            found = _sweep(features, weight, bias, rows, ctx.chunk, ctx.dtype, need)[1]
        else:  # in place, but only once: the caller may keep these tensors as .grad
            factors = (grad[:, None], scale, scale)
            found = [None if r is None else r.mul_(s) for r, s in zip(ready, factors, strict=True)]
        arguments = (features, weight, bias)
        cast = [None if g is None else g.to(a.dtype) for g, a in zip(found, arguments, strict=True)]
        return *cast, None, None, None, None, None, None


def _common_value(grad: Tensor, real: Tensor | None) -> Tensor | None:
    """The value that all real rows of ``grad`` share, or None if they differ."""
    if not any(grad.stride()):  # an expanded scalar, the usual case
        return grad[:1].sum()
    if real is not None and len(real):  # make ignored rows agree with the first real one
        grad = torch.where(real, grad, grad.gather(0, real.int().argmax(0, keepdim=True)))
    return grad[:1].sum() if bool((grad == grad[:1]).all()) else None


def _sweep(
    features: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    rows: _Rows,
    chunk: int,
    dtype: torch.dtype,
    need: tuple[bool, bool, bool],
) -> tuple[Tensor, _Gradients]:
    """Compute the nll (N,) and the gradients of its weighted sum, one chunk at a time."""
    x, w, wide = features.to(dtype), weight.to(dtype), state_dtype(dtype)
    b = None if bias is None else bias.to(wide)
    nll = x.new_zeros(len(x), dtype=wide)
    d_x = torch.empty_like(x) if need[0] else None
    # The first chunk overwrites it; there is none if no token is to be predicted.
    empty = torch.empty_like if len(x) else torch.zeros_like
    d_w = empty(w, dtype=wide) if need[1] else None
    # Not zeros_like, which would be transposed if b is: the kernels need rows.
    d_b = b.new_zeros(b.shape) if need[2] and b is not None else None
    # With gradients, the weight is also needed transposed: preparing both gains nothing.
    multiply = partial(product, weight=w) if any(need) else prepared(w, min(chunk, len(x)))
    for start in range(0, len(x), chunk):
        some = slice(start, start + chunk)
        logits = multiply(x[some])  # (chunk, V)
        _normalize(logits, b, rows.part(some), nll[some], d_b, any(need))
        if d_x is not None:
            d_x[some] = product(logits, w.t())
        if d_w is not None:
            _accumulate(d_w, logits, x[some], first=start == 0)
    return nll, _Gradients(d_x, d_w, d_b)


def _accumulate(d_w: Tensor, d_logits: Tensor, x: Tensor, first: bool) -> None:
    """d_w += d_logits^T x, or = for the first chunk; on the CPU in pieces that fit the cache."""
    columns = COLUMNS if x.device.type == "cpu" else len(d_w)
    for start in range(0, len(d_w), columns):
        some = slice(start, start + columns)
        gradient = weight_gradient(d_logits[:, some], x)
        d_w[some].copy_(gradient) if first else d_w[some].add_(gradient)


def _normalize(
    logits: Tensor,
    bias: Tensor | None,
    rows: _Rows,
    nll: Tensor,
    d_b: Tensor | None,
    with_gradient: bool,
) -> None:
    """Write the nll, and replace the logits with its gradient times the weight of the row.

    The bias is added first; the gradient is also added to d_b. This runs in C if the kernels could
    be compiled, otherwise in torch. There, the log-sum-exp comes from the largest score and its
    probability, which is at least 1 / V, so that one exponential per logit serves both the loss and
    the gradient.
    """
    if kernels.available_for(logits):
        return kernels.softmax_nll(logits, bias, *rows, nll, d_b, with_gradient)
    block = BLOCK if logits.device.type == "cpu" else len(logits)
    for start in range(0, len(logits), block):
        some = slice(start, start + block)
        targets, groups, weights = rows.part(some)
        target = targets[:, None]  # (block, 1)
        scores = logits[some].to(nll.dtype)
        if bias is not None:
            scores = scores + (bias if groups is None else bias.index_select(0, groups))
        p = torch.softmax(scores, dim=1)  # (block, V)
        log_sum_exp = scores.amax(1) - p.amax(1).log()
        nll[some] = log_sum_exp - scores.gather(1, target).squeeze(1)
        if weights is not None:
            nll[some] *= weights != 0
        if not with_gradient:
            continue
        d_logits = p.scatter_add_(1, target, p.new_full(target.shape, -1.0))
        if weights is not None:
            d_logits *= weights[:, None]
        if d_b is not None:
            d_b.add_(d_logits.sum(0)) if groups is None else d_b.index_add_(0, groups, d_logits)
        logits[some] = d_logits
