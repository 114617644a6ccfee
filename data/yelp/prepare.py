"""Prepare short Yelp reviews with sentiment; training sentences that are in test are dropped."""

import sys
from pathlib import Path

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.text.data.corpus import read_corpus, write_split

WHERE = """No --source given. The reviews cannot be redistributed (Yelp Dataset License: academic
use only). Take train.txt, valid.txt and test.txt, with lines `label<TAB>text` (0 negative,
1 positive), from the short-yelp data of the vae-pretraining-encoder release, and run
    python data/yelp/prepare.py --source FOLDER --out DIR
--source can also be a dataset on the hub with columns `text` and `label`."""


def prepare(source: str, out: Path) -> None:
    """Read the three splits, drop training sentences that are in test, and write the splits."""
    corpus = read_corpus(source)
    for split in ("train", "valid", "test"):
        if split not in corpus:
            raise UserError(f"{source}: no {split} split")
        if "label" not in corpus[split].column_names:
            raise UserError(f"{source}: {split} has no labels; expected lines `label<TAB>text`")
    rows = {
        split: list(zip(dataset["text"], dataset["label"], strict=True))
        for split, dataset in corpus.items()
    }
    in_test = {text for text, _ in rows["test"]}
    kept = [row for row in rows["train"] if row[0] not in in_test]
    print(f"dropped {len(rows['train']) - len(kept)} train sentences that are also in test")
    for split, chosen in (rows | {"train": kept}).items():
        count = write_split(out / f"{split}.txt", chosen)
        print(f"{out / split}.txt: {count} sentences")


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "folder with the files, or dataset on the hub")
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
