"""The gated PixelCNN (van den Oord et al. 2016): p(x|z) = prod_ij p(x_ij | x_<ij, z), row by row.

It has two stacks of gated convolutions. The vertical stack v sees all rows above a pixel. The
horizontal stack h sees the pixels to the left in the same row and, through ``across``, the vertical
stack:

    v' = gate(down(v)),  h' = h + out(gate(along(h) + across(down(v)))),  gate(a, b) = tanh(a) s(b)

No weights are masked. Instead, the inputs of the stacks are x shifted down by one row and x shifted
right by one column, and no convolution looks further down or to the right.

The latent variable z enters as additional input channels, each a linear map of z to an image:

    none    nowhere
    input   in the first layer
    skip    in every layer and in the final 1 x 1 convolution (Dieng et al. 2019)

If the model is conditioned on y (``textvae.vae.conditions``), the vector of y joins z.

Sampling goes pixel by pixel but computes each feature only once: the vertical stack one row at a
time, the horizontal stack one pixel at a time. In total this is about the work of one forward pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from textvae.images.decoders import bernoulli_log_prob
from textvae.vae.batch import Batch
from textvae.vae.condition_embeddings import ConditionalDecoder, width_of


class GatedLayer(nn.Module):
    """One layer of both stacks.

    Args:
        inputs: Input channels of v and of h, including a map of z if there is one.
        maps: Output channels of each.
        offset: How many rows up and columns to the left the kernels extend from a pixel.
    """

    def __init__(self, inputs: int, maps: int, offset: int) -> None:
        super().__init__()
        self.offset = offset
        self.down = nn.Conv2d(inputs, 2 * maps, (offset + 1, 2 * offset + 1), padding=(0, offset))
        self.across = nn.Conv2d(2 * maps, 2 * maps, 1)
        self.along = nn.Conv2d(inputs, 2 * maps, (1, offset + 1))
        self.out = nn.Conv2d(maps, maps, 1)

    def rows(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Advance the vertical stack by R rows.

        Args:
            v: (N, C, offset + R, W), the rows and those above them.

        Returns:
            v' (N, M, R, W), and the input that it gives to the horizontal stack, (N, 2M, R, W).
        """
        features = self.down(v)
        return _gate(features), self.across(features)

    def pixels(self, h: Tensor, above: Tensor) -> Tensor:
        """Advance the horizontal stack by P columns, without the residual connection.

        Args:
            h: (N, C, R, offset + P), the columns and those to the left.
            above: (N, 2M, R, P) from ``rows``.

        Returns:
            (N, M, R, P).
        """
        return self.out(_gate(self.along(h) + above))

    def pixel(self, h: Tensor, above: Tensor) -> Tensor:
        """Compute ``pixels`` for a single pixel, without the overhead of a convolution.

        Args:
            h: (N, C, offset + 1).
            above: (N, 2M).

        Returns:
            (N, M).
        """
        features = F.linear(h.flatten(1), self.along.weight.flatten(1), self.along.bias)
        return F.linear(_gate(features + above), self.out.weight.flatten(1), self.out.bias)

    def forward(self, v: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """Compute both stacks for whole images, h' without the residual connection.

        Args:
            v: (N, C, H, W).
            h: (N, C, H, W).

        Returns:
            v' and h', each (N, M, H, W).
        """
        v_next, above = self.rows(F.pad(v, (0, 0, self.offset, 0)))
        return v_next, self.pixels(F.pad(h, (self.offset, 0)), above)


def _gate(features: Tensor) -> Tensor:
    signal, gate = features.chunk(2, dim=1)
    return signal.tanh() * gate.sigmoid()


class PixelCNN(ConditionalDecoder):
    """A gated PixelCNN decoder.

    Args:
        size: Height and width of the images.
        latent_dim: Size of z.
        injection: How z enters: ``none``, ``input`` or ``skip``.
        maps: Feature maps per layer.
        layers: Number of gated layers.
        kernel_size: Size of the kernels before half of them is cut off; odd.
        condition: Makes ``Batch.condition`` (B,) a vector (B, C), which joins z.
    """

    def __init__(
        self,
        size: tuple[int, int],
        latent_dim: int,
        injection: str,
        maps: int,
        layers: int,
        kernel_size: int,
        condition: nn.Module | None = None,
    ) -> None:
        super().__init__(condition)
        self.size, self.maps, self.offset = size, maps, kernel_size // 2
        # z enters the first ``places`` layers; the output convolution counts as the last one.
        places = {"none": 0, "input": 1, "skip": layers + 1}[injection]
        width, pixels = latent_dim + width_of(condition), size[0] * size[1]
        self.z_maps = nn.ModuleList(nn.Linear(width, pixels) for _ in range(places))
        self.layers = nn.ModuleList(
            GatedLayer((maps if i else 1) + (i < places), maps, self.offset) for i in range(layers)
        )
        self.output = nn.Conv2d(maps + (places > layers), 1, 1)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        """Pixel logits (N, H, W) for x (N, 1, H, W) and z (N, Z), with the vectors of y if any."""
        v, h = F.pad(x, (0, 0, 1, -1)), F.pad(x, (1, -1))
        z_images = self._z_images(z)
        for i, layer in enumerate(self.layers):
            v, new = layer(*(torch.cat([part, *z_images[i]], dim=1) for part in (v, h)))
            h = h + new if i else new
        return self.output(torch.cat([h, *z_images[-1]], dim=1)).squeeze(1)

    def _z_images(self, z: Tensor) -> list[list[Tensor]]:
        """For each layer and for the output, the map of z (N, 1, H, W), or nothing."""
        images = [[z_map(z).view(-1, 1, *self.size)] for z_map in self.z_maps]
        return images + [[]] * (len(self.layers) + 1 - len(images))

    def log_prob(self, batch: Batch, z: Tensor) -> Tensor:
        """Log p(x|z) in nats, (K, B), for z (K, B, Z)."""
        z = self.with_batch(z, batch)
        x = batch.x.to(z.dtype).expand(len(z), *batch.x.shape)
        logits = self(x.flatten(0, 1), z.flatten(0, 1))  # (K * B, H, W)
        return bernoulli_log_prob(logits.flatten(1), x.flatten(0, 1).flatten(1)).view(len(z), -1)

    @torch.no_grad()
    def sample(self, z: Tensor, uniforms: Tensor | None = None) -> Tensor:
        """Generate images pixel by pixel.

        Args:
            z: (N, Z), or z ``with_condition`` (N, Z + C).
            uniforms: (N, H*W) uniform random numbers that decide the pixels; None takes the more
                likely value of each pixel given those before it.

        Returns:
            (N, H, W), values in {0, 1}.
        """
        height, width = self.size
        uniforms = z.new_full((1, 1), 0.5) if uniforms is None else uniforms.to(z.device)
        uniforms = uniforms.expand(len(z), height * width).view(-1, height, width)
        z_images = self._z_images(z)
        images = z.new_zeros(len(z), height, width)
        v = self._inputs(images, z_images, up=self.offset)
        h = self._inputs(images, z_images, left=self.offset)
        for i in range(height):
            if i:
                v[0][:, 0, self.offset + i] = images[:, i - 1]
            above = self._next_row(v, i)
            for j in range(width):
                if j:
                    h[0][:, 0, i, self.offset + j] = images[:, i, j - 1]
                features = self._next_pixel(h, above, i, j)
                features = torch.cat([features, *(m[:, :, i, j] for m in z_images[-1])], dim=1)
                logits = F.linear(features, self.output.weight.flatten(1), self.output.bias)
                images[:, i, j] = uniforms[:, i, j] < logits[:, 0].sigmoid()
        return images

    def _inputs(
        self, images: Tensor, z_images: list[list[Tensor]], up: int = 0, left: int = 0
    ) -> list[Tensor]:
        """Buffers for the input of each layer, (N, C, up + H, left + W), with only z filled in."""
        blank = images.new_zeros(len(images), self.maps, *self.size)
        inputs = [torch.cat([blank, *maps], dim=1) for maps in z_images[:-1]]
        inputs[0] = torch.cat([blank[:, :1], *z_images[0]], dim=1)
        return [F.pad(part, (left, 0, up, 0)) for part in inputs]

    def _next_row(self, v: list[Tensor], i: int) -> list[Tensor]:
        """Compute row i of the vertical stack in place; return what each layer passes on."""
        above = []
        for n, layer in enumerate(cast(Sequence[GatedLayer], self.layers)):
            features, below = layer.rows(v[n][:, :, i : i + self.offset + 1])
            above.append(below[:, :, 0])  # (N, 2M, W)
            if n + 1 < len(v):
                v[n + 1][:, : self.maps, self.offset + i] = features[:, :, 0]
        return above

    def _next_pixel(self, h: list[Tensor], above: list[Tensor], i: int, j: int) -> Tensor:
        """Compute pixel (i, j) of the horizontal stack in place; return its features (N, M)."""
        seen = slice(j, j + self.offset + 1)
        first, *others = cast(Sequence[GatedLayer], self.layers)
        features = first.pixel(h[0][:, :, i, seen], above[0][:, :, j])
        for n, layer in enumerate(others, start=1):
            h[n][:, : self.maps, i, self.offset + j] = features
            features = features + layer.pixel(h[n][:, :, i, seen], above[n][:, :, j])
        return features
