"""What the tables of MOSES leave out: exact reconstruction, and validity along lines through z."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from textvae.config.arguments import check_integers
from textvae.errors import OptionError, UserError, quantity
from textvae.evaluation.molecules.chemistry import canonical, check_rdkit, each, parse, quiet
from textvae.evaluation.printed import Printed
from textvae.runs.files import check_writable, write_text

DRAWN = 4  # lines
PROBED = 100  # lines that are looked at before anything is computed
SIZE = 180  # of a molecule, in pixels


class LatentMetrics(Printed, dict[str, Any]):
    """The metrics by name; ``print`` shows them.

    * ``count``: molecules that were reconstructed
    * ``exact``: fraction of them that came back as the same molecule, in any spelling
    * ``valid_between``: fraction of the points strictly between the ends of lines that are valid
    * ``distinct``: mean number of different valid molecules on a line, both ends included
    * ``lines``, ``steps``: number of lines, and of points on each of them
    """

    def __str__(self) -> str:
        """Return the metrics as text."""
        return (
            f"exact reconstruction  {self['exact']:.4f}  of "
            f"{quantity(self['count'], 'molecule')}\n"
            f"valid between         {self['valid_between']:.4f}  on "
            f"{quantity(self['lines'], 'line')} of {self['steps']} points\n"
            f"distinct on a line    {self['distinct']:.2f}"
        )


def latent_metrics(
    model: Any,
    molecules: Sequence[str],
    *,
    lines: int,
    steps: int = 9,
    num_beams: int = 1,
    condition: str | float | None = None,
    draw_to: str | Path | None = None,
    batch_size: int = 64,
    seed: int = 0,
) -> LatentMetrics:
    """Reconstruct molecules, and decode points on lines between pairs of them.

    Args:
        model: A model of SMILES with a latent variable.
        molecules: The molecules; the ends of line i are those with the numbers 2i and 2i + 1.
        lines: Number of lines.
        steps: Points of a line, including both ends.
        num_beams: Beam width with which z is decoded; 1: greedily.
        condition: For a model that is conditioned on labels: the label of all molecules.
        draw_to: Where to draw the first lines as SVG.
        batch_size: Molecules per batch; does not change the results.
        seed: Seed of all noise.

    Raises:
        UserError: RDKit is missing, there are too few molecules, or the model has no z.
    """
    check_rdkit()
    check_integers(3, steps=steps)  # both ends, and one between them
    check_integers(1, lines=lines)
    if draw_to is not None:
        check_writable(Path(draw_to))
    if len(molecules) < 2 * lines:
        raise OptionError(
            f"needs {2 * lines} molecules, two for each line between molecules, but there are "
            f"{len(molecules)}",
            lines=lines,
        )
    if not any(each(canonical, molecules[:PROBED])):
        raise UserError(f"none of the first {PROBED} lines is a valid molecule (SMILES)")
    options: dict[str, Any] = {"batch_size": batch_size, "seed": seed}
    z = model.encode(molecules, condition=condition, **options).center()  # (N, Z)
    options["num_beams"] = num_beams
    exact = _same(molecules, model.decode(z, condition=condition, **options))
    paths = [model.path(z[2 * i], z[2 * i + 1], steps) for i in range(lines)]
    decoded = model.decode(torch.cat(paths), condition=condition, **options)
    found = each(canonical, decoded)
    rows = [found[i : i + steps] for i in range(0, len(found), steps)]
    inner = [molecule is not None for row in rows for molecule in row[1:-1]]
    if draw_to is not None:
        write_text(Path(draw_to), draw(decoded[: DRAWN * steps], steps))
    return LatentMetrics(
        count=len(molecules),
        exact=exact,
        valid_between=_mean(inner),
        distinct=_mean([len(set(row) - {None}) for row in rows]),
        lines=lines,
        steps=steps,
    )


def _same(sources: Sequence[str], decoded: Sequence[str]) -> float:
    pairs = zip(each(canonical, sources), each(canonical, decoded), strict=True)
    return _mean([a is not None and a == b for a, b in pairs])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def draw(molecules: Sequence[str], columns: int) -> str:
    """Draw molecules in rows as SVG; the cell of an invalid string is empty."""
    from rdkit.Chem import MolFromSmiles
    from rdkit.Chem.Draw import rdMolDraw2D

    with quiet():
        found = [parse(text) or MolFromSmiles("") for text in molecules]
    rows = -(-len(found) // columns)
    canvas = rdMolDraw2D.MolDraw2DSVG(columns * SIZE, rows * SIZE, SIZE, SIZE)
    canvas.DrawMolecules(found)
    canvas.FinishDrawing()
    return str(canvas.GetDrawingText())
