"""The handwritten digits that come with scikit-learn: 1,797 images of 8 x 8 pixels, no download."""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from textvae.cli.exit_codes import exit_status
from textvae.images.readers import Drawings, write_drawings

DARKEST = 16  # the file's scale of grey
COUNTS = {"test": 300, "valid": 200}  # the rest is for training
SEED = 0


def prepare(out: Path) -> None:
    """Draw test and validation by seed, write the three splits."""
    from sklearn.datasets import load_digits

    digits: Any = load_digits()
    grey = np.rint(digits.images * 255 / DARKEST).astype(np.uint8)
    order, start = np.random.default_rng(SEED).permutation(len(grey)), 0
    rows = {}
    for split, count in COUNTS.items():
        rows[split], start = order[start : start + count], start + count
    rows["train"] = order[start:]
    for split, own in rows.items():
        labels = digits.target[own].astype(np.int64)
        names = [str(name) for name in digits.target_names]
        write_drawings(out / f"{split}.npz", Drawings(grey[own], labels, names))
        print(f"{out / split}.npz: {len(own)} images")


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line that says what to do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    options = parser.parse_args(arguments)
    return exit_status("prepare", lambda: prepare(options.out))


if __name__ == "__main__":
    sys.exit(main())
