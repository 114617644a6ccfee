"""The default corpus: questions and answers sampled from a grammar, with their exact log p(x).

The folder also gets ``grammar.json``, the metrics card of the true distribution on test. In nats
per document: iw = mean log p(x), mi = H(f) - mean H(f | x) and mi_max = H(f), where f are the
factors topic, subject, intent and tone; ppl_iw = exp(-sum log p(x) / sum (words + 1)). No model can
be expected to have a better iw, or a latent code of the global factors to know more than f.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from expressions import entropy_of
from grammar import SUBJECTS, Grammar

SPLITS = {"train": 20000, "valid": 1000, "test": 1000}
CARD = "grammar.json"


def documents(grammar: Grammar, split: str, count: int, seed: int) -> list[dict]:
    """Sample the documents of a split, from a random stream that other splits do not share."""
    rng = random.Random(f"{seed} {split}")
    return [document(grammar, rng) for _ in range(count)]


def document(grammar: Grammar, rng: random.Random) -> dict:
    """Sample a text, with its factors, log p(x), log p(f | x) and H(f | x)."""
    text, factors, _ = grammar.sample(rng)
    scored = grammar.score(text)
    # Six digits are the same on every machine; the last bits of a logarithm may differ.
    return {
        "text": text,
        "label": factors.topic,
        "subject": factors.subject,
        "intent": factors.intent,
        "tone": factors.tone,
        "log_prob": round(scored.log_prob, 6),
        "log_posterior": round(math.log(scored.posterior[factors]), 6),
        "posterior_entropy": round(entropy_of(scored.posterior.values()), 6),
    }


def metrics_card(grammar: Grammar, corpus: dict[str, list[dict]], seed: int) -> dict:
    """Make the row of the true grammar in a table of models, measured on test."""
    test = corpus["test"]
    log_probs = [row["log_prob"] for row in test]
    equivocations = [row["posterior_entropy"] for row in test]
    units = sum(len(row["text"].split()) + 1 for row in test)
    deviation = statistics.stdev(equivocations) if len(test) > 1 else 0.0
    words = [word for row in corpus["train"] for word in row["text"].split()]
    return {
        "model": "grammar (exact)",
        "split": "test",
        "rec": None,
        "kl": None,
        "elbo": None,
        "iw": round(math.fsum(log_probs) / len(test), 6),
        "ppl_iw": round(math.exp(-math.fsum(log_probs) / units), 6),
        "ppl_elbo": None,
        "mi": round(grammar.factor_entropy - math.fsum(equivocations) / len(test), 6),
        "mi_se": round(deviation / math.sqrt(len(test)), 6),
        "mi_max": round(grammar.factor_entropy, 6),
        "au": None,
        "latent_dim": None,
        "entropy": {name: round(h, 6) for name, h in grammar.factor_entropies.items()},
        "derivation_entropy": round(grammar.root.entropy, 6),
        "seed": seed,
        "documents": {split: len(rows) for split, rows in corpus.items()},
        "train_words": len(words),
        "vocabulary": len(set(words)),
        "version": grammar.version,
    }


def prepare(out: Path, sizes: dict[str, int], seed: int, subjects: int = SUBJECTS) -> None:
    """Write the splits, then the card: a folder with a card has the whole corpus."""
    grammar = Grammar.load(subjects=subjects)
    card = read_card(out)
    if is_current(out, card, grammar.version, sizes, seed):
        print(f"{out}: already there, {summary(card)}")
        return
    corpus = {split: documents(grammar, split, n, seed) for split, n in sizes.items()}
    contents = {f"{split}.jsonl": as_lines(rows) for split, rows in corpus.items()}
    card = metrics_card(grammar, corpus, seed)
    card["subjects"] = subjects
    card["sha256"] = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items()}
    out.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        write_atomically(out / name, data)
    write_atomically(out / CARD, (json.dumps(card, indent=2) + "\n").encode())
    print(f"{out}: {summary(card)}")


def summary(card: dict) -> str:
    """Describe a corpus in one line."""
    sizes = "/".join(str(count) for count in card["documents"].values())
    return (
        f"{sizes} documents, {card['train_words']} words in train, "
        f"vocabulary {card['vocabulary']}, true perplexity {card['ppl_iw']:.3f}, "
        f"H(factors) {card['mi_max']:.3f} nats"
    )


def read_card(out: Path) -> dict:
    """Read the card of a corpus; empty if there is none."""
    try:
        card = json.loads((out / CARD).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return card if isinstance(card, dict) else {}


def is_current(out: Path, card: dict, version: str, sizes: dict[str, int], seed: int) -> bool:
    """Whether ``out`` contains exactly this corpus, down to the bytes of every split."""
    wanted = {"version": version, "documents": sizes, "seed": seed}
    if any(card.get(key) != value for key, value in wanted.items()):
        return False
    digests = card.get("sha256", {})
    files = [out / f"{split}.jsonl" for split in sizes]
    return all(
        path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == digests.get(path.name)
        for path in files
    )


def as_lines(rows: list[dict]) -> bytes:
    """Serialize documents as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file such that readers see the old content or the new, never a part."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        # mkstemp makes a private file, but a corpus should be readable like any other file.
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message."""
        self.exit(2, f"{self.prog}: {message}\n")


def at_least_one(text: str) -> int:
    """Parse a positive integer."""
    count = int(text) if text.isascii() and text.isdigit() else 0
    if count < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: must be a number of documents, at least 1")
    return count


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return the exit status, 2 with a one-line message for errors."""
    parser = OneLineParser(description=(__doc__ or "").partition("\n")[0])
    default = Path(__file__).resolve().parent / "corpus"
    parser.add_argument("--out", type=Path, default=default, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    for split, count in SPLITS.items():
        parser.add_argument(
            f"--{split}", type=at_least_one, default=count, help=f"documents (default {count})"
        )
    parser.add_argument(
        "--subjects",
        type=int,
        choices=range(1, SUBJECTS + 1),
        default=SUBJECTS,
        help=f"subjects of every topic; fewer make an easier corpus (default {SUBJECTS})",
    )
    options = parser.parse_args(arguments)
    sizes = {split: getattr(options, split) for split in SPLITS}
    try:
        prepare(options.out, sizes, options.seed, options.subjects)
    except OSError as error:
        print(f"{parser.prog}: {options.out}: {error.strerror or error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
