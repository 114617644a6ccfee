"""Sentences from the decoder: greedy, sampling, beam search, with the names of transformers.

Sampling inverts the distribution function: with probabilities p (after temperature, top-k and
top-p) and u uniform in [0, 1), the next word is the first v with  sum_{w <= v} p_w > u.  The
uniforms of a sentence come from a stream of its own (``prior.py``), and its logits do not depend on
its neighbours (``stepper.py``): a seed gives the same sentences whatever the batch size.

Sentences that have ended leave the computation. ``<pad>``, ``<s>`` and, unless asked for,
``<unk>`` are never generated.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from textvae.errors import UserError
from textvae.text.decode.beam import beam_search
from textvae.text.nn import kernels
from textvae.text.nn.lstm import LSTMDecoder
from textvae.text.nn.stepper import ROWS, Stepper
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.noise import uniform_rows

_DRAWN = 32  # rows drawn at once: few enough for the cache
_BLOCK = 128  # words whose probabilities are summed before the right block is looked for


def generate(
    decoder: LSTMDecoder,
    z: Tensor,
    *,
    max_new_tokens: int,
    do_sample: bool = False,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    num_beams: int = 1,
    length_penalty: float = 1.0,
    seed: int = 0,
    first_row: int = 0,
    allow_unk: bool = False,
) -> Tensor:
    """A sentence for every z (N, Z) as ids (N, L): without ``<s>``, PAD after ``</s>``.

    Args:
        max_new_tokens: the longest sentence, ``</s>`` counted; a sentence cut there has none.
        do_sample: draw each word; else take the likeliest.
        temperature: the logits are divided by it before a word is drawn.
        top_k: draw among the k likeliest words alone; 0 for all.
        top_p: draw among the likeliest words that together have this mass; 1 for all.
        num_beams: above 1, beam search; takes the place of sampling.
        length_penalty: beams compare log p / length ** length_penalty; 0: log p itself.
        seed, first_row: row i is drawn from the stream of (seed, first_row + i).
        allow_unk: whether ``<unk>`` may be generated.

    Raises:
        UserError: an option out of range.
    """
    _check(max_new_tokens, do_sample, temperature, top_k, top_p, num_beams)
    banned = torch.tensor([PAD, BOS] if allow_unk else [PAD, BOS, UNK], device=z.device)
    if len(z) == 0:
        return torch.empty(0, 0, dtype=torch.long, device=z.device)
    with torch.inference_mode():
        if num_beams > 1:
            ids = beam_search(decoder, z, banned, max_new_tokens, num_beams, length_penalty)
        else:
            uniforms = None
            if do_sample:
                uniforms = uniform_rows(len(z), max_new_tokens, seed, first_row).to(z.device)
            ids = _decode(
                Stepper(decoder, z),
                banned,
                max_new_tokens,
                uniforms,
                lambda logits, u: draw(logits.div_(temperature), u, top_k, top_p),
            )
    return ids.clone()  # outside: tensors of inference mode cannot enter a training step


def _check(
    max_new_tokens: int,
    do_sample: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    num_beams: int,
) -> None:
    for name, value in (("max_new_tokens", max_new_tokens), ("num_beams", num_beams)):
        if value < 1:
            raise UserError(f"{name}={value}: must be at least 1")
    if not 0 < temperature < math.inf:
        raise UserError(f"temperature={temperature}: must be above 0 (for 0 use greedy decoding)")
    if top_k < 0:
        raise UserError(f"top_k={top_k}: a number of words, or 0 for all")
    if not 0 < top_p <= 1:
        raise UserError(f"top_p={top_p}: a probability above 0, at most 1")
    if do_sample and num_beams > 1:
        raise UserError("num_beams searches for the likeliest sentence: it excludes do_sample")


def _decode(
    stepper: Stepper,
    banned: Tensor,
    max_new_tokens: int,
    uniforms: Tensor | None,
    pick: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """Greedy where there are no ``uniforms`` (N, T), else ``pick(logits, u)`` draws each word."""
    ids = torch.full((stepper.size, max_new_tokens), PAD, device=banned.device)
    rows = torch.arange(stepper.size, device=banned.device)  # the sentences in the stepper
    tokens = torch.full_like(rows, BOS)
    open_ = torch.ones_like(rows, dtype=torch.bool)
    for t in range(max_new_tokens):
        logits = stepper.step(tokens).index_fill_(1, banned, -math.inf)  # (N, V)
        tokens = logits.argmax(1) if uniforms is None else pick(logits, uniforms[rows, t])
        ids[rows, t] = tokens.masked_fill(~open_, PAD)
        open_ &= tokens != EOS
        left = open_.nonzero().squeeze(1)
        if len(left) == 0:
            return ids[:, : t + 1]
        if _blocks(len(left)) < _blocks(len(rows)):
            rows, tokens, open_ = rows[left], tokens[left], open_[left]
            stepper.keep(left)
    return ids


def _blocks(rows: int) -> int:
    return -(-rows // ROWS)


def draw(logits: Tensor, uniforms: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """One word for each row of logits (N, V) and uniforms (N,): (N,). Overwrites the logits.

    ``top_k`` is applied first, ``top_p`` to what it leaves; words as likely as the last one that
    ``top_p`` keeps are kept too.
    """
    parts = zip(logits.split(_DRAWN), uniforms.split(_DRAWN), strict=True)
    return torch.cat([_draw(*part, top_k, top_p) for part in parts])


def _draw(logits: Tensor, uniforms: Tensor, top_k: int, top_p: float) -> Tensor:
    if 0 < top_k < logits.size(1):
        words = _likeliest(logits, top_k).sort(1).values  # (n, k)
        drawn = _draw(logits.gather(1, words), uniforms, 0, top_p)
        return words.gather(1, drawn[:, None]).squeeze(1)
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()  # (n, V)
    if top_p < 1:
        weights *= weights >= _quantile(weights, torch.full_like(weights[:, 0], 1 - top_p))[:, None]
    return invert(weights, uniforms)


# On a CPU numpy's vectorised selection and sort take the place of torch's, which are slower: by up
# to seven times (500 of 10,003 words), and by tens.
def _likeliest(logits: Tensor, count: int) -> Tensor:
    """The words with the largest logits, in no order: (n, count) of (n, V)."""
    if logits.device.type != "cpu":
        return logits.topk(count, dim=1, sorted=False).indices
    return torch.from_numpy(np.argpartition(logits.numpy(), -count, axis=1)[:, -count:])


def _quantile(weights: Tensor, shares: Tensor) -> Tensor:
    """The weight at which the sum in rising order first exceeds this share of the total, (n,)."""
    if weights.dtype == torch.float32 and kernels.serve(weights):
        return kernels.quantile(weights, shares)
    on_cpu = weights.device.type == "cpu"
    rising = torch.from_numpy(np.sort(weights.numpy())) if on_cpu else weights.sort(1).values
    return rising.gather(1, invert(rising, shares)[:, None]).squeeze(1)


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The first v with sum_{w <= v} weights_w > u * total: (N,), for weights (N, V) >= 0.

    In two stages, so that double precision is needed only for the sums of blocks of words and
    within one block: first the block, then the word. A word of weight 0 is never found.
    """
    vocab = weights.size(1)
    whole = vocab - vocab % _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(2)
    sums = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True)], dim=1).double()
    cdf = sums.cumsum(1)  # (N, blocks)
    block, target = _first_above(cdf, uniforms[:, None] * cdf[:, -1:])  # (N, 1)
    words = block * _BLOCK + torch.arange(_BLOCK, device=block.device)  # (N, _BLOCK)
    inside = weights.gather(1, words.clamp(max=vocab - 1)) * (words < vocab)
    target = target - (cdf - sums).gather(1, block)
    within, _ = _first_above(inside.cumsum(1, dtype=torch.float64), target)
    return (block * _BLOCK + within).squeeze(1)


def _first_above(cdf: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The first place where cdf (N, M) exceeds target (N, 1), and the target that was used: below
    the total even where rounding made it the total."""
    total = cdf[:, -1:]
    target = target.clamp(min=0.0).minimum(torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target, right=True), target
