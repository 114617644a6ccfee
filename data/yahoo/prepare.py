"""Prepare Yahoo Answers as in Yang et al. 2017: a released split, or a sample of ten topics."""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from textvae.cli import preparation
from textvae.errors import UserError
from textvae.text.data.corpus import read_corpus, write_split
from textvae.text.tokenizers.words import split_words

PUBLISHED = {"train": 100_000, "valid": 10_000, "test": 10_000}
SHORTEST, LONGEST = 20, 200  # words in a document
TOPIC_COLUMNS = "question_title,question_content,best_answer"
WHERE = """No --source given. Yahoo Answers cannot be redistributed (Yahoo Webscope L6:
non-commercial research only). Run
    python data/yahoo/prepare.py --source SOURCE --out DIR
where SOURCE is one of
  a folder with train.txt, val.txt, test.txt, one tokenized document or `label<TAB>text` per line
      (the data of the sa-vae and vae-lagging-encoder releases), which is used as it is;
  a folder with train.csv (torchtext's YahooAnswers) or train*.parquet, or a dataset on the hub,
      with columns topic, question_title, question_content, best_answer, from which a sample is
      drawn."""

Row = tuple[str, str | None]


def prepare(source: str, out: Path, seed: int, **sizes: int) -> None:
    """Write a release as it is, or a sample of the ten topics with ``sizes`` by split."""
    folder = Path(source).expanduser()
    if folder.is_dir() and any(folder.glob("*train*.txt*")):
        splits = released(source)
    else:
        train = ten_topics(source, folder)
        splits = sample(train, sizes, seed, source)
    for split, rows in splits.items():
        count = write_split(out / f"{split}.txt", rows)
        note = "" if count == PUBLISHED[split] else f" (the published split has {PUBLISHED[split]})"
        print(f"{out / split}.txt: {count} documents{note}")


def released(source: str) -> dict[str, Iterator[Row]]:
    """Read the three splits of a release."""
    corpus = read_corpus(source)
    if missing := [split for split in PUBLISHED if split not in corpus]:
        raise UserError(f"{source}: no {' and no '.join(missing)} split")
    return {split: rows_of(dataset) for split, dataset in corpus.items()}


def rows_of(dataset: Any) -> Iterator[Row]:
    """Stream the text and the label (or None) of each document."""
    for record in dataset:
        yield record["text"], record.get("label")


def ten_topics(source: str, folder: Path) -> Any:
    """Read all training documents with their topics."""
    if folder.is_dir() and any(folder.glob("*train*.csv*")):
        return read_corpus(source)["train"]
    return read_corpus(source, text_column=TOPIC_COLUMNS, label_column="topic")["train"]


def words_of(text: str) -> list[str]:
    """Split into lowercase Treebank words; the CSV release spells out its line breaks."""
    for spelled in ("\\n", "<br />", "<br>"):
        text = text.replace(spelled, " ")
    return split_words(text.lower(), tokenized=False)


def sample(dataset: Any, sizes: dict[str, int], seed: int, source: str) -> dict[str, list[Row]]:
    """Draw the same number of documents of 20 to 200 words from each topic, for each split.

    Args:
        dataset: All documents, labeled with their topics.
        sizes: Number of documents for each split.
        seed: Random seed.
        source: Name of the dataset, for messages.

    Returns:
        Text and topic of the documents of each split.

    Raises:
        UserError: If a size is not a multiple of the number of topics, or a topic has too few
            documents.
    """
    topics = sorted(dataset.unique("label"), key=str)
    if uneven := [size for size in sizes.values() if size % len(topics)]:
        raise UserError(
            f"{uneven[0]} documents cannot be divided evenly among {len(topics)} topics"
        )
    quota = sum(sizes.values()) // len(topics)
    rng = np.random.default_rng(seed)
    taken: Counter = Counter()
    drawn: list[Row] = []
    for i in rng.permutation(len(dataset)):
        record = dataset[int(i)]
        topic = record["label"]
        if taken[topic] == quota:
            continue
        words = words_of(record["text"])
        if SHORTEST <= len(words) <= LONGEST:
            taken[topic] += 1
            drawn.append((" ".join(words), topic))
            if len(drawn) == quota * len(topics):
                return deal(drawn, sizes, topics)
    short = ", ".join(f"{topic}: {taken[topic]}" for topic in topics if taken[topic] < quota)
    raise UserError(
        f"{source}: too few documents of {SHORTEST} to {LONGEST} words; {quota} per topic are "
        f"needed ({short}); lower --train, --valid or --test"
    )


def deal(drawn: list[Row], sizes: dict[str, int], topics: list) -> dict[str, list[Row]]:
    """Divide the documents, which are in random order, so that every split has equal topics."""
    splits: dict[str, list[Row]] = {split: [] for split in sizes}
    left = {(split, t): size // len(topics) for split, size in sizes.items() for t in topics}
    for row in drawn:
        split = next(split for split in sizes if left[split, row[1]])
        left[split, row[1]] -= 1
        splits[split].append(row)
    return splits


def counting(text: str) -> int:
    """Parse an integer that is not negative."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: must be an integer of at least 0")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = preparation.parser_of(__doc__, "folder, or dataset on the hub")
    parser.add_argument(
        "--seed", type=counting, default=0, help="random seed of the sample (ten topics only)"
    )
    for split, size in PUBLISHED.items():
        help_text = f"number of documents for {split} (ten topics only)"
        parser.add_argument(f"--{split}", type=counting, default=size, help=help_text)
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
