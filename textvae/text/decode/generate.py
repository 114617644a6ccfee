"""Generate sentences from any decoder: greedy search, sampling, and beam search.

The options have the same names as in transformers. Sampling inverts the cumulative distribution:
with probabilities p (after temperature, top-k and top-p) and u uniform in [0, 1), the next word is
the first v with  sum_{w <= v} p_w > u.  The uniforms of a sentence come from its own stream
(``vae.noise``) and its logits do not depend on the other sentences in the batch, so a seed gives
the same sentences for every batch size.

Finished sentences are removed from the computation. ``<pad>``, ``<s>`` and, unless requested,
``<unk>`` are never generated.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from textvae.config.arguments import check_integers, check_numbers
from textvae.errors import OptionError
from textvae.text.decode.beam import beam_search
from textvae.text.decode.repetition import Repetition
from textvae.text.nn import kernels
from textvae.text.tokenizers import BOS, EOS, PAD, UNK
from textvae.vae.contracts import Stepper
from textvae.vae.mixtures import exact_dtype
from textvae.vae.noise import Purpose, RowNoise

TEMPERATURES = (1e-6, 1e6)  # beyond these, logits are no longer finite, or all words alike
LONGEST = 10**6  # tokens of a sentence
NEUTRAL = {"temperature": 1, "top_k": 0, "top_p": 1}  # options of sampling without effect
MOST_BEAMS = 1000  # each takes the memory and the time of a sentence
STRONGEST_PENALTY = 10  # either way: an exponent of the length
_DRAWN = 32  # rows drawn at once on a CPU: few enough to stay in the cache
_BLOCK = 128  # words whose probabilities are summed before searching for the right block
_GROUP = 8  # rows: finished sentences are removed when this leaves fewer groups of this size


class TextDecoder(Protocol):
    """What generation needs from a decoder."""

    def stepper(self, z: Tensor) -> Stepper:
        """Start decoding one token at a time from z (N, Z)."""
        ...


def generate(
    decoder: TextDecoder,
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
    allow_all: bool = False,
    repetition_penalty: float = 1.0,
    no_repeat_ngram_size: int = 0,
) -> Tensor:
    """Generate one sentence for every z.

    Args:
        decoder: Any object whose ``stepper(z)`` returns a ``textvae.vae.contracts.Stepper``. The
            logits that the stepper returns are overwritten.
        z: (N, Z).
        max_new_tokens: Maximum length including ``</s>``; a sentence cut there has no ``</s>``.
        do_sample: Whether to sample each word instead of choosing the most likely one.
        temperature: The logits are divided by it before a word is sampled.
        top_k: Sample among the k most likely words only; 0 for all words.
        top_p: Sample among the most likely words whose probabilities add up to this; 1 for all.
        num_beams: If above 1, use beam search, which excludes ``do_sample``.
        length_penalty: Beams are compared by log p / length ** length_penalty; 0 for log p itself.
        seed: Random seed for sampling.
        first_row: Number of the first sentence; sentence i uses the random stream of
            (seed, first_row + i).
        allow_unk: Whether ``<unk>`` may be generated.
        allow_all: Whether ``<pad>`` and ``<s>`` may be generated as well: then sentences are drawn
            from p(x|z) exactly.
        repetition_penalty: Makes words that the sentence has already used less likely; 1 for none.
        no_repeat_ngram_size: No sequence of this many tokens occurs twice in a sentence; 0 for no
            limit.

    Returns:
        Token ids (N, L) without ``<s>``, and with padding after ``</s>``.

    Raises:
        UserError: If an option is out of range.
    """
    _check(max_new_tokens, do_sample, temperature, top_k, top_p, num_beams, length_penalty)
    repetition = Repetition(repetition_penalty, no_repeat_ngram_size).check()
    never = [] if allow_all else [PAD, BOS] if allow_unk else [PAD, BOS, UNK]
    banned = torch.tensor(never, dtype=torch.long, device=z.device)
    if len(z) == 0:
        return torch.empty(0, 0, dtype=torch.long, device=z.device)
    with torch.inference_mode():
        if num_beams > 1:
            stepper = decoder.stepper(z.repeat_interleave(num_beams, 0))
            ids = beam_search(
                stepper, banned, max_new_tokens, num_beams, length_penalty, repetition
            )
        else:
            uniforms = None
            if do_sample:
                noise = RowNoise(seed, Purpose.TOKENS, range(first_row, first_row + len(z)))
                uniforms = noise.uniform(1, max_new_tokens)[0]  # (N, T)
                uniforms = uniforms.to(z.device, exact_dtype(z))
            ids = _decode(
                decoder.stepper(z),
                banned,
                max_new_tokens,
                uniforms,
                lambda logits, u: draw(logits.div_(temperature), u, top_k, top_p),
                repetition,
            )
    return ids.clone()  # outside inference mode, whose tensors cannot be used in training


def _check(
    max_new_tokens: int,
    do_sample: bool,
    temperature: float,
    top_k: int,
    top_p: float,
    num_beams: int,
    length_penalty: float,
) -> None:
    check_integers(1, LONGEST, max_new_tokens=max_new_tokens)
    check_integers(1, MOST_BEAMS, num_beams=num_beams)
    check_integers(0, top_k=top_k)  # 0: all words
    check_numbers(temperature=temperature, top_p=top_p, length_penalty=length_penalty)
    low, high = TEMPERATURES
    if not low <= temperature <= high:
        raise OptionError(
            f"must be from {low:g} to {high:g} (use greedy decoding instead of 0)",
            temperature=temperature,
        )
    if not 0 < top_p <= 1:
        raise OptionError("must be above 0 and at most 1", top_p=top_p)
    if not abs(length_penalty) <= STRONGEST_PENALTY:
        raise OptionError(
            f"must be from -{STRONGEST_PENALTY} to {STRONGEST_PENALTY}",
            length_penalty=length_penalty,
        )
    _check_effects(
        do_sample, num_beams, length_penalty, temperature=temperature, top_k=top_k, top_p=top_p
    )


def _check_effects(
    do_sample: bool, num_beams: int, length_penalty: float, **of_sampling: float
) -> None:
    """Check that every option that was changed applies to the way of decoding."""
    if do_sample and num_beams > 1:
        raise OptionError(
            "cannot be combined; choose one of them", num_beams=num_beams, do_sample=True
        )
    for name, value in of_sampling.items():
        if value != NEUTRAL[name] and not do_sample:
            raise OptionError(
                "no effect on greedy decoding and beam search; leave it out, or sample",
                **{name: value},
            )
    if length_penalty != 1 and num_beams == 1:
        raise OptionError("no effect without num_beams above 1", length_penalty=length_penalty)


def _decode(
    stepper: Stepper,
    banned: Tensor,
    max_new_tokens: int,
    uniforms: Tensor | None,
    pick: Callable[[Tensor, Tensor], Tensor],
    repetition: Repetition,
) -> Tensor:
    """Greedy search without ``uniforms`` (N, T); otherwise ``pick(logits, u)`` draws each word."""
    ids = torch.full((stepper.size, max_new_tokens), PAD, device=banned.device)
    rows = torch.arange(stepper.size, device=banned.device)  # the sentences in the stepper
    tokens = torch.full_like(rows, BOS)
    open_ = torch.ones_like(rows, dtype=torch.bool)
    for t in range(max_new_tokens):
        logits = stepper.step(tokens).float().index_fill_(1, banned, -math.inf)  # (N, V)
        logits = repetition.apply(logits, ids[rows, :t])
        tokens = logits.argmax(1) if uniforms is None else pick(logits, uniforms[rows, t])
        ids[rows, t] = tokens.masked_fill(~open_, PAD)
        open_ &= tokens != EOS
        left = open_.nonzero().squeeze(1)
        if len(left) == 0:
            return ids[:, : t + 1]
        if _groups(len(left)) < _groups(len(rows)):
            rows, tokens, open_ = rows[left], tokens[left], open_[left]
            stepper.keep(left)
    return ids


def _groups(rows: int) -> int:
    return -(-rows // _GROUP)


def draw(logits: Tensor, uniforms: Tensor, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Draw one word per row; the logits are overwritten.

    Args:
        logits: (N, V).
        uniforms: (N,), in [0, 1).
        top_k: Number of words to keep, applied first; 0 for all.
        top_p: Probability mass to keep of what is left; 1 for all. Words as likely as the last one
            that is kept are kept too.

    Returns:
        Word ids (N,).
    """
    size = _DRAWN if logits.device.type == "cpu" else max(1, len(logits))
    parts = zip(logits.split(size), uniforms.split(size), strict=True)
    return torch.cat([_draw(*part, top_k, top_p) for part in parts])


def _draw(logits: Tensor, uniforms: Tensor, top_k: int, top_p: float) -> Tensor:
    if 0 < top_k < logits.size(1):
        words = _most_likely(logits, top_k).sort(1).values  # (n, k)
        drawn = _draw(logits.gather(1, words), uniforms, 0, top_p)
        return words.gather(1, drawn[:, None]).squeeze(1)
    weights = logits.sub_(logits.amax(1, keepdim=True)).exp_()  # (n, V)
    if top_p < 1:
        _drop_tail(weights, torch.full_like(weights[:, 0], 1 - top_p))
    return invert(weights, uniforms)


# On a CPU, numpy's vectorized selection and sort replace those of torch, which are slower: up to
# seven times for the selection (500 of 10,003 words), and tens of times for the sort.
def _most_likely(logits: Tensor, count: int) -> Tensor:
    """The words with the largest logits, unordered: (n, count) of (n, V)."""
    if logits.device.type != "cpu":
        return logits.topk(count, dim=1, sorted=False).indices
    return torch.from_numpy(np.argpartition(logits.numpy(), -count, axis=1)[:, -count:])


def _drop_tail(weights: Tensor, shares: Tensor) -> None:
    """Replace by 0 the weights below the one at which the ascending sum first exceeds a share."""
    if weights.dtype == torch.float32 and kernels.available_for(weights):
        kernels.nucleus(weights, shares)
        return
    on_cpu = weights.device.type == "cpu"
    ascending = torch.from_numpy(np.sort(weights.numpy())) if on_cpu else weights.sort(1).values
    weights *= weights >= ascending.gather(1, invert(ascending, shares)[:, None])


def invert(weights: Tensor, uniforms: Tensor) -> Tensor:
    """Invert the cumulative distribution: the first v with sum_{w <= v} weights_w > u * total.

    This takes two stages, first the block of words and then the word, so that double precision is
    needed only for the sums of blocks and within one block. A word of weight 0 is never returned.

    Args:
        weights: (N, V), not negative.
        uniforms: u, (N,), in [0, 1).

    Returns:
        Word ids (N,).
    """
    vocab = weights.size(1)
    whole = vocab - vocab % _BLOCK
    sums = weights[:, :whole].unflatten(1, (-1, _BLOCK)).sum(2)
    exact = exact_dtype(weights)
    sums = torch.cat([sums, weights[:, whole:].sum(1, keepdim=True)], dim=1).to(exact)
    cdf = sums.cumsum(1)  # (N, blocks)
    block, target = _first_above(cdf, uniforms[:, None] * cdf[:, -1:])  # (N, 1)
    words = block * _BLOCK + torch.arange(_BLOCK, device=block.device)  # (N, _BLOCK)
    inside = weights.gather(1, words.clamp(max=vocab - 1)) * (words < vocab)
    target = target - (cdf - sums).gather(1, block)
    within, _ = _first_above(inside.cumsum(1, dtype=exact), target)
    return (block * _BLOCK + within).squeeze(1)


def _first_above(cdf: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Find the first place where cdf (N, M) exceeds target (N, 1).

    Returns:
        The place, and the target that was used, which is below the total even if rounding made it
        equal to the total.
    """
    total = cdf[:, -1:]
    target = target.clamp(min=0.0).minimum(torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cdf, target, right=True), target
