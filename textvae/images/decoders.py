"""Image decoder p(x|z) with fully connected layers: the pixels are independent given z.

    h_1 = relu(W_1 z + b_1)
    h_{l+1} = relu(W_l h_l + b_l)                 input
    h_{l+1} = relu(W_l h_l + V_l z + b_l)         skip (Dieng et al. 2019)
    logits = W h_L + b

If the model is conditioned on y (``textvae.vae.conditions``), the vector of y joins z.
``textvae.images.pixelcnn`` has the PixelCNN, where each pixel also depends on those before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import ConditionalDecoder, width_of


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """Log p(x) in nats of binary pixels, summed over the last dimension.

    Args:
        logits: (..., P) logits of p(x = 1).
        x: (..., P) pixels in {0, 1}.

    Returns:
        (...), at least float32.
    """
    logits = logits if logits.itemsize >= 4 else logits.float()
    return (x * logits - F.softplus(logits)).sum(-1)


class MLPDecoder(ConditionalDecoder):
    """Fully connected layers with ReLU.

    Args:
        size: Height and width of the images.
        latent_dim: Size of z.
        skip: Inject z into every hidden layer, not only into the first.
        units: Units per hidden layer.
        layers: Number of hidden layers.
        condition: Makes ``Batch.condition`` (B,) a vector (B, C), which joins z.
    """

    def __init__(
        self,
        size: tuple[int, int],
        latent_dim: int,
        skip: bool,
        units: int,
        layers: int,
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__(condition)
        self.size = size
        width = latent_dim + width_of(condition)
        self.first = nn.Linear(width, units)
        self.hidden = nn.ModuleList(nn.Linear(units, units) for _ in range(layers - 1))
        self.skips = nn.ModuleList(
            nn.Linear(width, units, bias=False) for _ in range(layers - 1 if skip else 0)
        )
        self.output = nn.Linear(units, size[0] * size[1])

    def forward(self, z: Tensor) -> Tensor:
        """Pixel logits (..., H*W) for z (..., Z), with the vectors of y if there is a condition."""
        h = self.first(z).relu()
        for i, layer in enumerate(self.hidden):
            h = (layer(h) + self.skips[i](z) if self.skips else layer(h)).relu()
        return self.output(h)

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x|z) in nats, (K, B), for z (K, B, Z)."""
        return bernoulli_log_prob(self(self.with_batch(z, batch)), batch.x.flatten(1))

    @torch.no_grad()
    def sample(self, z: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Generate images.

        Args:
            z: (N, Z), or z ``with_condition`` (N, Z + C).
            uniforms: (N, H*W) uniform random numbers that decide the pixels; None returns the
                probability of each pixel instead.

        Returns:
            (N, H, W).
        """
        p = self(z).sigmoid()
        pixels = p if uniforms is None else (uniforms < p).float()
        return pixels.view(-1, *self.size)
