"""The commands on images: like those on text, but what they show is a PNG file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor

from textvae.cli.arguments import run_config
from textvae.errors import UserError
from textvae.evaluation.run_card import find_split
from textvae.images.datasets import ImageSplit
from textvae.images.model import ImageVAE
from textvae.images.pictures import grid, write_png
from textvae.images.readers import read_npz
from textvae.vae.batching import Split

COLUMNS, SHOWN = 10, 30
# Options of sentences, and the values that say nothing.
OF_TEXT = {
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "num_beams": 1,
    "max_new_tokens": None,
    "allow_unk": False,
    "format": "text",
    "show_source": False,
}


def check_options(args: Namespace) -> None:
    """Checks that a command on images got a place for its picture, and no option of sentences.

    Raises:
        UserError: it did not.
    """
    for name, unset in OF_TEXT.items():
        if args.get(name, unset) != unset:
            raise UserError(f"--{name.replace('_', '-')} has no meaning for images")
    if args.out is None:
        raise UserError("this model is of images: give --out FILE.png to draw them into")


def sample(model: ImageVAE, args: Namespace) -> None:
    """A grid of samples, or a walk over a latent of two dimensions."""
    options = {"do_sample": not args.greedy, **_common(args)}
    if args.walk is None:
        _write(model.sample(args.n, **options), args)
    else:
        _write(model.walk(args.walk, **options), args, columns=args.walk)


def reconstruct(model: ImageVAE, args: Namespace) -> None:
    """Rows of images of the test split, each above the row of their reconstructions."""
    if args.file is not None:
        raise UserError("--file is of sentences: give numbers of images in the test split")
    originals = _test_images(args.run, args.texts)
    outputs = model.reconstruct(
        originals,
        use=args.use,
        refine_steps=args.refine_steps,
        do_sample=args.do_sample,
        **_common(args),
    )
    blank = originals.new_full((-len(originals) % COLUMNS, *originals.shape[1:]), 0.5)
    rows = [torch.cat([own, blank]).unflatten(0, (-1, COLUMNS)) for own in (originals, outputs)]
    _write(torch.stack(rows, dim=1).flatten(0, 2), args, columns=COLUMNS)


def interpolate(model: ImageVAE, args: Namespace) -> None:
    """One row, from one image of the test split to another."""
    a, b = _test_images(args.run, [args.a, args.b])
    outputs = model.interpolate(
        a,
        b,
        args.steps,
        args.kind,
        refine_steps=args.refine_steps,
        do_sample=args.do_sample,
        same_draws=True,
        **_common(args),
    )
    _write(outputs, args, columns=args.steps)


def decode(model: ImageVAE, args: Namespace, z: Tensor) -> None:
    """A grid of the images of some latent vectors."""
    _write(model.decode(z, do_sample=args.do_sample, **_common(args)), args)


def images_of(path: Path) -> tuple[Tensor, list[str]]:
    """The images (N, H, W) in an .npz file, as they are measured, and a caption for each.

    Raises:
        UserError: there is no such file, or it holds several splits.
    """
    if not path.exists():
        raise UserError(f"{path} does not exist")
    splits = read_npz(path)
    if len(splits) > 1:
        raise UserError(f"{path} holds {', '.join(splits)}: give a file with one array, images")
    split = ImageSplit(next(iter(splits.values())))
    return split.thumbnails(len(split))[:, 0], [split.caption(i) for i in range(len(split))]


def _common(args: Namespace) -> dict[str, int]:
    return {"seed": args.seed, "batch_size": args.batch_size}


def _test_images(run: str, numbers: Sequence[str]) -> Tensor:
    split = find_split(Path(run), run_config(Path(run)), "test")
    rows = [_row(number, split) for number in numbers] or range(min(SHOWN, len(split)))
    return split.batch(np.array(rows)).x[:, 0]


def _row(number: str, split: Split) -> int:
    if not number.isdecimal() or int(number) >= len(split):
        raise UserError(
            f"{number!r} is no image: give a number from 0 to {len(split) - 1}, its place in the "
            "test split"
        )
    return int(number)


def _write(images: Tensor, args: Namespace, columns: int | None = None) -> None:
    write_png(Path(args.out), grid(images, columns))
    print(f"{len(images)} images in {args.out}")
