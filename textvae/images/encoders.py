"""Image encoders q(z|x): residual convolutions (He et al. 2016) or fully connected layers."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import Tensor, nn

from textvae.vae.batch import Batch
from textvae.vae.contracts import Posterior


class ResNetEncoder(nn.Module):
    """Residual blocks, each followed by a convolution that halves the image: 28, 14, 7, 3.

    Args:
        size: Height and width of the images.
        make_head: Makes the module that turns features (B, F) into a posterior, given F.
        maps: Feature maps of every layer.
        blocks: Number of blocks.
    """

    def __init__(
        self, size: tuple[int, int], make_head: Callable[[int], nn.Module], maps: int, blocks: int
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(blocks):
            layers += [_Residual(maps if block else 1, maps), nn.Conv2d(maps, maps, 2, stride=2)]
            layers += [nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        height, width = (side >> blocks for side in size)
        self.head = make_head(maps * height * width)

    def forward(self, batch: Batch) -> Posterior:
        """q(z|x) for pixels (B, 1, H, W)."""
        return self.head(self.features(batch.x))


class _Residual(nn.Module):
    """x + f(x), where f is two convolutions with batch normalization."""

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
        size: Height and width of the images.
        make_head: Makes the module that turns features (B, F) into a posterior, given F.
        units: Units of every hidden layer.
        layers: Number of hidden layers.
    """

    def __init__(
        self, size: tuple[int, int], make_head: Callable[[int], nn.Module], units: int, layers: int
    ) -> None:
        super().__init__()
        widths = [size[0] * size[1]] + [units] * layers
        hidden = [
            part
            for inputs, outputs in pairwise(widths)
            for part in (nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.features = nn.Sequential(nn.Flatten(), *hidden)
        self.head = make_head(units)

    def forward(self, batch: Batch) -> Posterior:
        """q(z|x) for pixels (B, 1, H, W)."""
        return self.head(self.features(batch.x))
