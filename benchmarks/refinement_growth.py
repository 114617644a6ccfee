"""Do gradients explode on their way back through the refinement steps of a trained model?

    python benchmarks/refinement_growth.py RUN --lr 0.1 0.3 1 --batches 4 --json FILE

RUN is the folder of a text model whose data is still in place. On its first training batches, in
training mode, this measures the norm of the gradient of each sentence's loss with respect to q(z|x)
before the steps, relative to the norm after them, for every step size and way to compute
Hessian-vector products. Values below 1 mean that the steps approach an optimum. For the few
sentences far above it there is `inference.max_growth`, which is disabled here.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from measuring import run_as_program
from torch import Tensor

from textvae.builders.data import build_buckets
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.evaluation.open_run import OpenRun, open_run
from textvae.runs.files import write_json
from textvae.vae.batch import Batch
from textvae.vae.batching import BatchLoader
from textvae.vae.inference import infer
from textvae.vae.posteriors import kl, rebuild
from textvae.vae.vae import VAE

SHARES = (0.5, 0.9, 0.99, 1.0)  # the quantiles to report


def growth(model: VAE, batch: Batch, options: Inference, seed: int) -> Tensor:
    """Return how many times longer the steps make the gradient of each sentence.

    Args:
        model: The model.
        batch: B sentences.
        options: The refinement steps.
        seed: Seed of the noise and the dropout.

    Returns:
        (B,).
    """
    torch.manual_seed(seed)
    found: Any = model.posterior(batch)
    start = rebuild(found, [part.detach().requires_grad_() for part in found])
    refined = SimpleNamespace(
        posterior=lambda _: start,
        log_likelihood=model.log_likelihood,
        decoder=model.decoder,
        prior=model.prior,
    )  # a model whose encoder gives ``start``
    end: Any = infer(refined, batch, options).posterior
    log_px = model.log_likelihood(batch, end.rsample())[0]
    loss = (kl(end, model.prior).sum(-1) - log_px).mean()
    gradients = torch.autograd.grad(loss, [*end, *start])
    after, before = gradients[: len(end)], gradients[len(end) :]
    return _norm(before) / _norm(after)


def _norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the norm of each example over all tensors, (B,)."""
    return torch.cat([part.flatten(1) for part in gradients], dim=1).norm(dim=1)


def batches_of(run: OpenRun, count: int) -> list[Batch]:
    """Return the first training batches of a run."""
    train = run.split("train")
    return list(islice(BatchLoader(train, build_buckets(run.config, train)), count))


def table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure one row for every step size and way to compute the products.

    Raises:
        UserError: It is not a run of a text model with a latent variable, or its data has changed.
    """
    run, rows = open_run(args.run, device=args.device), []
    if run.config.data.kind != "text" or not run.config.model.latent_dim:
        raise UserError(f"{args.run} is not a text model with a latent variable")
    batches = [batch.to(args.device) for batch in batches_of(run, args.batches)]
    model, inference = run.model.train(), run.config.inference
    steps = replace(inference, method="semi_amortized", encoder="unrolled", max_growth=0.0)
    for hvp in args.hvp:
        for lr in args.lr or [inference.lr]:
            options = replace(steps, lr=lr, hvp=hvp)
            with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
                found = [growth(model, batch, options, i) for i, batch in enumerate(batches)]
            rows.append(row_of(lr, hvp, torch.cat(found)))
    return rows


def row_of(lr: float, hvp: str, grown: Tensor) -> dict[str, Any]:
    """Return the quantiles over the sentences.

    Args:
        lr: The step size.
        hvp: How the Hessian-vector products were computed.
        grown: What ``growth`` returned for all sentences, (N,).
    """
    quantiles = torch.quantile(grown, torch.tensor(SHARES, device=grown.device)).tolist()
    names = [f"q{100 * share:g}" for share in SHARES]
    return {
        "lr": lr,
        "hvp": hvp,
        "sentences": len(grown),
        **dict(zip(names, quantiles, strict=True)),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="a run trained with `inference.method=semi_amortized`")
    add("--lr", type=float, nargs="+", help="step sizes; by default that of the run")
    add("--hvp", nargs="+", choices=["difference", "exact"], default=["difference"])
    add("--batches", type=int, default=4, help="training batches to measure")
    add("--precision", choices=["bf16", "fp32"], default="bf16")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="cpu")
    add("--json", type=Path, help="save the rows to this file")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print, and save."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    rows = table(args)
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    run_as_program(main)
