"""Refinement of q(z|x) by gradient steps on the ELBO, and the gradients through those steps.

From lambda_0 = (mean, logvar) of every example, with fresh noise eps_k for every step:

    J_k(lambda) = scale * sum_b [ beta KL(q_b || p) - log p(x_b | z_b) ],  z = mean + sd * eps_k
    v_k = momentum * v_{k-1} - clip(dJ_k/dlambda),   lambda_k = lambda_{k-1} + lr * v_k

with scale 1/B or 1 (Kim et al. 2018, section 3.2). Backwards, from a = dL/dlambda_K and u = 0:

    u += lr * a;  c = -clip'(u);  a += (d2J_k/dlambda2) c;  dL/dtheta += (d2J_k/dtheta dlambda) c
    u *= momentum

Where a descent nears an optimum, a shrinks on its way back. At a draw of z where the curvature is a
thousand times the usual, one step lengthens it a hundredfold, and one sentence's encoder gradient
buries the rest. So a is held, sentence by sentence, to ``max_growth`` times its length at the end
of the steps (as for exploding gradients: Pascanu et al. 2013).

The likelihood depends on lambda through z alone. So all that is asked of a decoder is d log p/dz at
the K points, the products H w of the K Hessians d2 log p/dz2 with vectors w = (dz/dlambda) c, and
the gradients of w . d log p/dz with respect to the decoder's weights theta. Both products are exact
(double backward), or differences of gradients at points moved along w: by a fixed length for every
sentence, as a vector's own length would be lost in rounding, or beyond the quadratic.

The K weight terms cost more than all the rest. One of them, drawn with probability proportional to
|w_k| and divided by that probability, has the sum as its expectation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from textvae.config.inference import Inference

# Length by which z is moved for a difference of gradients: rounding and curvature err alike there.
ONE_SIDED = {torch.float64: 1e-6, torch.float32: 1e-3}
CENTRAL = {torch.float64: 1e-4, torch.float32: 1e-2}
COARSE = 0.1  # one-sided, where matrix products are in bfloat16 or float16


class Path(NamedTuple):
    """What K refinement steps went through."""

    points: Tensor  # (K+1, 2, B, Z) mean and logvar before each step and after the last
    noise: Tensor  # (K, B, Z)
    d_z: Tensor  # (K, B, Z) d log p(x|z)/dz, nats
    elbo: Tensor  # (K, B) one-draw estimates of the ELBO before each step, nats

    def d_point(self, step: int, beta: float) -> Tensor:
        """Gradient (2, B, Z) of each example's own beta KL - log p at the start of a step."""
        mean, logvar = self.points[step]
        d_mean = beta * mean - self.d_z[step]
        d_logvar = 0.5 * (beta * (logvar.exp() - 1) - self.d_z[step] * self.reach(step))
        return torch.stack([d_mean, d_logvar])

    def reach(self, step: int) -> Tensor:
        """sd * eps (B, Z): how far z lies from the mean."""
        return torch.exp(0.5 * self.points[step, 1]) * self.noise[step]

    def z(self, step: int) -> Tensor:
        """The draw (B, Z) at which a step looks."""
        return self.points[step, 0] + self.reach(step)


class Likelihood:
    """log p(x|z) of one batch as the steps see it: step k always with the same dropout.

    Args:
        log_prob: z (1, B, Z) -> (1, B) nats, each from its own z alone.
        decoder: whose weights these nats depend on.
        steps: how many steps; their random states are drawn from torch's.
    """

    def __init__(
        self, log_prob: Callable[[Tensor], Tensor], decoder: nn.Module, steps: int
    ) -> None:
        self.log_prob, self.decoder = log_prob, decoder
        self.weights = [p for p in decoder.parameters() if p.requires_grad]
        self.device = next(decoder.parameters()).device
        self._seeds = torch.randint(2**62, (steps,)).tolist()
        kind = self.device.type
        self._cast = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None

    def gradient(self, step: int, z: Tensor) -> tuple[Tensor, Tensor]:
        """log p (B,) and d log p/dz (B, Z) at z (B, Z), no gradient of a weight being formed."""
        with self._replayed(step, self._cast), _frozen(self.weights):
            z = z.detach().requires_grad_()
            log_p = self.log_prob(z[None])[0]
            (d_z,) = torch.autograd.grad(log_p.sum(), z)
        return log_p.detach(), d_z

    def difference(self, step: int, z: Tensor, w: Tensor, d_z: Tensor) -> Tensor:
        """H w (B, Z) from the gradient d_z at z and the one a little along w."""
        length = w.norm(dim=-1, keepdim=True)  # (B, 1)
        move = COARSE if self._cast else ONE_SIDED[z.dtype]
        along = w / length.clamp(min=torch.finfo(w.dtype).tiny)
        moved = self.gradient(step, z + move * along)[1]
        return (moved - d_z) * (length / move)

    def exact(
        self, step: int, z: Tensor, w: Tensor, with_weights: bool
    ) -> tuple[Tensor, Sequence[Tensor | None]]:
        """H w (B, Z), and the weights' gradients of w . d log p/dz, by double backward."""
        with self._replayed(step, self._cast):
            z = z.detach().requires_grad_()
            log_p = self.log_prob(z[None])[0]
            (d_z,) = torch.autograd.grad(log_p.sum(), z, create_graph=True)
            asked = [z, *self.weights] if with_weights else [z]
            product, *d_weights = torch.autograd.grad(d_z, asked, w, allow_unused=True)
        return product, d_weights

    def weight_difference(self, step: int, z: Tensor, w: Tensor) -> Sequence[Tensor | None]:
        """The weights' gradients of w . d log p/dz from those of log p at z a little along w and
        against it. One scale serves the batch: every sentence then weighs alike in either sum.
        In full precision, as bfloat16 would leave noise."""
        longest = w.norm(dim=-1).max().clamp(min=torch.finfo(w.dtype).tiny)
        move = CENTRAL[z.dtype]
        ahead, behind = (
            self._weight_gradient(step, z + sign * move / longest * w) for sign in (1, -1)
        )
        scale = longest / (2 * move)
        return [
            None if a is None or b is None else (a - b) * scale
            for a, b in zip(ahead, behind, strict=True)
        ]

    def _weight_gradient(self, step: int, z: Tensor) -> Sequence[Tensor | None]:
        with self._replayed(step, None):
            total = self.log_prob(z[None]).sum()
            return torch.autograd.grad(total, self.weights, allow_unused=True)

    @contextmanager
    def _replayed(self, step: int, cast: torch.dtype | None) -> Iterator[None]:
        """The random state and the precision of a step; gradients on."""
        kind = self.device.type
        devices = [self.device] if kind == "cuda" else []
        with (
            torch.random.fork_rng(devices),
            torch.autocast(kind, cast, enabled=cast is not None),
            torch.enable_grad(),
        ):
            torch.manual_seed(self._seeds[step])
            yield


@contextmanager
def _frozen(weights: Sequence[nn.Parameter]) -> Iterator[None]:
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def clip(gradient: Tensor, limit: float, per: str) -> Tensor:
    """(2, B, Z) with the norms of the means' and the log variances' part held to the limit."""
    return gradient if not limit else gradient * _shrink(gradient, limit, per)


def _shrink(gradient: Tensor, limit: float, per: str) -> Tensor:
    norm = _norm(gradient, per)
    return (limit / norm.clamp(min=torch.finfo(norm.dtype).tiny)).clamp(max=1)


def _norm(gradient: Tensor, per: str) -> Tensor:
    return gradient.norm(dim=(1, 2) if per == "batch" else 2, keepdim=True).view(2, -1, 1)


def clip_backward(upstream: Tensor, gradient: Tensor, limit: float, per: str) -> Tensor:
    """The vector-Jacobian product of ``clip`` at ``gradient``: only a norm beyond the limit is
    held, and what points along it is lost."""
    if not limit:
        return upstream
    shrink, norm = _shrink(gradient, limit, per), _norm(gradient, per)
    unit = gradient / norm.clamp(min=torch.finfo(norm.dtype).tiny)
    along = (unit * upstream).sum((1, 2) if per == "batch" else 2, keepdim=True)
    return shrink * torch.where(shrink < 1, upstream - unit * along.view(2, -1, 1), upstream)


def hold(gradient: Tensor, longest: Tensor) -> Tensor:
    """(2, B, Z) with every example's norm held to its own limit (B,)."""
    norm = _lengths(gradient).clamp(min=torch.finfo(gradient.dtype).tiny)
    return gradient * (longest / norm).clamp(max=1)[:, None]


def _lengths(gradient: Tensor) -> Tensor:
    return gradient.norm(dim=(0, 2))


def descend(
    likelihood: Likelihood, start: Tensor, noise: Tensor, options: Inference, beta: float
) -> Path:
    """K steps from ``start`` (2, B, Z) with noise (K, B, Z); nothing of it is differentiable."""
    steps = len(noise)
    points = start.new_empty(steps + 1, *start.shape)
    path = Path(points, noise, torch.empty_like(noise), noise.new_empty(noise.shape[:2]))
    points[0], velocity = start.detach(), torch.zeros_like(points[0])
    scale = _scale(start, options)
    for k in range(steps):
        log_p, path.d_z[k] = likelihood.gradient(k, path.z(k))
        path.elbo[k] = log_p - _kl(*points[k])
        gradient = clip(scale * path.d_point(k, beta), options.clip, options.clip_per)
        velocity = options.momentum * velocity - gradient
        points[k + 1] = points[k] + options.lr * velocity
    return path


def _kl(mean: Tensor, logvar: Tensor) -> Tensor:
    return 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum(-1)


def _scale(start: Tensor, options: Inference) -> float:
    return 1 / start.size(1) if options.loss_per == "batch" else 1.0


class Unrolled(torch.autograd.Function):
    """``descend``, differentiable in its start and in the decoder's weights.

    ``apply(start, likelihood, noise, options, beta, *likelihood.weights)`` gives lambda_K
    (2, B, Z) and the ELBO before each step (K, B), the latter without a gradient.
    """

    @staticmethod
    def forward(ctx, start, likelihood, noise, options, beta, *weights):
        path = descend(likelihood, start, noise, options, beta)
        ctx.likelihood, ctx.path, ctx.options, ctx.beta = likelihood, path, options, beta
        ctx.lot = float(torch.rand(()))  # which weight term, where one is drawn
        ctx.mark_non_differentiable(path.elbo)
        return path.points[-1].clone(), path.elbo

    @staticmethod
    @once_differentiable
    def backward(ctx, d_end, _):
        reverse = _Reverse(ctx.likelihood, ctx.path, ctx.options, ctx.beta)
        d_start = reverse.run(d_end)
        if ctx.options.decoder_terms == "sample":
            reverse.add_one(ctx.lot)
        return d_start, None, None, None, None, *reverse.d_weights


class _Reverse:
    """The recursion through the steps from the last to the first."""

    def __init__(self, likelihood: Likelihood, path: Path, options: Inference, beta: float) -> None:
        self.likelihood, self.path, self.options, self.beta = likelihood, path, options, beta
        self.scale = _scale(path.points[0], options)
        self.w = torch.empty_like(path.noise)  # (K, B, Z) of each step
        self.d_weights: list[Tensor | None] = [None] * len(likelihood.weights)

    def run(self, d_end: Tensor) -> Tensor:
        """dL/dlambda_0 (2, B, Z) for dL/dlambda_K; adds every weight term if all are wanted."""
        options, path = self.options, self.path
        a, u, longest = d_end, torch.zeros_like(d_end), options.max_growth * _lengths(d_end)
        for k in reversed(range(len(path.noise))):
            u = u + options.lr * a
            gradient = self.scale * path.d_point(k, self.beta)
            c = -clip_backward(u, gradient, options.clip, options.clip_per)
            a = a + self._second_order(k, c)
            if options.max_growth:
                a = hold(a, longest)
            u = options.momentum * u
        return a

    def _second_order(self, k: int, c: Tensor) -> Tensor:
        """(d2J_k/dlambda2) c, (2, B, Z)."""
        reach, logvar = self.path.reach(k), self.path.points[k, 1]
        w = self.w[k] = c[0] + 0.5 * reach * c[1]
        product = self._product(k, w)
        d_mean = self.beta * c[0] - product
        curvature = self.beta * logvar.exp() - 0.5 * self.path.d_z[k] * reach
        d_logvar = 0.5 * (curvature * c[1] - product * reach)
        return self.scale * torch.stack([d_mean, d_logvar])

    def _product(self, k: int, w: Tensor) -> Tensor:
        z, every = self.path.z(k), self.options.decoder_terms == "all"
        if self.options.hvp == "exact":
            product, d_weights = self.likelihood.exact(k, z, w, with_weights=every)
            self._add(d_weights, -self.scale)
            return product
        if every:
            self._add(self.likelihood.weight_difference(k, z, w), -self.scale)
        return self.likelihood.difference(k, z, w, self.path.d_z[k])

    def add_one(self, lot: float) -> None:
        """Adds one weight term, divided by its probability; ``lot`` in [0, 1) decides which."""
        lengths = self.w.flatten(1).norm(dim=1).double()  # (K,)
        total = float(lengths.sum())
        if total == 0:
            return
        below = lengths.cumsum(0) <= lot * total
        k = min(int(below.sum()), len(lengths) - 1)
        z, w = self.path.z(k), self.w[k]
        if self.options.hvp == "exact":
            d_weights = self.likelihood.exact(k, z, w, with_weights=True)[1]
        else:
            d_weights = self.likelihood.weight_difference(k, z, w)
        self._add(d_weights, -self.scale * total / float(lengths[k]))

    def _add(self, d_weights: Sequence[Tensor | None], factor: float) -> None:
        for i, d_weight in enumerate(d_weights):
            if d_weight is not None:
                own = self.d_weights[i]
                self.d_weights[i] = d_weight * factor if own is None else own + factor * d_weight
