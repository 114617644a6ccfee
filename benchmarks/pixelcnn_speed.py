"""How fast a PixelCNN samples: with every feature computed once, or a full pass for every pixel.

    python benchmarks/pixelcnn_speed.py --layers 3 9 --count 64

The model has random weights, 28 x 28 pixels, 32 channels and 3 x 3 kernels as in the paper, and z
in every layer. Full passes are timed for the first pixels and scaled to all of them. Every time is
the best of three, measured in turn. Both ways sample the same images (tests/test_pixelcnn.py).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor

from textvae.images.pixelcnn import PixelCNN
from textvae.vae.noise import Purpose, RowNoise

SIDE, LATENT, MAPS, KERNEL, TIMED, RUNS = 28, 20, 32, 3, 56, 3


@torch.no_grad()
def full_passes(model: PixelCNN, z: Tensor, uniforms: Tensor, pixels: int) -> None:
    """Sample the first pixels of every image, each with a pass over the whole image."""
    x = z.new_zeros(len(z), 1, SIDE, SIDE)
    for n in range(pixels):
        chance = model(x, z).flatten(1)[:, n].sigmoid()
        x.view(len(z), -1)[:, n] = (uniforms[:, n] < chance).float()


def seconds(run: Callable[[], object], device: str) -> float:
    """Time one call, including its work on the GPU."""
    started = time.perf_counter()
    run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(layers: int, count: int, device: str) -> tuple[float, float, float]:
    """Time ``count`` images: one pass, a full pass for every pixel, and the sampler."""
    torch.manual_seed(0)
    model = PixelCNN((SIDE, SIDE), LATENT, "skip", MAPS, layers, KERNEL).to(device).eval()
    z = torch.randn(count, LATENT, device=device)
    noise = RowNoise(0, Purpose.TOKENS, range(count))
    uniforms = noise.uniform(1, SIDE * SIDE)[0].to(device)
    image = (uniforms.view(count, 1, SIDE, SIDE) < 0.2).float()
    ways = (
        torch.no_grad()(lambda: model(image, z)),
        lambda: full_passes(model, z, uniforms, TIMED),
        lambda: model.sample(z, uniforms),
    )
    times = [[seconds(way, device) for way in ways] for _ in range(RUNS)]
    one, some, fast = (min(column) for column in zip(*times, strict=True))
    return one, some * SIDE * SIDE / TIMED, fast


def main() -> None:
    """Print one row for each number of layers."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 9])
    parser.add_argument("--count", type=int, default=64, help="images per batch")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(f"{options.count} images of {SIDE} x {SIDE}, {options.device}, torch {torch.__version__}")
    print("| layers | one pass | 784 passes | sampler | ratio |\n|--:|--:|--:|--:|--:|")
    for layers in options.layers:
        one, naive, fast = measure(layers, options.count, options.device)
        row = (f"{one:.3f} s", f"{naive:.1f} s", f"{fast:.2f} s", f"{naive / fast:.0f}")
        print(f"| {layers} | {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
