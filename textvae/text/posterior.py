"""From texts at hand to their posteriors q(z|x), in the order given."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from textvae.config.inference import Inference
from textvae.text.tokenizers import BOS, EOS, PAD, Tokenizer
from textvae.vae.batch import Batch
from textvae.vae.inference import infer
from textvae.vae.noise import step_rows
from textvae.vae.posteriors import DiagGaussian
from textvae.vae.vae import VAE

log = logging.getLogger(__name__)


def token_ids(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> list[Tensor]:
    """Each text as ``<s> w1 … wn </s>``, cut to at most ``max_length`` words."""
    ids = [tokenizer.encode(text) for text in texts]
    if cut := sum(len(sentence) > max_length for sentence in ids):
        log.warning("%d of %d texts cut to %d tokens", cut, len(ids), max_length)
    return [torch.tensor([BOS, *sentence[:max_length], EOS]) for sentence in ids]


@torch.no_grad()
def posterior(
    model: VAE, sentences: Sequence[Tensor], inference: Inference, seed: int, batch_size: int
) -> DiagGaussian:
    """q(z|x) of every sentence (T+1,): mean and logvar (N, Z)."""
    steps = 0 if inference.method == "amortised" else inference.steps
    mean = torch.empty(len(sentences), model.latent_dim, device=model.device)
    logvar = torch.empty_like(mean)
    order = sorted(range(len(sentences)), key=lambda row: len(sentences[row]))  # little padding
    for start in range(0, len(order), batch_size):
        rows = order[start : start + batch_size]
        batch = _batch([sentences[row] for row in rows]).to(model.device)
        noise = step_rows(rows, steps, model.latent_dim, seed).to(model.device)
        mean[rows], logvar[rows] = infer(model, batch, inference, noise=noise).posterior
    return DiagGaussian(mean, logvar)


def _batch(sentences: Sequence[Tensor]) -> Batch:
    """What the encoder reads; the counts for metrics are left at 0."""
    zeros = torch.zeros(len(sentences), dtype=torch.long)
    return Batch(
        x=pad_sequence(list(sentences), batch_first=True, padding_value=PAD),  # (B, T+1)
        lengths=torch.tensor([len(sentence) - 1 for sentence in sentences]),
        units=zeros,
        num_bytes=zeros,
        index=zeros,
    )
