"""The cost of a semi-amortized training step, compared with a VAE step and with the reference.

    python benchmarks/refine_speed.py --size yahoo --steps 20 --json FILE

The reference row is the algorithm of sa-vae (Kim et al. 2018) on the plain PyTorch model of
``train_speed.py``, with the loss summed in one piece: every inner step computes the gradients of
all decoder weights and keeps them, and every Hessian-vector product is the difference between those
and the gradients at a point 1e-5 away. All rows are interleaved on one batch in one process.
``vae_steps`` is the cost of a row in VAE steps of textvae in the same precision.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("GOMP_SPINCOUNT", "1000")  # as the command line does
sys.path.insert(0, str(Path(__file__).parent))

import torch
from measuring import CLOCKS, Row, measure, parse, row, run_as_program, save, show, timed
from torch import Tensor
from torch.nn import functional as F
from train_speed import BATCH, LATENT, SIZES, PlainVAE, Size, batch_of, our_optimizer, step_of

from textvae.config.inference import AMORTIZED, Inference
from textvae.text.model import TextVAE
from textvae.vae.batch import Batch
from textvae.vae.objectives import elbo

REFERENCE = "reference sa-vae fp32"
VARIANTS = {
    "none": {"decoder_terms": "none"},
    "sample": {"decoder_terms": "sample"},
    "sample, 1/4 of the softmax": {"decoder_terms": "sample", "token_share": 0.25},
    "none, 1/4 of the softmax": {"decoder_terms": "none", "token_share": 0.25},
    "all": {"decoder_terms": "all"},
}


class ReferenceSAVAE(PlainVAE):
    """The training step of sa-vae; as there, gradients go directly into ``.grad``."""

    step_size, momentum, move = 1.0, 0.5, 1e-5

    def encode(self, x: Tensor) -> Tensor:
        """Return mean and log variance, (2, B, Z), for token ids (B, T+1)."""
        _, (h, _) = self.encoder(self.encoder_embed(x[:, 1:]))
        return torch.stack(self.head(h[-1]).chunk(2, -1))

    def elbo_loss(self, point: Tensor, x: Tensor, eps: Tensor, seed: int) -> Tensor:
        """Return the mean of -log p(x|z) + KL over the batch in nats.

        Args:
            point: Mean and log variance, (2, B, Z).
            x: Token ids, (B, T+1).
            eps: The noise of z, (B, Z).
            seed: Determines the dropout.
        """
        torch.manual_seed(seed)
        mean, logvar = point
        z = mean + torch.exp(0.5 * logvar) * eps
        inputs = F.dropout(self.embed(x[:, :-1]), 0.5)
        inputs = torch.cat([inputs, z[:, None].expand(-1, inputs.size(1), -1)], -1)
        logits = self.out(F.dropout(self.lstm(inputs)[0], 0.5))
        nll = F.cross_entropy(logits.flatten(0, 1), x[:, 1:].flatten(), reduction="sum")
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).sum()
        return (nll + kl) / len(x)

    def all_gradients(self, point: Tensor, *how: object) -> tuple[Tensor, list[Tensor]]:
        """Return the gradients of the loss for the point and for every decoder weight.

        Args:
            point: Mean and log variance, (2, B, Z).
            how: The other arguments of ``elbo_loss``.
        """
        point = point.detach().requires_grad_()
        weights = [*self.embed.parameters(), *self.lstm.parameters(), *self.out.parameters()]
        found = torch.autograd.grad(self.elbo_loss(point, *how), [point, *weights])
        return found[0], list(found[1:])

    def backward(self, x: Tensor, steps: int) -> None:
        """Run the forward pass and K steps, and compute all gradients."""
        start = self.encode(x)
        point, velocity, kept = start.detach(), torch.zeros_like(start), []
        for seed in range(steps):
            how = (x, torch.randn_like(point[0]), seed)
            d_point, d_weights = self.all_gradients(point, *how)
            kept.append((point, how, d_point, d_weights))
            velocity = self.momentum * velocity - d_point
            point = point + self.step_size * velocity
        end = point.detach().requires_grad_()
        self.elbo_loss(end, x, torch.randn_like(end[0]), steps).backward()
        a, u = end.grad, torch.zeros_like(end)
        weights = [*self.embed.parameters(), *self.lstm.parameters(), *self.out.parameters()]
        for point, how, d_point, d_weights in reversed(kept):
            u = u + self.step_size * a
            far, d_far = self.all_gradients(point + self.move * u / u.norm(), *how)
            scale = u.norm() / self.move
            a = a - (far - d_point) * scale
            for weight, moved, there in zip(weights, d_far, d_weights, strict=True):
                weight.grad -= (moved - there) * scale
            u = self.momentum * u
        start.backward(a)


def reference_step(size: Size, batch: Batch, steps: int) -> Callable[[], None]:
    """Return a function that makes one training step of the reference."""
    model = ReferenceSAVAE(size, LATENT).to(batch.x.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step() -> None:
        model.backward(batch.x, steps)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def our_steps(size: Size, batch: Batch, args: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Return the VAE step and the SA-VAE steps of textvae in every requested precision."""
    rows = {}
    for precision in args.precision:
        torch.manual_seed(0)
        model = TextVAE(
            *(size.vocab, LATENT, args.injection, size.embedding, size.hidden, size.layers),
            decoder_hidden=size.hidden,
            decoder_layers=size.layers,
        ).to(args.device)
        refined = Inference("semi_amortized", steps=args.steps)
        inferences = {f"vae {precision}": AMORTIZED}
        for name in args.variants:
            inferences[f"sa-vae {precision}, {name}"] = replace(refined, **VARIANTS[name])
        optimizer = our_optimizer("sgd", model)
        for name, inference in inferences.items():
            rows[name] = step_of(
                model,
                optimizer,
                lambda m=model, i=inference: elbo(m(batch, inference=i)),
                precision,
            )
    return rows


def table(args: argparse.Namespace) -> list[Row]:
    """Measure all rows."""
    size = SIZES[args.size]
    batch = batch_of(size).to(args.device)
    runs = our_steps(size, batch, args)
    if args.reference:
        runs[REFERENCE] = reference_step(size, batch, args.steps)
    seconds = {
        name: timed(times)
        for name, times in measure(runs, args.repeats, CLOCKS[args.clock]).items()
    }
    reference = seconds[REFERENCE].median if args.reference else None
    rows = []
    for name, spent in seconds.items():
        precision = name.partition(",")[0].split()[-1]
        vae = seconds.get(f"vae {precision}")
        gain = reference / spent.median if reference else None
        rows.append(
            row(
                name,
                BATCH * size.length,
                spent,
                ratio_to_plain=gain,  # the reference is the plain PyTorch step here
                ratio_to_reference=gain,
                vae_steps=spent.median / vae.median if vae and name != REFERENCE else None,
            )
        )
    return rows


COLUMNS = {"name": "{}", "tok_s": "{:,.1f}", "ms": "{:,.0f}", "ms_min": "{:,.0f}"}
COLUMNS |= {"ms_max": "{:,.0f}", "vae_steps": "{:.1f}", "ratio_to_reference": "{:.1f}"}


def main(words: Sequence[str] | None = None) -> list[Row]:
    """Measure, print, and save; return the rows."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="ptb")
    parser.add_argument("--steps", type=int, default=20, help="refinement steps")
    parser.add_argument("--injection", choices=["input", "skip"], default="input")
    parser.add_argument("--precision", nargs="+", choices=["fp32", "bf16"], default=["bf16"])
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--repeats", type=int, default=3, help="measurements of each row")
    parser.add_argument("--no-reference", dest="reference", action="store_false")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    args = parse(parser, words)
    rows = table(args)
    title = (
        f"{args.size}: K {args.steps}, batch {BATCH}, length {SIZES[args.size].length}, "
        f"{args.injection}, {args.device}, {args.threads} threads, {args.clock}"
    )
    show(title, rows, COLUMNS)
    save(rows, args.json)
    return rows


if __name__ == "__main__":
    run_as_program(main)
