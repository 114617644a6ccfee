"""Prepare Omniglot at 28 x 28 pixels: Burda's split, or a random one with its proportions."""

import csv
import sys
from pathlib import Path

import numpy as np

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.images.datasets import read_published
from textvae.images.drawings import Drawings, write_drawings

WHERE = """No --source given. Download Omniglot and run
    python data/omniglot/prepare.py --source PLACE --out DIR
where PLACE is Burda's chardata.mat, for results that compare with published ones, or an .npz file
with images (N, 28, 28) with bright ink and char_id (N,), and the table alphabets.tsv
(first-last<TAB>alphabet) in the same folder."""
VALID = 1_345  # of the training drawings, as in Kim et al. 2018
TEST_SHARE = 8_070 / 32_415  # of all drawings, as in Burda's file
SEED = 0


def prepare(source: str, out: Path) -> None:
    """Read the drawings, split them if the source does not, and write the three splits."""
    path = Path(source)
    splits = _of_burda(source) if path.suffix == ".mat" else _of_drawings(path)
    for split, drawings in splits.items():
        write_drawings(out / f"{split}.npz", drawings)
        print(f"{out / split}.npz: {len(drawings.images)} images")


def _of_burda(source: str) -> dict[str, Drawings]:
    found = read_published(source)
    train, valid = _split(found["train"], VALID)
    return {"train": train, "valid": valid, "test": found["test"]}


def _of_drawings(path: Path) -> dict[str, Drawings]:
    found = read_published(str(path))
    if "all" not in found:
        raise UserError(f"{path}: no array named images")
    with np.load(path, allow_pickle=False) as arrays:
        characters = arrays.get("char_id")
    everything = Drawings(found["all"].images, *_alphabets(path, characters))
    rest, test = _split(everything, round(TEST_SHARE * len(everything.images)))
    train, valid = _split(rest, VALID)
    return {"train": train, "valid": valid, "test": test}


def _alphabets(
    path: Path, characters: np.ndarray | None
) -> tuple[np.ndarray | None, list[str] | None]:
    table = path.with_name("alphabets.tsv")
    if characters is None or not table.exists():
        return None, None
    labels, names = np.full(len(characters), -1, dtype=np.int64), []
    for span, name in csv.reader(table.open(encoding="utf-8"), delimiter="\t"):
        first, last = (int(number) for number in span.split("-"))
        labels[(characters >= first) & (characters <= last)] = len(names)
        names.append(name)
    if (labels < 0).any():
        raise UserError(f"{table}: the alphabet of some characters in {path} is missing")
    return labels, names


def _split(drawings: Drawings, count: int) -> tuple[Drawings, Drawings]:
    """Draw ``count`` drawings with a fixed seed; return the others and these."""
    images, labels, names = drawings
    if len(images) <= count:
        raise UserError(f"too few drawings ({len(images)}) to hold out {count}")
    order = np.random.default_rng(SEED).permutation(len(images))
    parts = np.sort(order[count:]), np.sort(order[:count])
    rest, held_out = (
        Drawings(images[rows], None if labels is None else labels[rows], names) for rows in parts
    )
    return rest, held_out


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "chardata.mat, or an .npz file of drawings")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
