"""How fast a PixelCNN trains, and samples: with every feature computed once, or a pass per pixel.

    python benchmarks/pixelcnn_speed.py --layers 3 9 --count 64 --json FILE

The model has random weights, 28 x 28 pixels, 32 channels and 3 x 3 kernels as in the paper, and z
in every layer. Full passes are timed for the first pixels and scaled to all of them. Every time is
the best of several, measured in turn. Both ways sample the same images (tests/test_pixelcnn.py). A
training step has 50 images, as in ``recipes/mnist``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import Row, measure, parse, row, run_as_program, save, show, timed
from torch import Tensor
from train_speed import our_optimizer, step_of

from textvae.images.datasets import as_batch
from textvae.images.model import ImageVAE
from textvae.images.pixelcnn import PixelCNN
from textvae.vae.noise import Purpose, RowNoise
from textvae.vae.objectives import elbo

LATENT, MAPS, KERNEL, TIMED, BATCH = 20, 32, 3, 56, 50


@torch.no_grad()
def full_passes(model: PixelCNN, z: Tensor, uniforms: Tensor, pixels: int) -> None:
    """Sample the first pixels of every image, each with a pass over the whole image."""
    x = z.new_zeros(len(z), 1, *model.size)
    for n in range(pixels):
        chance = model(x, z).flatten(1)[:, n].sigmoid()
        x.view(len(z), -1)[:, n] = (uniforms[:, n] < chance).float()


def sampling(layers: int, args: argparse.Namespace) -> dict[str, Callable[[], object]]:
    """Return one pass, some full passes, and the sampler, for ``args.count`` images."""
    size = (args.side, args.side)
    model = PixelCNN(size, LATENT, "skip", MAPS, layers, KERNEL).to(args.device).eval()
    z = torch.randn(args.count, LATENT, device=args.device)
    noise = RowNoise(0, Purpose.TOKENS, range(args.count))
    uniforms = noise.uniform(1, args.side**2)[0].to(args.device)
    image = (uniforms.view(args.count, 1, *size) < 0.2).float()
    return {
        "one pass": torch.no_grad()(lambda: model(image, z)),
        "a pass per pixel": lambda: full_passes(model, z, uniforms, TIMED),
        "sampler": lambda: model.sample(z, uniforms),
    }


def training(layers: int, precision: str, args: argparse.Namespace) -> Callable[[], object]:
    """Return a function that makes a training step of a Skip-VAE."""
    shape = {"decoder_hidden": MAPS, "decoder_layers": layers, "kernel_size": KERNEL}
    model = ImageVAE(args.side, args.side, LATENT, **shape).to(args.device)
    pixels = (torch.rand(BATCH, args.side, args.side) < 0.2).float()
    batch = as_batch(pixels, torch.arange(BATCH)).to(args.device)
    return step_of(model, our_optimizer("adam", model), lambda: elbo(model(batch)), precision)


def table(args: argparse.Namespace) -> list[Row]:
    """Measure all rows; the speeds are in images, which count as tokens."""
    rows = []
    for layers in args.layers:
        torch.manual_seed(0)
        runs, steps = sampling(layers, args), {}
        for precision in args.precision:
            steps[f"training step, {precision}"] = training(layers, precision, args)
        seconds = {k: timed(s) for k, s in measure(runs | steps, args.repeats).items()}
        part = min(TIMED, args.side**2) / args.side**2
        for name, spent in seconds.items():
            count = BATCH if name in steps else args.count
            scale = part if name == "a pass per pixel" else 1.0
            best = spent._replace(median=spent.least)
            gain = seconds["a pass per pixel"].least / part / spent.least
            ratio = gain if name == "sampler" else None
            rows.append(row(f"{layers} layers, {name}", count * scale, best, ratio_to_plain=ratio))
            rows[-1]["seconds"] = best.median / scale
    return rows


COLUMNS = {"name": "{}", "tok_s": "{:,.1f}", "seconds": "{:.3f}", "ratio_to_plain": "{:.0f}"}


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and save; return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, nargs="+", default=[3, 9])
    parser.add_argument("--count", type=int, default=64, help="images sampled at once")
    parser.add_argument("--side", type=int, default=28, help="height and width of the images")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["fp32"])
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each row")
    args = parse(parser, words)
    rows = table(args)
    title = f"{args.count} images of {args.side} x {args.side}, {args.device}; tok_s: images/s"
    show(title, rows, COLUMNS)
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
