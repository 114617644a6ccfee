"""How fast sentences are generated: in batches, compared with one at a time.

    python benchmarks/generate_speed.py --size ptb --json FILE

The plain loop decodes one sentence at a time with the layers that are used in training, as a first
version of sampling does. The weights are random and every sentence has 20 words, so that all rows
decode the same number of words; what changes when the sentences of a batch end at different words
is not measured. All rows are measured in turn.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import (
    CLOCKS,
    Row,
    measure,
    parse,
    peak_of,
    peak_rows,
    row,
    run_as_program,
    save,
    show,
    timed,
)
from torch import Tensor
from torch.nn import functional as F
from train_speed import LATENT, SIZES, Size, flops_per_token

from textvae.text.decode.generate import generate
from textvae.text.nn.decoder import LSTMDecoder
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.noise import Purpose, RowNoise

WORDS = 20  # per sentence
FEW = 4  # sentences in a measurement of the plain loop
PLAIN = "plain loop, one at a time"


class Case(NamedTuple):
    """One way to decode ``sentences`` sentences, ``batch`` of them per call."""

    name: str
    batch: int
    sentences: int
    precision: str
    options: dict[str, Any]


def cases(batches: list[int], precision: str) -> list[Case]:
    """Return sampling at every batch size, then the other ways at the largest."""
    most = batches[-1]
    ways = {"greedy": {}, "top-k 50": {"do_sample": True, "top_k": 50}}
    ways |= {"top-p 0.9": {"do_sample": True, "top_p": 0.9}, "5 beams": {"num_beams": 5}}
    return [
        *[Case(f"{PLAIN}, {kind}", 1, FEW, kind, {}) for kind in ("fp32", "bf16")],
        *[
            Case(f"sample, batch {b}, {precision}", b, max(b, FEW), precision, {"do_sample": True})
            for b in batches
        ],
        *[
            Case(f"{way}, batch {most}, {precision}", most, most, precision, options)
            for way, options in ways.items()
        ],
    ]


def build(size: Size, device: str) -> LSTMDecoder:
    """Build a skip decoder that never ends a sentence."""
    torch.manual_seed(0)
    shape = (size.embedding, size.hidden, size.layers)
    decoder = LSTMDecoder(size.vocab, LATENT, "skip", *shape).to(device)
    with torch.no_grad():
        decoder.output.bias[EOS] = -1e4
    return decoder.eval()


@torch.inference_mode()
def plain_loop(decoder: LSTMDecoder, z: Tensor) -> None:
    """Decode one sentence after another, word by word, for z (N, Z)."""
    for one in z.split(1):
        states, token = decoder.initial_state(one), torch.tensor([BOS], device=z.device)
        for _ in range(WORDS):
            x = decoder.embedding(token[None])
            for i, layer in enumerate(decoder.layers):
                x, states[i] = layer(x, states[i], one)
            logits = F.linear(x[0], decoder.output.weight).float() + decoder.output_bias(one)
            logits[:, [PAD, UNK, BOS]] = -math.inf
            token = torch.multinomial(torch.softmax(logits, 1), 1)[0]
            if token.item() == EOS:
                break


def run_of(decoder: LSTMDecoder, case: Case, device: str) -> Callable[[], None]:
    """Return a function that decodes the sentences of a case."""
    noise = RowNoise(0, Purpose.LATENT, range(case.sentences))
    z = noise.normal(1, LATENT)[0].to(device)

    def run() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=case.precision == "bf16"):
            if case.name.startswith(PLAIN):
                return plain_loop(decoder, z)
            for first in range(0, len(z), case.batch):
                some = z[first : first + case.batch]
                generate(decoder, some, first_row=first, max_new_tokens=WORDS, **case.options)

    return run


def table(args: argparse.Namespace) -> list[Row]:
    """Measure all cases."""
    size = SIZES[args.size]
    decoder, todo = build(size, args.device), cases(args.batches, args.precision)
    runs = {case.name: run_of(decoder, case, args.device) for case in todo}
    runs |= peak_rows(args.device)
    seconds = measure(runs, args.repeats, CLOCKS[args.clock])
    speed = {c.name: c.sentences * WORDS / timed(seconds[c.name]).median for c in todo}
    forward = flops_per_token("skip_vae", size, backward=False, encoder=False)
    return [
        row(
            case.name,
            case.sentences * WORDS,
            timed(seconds[case.name]),
            sentences_s=speed[case.name] / WORDS,
            ratio_to_plain=speed[case.name] / speed[f"{PLAIN}, fp32"],
            ratio_to_autocast=speed[case.name] / speed[f"{PLAIN}, bf16"],
            peak_share=speed[case.name] * forward / peak_of(seconds, case.precision, args.device),
        )
        for case in todo
    ]


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and save; return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="ptb")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32, 256])
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each row")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parse(parser, words)
    rows = table(args)
    columns = {"name": "{}", "sentences_s": "{:,.1f}", "tok_s": "{:,.0f}"}
    columns |= {"ratio_to_plain": "{:.1f}", "ratio_to_autocast": "{:.1f}", "peak_share": "{:.0%}"}
    title = f"{args.size}: {args.device}, {args.threads} threads, {args.clock} time"
    show(title, rows, columns | {"peak_rss_mb": "{:,.0f}"})
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
