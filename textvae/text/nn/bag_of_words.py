"""The words of a text in any order, predicted from z alone (Zhao, Zhao, and Eskenazi 2017).

    log p(bag | z) = sum_t log softmax(W z + b)[w_t]

Every word is predicted without the words before it, so only z can say which ones occur.
"""

from __future__ import annotations

from torch import Tensor, nn

from textvae.text.tokenizers import EOS, PAD
from textvae.vae.batch import Batch


class BagOfWords(nn.Module):
    """Predicts the words of a text from z, without their order.

    Args:
        latent_dim: Z.
        vocab_size: V.
    """

    def __init__(self, latent_dim: int, vocab_size: int) -> None:
        super().__init__()
        self.output = nn.Linear(latent_dim, vocab_size)

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """Compute the log-probability of the words of every text, without its end, in nats.

        Args:
            batch: B texts.
            z: (K, B, Z).

        Returns:
            (K, B).
        """
        words = batch.x[:, 1:].expand(len(z), -1, -1)  # (K, B, T)
        scores = self.output(z).log_softmax(-1)  # (K, B, V)
        counted = (words != PAD) & (words != EOS)
        return (scores.gather(-1, words) * counted).sum(-1)
