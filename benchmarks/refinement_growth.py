"""Do gradients explode on their way back through the refinement steps of a trained model?

    python benchmarks/refinement_growth.py RUN --lr 0.1 0.3 1 --batches 4 --json FILE

RUN is the folder of a text model whose corpus is where it was. For its first training batches,
in training mode: how many times as long the gradient of a sentence's loss with respect to q(z|x) is
before the steps as after them, for every step size and way of forming Hessian-vector products.
Below 1 the steps near an optimum; the few sentences far above it are what `inference.max_growth` is
for, which is off here.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from textvae.build import build_buckets, build_data, load_model
from textvae.config.experiment import Config
from textvae.config.inference import Inference
from textvae.errors import UserError
from textvae.runs.files import write_json
from textvae.vae.batch import Batch
from textvae.vae.batching import BatchLoader
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.refinement import Likelihood, Unrolled
from textvae.vae.vae import VAE

SHARES = (0.5, 0.9, 0.99, 1.0)  # of the sentences that a quantile is not below


def growth(model: VAE, batch: Batch, options: Inference, seed: int) -> Tensor:
    """(B,) how many times the steps lengthen each sentence's gradient on its way back."""
    torch.manual_seed(seed)
    start = torch.stack(tuple(model.posterior(batch))).detach().requires_grad_()  # (2, B, Z)
    noise = torch.randn(options.steps, *start.shape[1:], device=start.device)
    log_prob = partial(model.decoder.log_prob, batch, share=options.token_share)
    likelihood = Likelihood(log_prob, model.decoder, options.steps)
    end, _ = Unrolled.apply(start, likelihood, noise, options, 1.0, *likelihood.weights)
    q = DiagGaussian(*end)
    loss = (q.kl_to_prior().sum(-1) - model.log_likelihood(batch, q.rsample())[0]).mean()
    after, before = torch.autograd.grad(loss, [end, start])
    return before.norm(dim=(0, 2)) / after.norm(dim=(0, 2))


def batches_of(config: Config, run: Path, count: int) -> list[Batch]:
    """The first training batches of a run."""
    train = build_data(config, run)["train"]
    return list(islice(BatchLoader(train, build_buckets(config, train)), count))


def table(args: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for every step size and way of forming the products."""
    config, rows = Config.load(args.run / "config.yaml"), []
    if config.data.kind != "text" or not config.model.latent_dim:
        raise UserError(f"{args.run} is no text model with a latent variable")
    batches = [batch.to(args.device) for batch in batches_of(config, args.run, args.batches)]
    model = load_model(str(args.run)).to(args.device).train()
    for hvp in args.hvp:
        for lr in args.lr or [config.inference.lr]:
            options = replace(config.inference, lr=lr, hvp=hvp, max_growth=0.0)
            with torch.autocast(args.device, torch.bfloat16, enabled=args.precision == "bf16"):
                found = [growth(model, batch, options, i) for i, batch in enumerate(batches)]
            rows.append(row_of(lr, hvp, torch.cat(found)))
    return rows


def row_of(lr: float, hvp: str, grown: Tensor) -> dict[str, Any]:
    """Quantiles over the sentences."""
    quantiles = torch.quantile(grown, torch.tensor(SHARES, device=grown.device)).tolist()
    names = [f"q{100 * share:g}" for share in SHARES]
    return {
        "lr": lr,
        "hvp": hvp,
        "sentences": len(grown),
        **dict(zip(names, quantiles, strict=True)),
    }


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("run", type=Path, help="a run trained by `inference.method=semi_amortised`")
    add("--lr", type=float, nargs="+", help="step sizes; by default the run's")
    add("--hvp", nargs="+", choices=["difference", "exact"], default=["difference"])
    add("--batches", type=int, default=4)
    add("--precision", choices=["bf16", "fp32"], default="bf16")
    add("--threads", type=int, default=torch.get_num_threads())
    add("--device", default="cpu")
    add("--json", type=Path, help="save the rows here")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    torch.set_num_threads(args.threads)
    try:
        rows = table(args)
    except UserError as error:
        print(f"refinement_growth: {error}", file=sys.stderr)
        sys.exit(2)
    for row in rows:
        print(
            "  ".join(
                f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()
            )
        )
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()
