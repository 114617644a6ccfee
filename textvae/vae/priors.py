"""Priors p(z): the distribution of z before x is known.

A standard normal, or one that is learned with the model (C components, all with their own
parameters):

    mixture:    p(z) = sum_c w_c N(z; m_c, diag(s_c^2))
    VampPrior:  p(z) = 1/C sum_c q(z|u_c)              (Tomczak & Welling 2018)

where u_c are learned inputs of the encoder q. The KL from a posterior to a learned prior has no
closed form and is estimated from the draws of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from textvae.errors import UserError
from textvae.vae.batch import Batch
from textvae.vae.contracts import Noise
from textvae.vae.mixtures import (
    LOG_2PI,
    MAX_PAIRS,
    draw_components,
    exact_dtype,
    mixture_log_prob,
    pairwise_log_prob,
)
from textvae.vae.modes import evaluation_mode
from textvae.vae.noise import Purpose, RowNoise, second_stream, standard_normal

CHECKED = 1000  # draws that a Gaussian is fitted to, and as many to compare with it
MAX_ENTRIES = 2**20  # of the Jacobians that are computed to check a density
STEP = 1e-4  # of their differences
SINGULAR = 1e-4  # smallest singular value of a Jacobian, relative to the largest one


class StandardNormal(nn.Module):
    """p(z) = N(0, I).

    Args:
        latent_dim: Z; 0 for a model without a latent variable.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z) in nats, (...), for z (..., Z)."""
        return -0.5 * (z.square() + LOG_2PI).sum(-1)

    def marginal_log_prob(self, z: Tensor) -> Tensor:
        """Log p(z_d) of every coordinate in nats, (..., Z), for z (..., Z)."""
        return -0.5 * (z.square() + LOG_2PI)

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z), so that a seed gives the same z on every device."""
        return standard_normal(noise, 1, torch.empty(count, self.latent_dim, device="cpu"))[0]


class MixturePrior(nn.Module):
    """A mixture of Gaussians with diagonal covariances, whose parameters are all learned.

    It starts with a variance of 1 in every dimension, like the standard normal: 1/4 from the means
    of the components, which are drawn at random, and 3/4 within each.

    Args:
        latent_dim: Z.
        components: C.
    """

    def __init__(self, latent_dim: int, components: int = 50) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.logits = nn.Parameter(torch.zeros(components))
        self.means = nn.Parameter(0.5 * torch.randn(components, latent_dim))
        self.logvars = nn.Parameter(torch.full((components, latent_dim), math.log(0.75)))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z) in nats, (...), for z (..., Z)."""
        dtype = exact_dtype(z)
        rows = z.reshape(-1, self.latent_dim).to(dtype)
        means, logvars = self.means.to(dtype), self.logvars.to(dtype)
        weights = self.logits.to(dtype).log_softmax(0)
        parts = rows.split(max(1, MAX_PAIRS // len(weights)))  # limits memory
        found = [(pairwise_log_prob(part, means, logvars) + weights).logsumexp(1) for part in parts]
        return torch.cat(found).reshape(z.shape[:-1]).to(z.dtype)

    def marginal_log_prob(self, z: Tensor) -> Tensor:
        """Log p(z_d) of every coordinate in nats, (..., Z), for z (..., Z)."""
        squared = (z[..., None, :] - self.means).square() * torch.exp(-self.logvars)
        pairs = -0.5 * (squared + self.logvars + LOG_2PI)  # (..., C, Z)
        return (pairs + self.logits.log_softmax(0)[:, None]).logsumexp(-2)

    @torch.no_grad()
    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z): a component, then z."""
        chosen = draw_components(self.logits, count, noise)
        means, logvars = self.means.cpu()[chosen], self.logvars.cpu()[chosen]
        eps = standard_normal(second_stream(noise), 1, means)[0]
        return means + torch.exp(0.5 * logvars) * eps


class VampPrior(nn.Module):
    """The mean of the encoder's posteriors of C learned pseudo-inputs (Tomczak & Welling 2018).

    The prior and the posterior share the encoder, so p(z) moves with the aggregate posterior. The
    encoder is in evaluation mode here: p(z) does not depend on a batch, and pseudo-inputs do not
    enter the running statistics of batch normalization.

    Args:
        latent_dim: Z.
        inputs: Initial values of the pseudo-inputs (C, ...).
        make_batch: Turns the pseudo-inputs into a batch that the encoder reads.

    Attributes:
        encoder: The encoder, which the model assigns: the same module as its own.
    """

    encoder: nn.Module

    def __init__(
        self, latent_dim: int, inputs: Tensor, make_batch: Callable[[Tensor], Batch] = Batch
    ) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        self.inputs = nn.Parameter(inputs)
        self.make_batch = make_batch

    def components(self) -> Any:
        """Return the C posteriors of the pseudo-inputs."""
        with evaluation_mode(self.encoder):
            return self.encoder(self.make_batch(self.inputs))

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z) in nats, (...), for z (..., Z)."""
        dtype, q = exact_dtype(z), self.components()
        rows = z.reshape(-1, self.latent_dim).to(dtype)
        found = mixture_log_prob(type(q)(*(part.to(dtype) for part in q)), rows)
        return found.reshape(z.shape[:-1]).to(z.dtype)

    def marginal_log_prob(self, z: Tensor) -> Tensor:
        """Log p(z_d) of every coordinate in nats, (..., Z), for z (..., Z)."""
        pairs = self.components().marginal_log_prob(z[..., None, :])  # (..., C, Z)
        return pairs.logsumexp(-2) - math.log(len(self.inputs))

    @torch.no_grad()
    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z): a pseudo-input, then z from its posterior."""
        q = self.components()
        chosen = draw_components(torch.zeros(len(self.inputs)), count, noise)
        drawn = type(q)(*(part.cpu()[chosen] for part in q))
        return drawn.rsample(1, second_stream(noise))[0]


def standard_prior(latent_dim: int) -> nn.Module:
    """Return the prior of a model with Z latent dimensions, if there is no other: N(0, I)."""
    return StandardNormal(latent_dim)


class WrongDensity(ValueError):
    """A prior's ``log_prob`` is not the log density of what it draws."""


@torch.no_grad()
def check_density(prior: Any) -> None:
    """Check, before any training, that a prior of one's own has the log density of its draws.

    For normalized p and g, KL(p || g) and KL(g || p) are never negative. With g a Gaussian that is
    fitted to draws of p, either can only be negative if ``log_prob`` is not the density of those
    draws, such as without the constant Z/2 log 2 pi. Bounds and KLs would be off by as much.

    Args:
        prior: The prior, with ``latent_dim`` Z.

    Raises:
        WrongDensity: The density is wrong.
        ValueError: A method returns another shape, or draws do not depend on the noise alone.
    """
    noise, size = RowNoise(0, Purpose.LATENT, range(2 * CHECKED)), prior.latent_dim
    z = prior.sample(2 * CHECKED, noise)
    if not isinstance(z, Tensor) or z.shape != (2 * CHECKED, size):
        found = tuple(z.shape) if isinstance(z, Tensor) else type(z).__name__
        raise ValueError(
            f"sample({2 * CHECKED}, noise) must return a tensor ({2 * CHECKED}, {size}), "
            f"not {found}"
        )
    if not torch.equal(z, prior.sample(2 * CHECKED, noise)):
        raise ValueError(
            "sample(count, noise) must draw its numbers from noise (noise.normal, noise.uniform), "
            "if it is given: two calls with the same noise differ"
        )
    log_p = prior.log_prob(z)
    if log_p.shape != (2 * CHECKED,):
        raise ValueError(
            f"log_prob of z ({2 * CHECKED}, {size}) must return ({2 * CHECKED},), not "
            f"{tuple(log_p.shape)}"
        )
    if z[0].norm().isclose(z[1].norm()):  # on a sphere, where no Gaussian has a density
        return
    first, second = z.double().split(CHECKED)
    gaussian = torch.distributions.Normal(first.mean(0), first.std(0) + 1e-6)
    eps = noise._replace(turn=1).normal(1, size)[0, :CHECKED]  # not those of the fit
    drawn = gaussian.mean + gaussian.stddev * eps.double()
    inside = log_p[CHECKED:].double() - gaussian.log_prob(second).sum(-1)
    outside = gaussian.log_prob(drawn).sum(-1) - prior.log_prob(drawn.to(z)).double()
    for gap, wrong in ((inside, "low"), (outside, "high")):
        if float(gap.mean()) < -0.05 - 4 * float(gap.std()) / math.sqrt(CHECKED):
            raise WrongDensity(
                f"log_prob is too {wrong}, by {-float(gap.mean()):.2f} nats or more, for a density "
                "of what sample draws: is a constant missing, such as Z/2 log(2 pi)?"
            )
    _check_change_of_variables(prior)


class _GivenNormals:
    """Noise that hands out given normal draws once, to priors that need nothing else."""

    def __init__(self, draws: Tensor) -> None:
        self.draws: Tensor | None = draws  # (N, Z)

    def normal(self, samples: int, size: int) -> Tensor:
        """The draws, (1, N, Z)."""
        if self.draws is None or samples != 1 or size != self.draws.size(1):
            raise LookupError("not a function of one normal draw of Z numbers")
        given, self.draws = self.draws[None], None
        return given


def _check_change_of_variables(prior: Any) -> None:
    """Check the density of a prior whose draws are a function of normal noise, such as a flow.

    If z = T(u) for u ~ N(0, I), then log p(z) >= log N(u) - log |det dT/du|, with equality if no
    other u gives the same z. The derivatives are central differences in double precision. A prior
    that draws in another way is not checked.

    Raises:
        WrongDensity: The density is too low.
    """
    size, random = prior.latent_dim, torch.Generator().manual_seed(0)
    count = max(1, min(16, MAX_ENTRIES // size**2))
    u = torch.randn(count, size, generator=random, dtype=torch.float64)
    moved = u[:, None] + STEP * torch.eye(size, dtype=torch.float64)  # (N, Z, Z)
    moved = torch.stack([moved, 2 * u[:, None] - moved])  # one step up, and one down
    try:
        copied = deepcopy(prior).double()
        z = copied.sample(count, _GivenNormals(u))
        up, down = copied.sample(2 * count * size, _GivenNormals(moved.flatten(0, 2))).view_as(
            moved
        )
        log_p = copied.log_prob(z)
        stretches = torch.linalg.svdvals((up - down) / (2 * STEP))  # (N, Z)
    except Exception:  # a user's own code, called in a way that it need not foresee
        return
    if stretches.dtype != torch.float64:  # too coarse for differences
        return
    regular = stretches.amin(1) > SINGULAR * stretches.amax(1)  # not onto a sphere or a plane
    normal = torch.distributions.Normal(0.0, 1.0)
    least = normal.log_prob(u).sum(1) - stretches.log().sum(1)
    missing = (least - log_p)[regular]
    if len(missing) and float(missing.max()) > 0.2:
        raise WrongDensity(
            f"log_prob is too low, by up to {float(missing.max()):.2f} nats, for what sample makes "
            "of normal noise: is the log-determinant that of the other direction?"
        )


def check_prior(arguments: Mapping[str, Any]) -> None:
    """Check the arguments of a model that determine its prior.

    Raises:
        UserError: The prior does not fit the other arguments.
    """
    kind = arguments["prior"]
    if kind == "standard":
        return
    if not arguments["latent_dim"]:
        raise UserError(f"model: prior {kind} needs a latent variable, but latent_dim is 0")
    if arguments["posterior"] == "vmf":
        raise UserError(
            f"model: prior {kind} is not a distribution on the unit sphere, where posterior vmf "
            "has its z: use prior standard, which is uniform there"
        )
    if kind == "vamp" and not arguments["encoder_layers"]:
        raise UserError("model: prior vamp needs an encoder, but encoder_layers is 0")
