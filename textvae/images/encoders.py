"""q(z|x) of images: residual convolutions (He et al. 2016) or fully connected layers."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn

from textvae.vae.batch import Batch
from textvae.vae.posteriors import DiagGaussian


class ResNetEncoder(nn.Module):
    """Residual blocks, each followed by a convolution that halves the picture: 28, 14, 7, 3.

    Args:
        size: height and width of the images.
        maps: feature maps of every layer.
        blocks: how many.
    """

    def __init__(self, size: tuple[int, int], latent_dim: int, maps: int, blocks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [_Residual(maps if block else 1, maps), nn.Conv2d(maps, maps, 2, stride=2)]
            layers += [nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        height, width = (side >> blocks for side in size)
        self.head = nn.Linear(maps * height * width, 2 * latent_dim)

    def forward(self, batch: Batch) -> DiagGaussian:
        """q(z|x) for pixels (B, 1, H, W)."""
        return _gaussian(self.head(self.features(batch.x)))


class _Residual(nn.Module):
    """x + f(x), f two convolutions with batch normalisation."""

    def __init__(self, inputs: int, maps: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, maps, 3, padding=1, bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
            nn.Conv2d(maps, maps, 3, padding=1, bias=False),
            nn.BatchNorm2d(maps),
        )
        self.shortcut = nn.Identity() if inputs == maps else nn.Conv2d(inputs, maps, 1)

    def forward(self, x: Tensor) -> Tensor:
        return (self.shortcut(x) + self.body(x)).relu()


class MLPEncoder(nn.Module):
    """Fully connected layers with ReLU.

    Args:
        units: of every hidden layer.
        layers: hidden layers.
    """

    def __init__(self, size: tuple[int, int], latent_dim: int, units: int, layers: int) -> None:
        super().__init__()
        widths = [size[0] * size[1]] + [units] * layers
        hidden = [
            part
            for inputs, outputs in pairwise(widths)
            for part in (nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.features = nn.Sequential(nn.Flatten(), *hidden)
        self.head = nn.Linear(units, 2 * latent_dim)

    def forward(self, batch: Batch) -> DiagGaussian:
        """q(z|x) for pixels (B, 1, H, W)."""
        return _gaussian(self.head(self.features(batch.x)))


def _gaussian(head: Tensor) -> DiagGaussian:
    mean, logvar = head.float().chunk(2, dim=-1)
    return DiagGaussian(mean, logvar)
