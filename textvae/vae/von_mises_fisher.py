"""The von Mises-Fisher posterior and its prior: z on the unit sphere in Z dimensions.

Davidson et al. 2018 and Xu & Durrett 2018, with the concentration kappa fixed. With mu a unit
vector, I_v the modified Bessel function of the first kind, and v = Z/2 - 1:

    q(z|x) = C(kappa) exp(kappa mu . z),    C(kappa) = kappa^v / ((2 pi)^(Z/2) I_v(kappa))
    E_q[z] = A(kappa) mu,                   A(kappa) = I_(v+1)(kappa) / I_v(kappa)
    KL(q || uniform) = kappa A(kappa) + log C(kappa) - log p(z)

The KL depends on kappa and Z alone, so no training can move it to 0.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.vae.contracts import Noise
from textvae.vae.noise import standard_normal

# Each proposal is accepted with a probability above 0.65 for any kappa and Z: all 16 are rejected
# in fewer than one of 10^7 draws, and then the first one is used.
PROPOSALS = 16


class UniformSphere(nn.Module):
    """p(z) is uniform on the unit sphere in Z dimensions.

    Args:
        latent_dim: Z, at least 2.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim
        half = latent_dim / 2
        # Minus the logarithm of the sphere's area, 2 pi^(Z/2) / Gamma(Z/2).
        self.log_density = math.lgamma(half) - math.log(2) - half * math.log(math.pi)

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z) on the sphere in nats, (...), for z (..., Z) of length 1."""
        return z.new_full(z.shape[:-1], self.log_density)

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws on the CPU, (count, Z): normal draws divided by their lengths."""
        draws = standard_normal(noise, 1, torch.empty(count, self.latent_dim, device="cpu"))[0]
        return F.normalize(draws, dim=-1)


class VonMisesFisher(NamedTuple):
    """A batch of von Mises-Fisher distributions.

    Refinement moves the direction, whose length has no meaning, and leaves kappa as it is.
    """

    direction: Tensor  # (B, Z), of any length: mu is the unit vector along it
    kappa: Tensor  # (B, 1) concentration around mu; treated as a constant

    def rsample(self, samples: int = 1, noise: Noise | None = None) -> Tensor:
        """Draws, (K, B, Z), reparameterized in the direction.

        z = w mu + sqrt(1 - w^2) t, where the component w along mu is drawn by rejection (Wood 1994)
        and t is a random unit vector orthogonal to mu. Neither w nor the decision to accept it
        depends on mu, so the gradient is that of this line. Davidson et al. 2018 rotate the first
        axis onto mu instead; projecting mu out of a normal draw gives the same distribution, and
        has no direction at which the gradient is undefined.
        """
        mu, size = self.center(), self.direction.size(1)
        like = self.direction.detach().new_empty(len(mu), size + 3 * PROPOSALS)
        draws = standard_normal(noise, samples, like)  # (K, B, Z + 3P)
        free, proposals = draws.split([size, 3 * PROPOSALS], dim=-1)
        proposals = proposals if proposals.itemsize >= 4 else proposals.float()
        w = _along_mean(proposals, self.kappa.detach(), size)[..., None].to(mu)  # (K, B, 1)
        # Twice, because rounding leaves something of mu in a draw that is nearly parallel to it.
        tangent = F.normalize(_without(_without(free, mu), mu), dim=-1)
        return w * mu + (1 - w.square()).clamp(min=0).sqrt() * tangent

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x) on the sphere in nats, (..., B), for z (..., B, Z) of length 1."""
        log_normalizer, _ = self._constants()
        return (self.kappa.detach() * self.center() * z).sum(-1) + log_normalizer

    def center(self) -> Tensor:
        """The mean directions mu, (B, Z). The mean itself, A(kappa) mu, is not on the sphere."""
        return F.normalize(self.direction, dim=-1)

    def kl_to(self, other: Any) -> Tensor | None:
        """KL(q || other) in nats by example, (B, 1).

        ``other`` is the uniform distribution on the sphere or another batch of von Mises-Fisher
        distributions; None for anything else.
        """
        log_normalizer, length = self._constants()
        kappa = self.kappa.detach()[:, 0]  # (B,)
        if isinstance(other, UniformSphere):
            return (kappa * length + log_normalizer - other.log_density)[:, None]
        if isinstance(other, VonMisesFisher):
            cosine = (self.center() * other.center()).sum(-1)
            cross = other._constants()[0] + other.kappa.detach()[:, 0] * length * cosine
            return (kappa * length + log_normalizer - cross)[:, None]
        return None

    def pairwise_log_prob(self, z: Tensor) -> Tensor:
        """Log q(z_m|x_n) in nats, (M, B), for z (M, Z)."""
        return torch.addmm(self._constants()[0], z, (self.kappa.detach() * self.center()).t())

    def _constants(self) -> tuple[Tensor, Tensor]:
        """Log C(kappa) and A(kappa) of every example, (B,) each."""
        kappas, which = self.kappa.detach()[:, 0].unique(return_inverse=True)
        size = self.direction.size(1)
        table = [(log_normalizer(k, size), mean_length(k, size)) for k in kappas.tolist()]
        columns = self.direction.new_tensor(table).view(-1, 2)[which]  # (B, 2)
        return columns[:, 0], columns[:, 1]


def _without(z: Tensor, mu: Tensor) -> Tensor:
    """Project z onto the space orthogonal to unit vectors mu."""
    return z - (z * mu).sum(-1, keepdim=True) * mu


def _along_mean(draws: Tensor, kappa: Tensor, size: int) -> Tensor:
    """The component of z along mu, (K, B), by Wood's rejection from a fixed number of proposals.

    The envelope is the distribution of (1 - (1 + b) e) / (1 - (1 - b) e) for e ~ Beta(a, a) with
    a = (Z - 1) / 2. The first coordinate x of a uniform point on the sphere gives e = (1 - x) / 2.
    Two normal draws give x: their angle is uniform, and half their squared length, which is
    exponentially distributed, gives the length of the point's projection onto two dimensions.

    Args:
        draws: Standard normal, (K, B, 3P), three for each of the P proposals.
        kappa: (B, 1).
        size: Z.
    """
    first, second, third = draws.unflatten(-1, (3, -1)).unbind(-2)  # (K, B, P) each
    squared = first.square() + second.square()
    # On a circle, Z = 2, the projection is the point itself.
    radius = 1.0 if size == 2 else (-torch.expm1(-squared / (size - 2))).sqrt()
    x = radius * first / squared.sqrt().clamp(min=torch.finfo(draws.dtype).tiny)
    e = (1 - x) / 2
    b = (size - 1) / (2 * kappa + (4 * kappa.square() + (size - 1) ** 2).sqrt())  # (B, 1)
    w = (1 - (1 + b) * e) / (1 - (1 - b) * e)
    mode = (1 - b) / (1 + b)
    log_accept = kappa * (w - mode)
    log_accept = log_accept + (size - 1) * (torch.log1p(-mode * w) - torch.log1p(-mode.square()))
    accepted = log_accept >= torch.special.log_ndtr(third)  # the logarithm of a uniform draw
    chosen = accepted.byte().argmax(-1, keepdim=True)  # the first one
    return w.gather(-1, chosen)[..., 0]


def log_normalizer(kappa: float, size: int) -> float:
    """Log C(kappa) in Z = ``size`` dimensions."""
    order = size / 2 - 1
    return order * math.log(kappa) - size / 2 * math.log(2 * math.pi) - log_bessel(order, kappa)


def mean_length(kappa: float, size: int) -> float:
    """A(kappa), the length of the mean in Z = ``size`` dimensions."""
    return math.exp(log_bessel(size / 2, kappa) - log_bessel(size / 2 - 1, kappa))


@lru_cache(maxsize=1024)
def log_bessel(order: float, x: float) -> float:
    """Log I_order(x), the modified Bessel function of the first kind, for x > 0.

    The logarithm of the power series sum_m (x/2)^(2m + order) / (m! Gamma(m + order + 1)). All
    terms are positive, and they are negligible well before m = 2x + 100.
    """
    m = torch.arange(int(2 * x) + 100, dtype=torch.float64)
    logs = (2 * m + order) * math.log(x / 2) - torch.lgamma(m + 1) - torch.lgamma(m + order + 1)
    return float(logs.logsumexp(0))
