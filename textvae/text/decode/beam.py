"""Beam search: for every z, the likeliest sentence that is found with a few open ones at a time.

    score(x) = log p(x|z) / |x|^length_penalty,     |x| counting </s>

At every step the best 2B continuations of the B open sentences (beams) are looked at: an end of
sentence among the first B of them is a finished candidate, the best B others stay open. Words only
lower log p, so a sentence is settled as soon as no open beam can still beat the best candidate;
stopping then loses nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from textvae.text.nn.lstm import LSTMDecoder
from textvae.text.nn.stepper import Stepper
from textvae.text.tokenizers import BOS, EOS, PAD


@dataclass
class _Beams:
    """S sentences under way, B beams each."""

    sentences: Tensor  # (S,) the row of z each belongs to
    ids: Tensor  # (S, B, L)
    log_p: Tensor  # (S, B) -inf where a beam is not in use


def beam_search(
    decoder: LSTMDecoder,
    z: Tensor,
    banned: Tensor,
    max_new_tokens: int,
    num_beams: int,
    length_penalty: float = 1.0,
) -> Tensor:
    """The best sentence found for every z (N, Z): ids (N, L), PAD after ``</s>``."""
    count = len(z)
    stepper = Stepper(decoder, z.repeat_interleave(num_beams, 0))
    ids = torch.full((count, num_beams, max_new_tokens), PAD, device=z.device)
    log_p = torch.full((count, num_beams), -math.inf, device=z.device)
    log_p[:, 0] = 0.0  # all beams start alike: one of them is enough
    beams = _Beams(torch.arange(count, device=z.device), ids, log_p)
    best = torch.full((count,), -math.inf, device=z.device)
    best_ids = ids[:, 0].clone()  # (N, L)
    tokens = torch.full((count * num_beams,), BOS, device=z.device)
    for t in range(max_new_tokens):
        logits = stepper.step(tokens).index_fill_(1, banned, -math.inf)
        scores = torch.log_softmax(logits, 1).view(*beams.log_p.shape, -1)  # (S, B, V)
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
    """Moves every beam one word on.

    Returns the beam each new beam comes from (S, B), and the best sentence that ended at this step:
    its log p (S,), -inf where none did, and its ids (S, L).
    """
    size, vocab = beams.log_p.size(1), scores.size(2)
    total = (beams.log_p[:, :, None] + scores).flatten(1)  # (S, B * V)
    log_p, where = total.topk(min(2 * size, total.size(1)), dim=1)  # falling
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
    """Takes over what beats the best candidate so far; at the last step open beams count too."""
    candidates = [finished]
    if last:
        candidates.append((beams.log_p[:, 0], beams.ids[:, 0]))
    for log_p, ids in candidates:
        score = log_p / length
        better = score > best[beams.sentences]
        rows = beams.sentences[better]
        best[rows], best_ids[rows] = score[better], ids[better]
