"""Prepare MNIST: the last 10,000 of the 60,000 training images become the validation split."""

import sys
from pathlib import Path

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.images.datasets import read_published
from textvae.images.drawings import Drawings, write_drawings

WHERE = """No --source given. Download MNIST and run
    python data/mnist/prepare.py --source PLACE --out DIR
where PLACE is a folder with the four published files (train-images-idx3-ubyte, …, gzipped or not),
an .npz file with x_train, y_train, x_test, y_test, or a name on the Hugging Face Hub, such as
ylecun/mnist."""
TRAIN, VALID, TEST = 50_000, 10_000, 10_000


def prepare(source: str, out: Path) -> None:
    """Read the images, check their counts, and write the three splits."""
    found = read_published(source)
    counts = {split: len(drawings.images) for split, drawings in found.items()}
    if counts != {"train": TRAIN + VALID, "test": TEST}:
        raise UserError(
            f"{source}: expected 60,000 training and 10,000 test images, found {counts}"
        )
    images, labels, names = found["train"]
    if labels is None or found["test"].labels is None:
        raise UserError(f"{source}: labels are missing")
    splits = {
        "train": Drawings(images[:TRAIN], labels[:TRAIN], names),
        "valid": Drawings(images[TRAIN:], labels[TRAIN:], names),
        "test": found["test"],
    }
    for split, drawings in splits.items():
        write_drawings(out / f"{split}.npz", drawings)
        print(f"{out / split}.npz: {len(drawings.images)} images")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "folder of idx files, .npz file, or dataset on the hub")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
