"""The contracts between the parts of a latent-variable model.

A new idea is one class or function that fulfills one of these contracts. There is nothing to
inherit from: any object with the right methods will do (``typing.Protocol``).

    x ──encoder──> q(z|x): Posterior ──rsample──> z ──decoder──> log p(x|z) ──> Terms ──> Objective
                           Prior: p(z) ──sample───┘

Dimensions: K draws of z, B examples in a batch, Z latent dimensions, T tokens, V vocabulary
entries, N sentences decoded in parallel. Log-probabilities are in nats and summed over an example.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from textvae.vae.batch import Batch


class Noise(Protocol):
    """A replayable source of randomness for B examples: the same call gives the same numbers."""

    def normal(self, samples: int, width: int) -> Tensor:
        """Standard normal draws, (samples, B, width)."""

    def uniform(self, samples: int, width: int) -> Tensor:
        """Uniform draws in [0, 1), (samples, B, width)."""


@runtime_checkable
class Posterior(Protocol):
    """q(z|x) of B examples: a ``NamedTuple`` of tensors whose first dimension is B.

    Being a plain tuple of tensors, a posterior can be sliced, joined, moved, saved, and refined by
    gradient steps on its tensors. Two more methods are optional:

    * ``kl_to(other) -> Tensor | None``: KL(q || other) in closed form, (B, Z) or (B, 1); None
      if there is none, and the KL is then estimated from draws;
    * ``pairwise_log_prob(z) -> Tensor``: log q(z_m|x_n) for every pair, (M, B), for z (M, Z),
      if there is a faster way than broadcasting ``log_prob``.
    """

    def rsample(self, samples: int = 1, noise: Noise | None = None) -> Tensor:
        """Reparameterized draws, (K, B, Z); from torch's global generator without ``noise``."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Log q(z|x), (..., B), for z (..., B, Z); z (..., 1, Z) is compared with every example."""

    def center(self) -> Tensor:
        """A point that represents each posterior, usually its mean: (B, Z)."""


class Prior(Protocol):
    """p(z): an ``nn.Module``, because it may have trainable parameters."""

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
        """Log p(x|z), (K, B), for z (K, B, Z); each entry depends only on its own z."""


class Stepper(Protocol):
    """N sentences being decoded in parallel: all that generation knows about a decoder."""

    size: int  # N

    def step(self, tokens: Tensor) -> Tensor:
        """Read one token per sentence (N,); return the logits of the next token, (N, V)."""

    def keep(self, rows: Tensor) -> None:
        """Continue with these sentences only, in this order."""

    def move(self, rows: Tensor) -> None:
        """Give every sentence i the state of sentence ``rows[i]``, which has the same z."""


class LatentModel(Protocol):
    """The model interface that inference, the estimators, and evaluation rely on."""

    prior: Any  # Prior
    encoder: Any  # Encoder
    decoder: Any  # Decoder

    def posterior(self, batch: Batch) -> Posterior:
        """q(z|x) as computed by the encoder."""

    def log_likelihood(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x|z), (K, B), for z (K, B, Z)."""


class Terms(NamedTuple):
    """What ``VAE.forward`` returns: everything an objective may need, in nats."""

    q: Any  # Posterior of the batch, after refinement if there is any
    z: Tensor  # (K, B, Z)
    log_px: Tensor  # (K, B) log p(x|z), at most 0 for discrete data
    log_pz: Tensor  # (K, B) log p(z)
    log_qz: Tensor  # (K, B) log q(z|x)
    kl: Tensor  # (B, Z) KL(q(z|x) || p(z)) by dimension; (B, 1) if estimated from the draws
    encoder_loss: Tensor | None = None  # (B,) additional loss of the encoder only, if any
    path: Tensor | None = None  # (steps, B) estimated ELBO before each refinement step
    prior: Any = None  # Prior
    log_bag: Tensor | None = None  # (K, B) log-probability of a text's words in any order

    @property
    def rec(self) -> Tensor:
        """(B,) E_q[log p(x|z)]."""
        return self.log_px.mean(0)

    @property
    def elbo(self) -> Tensor:
        """(B,) a lower bound on log p(x)."""
        return self.rec - self.kl.sum(-1)


class Objective(Protocol):
    """Turns terms into the loss that training minimizes."""

    def __call__(self, terms: Terms, beta: float) -> Tensor:
        """The loss in nats per example, a scalar; ``beta`` is the current weight of the KL."""


class KLSchedule(Protocol):
    """Moves the weight of the KL during training."""

    def __call__(self, step: int, steps: int) -> float:
        """The share of beta at a training step, 0 or more.

        Args:
            step: Training steps done, from 0; those of autoencoding do not count.
            steps: Number of training steps.
        """


@runtime_checkable
class AdaptiveObjective(Protocol):
    """An objective with numbers that change in training but are not weights of the model.

    A checkpoint keeps its state, so that a resumed run is identical to an uninterrupted one.
    """

    def __call__(self, terms: Terms, beta: float) -> Tensor:
        """The loss of a batch, as for any ``Objective``; an update may take several batches."""

    def after_update(self, mean: Callable[[Tensor], Tensor]) -> None:
        """Adapt, once after every update; ``mean`` averages a tensor over all processes."""

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be remembered: tensors, numbers, strings, lists, and dicts."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a ``state_dict``."""
