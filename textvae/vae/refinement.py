"""Refinement of q(z|x) by gradient steps on the ELBO, and the gradients through those steps.

Starting from lambda_0, the tensors of every example's posterior, with new noise eps_k in each step:

    J_k(lambda) = scale * sum_b [ beta KL(q_b || p) - log p(x_b | z_b) ],  z = z(lambda, eps_k)
    v_k = momentum * v_{k-1} - clip(dJ_k/dlambda),   lambda_k = lambda_{k-1} + lr * v_k

with scale 1/B or 1 (Kim et al. 2018, section 3.2). Backward, from a = dL/dlambda_K and u = 0:

    u += lr * a;  c = -clip'(u);  a += (d2J_k/dlambda2) c;  dL/dtheta += (d2J_k/dtheta dlambda) c
    u *= momentum

While the steps approach an optimum, a shrinks in the backward pass. But where a draw of z meets a
curvature a thousand times larger than usual, a single step multiplies its norm by a hundred, and
the encoder gradient of one example dominates the batch. So the norm of a is capped for each example
at ``max_growth`` times its value at the end of the steps (compare exploding gradients: Pascanu et
al. 2013).

The likelihood depends on lambda only through z. So a decoder only has to provide d log p/dz at the
K points, the products H w of the K Hessians d2 log p/dz2 with vectors w = (dz/dlambda) c, and the
gradients of w . d log p/dz with respect to the decoder's weights theta. Both products are either
exact (double backward) or differences of gradients at points moved along w. Every example is moved
by the same distance: the length of w itself could vanish in rounding errors or leave the quadratic
region. The KL and z(lambda, eps) are a few numbers per example, which autograd differentiates for
any family of posteriors and priors.

The K weight terms cost more than everything else. A single one, drawn with probability proportional
to |w_k| and divided by that probability, is an unbiased estimate of their sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from textvae.config.inference import Inference
from textvae.vae.clipping import Tensors, cap, clip, clip_backward, lengths
from textvae.vae.contracts import Noise
from textvae.vae.likelihood import Likelihood
from textvae.vae.posteriors import kl, rebuild


class Problem(NamedTuple):
    """What the steps minimize, and how."""

    likelihood: Likelihood
    prior: Any
    noise: Sequence[Noise]  # of each of the K steps
    options: Inference
    beta: float

    @property
    def prior_weights(self) -> list[nn.Parameter]:
        """The prior's trainable parameters."""
        parameters = getattr(self.prior, "parameters", list)
        return [p for p in parameters() if p.requires_grad]

    def scale(self, size: int) -> float:
        """The factor of each example's loss in a batch of ``size`` examples."""
        return 1 / size if self.options.loss_per == "batch" else 1.0


class _Point:
    """The lambda of one step, with z and the KL as differentiable functions of it."""

    def __init__(self, problem: Problem, step: int, q: Any) -> None:
        with torch.enable_grad():
            self.leaves = [part.detach().requires_grad_() for part in q]
            own = rebuild(q, self.leaves)
            draws = own.rsample(1, problem.noise[step])  # (1, B, Z)
            self.kl = kl(own, problem.prior, draws).sum(-1)  # (B,)
            self.z = draws[0]
        self.beta = problem.beta

    def slope(self, d_z: Tensor, create_graph: bool = False) -> list[Tensor]:
        """Gradient of beta KL - log p of each example, given d log p/dz (B, Z)."""
        outputs, upstream = [self.kl, self.z], [torch.full_like(self.kl, self.beta), -d_z]
        return _pull_back(outputs, self.leaves, upstream, create_graph)

    def push_forward(self, c: Tensors) -> Tensor:
        """(dz/dlambda) c, (B, Z), by differentiating a product with an arbitrary vector."""
        with torch.enable_grad():
            v = torch.zeros_like(self.z, requires_grad=True)
            rows = _pull_back([self.z], self.leaves, [v], create_graph=True)
        return _pull_back(rows, [v], c)[0]


def _pull_back(
    outputs: Tensors, inputs: Tensors, upstream: Tensors, create_graph: bool = False
) -> list[Tensor]:
    """``torch.autograd.grad`` with zeros for inputs that nothing depends on; keeps the graph."""
    pairs = [(o, u) for o, u in zip(outputs, upstream, strict=True) if o.requires_grad]
    if not pairs:
        return [torch.zeros_like(each) for each in inputs]
    found = torch.autograd.grad(
        [output for output, _ in pairs],
        list(inputs),
        [given for _, given in pairs],
        retain_graph=True,
        create_graph=create_graph,
        allow_unused=True,
    )
    return [torch.zeros_like(i) if f is None else f for i, f in zip(inputs, found, strict=True)]


class Path(NamedTuple):
    """The path of K refinement steps."""

    points: list[Any]  # K+1 posteriors: before each step and after the last
    d_z: list[Tensor]  # d log p(x|z)/dz (B, Z) at each of the K steps, nats
    elbo: Tensor  # (K, B) one-draw estimates of the ELBO before each step, nats
    kl: Tensor  # (K, B) the KL in these, nats
    first_slope: list[Tensor]  # gradient of beta KL - log p of each example at the start


def descend(problem: Problem, start: Any) -> Path:
    """Take K steps from a posterior; the result is not differentiable.

    Args:
        problem: What the steps minimize.
        start: Posterior of B examples.
    """
    options, scale = problem.options, problem.scale(len(start[0]))
    points, d_z = [rebuild(start, [part.detach() for part in start])], []
    elbo, kls = [], []
    velocity = [torch.zeros_like(part) for part in points[0]]
    first_slope: list[Tensor] = []
    for k in range(len(problem.noise)):
        point = _Point(problem, k, points[k])
        log_p, slope_z = problem.likelihood.gradient(k, point.z)
        slope = point.slope(slope_z)
        first_slope = first_slope or slope
        clipped = clip([scale * s for s in slope], options.clip, options.clip_per)
        velocity = [options.momentum * v - g for v, g in zip(velocity, clipped, strict=True)]
        moved = [p + options.lr * v for p, v in zip(points[k], velocity, strict=True)]
        points.append(rebuild(start, moved))
        d_z.append(slope_z)
        kls.append(point.kl.detach())
        elbo.append(log_p - kls[-1])
    return Path(points, d_z, torch.stack(elbo), torch.stack(kls), first_slope)


class Unrolled(torch.autograd.Function):
    """``descend``, differentiable in its start and in the weights of the decoder and the prior.

    ``apply(problem, start, *start, *likelihood.weights, *prior_weights)`` returns the tensors of
    lambda_K and the ELBO before each step (K, B), the latter without a gradient. (The start is
    passed twice, because autograd only tracks tensors that are arguments themselves.)
    """

    @staticmethod
    def forward(ctx: Any, problem: Problem, start: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Run the steps from ``start``, whose tensors come first among ``tensors``."""
        path = descend(problem, start)
        ctx.problem, ctx.path = problem, path
        ctx.lot = float(torch.rand(()))  # selects the weight term if only one is computed
        ctx.mark_non_differentiable(path.elbo)
        return *(part.clone() for part in path.points[-1]), path.elbo

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *d_end: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the start and of the weights."""
        reverse = _Reverse(ctx.problem, ctx.path)
        d_start = reverse.run(d_end[:-1])
        if ctx.problem.options.decoder_terms == "sample":
            reverse.add_one(ctx.lot)
        return None, None, *d_start, *reverse.d_weights


class _Reverse:
    """The recursion through the steps from the last to the first."""

    def __init__(self, problem: Problem, path: Path) -> None:
        self.problem, self.path = problem, path
        self.likelihood, self.options = problem.likelihood, problem.options
        self.scale = problem.scale(len(path.d_z[0]))
        self.every_term = self.options.decoder_terms == "all"
        self.w = [torch.empty(0)] * len(path.d_z)  # (B, Z) of each step
        self.c: list[list[Tensor]] = [[]] * len(path.d_z)
        self.prior_weights = problem.prior_weights
        weights = len(self.likelihood.weights) + len(self.prior_weights)
        self.d_weights: list[Tensor | None] = [None] * weights

    def run(self, d_end: Tensors) -> list[Tensor]:
        """Return dL/dlambda_0 given dL/dlambda_K; adds all weight terms if the options say so."""
        options = self.options
        a, u = list(d_end), [torch.zeros_like(part) for part in d_end]
        longest = options.max_growth * lengths(a)
        for k in reversed(range(len(self.path.d_z))):
            u = [own + options.lr * part for own, part in zip(u, a, strict=True)]
            added = self._second_order(k, u)
            a = [part + more for part, more in zip(a, added, strict=True)]
            if options.max_growth:
                a = cap(a, longest)
            u = [options.momentum * own for own in u]
        return a

    def _second_order(self, k: int, u: Tensors) -> list[Tensor]:
        """(d2J_k/dlambda2) c for c = -clip'(u)."""
        point, options = _Point(self.problem, k, self.path.points[k]), self.options
        slope = point.slope(self.path.d_z[k], create_graph=True)
        scaled = [self.scale * part.detach() for part in slope]
        c = [-part for part in clip_backward(u, scaled, options.clip, options.clip_per)]
        self.c[k], self.w[k] = c, point.push_forward(c)
        product = self._product(k, point.z.detach())
        if self.every_term:
            self._add_prior_term(slope, c, 1.0)
        curvature = _pull_back(slope, point.leaves, c)
        through_z = _pull_back([point.z], point.leaves, [product])
        return [self.scale * (p - q) for p, q in zip(curvature, through_z, strict=True)]

    def _product(self, k: int, z: Tensor) -> Tensor:
        w = self.w[k]
        if self.options.hvp == "exact":
            product, d_weights = self.likelihood.exact(k, z, w, with_weights=self.every_term)
            self._add(d_weights, -self.scale)
            return product
        if self.every_term:
            self._add(self.likelihood.weight_difference(k, z, w), -self.scale)
        return self.likelihood.difference(k, z, w, self.path.d_z[k])

    def add_one(self, lot: float) -> None:
        """Add the weight terms of one step, divided by its probability.

        Args:
            lot: A number in [0, 1) that selects the step.
        """
        lengths = torch.stack([w.norm() for w in self.w]).double()  # (K,)
        total = float(lengths.sum())
        if total == 0:
            return
        below = lengths.cumsum(0) <= lot * total
        k = min(int(below.sum()), len(lengths) - 1)
        factor = total / float(lengths[k])
        point = _Point(self.problem, k, self.path.points[k])
        z, w = point.z.detach(), self.w[k]
        if self.options.hvp == "exact":
            d_weights = self.likelihood.exact(k, z, w, with_weights=True)[1]
        else:
            d_weights = self.likelihood.weight_difference(k, z, w)
        self._add(d_weights, -self.scale * factor)
        slope = point.slope(self.path.d_z[k], create_graph=bool(self.prior_weights))
        self._add_prior_term(slope, self.c[k], factor)

    def _add_prior_term(self, slope: Tensors, c: Tensors, factor: float) -> None:
        """Add the gradients of c . dJ_k/dlambda in the prior's weights, through the KL."""
        if self.prior_weights:
            found = _pull_back(slope, self.prior_weights, c)
            self._add(found, self.scale * factor, first=len(self.likelihood.weights))

    def _add(self, d_weights: Sequence[Tensor | None], factor: float, first: int = 0) -> None:
        for i, d_weight in enumerate(d_weights, start=first):
            if d_weight is not None:
                own = self.d_weights[i]
                self.d_weights[i] = d_weight * factor if own is None else own + factor * d_weight
