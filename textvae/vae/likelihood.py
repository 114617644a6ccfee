"""log p(x|z) as a function of z: gradients, and products with its second derivatives.

This is all that refinement needs from a decoder. Products with the Hessian H = d2 log p/dz2 are
either exact (double backward) or finite differences of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from textvae.vae.batch import device_of
from textvae.vae.modes import frozen

# Step sizes of the finite differences, at which rounding and truncation errors balance.
ONE_SIDED = {torch.float64: 1e-6, torch.float32: 1e-3}
CENTRAL = {torch.float64: 1e-4, torch.float32: 1e-2}
COARSE = 0.1  # one-sided, with matrix products in bfloat16 or float16


class Likelihood:
    """log p(x|z) of one batch in the refinement steps; step k always has the same dropout masks.

    Args:
        log_prob: z (1, B, Z) -> (1, B) nats; each entry depends only on its own z.
        decoder: A module with all weights that ``log_prob`` depends on.
        steps: Number of steps; their random states are drawn from torch's generator.
    """

    def __init__(
        self, log_prob: Callable[[Tensor], Tensor], decoder: nn.Module, steps: int
    ) -> None:
        if torch.is_inference_mode_enabled():
            raise RuntimeError(
                "refinement needs gradients, which do not exist in torch.inference_mode(): use "
                "torch.no_grad() instead"
            )
        self.log_prob, self.decoder = log_prob, decoder
        self.weights = [p for p in decoder.parameters() if p.requires_grad]
        self.device = device_of(decoder)
        self._seeds = torch.randint(2**62, (steps,)).tolist()
        kind = self.device.type
        self._cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    def gradient(self, step: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """Log p (B,) and d log p/dz (B, Z) at z (B, Z), without gradients of the weights."""
        with self._replayed(step, self._cast), frozen(self.weights):
            z = z.detach().requires_grad_()
            log_p = self.log_prob(z[None])[0]
            if not log_p.requires_grad:  # z plays no part
                return log_p, torch.zeros_like(z)
            (d_z,) = torch.autograd.grad(log_p.sum(), z, allow_unused=True)
        return log_p.detach(), torch.zeros_like(z) if d_z is None else d_z

    def difference(self, step: int, z: Tensor, w: Tensor, d_z: Tensor) -> Tensor:
        """H w (B, Z), from the gradient d_z at z and the gradient at a nearby point along w."""
        length = w.norm(dim=-1, keepdim=True)  # (B, 1)
        offset = COARSE if self._cast else ONE_SIDED.get(z.dtype, COARSE)
        along = w / length.clamp(min=torch.finfo(w.dtype).tiny)
        moved = self.gradient(step, z + offset * along)[1]
        return (moved - d_z) * (length / offset)

    def exact(
        self, step: int, z: Tensor, w: Tensor, with_weights: bool
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """H w (B, Z), and the gradients of w . d log p/dz in the weights, by double backward."""
        with self._replayed(step, self._cast), _twice_differentiable():
            z = z.detach().requires_grad_()
            log_p = self.log_prob(z[None])[0]
            asked = [z, *self.weights] if with_weights else [z]
            found: Sequence[Tensor | None] = [None] * len(asked)
            if log_p.requires_grad:
                (d_z,) = torch.autograd.grad(
                    log_p.sum(), z, create_graph=True, allow_unused=True, materialize_grads=True
                )
                if d_z.requires_grad:  # else log p is constant in z, or linear with fixed weights
                    found = torch.autograd.grad(d_z, asked, w, allow_unused=True)
        product, *d_weights = found
        return torch.zeros_like(z) if product is None else product, d_weights

    def weight_difference(self, step: int, z: Tensor, w: Tensor) -> Sequence[Tensor | None]:
        """The gradients of w . d log p/dz in the weights, by central differences.

        They are differences of the gradients of log p at points on either side of z along w. The
        whole batch uses one scale, so that every example has the same weight in both sums. They are
        computed in full precision, because in bfloat16 only noise would remain.
        """
        longest = w.norm(dim=-1).max().clamp(min=torch.finfo(w.dtype).tiny)
        offset = CENTRAL.get(z.dtype, COARSE)
        ahead, behind = (
            self._weight_gradient(step, z + sign * offset / longest * w) for sign in (1, -1)
        )
        scale = longest / (2 * offset)
        return [
            None if a is None or b is None else (a - b) * scale
            for a, b in zip(ahead, behind, strict=True)
        ]

    def _weight_gradient(self, step: int, z: Tensor) -> Sequence[Tensor | None]:
        if not self.weights:
            return []
        with self._replayed(step, None):
            total = self.log_prob(z[None]).sum()
            return torch.autograd.grad(total, self.weights, allow_unused=True)

    @contextmanager
    def _replayed(self, step: int, cast: torch.dtype | None) -> Iterator[None]:
        """Sets the random state and the precision of a step, and enables gradients."""
        kind = self.device.type
        devices = [self.device] if kind == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            torch.autocast(kind, cast, enabled=cast is not None),
            _without_tf32() if kind == "cuda" else nullcontext(),
            torch.enable_grad(),
        ):
            torch.manual_seed(self._seeds[step])
            yield


@contextmanager
def _without_tf32() -> Iterator[None]:
    """Keep cuDNN, which rounds fp32 to TF32 by default, from drowning the finite differences."""
    cudnn = torch.backends.cudnn
    try:
        allowed = cudnn.allow_tf32
    except RuntimeError:  # the program has made a choice of its own, for each kind of operation
        yield
        return
    cudnn.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32 = allowed


@contextmanager
def _twice_differentiable() -> Iterator[None]:
    """Use kernels that can be differentiated twice: fused attention and cuDNN's RNNs cannot."""
    enabled = torch.backends.cudnn.enabled
    torch.backends.cudnn.enabled = False
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.cudnn.enabled = enabled
