"""MNIST: the last 10,000 of the 60,000 training images become the validation split."""

import sys
from pathlib import Path

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.images.datasets import read_published
from textvae.images.readers import Drawings, write_drawings

WHERE = """No --source given. Take MNIST in one of these forms and run
    python data/mnist/prepare.py --source PLACE --out DIR
a folder with the four files as published (train-images-idx3-ubyte, …, gzipped or not); an .npz
with x_train, y_train, x_test, y_test; or a name on the Hugging Face hub, such as ylecun/mnist."""
TRAIN, VALID, TEST = 50_000, 10_000, 10_000


def prepare(source: str, out: Path) -> None:
    """Read, check the counts, split, write."""
    found = read_published(source)
    counts = {split: len(own.images) for split, own in found.items()}
    if counts != {"train": TRAIN + VALID, "test": TEST}:
        raise UserError(f"{source} is not MNIST, 60,000 training and 10,000 test images: {counts}")
    images, labels, names = found["train"]
    if labels is None or found["test"].labels is None:
        raise UserError(f"{source}: the labels are missing")
    splits = {
        "train": Drawings(images[:TRAIN], labels[:TRAIN], names),
        "valid": Drawings(images[TRAIN:], labels[TRAIN:], names),
        "test": found["test"],
    }
    for split, own in splits.items():
        write_drawings(out / f"{split}.npz", own)
        print(f"{out / split}.npz: {len(own.images)} images")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line that says what to do."""
    parser = preparation.parser_of(__doc__, "folder of idx files, .npz file or hub data set")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
