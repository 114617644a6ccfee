"""Image encoders q(z|x): residual convolutions (He et al. 2016) or fully connected layers.

If the model is conditioned on y (``textvae.vae.conditions``), the vector of y joins the pixels: as
additional channels of the ResNet, or as additional inputs of the first fully connected layer.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import vectors_of, width_of
from textvae.vae.contracts import Posterior


class ResNetEncoder(nn.Module):
    """Residual blocks, each followed by a convolution that halves the image: 28, 14, 7, 3.

    Args:
        size: Height and width of the images.
        make_head: Makes the module that turns features (B, F) into a posterior, given F.
        maps: Feature maps of every layer.
        blocks: Number of blocks.
        condition: Makes ``Batch.condition`` (B,) a vector (B, C).
    """

    def __init__(
        self,
        size: tuple[int, int],
        make_head: Callable[[int], nn.Module],
        maps: int,
        blocks: int,
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.condition = condition
        channels = [1 + width_of(condition)] + [maps] * (blocks - 1)
        layers: list[nn.Module] = []
        for inputs in channels:
            layers += [_Residual(inputs, maps), nn.Conv2d(maps, maps, 2, stride=2)]
            layers += [nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Flatten())
        height, width = (side >> blocks for side in size)
        self.head = make_head(maps * height * width)

    def forward(self, batch: Batch) -> Posterior:
        """q(z|x) for pixels (B, 1, H, W)."""
        x, y = batch.x.to(next(self.parameters()).dtype), vectors_of(self.condition, batch)
        if y is not None:
            x = torch.cat([x, y[:, :, None, None].expand(-1, -1, *x.shape[2:])], dim=1)
        return self.head(self.features(x))


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
        condition: Makes ``Batch.condition`` (B,) a vector (B, C).
    """

    def __init__(
        self,
        size: tuple[int, int],
        make_head: Callable[[int], nn.Module],
        units: int,
        layers: int,
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.condition = condition
        widths = [size[0] * size[1] + width_of(condition)] + [units] * layers
        hidden = [
            part
            for inputs, outputs in pairwise(widths)
            for part in (nn.Linear(inputs, outputs), nn.ReLU())
        ]
        self.features = nn.Sequential(nn.Flatten(), *hidden)
        self.head = make_head(units)

    def forward(self, batch: Batch) -> Posterior:
        """q(z|x) for pixels (B, 1, H, W)."""
        x, y = batch.x.to(next(self.parameters()).dtype), vectors_of(self.condition, batch)
        x = x.flatten(1)
        return self.head(self.features(x if y is None else torch.cat([x, y], dim=1)))
