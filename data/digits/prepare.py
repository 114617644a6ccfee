"""Prepare the handwritten digits of scikit-learn: 1,797 images of 8 x 8 pixels, no download."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from textvae.cli.exit_codes import exit_status
from textvae.images.drawings import Drawings, write_drawings

DARKEST = 16  # gray levels in the file are 0 to 16
COUNTS = {"test": 300, "valid": 200}  # the rest is the training split
SEED = 0


def prepare(out: Path) -> None:
    """Draw test and validation with a fixed seed and write the three splits."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    gray = np.rint(digits.images * 255 / DARKEST).astype(np.uint8)
    order, start = np.random.default_rng(SEED).permutation(len(gray)), 0
    rows = {}
    for split, count in COUNTS.items():
        rows[split], start = order[start : start + count], start + count
    rows["train"] = order[start:]
    for split, chosen in rows.items():
        labels = digits.target[chosen].astype(np.int64)
        names = [str(name) for name in digits.target_names]
        write_drawings(out / f"{split}.npz", Drawings(gray[chosen], labels, names))
        print(f"{out / split}.npz: {len(chosen)} images")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    return exit_status("prepare", lambda: prepare(options.out))


if __name__ == "__main__":
    sys.exit(main())
