"""The gated PixelCNN (van den Oord et al. 2016): p(x|z) = prod_ij p(x_ij | x_<ij, z), row by row.

Two stacks of gated convolutions. The vertical one sees all rows above a pixel, the horizontal one
the pixels to its left in its own row and, by ``across``, what the vertical one knows:

    v' = gate(down(v)),  h' = h + out(gate(along(h) + across(down(v)))),  gate(a, b) = tanh(a) s(b)

No weights are masked: the stacks start from x moved down by a row and right by a column, and no
convolution looks further down or to the right.

How z enters, each time as a linear map of z, a picture of its own beside the features:

    none    not at all
    input   into the first layer
    skip    into every layer, and before the last 1 x 1 convolution (Dieng et al. 2019)

A sample needs its pixels one after another, but no feature twice: the vertical stack is computed a
row at a time, the horizontal one a pixel at a time, in all about the work of a single pass.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.images.decoders import bernoulli_log_prob
from textvae.vae.batch import Batch


class GatedLayer(nn.Module):
    """A layer of both stacks.

    Args:
        inputs: channels of v and of h, a map of z counted.
        maps: feature maps that come out of each.
        reach: rows above and columns to the left that are seen, beside a pixel's own.
    """

    def __init__(self, inputs: int, maps: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.down = nn.Conv2d(inputs, 2 * maps, (reach + 1, 2 * reach + 1), padding=(0, reach))
        self.across = nn.Conv2d(2 * maps, 2 * maps, 1)
        self.along = nn.Conv2d(inputs, 2 * maps, (1, reach + 1))
        self.out = nn.Conv2d(maps, maps, 1)

    def rows(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """v' and what the other stack gets of it, (N, 2M, R, W), for v (N, C, reach + R, W)."""
        features = self.down(v)
        return _gate(features), self.across(features)

    def pixels(self, h: Tensor, above: Tensor) -> Tensor:
        """h' without the residual, (N, M, R, P), for h (N, C, R, reach + P)."""
        return self.out(_gate(self.along(h) + above))

    def pixel(self, h: Tensor, above: Tensor) -> Tensor:
        """``pixels`` of a single one, (N, M), for h (N, C, 1, reach + 1) and above (N, 2M)."""
        features = F.linear(h.flatten(1), self.along.weight.flatten(1), self.along.bias)
        return F.linear(_gate(features + above), self.out.weight.flatten(1), self.out.bias)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """v' and h' without the residual, for whole pictures v and h (N, C, H, W)."""
        v_next, above = self.rows(F.pad(v, (0, 0, self.reach, 0)))
        return v_next, self.pixels(F.pad(h, (self.reach, 0)), above)


def _gate(features: Tensor) -> Tensor:
    signal, gate = features.chunk(2, dim=1)
    return signal.tanh() * gate.sigmoid()


class PixelCNN(nn.Module):
    """The decoder.

    Args:
        size: height and width of the images.
        injection: how z enters; ``none``, ``input`` or ``skip``.
        maps: feature maps of every layer.
        layers: gated layers.
        kernel_size: odd; half of it, rounded down, is the reach of a layer.
    """

    def __init__(
        self,
        size: tuple[int, int],
        latent_dim: int,
        injection: str,
        maps: int,
        layers: int,
        kernel_size: int,
    ) -> None:
        super().__init__()
        self.size, self.maps, self.reach = size, maps, kernel_size // 2
        places = {"none": 0, "input": 1, "skip": layers + 1}[injection]  # the first so many get z
        self.z_maps = nn.ModuleList(nn.Linear(latent_dim, size[0] * size[1]) for _ in range(places))
        self.layers = nn.ModuleList(
            GatedLayer((maps if i else 1) + (i < places), maps, self.reach) for i in range(layers)
        )
        self.output = nn.Conv2d(maps + (places > layers), 1, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Logits of the pixels (N, H, W) for x (N, 1, H, W) and z (N, Z)."""
        v, h = F.pad(x, (0, 0, 1, -1)), F.pad(x, (1, -1))
        pictures = self._pictures(z)
        for i, layer in enumerate(self.layers):
            v, new = layer(*(torch.cat([part, *pictures[i]], dim=1) for part in (v, h)))
            h = h + new if i else new
        return self.output(torch.cat([h, *pictures[-1]], dim=1)).squeeze(1)

    def _pictures(self, z: Tensor) -> list[list[Tensor]]:
        """The map of z (N, 1, H, W) for each layer and for the output, where there is one."""
        own = [[z_map(z).view(-1, 1, *self.size)] for z_map in self.z_maps]
        return own + [[]] * (len(self.layers) + 1 - len(own))

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """log p(x|z) in nats, (K, B), for z (K, B, Z)."""
        x = batch.x.expand(len(z), *batch.x.shape)
        logits = self(x.flatten(0, 1), z.flatten(0, 1))  # (K * B, H, W)
        return bernoulli_log_prob(logits.flatten(1), x.flatten(0, 1).flatten(1)).view(len(z), -1)

    @torch.no_grad()
    def sample(self, z: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Images (N, H, W) for z (N, Z): pixels drawn with uniforms (N, H*W), or, without them,
        each at its likelier value."""
        height, width = self.size
        uniforms = z.new_full((1, 1), 0.5) if uniforms is None else uniforms.to(z.device)
        uniforms = uniforms.expand(len(z), height * width).view(-1, height, width)
        pictures = self._pictures(z)
        images = z.new_zeros(len(z), height, width)
        v = self._inputs(images, pictures, up=self.reach)
        h = self._inputs(images, pictures, left=self.reach)
        for i in range(height):
            if i:
                v[0][:, 0, self.reach + i] = images[:, i - 1]
            above = self._next_row(v, i)
            for j in range(width):
                if j:
                    h[0][:, 0, i, self.reach + j] = images[:, i, j - 1]
                features = self._next_pixel(h, above, i, j)
                features = torch.cat([features, *(own[:, :, i, j] for own in pictures[-1])], dim=1)
                logits = F.linear(features, self.output.weight.flatten(1), self.output.bias)
                images[:, i, j] = uniforms[:, i, j] < logits[:, 0].sigmoid()
        return images

    def _inputs(
        self, images: Tensor, pictures: list[list[Tensor]], up: int = 0, left: int = 0
    ) -> list[Tensor]:
        """Each layer's input (N, C, up + H, left + W): as yet nothing but the map of z."""
        blank = images.new_zeros(len(images), self.maps, *self.size)
        inputs = [torch.cat([blank, *own], dim=1) for own in pictures[:-1]]
        inputs[0] = torch.cat([blank[:, :1], *pictures[0]], dim=1)
        return [F.pad(own, (left, 0, up, 0)) for own in inputs]

    def _next_row(self, v: list[Tensor], i: int) -> list[Tensor]:
        """What row i of each layer gets from above (N, 2M, W); ``v`` is filled on the way."""
        above = []
        for n, layer in enumerate(self.layers):
            features, below = layer.rows(v[n][:, :, i : i + self.reach + 1])
            above.append(below[:, :, 0])
            if n + 1 < len(v):
                v[n + 1][:, : self.maps, self.reach + i] = features[:, :, 0]
        return above

    def _next_pixel(self, h: list[Tensor], above: list[Tensor], i: int, j: int) -> Tensor:
        """The last layer's features (N, M) of pixel i, j; ``h`` is filled on the way."""
        features = None
        for n, layer in enumerate(self.layers):
            if features is not None:
                h[n][:, : self.maps, i, self.reach + j] = features
            new = layer.pixel(h[n][:, :, i, j : j + self.reach + 1], above[n][:, :, j])
            features = new if features is None else features + new
        return features
