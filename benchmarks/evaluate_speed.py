"""The cost of an evaluation: the importance-weighted bound in one call, and mutual information.

    python benchmarks/evaluate_speed.py --size ptb --sentences 1000 --samples 500 --json FILE

The bound of all sentences with all samples is one call, the same that ``textvae evaluate`` makes.
It chooses how many samples to decode at once from the length of the sentences, so that memory stays
bounded. The plain row is the plain PyTorch model with one sample of a batch after another, timed on
a few of them. Tokens are counted once per sample.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
from train_speed import LATENT, SIZES, PlainVAE, Size, flops_per_token, textvae_of

from textvae.evaluation.per_example import collect
from textvae.vae.batch import Batch
from textvae.vae.estimators import mutual_information
from textvae.vae.posteriors import DiagGaussian, kl
from textvae.vae.priors import StandardNormal

BATCH = 64  # sentences per batch, as in `textvae evaluate`
PLAIN_DRAWS = 4  # samples of one batch, for the plain row
EXAMPLES = "sizes of the datasets that mutual information is measured on"


def batches_of(size: Size, sentences: int) -> list[Batch]:
    """Make random sentences of one length."""
    made = []
    for start in range(0, sentences, BATCH):
        rows = min(BATCH, sentences - start)
        x = torch.randint(4, size.vocab, (rows, size.length + 1))
        count = torch.full((rows,), size.length)
        made.append(Batch(x, count, count, count, torch.arange(start, start + rows)))
    return made


def bound(size: Size, batches: list[Batch], args: argparse.Namespace) -> Callable[[], None]:
    """Return a function that computes the importance-weighted bound of every sentence."""
    model = textvae_of("skip_vae", size).to(args.device).eval()

    def run() -> None:
        with torch.no_grad(), autocast(args):
            collect(model, batches, args.samples, seed=0)

    return run


def plain(size: Size, batch: Batch, args: argparse.Namespace) -> Callable[[], None]:
    """Return a function that encodes a batch and scores a few samples, one after another."""
    model, x = PlainVAE(size, LATENT).to(args.device).eval(), batch.x.to(args.device)

    def run() -> None:
        with torch.no_grad(), autocast(args):
            posterior = model.encode(x)
            for _ in range(PLAIN_DRAWS):
                model.reconstruct(x, model.draw(*posterior))

    return run


def autocast(args: argparse.Namespace) -> torch.autocast:
    """Return the context of the requested precision."""
    return torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16")


def table(args: argparse.Namespace) -> list[Row]:
    """Measure the bound and the plain model, then mutual information."""
    size = SIZES[args.size]
    batches = batches_of(size, args.sentences)
    name = f"IW bound, {args.sentences} sentences, {args.samples} samples, {args.precision}"
    few = len(batches[0])
    usual = f"plain, {few} sentences, {PLAIN_DRAWS} draws one by one, {args.precision}"
    tokens = {
        usual: few * PLAIN_DRAWS * size.length,
        name: args.sentences * args.samples * size.length,
    }
    clock, peaks = CLOCKS[args.clock], peak_rows(args.device)
    seconds = measure({usual: plain(size, batches[0], args)} | peaks, 3, clock)
    seconds |= measure({name: bound(size, batches, args)}, args.repeats, clock, warm_up=False)
    speed = {key: tokens[key] / timed(seconds[key]).median for key in tokens}
    forward = flops_per_token("skip_vae", size, backward=False, encoder=False)
    peak = peak_of(seconds, args.precision, args.device)
    return [
        row(
            key,
            tokens[key],
            timed(seconds[key]),
            ratio_to_plain=speed[key] / speed[usual],
            peak_share=speed[key] * forward / peak,
        )
        for key in tokens
    ] + [mutual_information_row(count, args) for count in args.examples]


def mutual_information_row(count: int, args: argparse.Namespace) -> Row:
    """Measure mutual information, KL included, with one sample of each of N posteriors.

    The row counts examples as tokens.
    """
    q = DiagGaussian(torch.randn(count, LATENT), torch.full((count, LATENT), -1.0))
    name = f"mutual information, {count} examples"
    prior = StandardNormal(LATENT)
    run = {name: lambda: mutual_information(q, kl(q, prior))}
    seconds = measure(run, 3, CLOCKS[args.clock])
    return row(name, count, timed(seconds[name]))


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and save; return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="ptb")
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--samples", type=int, default=500, help="samples per sentence")
    parser.add_argument("--examples", type=int, nargs="*", default=[1000, 10000], help=EXAMPLES)
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--repeats", type=int, default=1, help="measurements of the bound")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parse(parser, words)
    torch.manual_seed(0)
    rows = table(args)
    columns = {"name": "{}", "tok_s": "{:,.0f}", "ms": "{:,.0f}", "ratio_to_plain": "{:.2f}"}
    title = f"{args.size}: {args.device}, {args.threads} threads, {args.clock} time"
    show(title, rows, columns | {"peak_share": "{:.0%}", "peak_rss_mb": "{:,.0f}"})
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
