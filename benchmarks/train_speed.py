"""Tokens per second of a training step, compared with a plain PyTorch step on the same batch.

    python benchmarks/train_speed.py --size yahoo --precision bf16 --repeats 5 --json FILE
    python benchmarks/train_speed.py --size yahoo --device cuda --batch 32     # on a GPU

The plain step is nn.LSTM over [embedding; z], all logits, F.cross_entropy, clipping, and SGD, as in
the published code of this field. All steps are interleaved in one process, so that a noisy machine
treats them alike; quote the ratios of the medians. All sentences have the same length, except in
the row `random batches`: the plain step on sentences of any length, padded to the longest, as some
published code runs it. Its tokens are counted without the padding.

`peak share` is the arithmetic of a step (three times that of the forward pass) relative to what a
large matrix product in the same precision reaches in the same run. With --memory, the peak memory
of each row is measured in a separate process.

On a machine that is also used for something else, `--clock cpu --threads 1` counts the time that
the processor spent on this process instead of the time that passed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import (
    CLOCKS,
    Row,
    measure,
    peak_of,
    peak_rows,
    row,
    run_as_program,
    save,
    show,
    timed,
)
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.config.sections import OptimConfig
from textvae.text.model import TextVAE
from textvae.text.tokenizers import PAD
from textvae.training.devices import keep_freed_memory, peak_memory_mb
from textvae.training.optim import build_optimizer
from textvae.vae.batch import Batch
from textvae.vae.objectives import elbo


class Size(NamedTuple):
    """The dimensions of a model and of its sentences."""

    vocab: int
    embedding: int
    hidden: int
    layers: int
    length: int


SIZES = {
    "tiny": Size(500, 16, 16, 1, 8),
    "ptb": Size(10003, 256, 256, 1, 22),
    "yahoo": Size(20003, 512, 1024, 1, 80),
    "large": Size(32000, 1024, 1024, 2, 80),
}
LATENT, BATCH = 32, 32
MODELS = {"lm": (0, "none"), "vae": (LATENT, "input"), "skip_vae": (LATENT, "skip")}


class PlainVAE(nn.Module):
    """The model as published code writes it; with ``latent`` 0 it is a language model."""

    def __init__(self, size: Size, latent: int) -> None:
        super().__init__()
        self.latent = latent
        self.embed = nn.Embedding(size.vocab, size.embedding)
        self.lstm = nn.LSTM(size.embedding + latent, size.hidden, size.layers, batch_first=True)
        self.out = nn.Linear(size.hidden, size.vocab)
        if latent:
            self.encoder_embed = nn.Embedding(size.vocab, size.embedding)
            self.encoder = nn.LSTM(size.embedding, size.hidden, size.layers, batch_first=True)
            self.head = nn.Linear(size.hidden, 2 * latent)

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of token ids (B, T+1) in nats per sentence, a scalar."""
        if not self.latent:
            return self.reconstruct(x, None)
        mean, logvar = self.encode(x)
        kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(-1).mean()
        return self.reconstruct(x, self.draw(mean, logvar)) + kl

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the means and log variances (B, Z) of the posteriors."""
        _, (h, _) = self.encoder(self.encoder_embed(x[:, 1:]))
        mean, logvar = self.head(h[-1]).float().chunk(2, -1)
        return mean, logvar

    def draw(self, mean: Tensor, logvar: Tensor) -> Tensor:
        """Draw one z (B, Z) from every posterior."""
        return mean + (0.5 * logvar).exp() * torch.randn_like(mean)

    def reconstruct(self, x: Tensor, z: Tensor | None) -> Tensor:
        """Return -log p(x|z) in nats per sentence, a scalar."""
        inputs = F.dropout(self.embed(x[:, :-1]), 0.5, self.training)
        if z is not None:
            inputs = torch.cat([inputs, z[:, None].expand(-1, inputs.size(1), -1)], -1)
        logits = self.out(F.dropout(self.lstm(inputs)[0], 0.5, self.training)).float()
        targets = x[:, 1:].flatten()
        nll = F.cross_entropy(logits.flatten(0, 1), targets, ignore_index=PAD, reduction="sum")
        return nll / len(x)


def batch_of(size: Size, rows: int = BATCH) -> Batch:
    """Make random sentences of one length: without padding, every token counts."""
    x = torch.randint(4, size.vocab, (rows, size.length + 1))
    count = torch.full((rows,), size.length)
    return Batch(x, count, count, count, torch.arange(rows))


def random_batches(size: Size, rows: int = BATCH, count: int = 16) -> list[Tensor]:
    """Make random sentences of any length, padded to the longest, (B, T+1) for each batch.

    The lengths are distributed as in Penn Treebank (mean 22.1, standard deviation 10.1), with the
    mean of the given size: a gamma distribution.
    """
    gamma = torch.distributions.Gamma(4.8, 4.8 / size.length)
    batches = []
    for _ in range(count):
        lengths = gamma.sample((rows, 1)).round().clamp(2, 4 * size.length)
        x = torch.randint(4, size.vocab, (rows, int(lengths.max()) + 1))
        batches.append(x * (torch.arange(x.size(1)) <= lengths))  # PAD is 0
    return batches


PLAIN = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
RATES = {"sgd": 0.1, "adam": 0.0001}


def our_optimizer(name: str, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer as training does."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    return build_optimizer(OptimConfig(name=name, lr=RATES[name]), model, True if on_cpu else None)


def step_of(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loss: Callable[[], Tensor],
    precision: str,
) -> Callable[[], None]:
    """Return a function that makes one step: forward, backward, clipping, and the optimizer."""
    kind = next(model.parameters()).device.type

    def step() -> None:
        cast = torch.autocast(kind, torch.bfloat16) if precision == "bf16" else nullcontext()
        with cast:
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


class Step(NamedTuple):
    """A row of the table."""

    run: Callable[[], None]
    tokens: float  # per step, without padding


def steps(args: argparse.Namespace, models: list[str]) -> dict[str, Step]:
    """Return the rows for some models, named ``MODEL (plain | textvae) … PRECISION``."""
    batch, made = batch_of(SIZES[args.size], args.batch).to(args.device), {}
    for name in models:
        if not (args.only and "textvae" in args.only):
            made |= plain_steps(name, batch, args)
        if not (args.only and "plain" in args.only):
            ours = textvae_of(name, SIZES[args.size]).to(args.device)
            optimizer = our_optimizer(args.optimizer, ours)
            for kind in args.precision:
                run = step_of(ours, optimizer, lambda m=ours: elbo(m(batch)), kind)
                made[f"{name} textvae {kind}"] = Step(run, int(batch.lengths.sum()))
    return made


def plain_steps(name: str, batch: Batch, args: argparse.Namespace) -> dict[str, Step]:
    """Return the plain PyTorch step in both precisions, and on random batches with --padded."""
    size, made = SIZES[args.size], {}
    plain = PlainVAE(size, MODELS[name][0]).to(args.device)
    optimizer = PLAIN[args.optimizer](plain.parameters(), lr=RATES[args.optimizer])
    if args.padded:
        batches = random_batches(size, args.batch)
        mean = sum(int((x[:, 1:] != PAD).sum()) for x in batches) / len(batches)
        turns = cycle([x.to(args.device) for x in batches])
        run = step_of(plain, optimizer, lambda: plain(next(turns)), "fp32")
        made[f"{name} plain, random batches fp32"] = Step(run, mean)
    for kind in ("fp32", "bf16"):
        run = step_of(plain, optimizer, lambda: plain(batch.x), kind)
        made[f"{name} plain {kind}"] = Step(run, int(batch.lengths.sum()))
    return made


def textvae_of(name: str, size: Size) -> TextVAE:
    """Build the textvae model of a row."""
    return TextVAE(
        *(size.vocab, *MODELS[name], size.embedding, size.hidden, size.layers),
        decoder_hidden=size.hidden,
        decoder_layers=size.layers,
    )


def flops_per_token(name: str, size: Size, backward: bool = True, encoder: bool = True) -> float:
    """Count the operations in matrix products; the backward pass has twice those of the forward."""
    latent, _ = MODELS[name]
    inputs = [size.embedding] + [size.hidden] * (size.layers - 1)
    lstm = sum(8 * size.hidden * (i + size.hidden) for i in inputs)
    softmax = 2 * size.vocab * size.hidden  # the part of z is per sentence, not per token
    forward = softmax + lstm + (lstm if latent and encoder else 0)
    return forward * (3 if backward else 1)


def peak_memory(name: str, args: argparse.Namespace) -> int:
    """Return the peak memory of three steps of a row, in a separate process, in MiB."""
    words = [sys.executable, __file__, "--size", args.size, "--batch", str(args.batch)]
    words += ["--device", args.device, "--threads", str(args.threads), "--only", name]
    words += ["--padded"] if args.padded else []
    words += ["--precision", *args.precision, "--optimizer", args.optimizer]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def table(args: argparse.Namespace) -> list[Row]:
    """Measure all rows."""
    made = steps(args, args.models)
    runs = {name: step.run for name, step in made.items()} | peak_rows(args.device)
    on_gpu: dict[str, int] = {}
    seconds = measure(runs, args.repeats, CLOCKS[args.clock], memory=on_gpu)
    speed = {name: made[name].tokens / timed(seconds[name]).median for name in made}
    rows = []
    for name, step in made.items():
        model, precision = name.split()[0], name.split()[-1]
        work = speed[name] * flops_per_token(model, SIZES[args.size])
        padded = speed.get(f"{model} plain, random batches fp32")
        rows.append(
            row(
                name,
                step.tokens,
                timed(seconds[name]),
                ratio_to_plain=speed[name] / speed[f"{model} plain fp32"],
                ratio_to_autocast=speed[name] / speed[f"{model} plain bf16"],
                ratio_to_random=speed[name] / padded if padded else None,
                peak_share=work / peak_of(seconds, precision, args.device),
                peak_rss_mb=peak_memory(name, args) if args.memory else on_gpu.get(name),
            )
        )
    return rows


def measure_memory(name: str, args: argparse.Namespace) -> None:
    """Print the peak memory of a few steps of one row."""
    if "textvae" in name:
        keep_freed_memory()
    measure({name: steps(args, [name.split()[0]])[name].run}, 2)
    print(peak_memory_mb())


def parser() -> argparse.ArgumentParser:
    """Build the parser of the command line."""
    made = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    made.add_argument("--size", choices=SIZES, default="ptb")
    made.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    made.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["bf16"])
    made.add_argument("--optimizer", choices=PLAIN, default="sgd")
    made.add_argument("--batch", type=int, default=BATCH, help="sentences per batch")
    made.add_argument("--padded", action="store_true", help="add rows with random padded batches")
    made.add_argument("--repeats", type=int, default=5, help="measurements of each row")
    made.add_argument("--threads", type=int, default=torch.get_num_threads())
    made.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    made.add_argument("--clock", choices=CLOCKS, default="wall")
    made.add_argument("--memory", action="store_true", help="also measure peak memory")
    made.add_argument("--json", type=Path, help="save the rows to this file")
    made.add_argument("--only", help=argparse.SUPPRESS)
    return made


COLUMNS = {"name": "{}", "tok_s": "{:,.0f}", "ms": "{:,.0f}", "ms_min": "{:,.0f}"}
COLUMNS |= {"ms_max": "{:,.0f}", "ratio_to_plain": "{:.2f}", "ratio_to_autocast": "{:.2f}"}
COLUMNS |= {"ratio_to_random": "{:.2f}", "peak_share": "{:.0%}", "peak_rss_mb": "{:,.0f}"}


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and save; return the rows."""
    args = parser().parse_args(words)
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.only:
        measure_memory(args.only, args)
        return []
    keep_freed_memory()  # for all rows alike
    rows = table(args)
    title = f"{args.size}: batch {args.batch}, {args.device}, {args.threads} threads, {args.clock}"
    show(title, rows, COLUMNS)
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
