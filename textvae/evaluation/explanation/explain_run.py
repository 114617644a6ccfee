"""Which words z predicts in the texts of a run: everything that ``textvae explain`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.builders.model import load_model
from textvae.config.arguments import check_integers
from textvae.evaluation.explanation.explain import check_explainable, explain
from textvae.evaluation.explanation.result import Explanation
from textvae.evaluation.open_run import Opening, open_run, spaced
from textvae.runs.files import expanded
from textvae.text.tokenizers import Unit

if TYPE_CHECKING:
    from typing_extensions import Unpack

LIMIT = 500


def explain_run(
    run: Path | str,
    texts: Sequence[str] | None = None,
    *,
    baseline: Path | str | None = None,
    dimension: int | Sequence[int] | None = None,
    condition: str | float | None = None,
    split: str = "test",
    limit: int | None = LIMIT,
    draws: int | None = None,
    unit: Unit | None = None,
    refine_steps: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    **opening: Unpack[Opening],
) -> Explanation:
    """Measure how many nats of every word z is worth, in texts of a split or in given ones.

    Args:
        run: A run folder.
        texts: The texts; None: those of the split.
        baseline: The run of a language model with the same tokens, to compare with; None: the same
            model with the z of other texts.
        dimension: As in ``textvae.explain``.
        condition: For a conditional model: that of the given texts, or of all texts in a file of
            new ones; None: those of the data.
        split: The split that the texts come from, or those whose z is used instead.
        limit: At most this many texts of the split, evenly spaced; None: all of them.
        draws: As in ``textvae.explain``.
        unit: As in ``textvae.explain``.
        refine_steps: As in ``textvae.explain``.
        batch_size: Texts per batch; does not change the results.
        seed: Seed of the draws.
        opening: data, reading, device, model, as in ``Opening``.

    Returns:
        What z predicts; ``print`` shows it.

    Raises:
        UserError: It is not a run folder, its data is missing or has changed, there is no such
            split, or as in ``textvae.explain``.
    """
    if limit is not None:
        check_integers(1, limit=limit)
    of_file = condition if texts is None else None
    opened = open_run(run, condition=of_file, **opening)
    model = opened.model
    reference = None
    if baseline is not None:
        reference = load_model(str(expanded(baseline)), device=model.device)
    check_explainable(model, reference)
    options: dict[str, Any] = {
        "baseline": reference,
        "dimension": dimension,
        "draws": draws,
        "unit": unit,
        "refine_steps": refine_steps,
        "seed": seed,
        "batch_size": batch_size,
        "name": opened.name,
    }
    if texts is not None and reference is not None:
        return explain(model, texts, condition=condition, **options)
    chosen = opened.split(split)
    rows = spaced(len(chosen), limit).tolist()
    of_split = [chosen.caption(row) for row in rows]
    known = model.conditions_in(chosen, rows).get("condition")
    if texts is None:
        return explain(model, of_split, condition=known, split=opened.title(split), **options)
    return explain(
        model, texts, others=of_split, condition=condition, other_condition=known, **options
    )
