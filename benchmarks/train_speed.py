"""Tokens per second of a training step, beside a plain PyTorch step on the same batch.

    python benchmarks/train_speed.py --size yahoo --precision bf16 --repeats 5 --json FILE

The plain step is nn.LSTM over [embedding; z], full logits, F.cross_entropy, clipping and SGD: what
the field's code does. All steps are interleaved in one process, so that a noisy machine treats them
alike; the medians' ratios are what to quote. `peak share` is the step's arithmetic (three times the
forward's) over what a large matrix product of the same precision reaches here, measured in the same
run. Memory is the process's peak in a process of its own for each row (--memory).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from textvae.core.batch import Batch
from textvae.core.objectives import objective
from textvae.memory import keep_freed_memory, peak_memory_mb
from textvae.text.model import TextVAE


class Size(NamedTuple):
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
    """The step as the field writes it; ``latent`` 0 makes a language model."""

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
        inputs, kl = F.dropout(self.embed(x[:, :-1]), 0.5), torch.zeros(())
        if self.latent:
            _, (h, _) = self.encoder(self.encoder_embed(x[:, 1:]))
            mean, logvar = self.head(h[-1]).float().chunk(2, -1)
            z = mean + (0.5 * logvar).exp() * torch.randn_like(mean)
            kl = 0.5 * (mean**2 + logvar.exp() - 1 - logvar).sum(-1).mean()
            inputs = torch.cat([inputs, z[:, None].expand(-1, inputs.size(1), -1)], -1)
        logits = self.out(F.dropout(self.lstm(inputs)[0], 0.5)).float()
        return (
            F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum") / len(x) + kl
        )


def batch_of(size: Size) -> Batch:
    """Sentences of one length: no padding, so that every token counts."""
    x = torch.randint(4, size.vocab, (BATCH, size.length + 1))
    count = torch.full((BATCH,), size.length)
    return Batch(x, count, count, count, torch.arange(BATCH))


def step_of(model: nn.Module, loss: Callable[[], Tensor], precision: str) -> Callable[[], None]:
    """Forward, backward, clipping and SGD."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        cast = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
        with cast:
            value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def steps(size: Size, precision: str, models: list[str]) -> dict[str, Callable[[], None]]:
    """The rows of the table for some models."""
    batch, made = batch_of(size), {}
    for name in models:
        latent, injection = MODELS[name]
        plain = PlainVAE(size, latent)
        for kind in ("fp32", "bf16"):
            made[f"{name} plain {kind}"] = step_of(plain, lambda m=plain: m(batch.x), kind)
        ours = TextVAE(
            size.vocab,
            latent,
            injection,
            size.embedding,
            size.hidden,
            size.layers,
            decoder_hidden=size.hidden,
            decoder_layers=size.layers,
        )
        made[f"{name} textvae {precision}"] = step_of(
            ours, lambda m=ours: objective(m(batch)), precision
        )
    return made


def product_peak(precision: str) -> float:
    """The most multiply-adds per second, times two, of a large matrix product here."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a @ b.t()
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times)


def flops_per_token(name: str, size: Size) -> float:
    """Of forward and backward: three times the forward's matrix products."""
    latent, injection = MODELS[name]
    inputs = [size.embedding] + [size.hidden] * (size.layers - 1)
    lstm = sum(8 * size.hidden * (i + size.hidden) for i in inputs)
    first = 8 * size.hidden * latent
    softmax = 2 * size.vocab * (size.hidden + (latent if injection == "skip" else 0))
    return 3 * (softmax + lstm + first + (lstm if latent else 0))


def measure(rows: dict[str, Callable[[], None]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, interleaved, after one warm-up."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for repeat in range(repeats + 1):
        for name, step in rows.items():
            started = time.perf_counter()
            step()
            if repeat:
                times[name].append(time.perf_counter() - started)
    return times


def peak_memory(name: str, args: argparse.Namespace) -> int:
    """Of three steps in a process of their own, in MiB."""
    words = [sys.executable, __file__, "--size", args.size, "--precision", args.precision]
    done = subprocess.run([*words, "--only", name], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


def table(args: argparse.Namespace) -> list[dict[str, float | str | None]]:
    """The rows to print and to save."""
    size = SIZES[args.size]
    times = measure(steps(size, args.precision, list(MODELS)), args.repeats)
    median = {name: statistics.median(seconds) for name, seconds in times.items()}
    peaks = {kind: product_peak(kind) for kind in ("fp32", "bf16")}
    rows = []
    for name, seconds in median.items():
        model, kind = name.split()[0], name.split()[-1]
        speed = BATCH * size.length / seconds
        rows.append(
            {
                "name": name,
                "tok_s": speed,
                "ms": 1e3 * seconds,
                "ms_min": 1e3 * min(times[name]),
                "ms_max": 1e3 * max(times[name]),
                "ratio_to_plain": median[f"{model} plain fp32"] / seconds,
                "ratio_to_autocast": median[f"{model} plain bf16"] / seconds,
                "peak_share": speed * flops_per_token(model, size) / peaks[kind],
                "peak_rss_mb": peak_memory(name, args) if args.memory else None,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="ptb")
    parser.add_argument("--precision", choices=["fp32", "bf16"], default="bf16")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory", action="store_true", help="also peak memory, a process a row")
    parser.add_argument("--json", help="save the rows there")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.only:
        if "textvae" in args.only:
            keep_freed_memory()
        made = steps(SIZES[args.size], args.precision, [args.only.split()[0]])
        measure({args.only: made[args.only]}, 3)
        print(peak_memory_mb())
        return
    keep_freed_memory()  # for all alike
    rows = table(args)
    print(f"{args.size}: batch {BATCH}, length {SIZES[args.size].length}, {args.threads} threads")
    print("| step | tok/s | ms (range) | x plain fp32 | x plain bf16 | peak share | peak MiB |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for row in rows:
        print(
            f"| {row['name']} | {row['tok_s']:,.0f} | {row['ms']:.0f} ({row['ms_min']:.0f}–"
            f"{row['ms_max']:.0f}) | {row['ratio_to_plain']:.2f} | {row['ratio_to_autocast']:.2f} "
            f"| {row['peak_share']:.0%} | {row['peak_rss_mb'] or '–'} |"
        )
    if args.json:
        with open(args.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
