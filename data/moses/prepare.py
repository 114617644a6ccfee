"""Prepare the molecules of MOSES, after checking the files; validation is held out of training."""

import gzip
import hashlib
import io
import json
import pickle
import sys
import warnings
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.runs.files import replace_file

# Of the SMILES in each file, one per line, in the published order.
SHA256 = {
    "train": "4301e7f6118839465012eb93510328681ef4b7b24642e8748c4ad40971f4a304",
    "test": "d6290e7bc2f0881a8f50ffd53937d2207657de32fcc43786125eb6f73997c1e2",
    "test_scaffolds": "c7287a76a5c72e52234633bd96e1eebbd39a936f3fa98dd6236472c1fa7f9573",
}
FILTERS = {
    "mcf.csv": "f4a2bfacb4cb8877295eb2a4b4e61ec9770a26388f1331e5dc9c193d22dd5f89",
    "wehi_pains.csv": "d762e5420ec70f06d7e41d336cae6f67e2feb0eddf05c6171192a332726d296f",
}
STATISTICS = {
    "test": "ded25073225a895d4ed17bf1d4223d27560e87ff4cb85786346ca1cc8efa03d3",
    "test_scaffolds": "7b7aba6c1474634a019bebf16f389d554cb9dd1021dfc8c1d1e54430a9f0e7f8",
}
PLAIN = {  # what the published statistics consist of: arrays and tables of counts
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
    ("collections", "Counter"),
}
WHERE = """No --source given. MOSES is published under the MIT license, in the package molsets.
Download its wheel, which need not be installed, and run
    pip download --no-deps molsets==0.3.1
    python data/moses/prepare.py --source molsets-0.3.1-py3-none-any.whl --out DIR
--source can also be a folder with train.csv, test.csv, and test_scaffolds.csv, or .csv.gz."""


def published(source: Path, name: str) -> bytes | None:
    """Return the content of a file in a folder or a wheel, wherever it is in there."""
    if source.is_dir():
        found = next((path for path in sorted(source.rglob(name))), None)
        return None if found is None else found.read_bytes()
    try:
        with zipfile.ZipFile(source) as wheel:
            inside = next((n for n in wheel.namelist() if n.rsplit("/", 1)[-1] == name), None)
            return None if inside is None else wheel.read(inside)
    except FileNotFoundError:
        raise UserError(f"{source}: no such file or folder") from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{source}: not a folder, and not a wheel ({error})") from None


def molecules(source: Path, split: str) -> list[str]:
    """Read the SMILES of a published split and check them."""
    content = published(source, f"{split}.csv")
    if content is None and (packed := published(source, f"{split}.csv.gz")) is not None:
        try:
            content = gzip.decompress(packed)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{source}: {split}.csv.gz is damaged ({error})") from None
    if content is None:
        raise UserError(f"{source}: neither {split}.csv nor {split}.csv.gz exists")
    rows = [line.split(",") for line in content.decode("utf-8", errors="replace").splitlines()]
    column = rows[0].index("SMILES") if rows and "SMILES" in rows[0] else 0
    smiles = ["".join(row[column : column + 1]) for row in rows[1:]]
    found = hashlib.sha256(_lines(smiles)).hexdigest()
    if found != SHA256[split]:
        raise UserError(
            f"{source}: {split} is not the published file (sha256 {found}, not {SHA256[split]}); "
            "results on it would not compare with published ones"
        )
    return smiles


def filters(source: Path) -> dict[str, bytes]:
    """Read and check the structures that the metric Filters rejects, if they are there."""
    tables = {name: published(source, name) for name in FILTERS}
    for name, content in tables.items():
        if content is not None and hashlib.sha256(content).hexdigest() != FILTERS[name]:
            raise UserError(f"{source}: {name} is not the published file")
    return {name: content for name, content in tables.items() if content is not None}


class PlainUnpickler(pickle.Unpickler):
    """Reads arrays and tables of counts, and refuses everything else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is plain data."""
        if (module, name) not in PLAIN:
            raise pickle.UnpicklingError(f"{module}.{name} is not plain data")
        with warnings.catch_warnings():  # numpy has moved the function since
            warnings.simplefilter("ignore", DeprecationWarning)
            return super().find_class(module, name)


def statistics(source: Path, split: str, smiles: list[str]) -> bytes | None:
    """Return the published statistics of a test set as an .npz file; None without them.

    It has what ``textvae.evaluation.molecules.reference`` would compute.
    """
    content = published(source, f"{split}_stats.npz")
    if content is None:
        return None
    if hashlib.sha256(content).hexdigest() != STATISTICS[split]:
        raise UserError(f"{source}: {split}_stats.npz is not the published file")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        array = io.BytesIO(archive.read("stats.npy"))
    np.lib.format.read_magic(array)
    np.lib.format.read_array_header_1_0(array)
    found = PlainUnpickler(array).load().item()
    plain = io.BytesIO()
    np.savez_compressed(
        plain,
        content=np.array(hashlib.sha256(_lines(smiles)).hexdigest()),
        fingerprints=np.packbits(found["SNN"]["fps"], axis=1, bitorder="little"),
        fragments=_table(found["Frag"]["frag"]),
        scaffolds=_table(found["Scaf"]["scaf"]),
        mean=found["FCD"]["mu"],
        covariance=found["FCD"]["sigma"],
    )
    return plain.getvalue()


def _table(counts: dict[str, int]) -> np.ndarray:
    return np.frombuffer(json.dumps(counts).encode(), np.uint8)


def _lines(smiles: list[str]) -> bytes:
    return "".join(f"{text}\n" for text in smiles).encode()


def prepare(source: str, out: Path, train: int, valid: int, test: int) -> None:
    """Check all files before writing the first one, so that ``out`` is never half right."""
    place = Path(source).expanduser()
    splits = {name: molecules(place, name) for name in SHA256}
    tables = filters(place)
    found = {name: statistics(place, name, splits[name]) for name in STATISTICS}
    shuffled = {name: _shuffled(splits[name]) for name in ("train", "test")}
    drawn = {
        "valid": shuffled["train"][:valid],
        "train": shuffled["train"][valid:][: train or None],
        "test": shuffled["test"][: test or None],
    }
    if not drawn["train"]:
        raise UserError(f"--valid {valid}: leaves no molecule for training")
    for name, smiles in splits.items():
        _write(out / "reference" / f"{name}.txt", smiles)
    for name, content in tables.items():
        replace_file(out / "reference" / name, partial(Path.write_bytes, data=content))
    for name, content in found.items():
        if content is not None:
            path = out / "reference" / f"{name}.stats.npz"
            replace_file(path, partial(Path.write_bytes, data=content))
    for name, smiles in drawn.items():
        _write(out / f"{name}.txt", smiles)


def _shuffled(smiles: list[str]) -> list[str]:
    order = np.random.default_rng(0).permutation(len(smiles))
    return [smiles[i] for i in order]


def _write(path: Path, smiles: list[str]) -> None:
    replace_file(path, partial(Path.write_bytes, data=_lines(smiles)))
    print(f"{path}: {len(smiles)} molecules")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "the wheel of molsets, or folder with the csv files")
    add = partial(parser.add_argument, type=int)
    add("--train", default=0, help="molecules to train on, drawn with seed 0; default: all")
    add("--valid", default=10_000, help="molecules held out of train (%(default)s)")
    add("--test", default=10_000, help="test molecules, drawn with seed 0 (%(default)s); 0: all")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
