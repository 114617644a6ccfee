"""Which words z predicts in the texts of a run: everything that ``textvae explain`` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textvae.builders.model import load_model
from textvae.config.arguments import check_integers
from textvae.errors import UserError
from textvae.evaluation.explanation.explain import check_explainable, explain
from textvae.evaluation.explanation.result import Explanation
from textvae.evaluation.open_run import Opening, model_of, open_run, path_of_run, spaced
from textvae.runs.files import expanded
from textvae.text.tokenizers import Unit

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from textvae.vae.model import Model

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
    options: dict[str, Any] = {
        "dimension": dimension,
        "draws": draws,
        "unit": unit,
        "refine_steps": refine_steps,
        "seed": seed,
        "batch_size": batch_size,
    }
    if texts is not None and baseline is not None:
        return _explain_given(run, texts, baseline, opening, condition=condition, **options)
    of_file = condition if texts is None else None
    opened = open_run(run, condition=of_file, **opening)
    model = opened.model
    options |= {"name": opened.name, "baseline": _reference_for(model, baseline)}
    chosen = opened.split(split)
    rows = spaced(len(chosen), limit).tolist()
    of_split = [chosen.caption(row) for row in rows]
    known = model.conditions_in(chosen, rows).get("condition")
    if texts is None:
        return explain(model, of_split, condition=known, split=opened.title(split), **options)
    return explain(
        model, texts, others=of_split, condition=condition, other_condition=known, **options
    )


def _explain_given(
    run: Path | str, texts: Sequence[str], baseline: Path | str, opening: Opening, **options: Any
) -> Explanation:
    """Explain given texts in comparison with a language model, which takes no data.

    Raises:
        UserError: Data was given all the same, or as in ``explain_run``.
    """
    if opening.get("data") is not None or opening.get("reading"):
        raise UserError("--data has no effect on given sentences with --baseline: leave it out")
    folder = expanded(path_of_run(run))
    model, _ = model_of(folder, opening.get("model"), opening.get("device"))
    reference = _reference_for(model, baseline)
    return explain(model, texts, baseline=reference, name=folder.resolve().name, **options)


def _reference_for(model: Model, baseline: Path | str | None) -> Model | None:
    """Return the language model to compare with, if one was given.

    Raises:
        UserError: It cannot be compared with the model.
    """
    reference = None
    if baseline is not None:
        reference = load_model(str(expanded(baseline)), device=model.device)
    check_explainable(model, reference)
    return reference
