"""Beam search: for every z, find the most likely sentence while keeping only a few candidates open.

    score(x) = log p(x|z) / |x|^length_penalty,     |x| includes </s>

As in transformers, a repetition penalty applies to log p of a word (of a logit when sampling), and
words that are banned are left out of the search without making the others more likely.

Every step looks at the best 2B continuations of the B open sentences (beams). Those among the first
B that end the sentence are finished candidates; the best B of the others stay open. Since further
words only lower log p, the search for a sentence stops as soon as no open beam can beat the best
candidate, which does not change the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from textvae.text.decode.repetition import NO_LIMIT, Repetition
from textvae.text.tokenizers import BOS, EOS, PAD
from textvae.vae.contracts import Stepper


@dataclass
class _Beams:
    """S unfinished sentences, B beams each."""

    sentences: Tensor  # (S,) the row of z that each belongs to
    ids: Tensor  # (S, B, L)
    log_p: Tensor  # (S, B), -inf for unused beams


def beam_search(
    stepper: Stepper,
    banned: Tensor,
    max_new_tokens: int,
    num_beams: int,
    length_penalty: float = 1.0,
    repetition: Repetition = NO_LIMIT,
) -> Tensor:
    """Find the best sentence for each of N latents.

    Args:
        stepper: Has N * B rows; rows n * B to (n + 1) * B - 1 have the z of sentence n.
        banned: Ids that are never generated.
        max_new_tokens: L, the maximum length including ``</s>``.
        num_beams: B.
        length_penalty: Exponent of the length in the score.
        repetition: What happens to words that a sentence has already used.

    Returns:
        Token ids (N, L), with padding after ``</s>``.
    """
    count, device = stepper.size // num_beams, banned.device
    ids = torch.full((count, num_beams, max_new_tokens), PAD, device=device)
    log_p = torch.full((count, num_beams), -math.inf, device=device)
    log_p[:, 0] = 0.0  # all beams start alike: one of them is enough
    beams = _Beams(torch.arange(count, device=device), ids, log_p)
    best = torch.full((count,), -math.inf, device=device)
    best_ids = ids[:, 0].clone()  # (N, L)
    tokens = torch.full((count * num_beams,), BOS, device=device)
    for t in range(max_new_tokens):
        # Log p first: banning a word must not make the others more likely.
        scores = stepper.step(tokens).float().log_softmax(1).index_fill_(1, banned, -math.inf)
        scores = repetition.apply(scores, beams.ids[:, :, :t].flatten(0, 1))
        scores = scores.view(*beams.log_p.shape, -1)  # (S, B, V)
        sources, finished = _extend(beams, scores, t)
        last = t + 1 == max_new_tokens
        _record(beams, finished, best, best_ids, (t + 1) ** length_penalty, last)
        longest = (max_new_tokens if length_penalty > 0 else t + 2) ** length_penalty
        open_ = beams.log_p[:, 0] / longest > best[beams.sentences]
        if last or not open_.any():
            return best_ids[:, : t + 1]
        kept = open_.nonzero().squeeze(1)
        rows = (kept[:, None] * num_beams + sources[kept]).flatten()
        if len(kept) < len(open_):
            beams = _Beams(beams.sentences[kept], beams.ids[kept], beams.log_p[kept])
            stepper.keep(rows)
        else:
            stepper.move(rows)
        tokens = beams.ids[:, :, t].flatten()
    return best_ids


def _extend(beams: _Beams, scores: Tensor, t: int) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Extend every beam by one word.

    Returns:
        The beam that each new beam comes from (S, B), and the best sentence that ended at this
        step: its log p (S,), -inf where there is none, and its ids (S, L).
    """
    size, vocab = beams.log_p.size(1), scores.size(2)
    total = (beams.log_p[:, :, None] + scores).flatten(1)  # (S, B * V)
    log_p, where = total.topk(min(2 * size, total.size(1)), dim=1)  # descending
    source, word = where // vocab, where % vocab
    ends = word == EOS
    among_first = torch.arange(log_p.size(1), device=log_p.device) < size
    finished, place = log_p.masked_fill(~(ends & among_first), -math.inf).max(1)
    rows = torch.arange(len(log_p), device=log_p.device)
    finished_ids = beams.ids[rows, source[rows, place]].clone()
    finished_ids[:, t] = EOS
    open_log_p, order = log_p.masked_fill(ends, -math.inf).topk(size, dim=1)
    source, word = source.gather(1, order), word.gather(1, order)
    beams.ids = beams.ids[rows[:, None], source]
    beams.ids[:, :, t] = word
    beams.log_p = open_log_p
    return source, (finished, finished_ids)


def _record(
    beams: _Beams,
    finished: tuple[Tensor, Tensor],
    best: Tensor,
    best_ids: Tensor,
    length: float,
    last: bool,
) -> None:
    """Store what beats the best candidate so far; at the last step, open beams count too."""
    candidates = [finished]
    if last:
        candidates.append((beams.log_p[:, 0], beams.ids[:, 0]))
    for log_p, ids in candidates:
        score = log_p / length
        better = score > best[beams.sentences]
        rows = beams.sentences[better]
        best[rows], best_ids[rows] = score[better], ids[better]
