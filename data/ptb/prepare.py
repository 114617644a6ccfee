"""Prepare Mikolov's language-modeling split of the Penn Treebank, after checking the files."""

import hashlib
import sys
from functools import partial
from pathlib import Path

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.runs.files import replace_file
from textvae.text.data.corpus import read_corpus, texts

MD5 = {
    "train": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "valid": "aa0affc06ff7c36e977d7cd49e3839bf",
    "test": "8b80168b89c18661a38ef683c0dc3721",
}
WHERE = """No --source given. The Penn Treebank (LDC99T42) is licensed by the LDC and cannot be
redistributed. With a license, take ptb.train.txt, ptb.valid.txt and ptb.test.txt from the folder
`data` of Mikolov's simple-examples.tgz, and run
    python data/ptb/prepare.py --source FOLDER --out DIR
--source can also be a dataset on the hub with the same sentences in a column `sentence`."""


def published_bytes(source: str) -> dict[str, bytes]:
    """Read the three published files from a folder, or rebuild them from a dataset on the hub."""
    folder = Path(source).expanduser()
    if not folder.is_dir():
        corpus = read_corpus(source, text_column="sentence")
        return {
            split: "".join(f" {text.strip()} \n" for text in texts(corpus[split])).encode()
            for split in MD5
            if split in corpus
        }
    found = {}
    for split in MD5:
        candidates = [folder / f"ptb.{split}.txt", folder / f"{split}.txt"]
        path = next((path for path in candidates if path.is_file()), None)
        if path is None:
            raise UserError(f"{folder}: neither ptb.{split}.txt nor {split}.txt exists")
        found[split] = path.read_bytes()
    return found


def prepare(source: str, out: Path) -> None:
    """Check all splits before writing the first one, so that ``out`` is never half right."""
    contents = published_bytes(source)
    for split, expected in MD5.items():
        found = hashlib.md5(contents.get(split, b"")).hexdigest()
        if found != expected:
            raise UserError(
                f"{source}: {split} is not the published file (md5 {found}, not {expected}); "
                "results on it would not compare with published ones"
            )
    for split, content in contents.items():
        replace_file(out / f"{split}.txt", partial(Path.write_bytes, data=content))
        lines = content.count(b"\n")
        print(f"{out / split}.txt: {lines} sentences, md5 as published")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(
        __doc__, "folder with the published files, or dataset on the hub"
    )
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
