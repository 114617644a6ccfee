"""Yahoo Answers as in Yang et al. 2017: from the released text, or drawn from the ten topics."""

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
SHORTEST, LONGEST = 20, 200  # words of a document
TOPIC_COLUMNS = "question_title,question_content,best_answer"
WHERE = """No --source given. textvae cannot bring Yahoo Answers (Yahoo Webscope L6: non-commercial
research only). --source takes any of
  a folder with train.txt, val.txt, test.txt: a document a line, or `label<TAB>text`, tokenised
      (the data of the sa-vae and vae-lagging-encoder releases): laid out as it is;
  a folder with train.csv (torchtext's YahooAnswers), train*.parquet, or a hub data set with
      columns topic, question_title, question_content, best_answer: a seeded sample is drawn.
Then run
    python data/yahoo/prepare.py --source SOURCE --out DIR"""

Row = tuple[str, str | None]


def prepare(source: str, out: Path, seed: int, **sizes: int) -> None:
    """Lay out released text as it is; draw a sample from topics, ``sizes`` by split."""
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
    """The three splits of a release, as they are."""
    corpus = read_corpus(source)
    if missing := [split for split in PUBLISHED if split not in corpus]:
        raise UserError(f"{source}: no {' and no '.join(missing)} split")
    return {split: rows_of(dataset) for split, dataset in corpus.items()}


def rows_of(dataset: Any) -> Iterator[Row]:
    """`(text, label or None)`, streamed."""
    for record in dataset:
        yield record["text"], record.get("label")


def ten_topics(source: str, folder: Path) -> Any:
    """All training documents with their topic."""
    if folder.is_dir() and any(folder.glob("*train*.csv*")):
        return read_corpus(source)["train"]
    return read_corpus(source, text_column=TOPIC_COLUMNS, label_column="topic")["train"]


def words_of(text: str) -> list[str]:
    """Lower-cased Treebank words; the line ends of the CSV release are spelled out in it."""
    for spelled in ("\\n", "<br />", "<br>"):
        text = text.replace(spelled, " ")
    return split_words(text.lower(), tokenized=False)


def sample(dataset: Any, sizes: dict[str, int], seed: int, source: str) -> dict[str, list[Row]]:
    """Draw equally many documents of 20 to 200 words from each topic, for each split.

    Raises:
        UserError: a size does not divide by the topics, or a topic has too few documents.
    """
    topics = sorted(dataset.unique("label"), key=str)
    if uneven := [size for size in sizes.values() if size % len(topics)]:
        raise UserError(f"{uneven[0]} documents do not divide evenly by {len(topics)} topics")
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
        f"{source}: too few documents of {SHORTEST} to {LONGEST} words, {quota} a topic are "
        f"needed ({short}); lower --train, --valid, --test"
    )


def deal(drawn: list[Row], sizes: dict[str, int], topics: list) -> dict[str, list[Row]]:
    """Part the documents, already in random order, topic by topic equally among the splits."""
    splits: dict[str, list[Row]] = {split: [] for split in sizes}
    left = {(split, t): size // len(topics) for split, size in sizes.items() for t in topics}
    for row in drawn:
        split = next(split for split in sizes if left[split, row[1]])
        left[split, row[1]] -= 1
        splits[split].append(row)
    return splits


def counting(text: str) -> int:
    """A whole number from 0 on, out of an option."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: a whole number from 0 on is needed")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0, or 2 with one line that says what to do."""
    parser = preparation.parser_of(__doc__, "folder, or a hub data set")
    parser.add_argument("--seed", type=counting, default=0, help="of the sample from ten topics")
    for split, size in PUBLISHED.items():
        help_text = f"documents to draw for {split} (ten topics only)"
        parser.add_argument(f"--{split}", type=counting, default=size, help=help_text)
    return preparation.run(parser.parse_args(arguments), WHERE, prepare)


if __name__ == "__main__":
    sys.exit(main())
