"""The contracts: everything the parts of a latent-variable model promise each other.

A new idea is one class or function that keeps one of these promises. Nothing here has to be
inherited from: any object with the right methods will do (``typing.Protocol``).

    x ──encoder──> q(z|x): Posterior ──rsample──> z ──decoder──> log p(x|z) ──> Terms ──> Objective
                           Prior: p(z) ──sample───┘

Letters: K draws of z, B examples in a batch, Z latent dimensions, T tokens, V vocabulary entries,
N rows decoded side by side. Log-probabilities are in nats and summed over an example.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from textvae.vae.batch import Batch


class Noise(Protocol):
    """A replayable source of randomness for B examples: the same call gives the same numbers."""

    def normal(self, samples: int, width: int) -> Tensor:
        """Standard normal draws, (samples, B, width)."""

    def uniform(self, samples: int, width: int) -> Tensor:
        """Uniform draws in [0, 1) in double precision, (samples, B, width)."""


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) of B examples: a ``NamedTuple`` of tensors whose first dimension is B.

    Being a plain tuple of tensors, a posterior can be sliced, joined, moved, saved, and refined by
    gradient steps on its tensors. Two more methods are used where they exist:

    * ``kl_to(other) -> Tensor | None``: KL(q || other) in closed form, (B, Z) or (B, 1); None
      where there is none, and the KL is then estimated from draws;
    * ``pairwise_log_prob(z) -> Tensor``: log q(z_m|x_n) for every pair, (M, B), for z (M, Z),
      where there is a faster way than broadcasting ``log_prob``.
    """

    def rsample(self, samples: int = 1, noise: Noise | None = None) -> Tensor:
        """Reparameterized draws, (K, B, Z); from torch's global generator without ``noise``."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x), (..., B), for z (..., B, Z); z (..., 1, Z) is compared with every example."""

    def center(self) -> Tensor:
        """The point that stands for each posterior, usually its mean: (B, Z)."""


class Prior(Protocol):
    """p(z): an ``nn.Module``, so that it may have parameters that are trained with the rest."""

    latent_dim: int

    def log_prob(self, z: Tensor) -> Tensor:
        """Log p(z), (...), for z (..., Z)."""

    def sample(self, count: int, noise: Noise | None = None) -> Tensor:
        """Draws, (count, Z); from torch's global generator without ``noise``."""


class Encoder(Protocol):
    """An ``nn.Module`` that maps a batch to its posterior."""

    def __call__(self, batch: Batch) -> Posterior:
        """q(z|x) for every example of the batch."""


class Decoder(Protocol):
    """An ``nn.Module`` that scores a batch given z.

    Decoders that generate text also have ``stepper(z) -> Stepper`` for z (N, Z); decoders that
    generate images have ``sample(z, uniforms) -> Tensor``.
    """

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z): each entry from its own z alone."""


class Stepper(Protocol):
    """N sentences being decoded side by side: all that generation knows of a decoder."""

    size: int  # N

    def step(self, tokens: Tensor) -> Tensor:
        """Reads one token per sentence (N,); returns the logits of the next one, (N, V)."""

    def keep(self, rows: Tensor) -> None:
        """Continues with these sentences only, in this order."""

    def move(self, rows: Tensor) -> None:
        """Gives every sentence the state of sentence ``rows[i]``, which has the same z."""


class LatentModel(Protocol):
    """What inference, the estimators and the evaluation ask of a model."""

    prior: Any  # Prior
    encoder: Any  # Encoder
    decoder: Any  # Decoder

    def posterior(self, batch: Batch) -> Posterior:
        """q(z|x) as the encoder gives it."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z)."""


class Terms(NamedTuple):
    """What ``VAE.forward`` returns: everything an objective may want, in nats."""

    q: Any  # Posterior of the batch, after refinement if there is any
    z: Tensor  # (K, B, Z)
    log_px: Tensor  # (K, B) log p(x|z), at most 0 for discrete data
    log_pz: Tensor  # (K, B) log p(z)
    log_qz: Tensor  # (K, B) log q(z|x)
    kl: Tensor  # (B, Z) KL(q(z|x) || p(z)) by dimension; (B, 1) if estimated from the draws
    encoder_loss: Tensor | None = None  # (B,) what the encoder alone minimizes, if anything
    path: Tensor | None = None  # (steps, B) estimated ELBO before each refinement step

    @property
    def rec(self) -> Tensor:
        """(B,) E_q[log p(x|z)]."""
        return self.log_px.mean(0)

    @property
    def elbo(self) -> Tensor:
        """(B,) a lower bound of log p(x)."""
        return self.rec - self.kl.sum(-1)


class Objective(Protocol):
    """Turns terms into the loss that training minimizes."""

    def __call__(self, terms: Terms, beta: float) -> Tensor:
        """The loss in nats per example, a scalar; ``beta`` is the current weight of the KL."""
