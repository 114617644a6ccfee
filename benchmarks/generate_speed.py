"""How fast sentences are generated: many together against one at a time.

    python benchmarks/generate_speed.py [--json FILE] [--large] [--device cuda] [--bf16]

The weights are random and every sentence has 20 words, as if its end came there: so all rows decode
the same number of words, and what is left of a batch of unequal sentences is not in the figures.
Each row is the best of several runs, taken in turns so that other load on the machine falls on all
of them alike.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from textvae.text.generate import generate
from textvae.text.lstm import LSTMDecoder
from textvae.text.prior import normal_rows
from textvae.text.tokenizers import BOS, EOS, PAD, UNK

WORDS = 20  # of a sentence


class Case(NamedTuple):
    """One way of decoding: ``sentences`` of them in calls of ``batch`` rows."""

    name: str
    batch: int
    sentences: int
    options: dict[str, Any]


def cases(batches: list[int]) -> list[Case]:
    """Sampling at every batch size, then the other ways at the largest."""
    largest = batches[-1]
    many = [Case(f"sample, batch {b}", b, max(b, 8), {"do_sample": True}) for b in batches]
    return [
        Case("plain loop, batch 1", 1, 8, {}),
        *many,
        Case(f"top-p 0.9, batch {largest}", largest, largest, {"do_sample": True, "top_p": 0.9}),
        Case(f"top-k 50, batch {largest}", largest, largest, {"do_sample": True, "top_k": 50}),
        Case(f"greedy, batch {largest}", largest, largest, {}),
        Case("5 beams, batch 32", 32, 32, {"num_beams": 5}),
    ]


def build(vocab: int, hidden: int, device: str) -> LSTMDecoder:
    """A skip decoder that ends no sentence by itself."""
    torch.manual_seed(0)
    decoder = LSTMDecoder(vocab, 32, "skip", hidden // 2, hidden).to(device)
    with torch.no_grad():
        decoder.output.bias[EOS] = -1e4
    return decoder.eval()


@torch.inference_mode()
def plain_loop(decoder: LSTMDecoder, z: Tensor) -> Tensor:
    """One sentence by the decoder's own step: what a first version of sampling looks like."""
    state, token, words = decoder.initial_state(z), torch.tensor([BOS], device=z.device), []
    for _ in range(WORDS):
        logits, state = decoder.step(token, state)
        logits[:, [PAD, UNK, BOS]] = -math.inf
        token = torch.multinomial(torch.softmax(logits, 1), 1)[0]
        words.append(token)
        if token.item() == EOS:
            break
    return torch.cat(words)[None]


def measure(decoder: LSTMDecoder, case: Case, device: str) -> tuple[float, int]:
    """Seconds for the case's sentences, and their tokens."""
    z = normal_rows(case.sentences, 32, seed=0).to(device)
    tokens, started = 0, time.perf_counter()
    for start, rows in zip(range(0, len(z), case.batch), z.split(case.batch), strict=True):
        if case.name.startswith("plain"):
            ids = plain_loop(decoder, rows)
        else:
            options = case.options | {"first_row": start, "max_new_tokens": WORDS}
            ids = generate(decoder, rows, **options)
        tokens += int((ids != PAD).sum())  # also waits for the device
    return time.perf_counter() - started, tokens


def compare(vocab: int, hidden: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for every case, the best of ``args.repeats`` runs each."""
    decoder, todo = build(vocab, hidden, args.device), cases([1, 8, 32, 256])
    best: dict[str, tuple[float, int]] = {}
    precise = torch.autocast(args.device, torch.bfloat16) if args.bf16 else nullcontext()
    with precise:
        for _ in range(args.repeats):
            for case in todo:
                taken = measure(decoder, case, args.device)
                best[case.name] = min(best.get(case.name, taken), taken)
    single = best["sample, batch 1"][0] / 8
    return [
        {
            "name": f"H {hidden}, V {vocab}: {case.name}",
            "sentences_s": case.sentences / best[case.name][0],
            "tok_s": best[case.name][1] / best[case.name][0],
            "ratio_to_single": single * case.sentences / best[case.name][0],
        }
        for case in todo
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="save the rows here")
    parser.add_argument("--large", action="store_true", help="also H 1024, V 20000")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--bf16", action="store_true", help="matrix products in bf16")
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    sizes = [(10000, 256), (20000, 1024)][: 2 if args.large else 1]
    rows = [row for vocab, hidden in sizes for row in compare(vocab, hidden, args)]
    print(f"{'':44}{'sentences/s':>12}{'tokens/s':>12}{'x single':>10}")
    for row in rows:
        figures = f"{row['sentences_s']:12.1f}{row['tok_s']:12.0f}{row['ratio_to_single']:10.1f}"
        print(f"{row['name']:44}{figures}")
    if args.json:
        args.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
