"""p(x|z) of images with fully connected layers: every pixel by itself, given z.

    h_1 = relu(W_1 z + b_1)
    h_{l+1} = relu(W_l h_l + b_l)                 input
    h_{l+1} = relu(W_l h_l + V_l z + b_l)         skip (Dieng et al. 2019)
    logits = W h_L + b

The PixelCNN, where every pixel also sees those before it, is ``textvae.images.pixelcnn``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.vae.batch import Batch


def bernoulli_log_prob(logits: Tensor, x: Tensor) -> Tensor:
    """log p of pixels x in {0, 1} in nats, summed over the last dimension."""
    logits = logits.float()
    return (x * logits - F.softplus(logits)).sum(-1)


class MLPDecoder(nn.Module):
    """Fully connected layers with ReLU.

    Args:
        size: height and width of the images.
        skip: every hidden layer has a map of z of its own, beside the layer below.
        units: of every hidden layer.
        layers: hidden layers.
    """

    def __init__(
        self, size: tuple[int, int], latent_dim: int, skip: bool, units: int, layers: int
    ) -> None:
        super().__init__()
        self.size = size
        self.first = nn.Linear(latent_dim, units)
        self.hidden = nn.ModuleList(nn.Linear(units, units) for _ in range(layers - 1))
        self.skips = nn.ModuleList(
            nn.Linear(latent_dim, units, bias=False) for _ in range(layers - 1 if skip else 0)
        )
        self.output = nn.Linear(units, size[0] * size[1])

    def forward(self, z: Tensor) -> Tensor:
        """Logits of the pixels (..., H*W) for z (..., Z)."""
        h = self.first(z).relu()
        for i, layer in enumerate(self.hidden):
            h = (layer(h) + self.skips[i](z) if self.skips else layer(h)).relu()
        return self.output(h)

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (K, B), for z (K, B, Z)."""
        return bernoulli_log_prob(self(z), batch.x.flatten(1))

    @torch.no_grad()
    def sample(self, z: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Images (N, H, W) for z (N, Z): pixels drawn with uniforms (N, H*W), or, without them,
        the probability of each pixel."""
        chances = self(z).sigmoid()
        pixels = chances if uniforms is None else (uniforms < chances).float()
        return pixels.view(-1, *self.size)
