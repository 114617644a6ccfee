"""How commands and reports read, select, and display the examples of a kind of data."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from torch import Tensor

from textvae.errors import UserError
from textvae.vae.batch import Split
from textvae.vae.saved_model import SavedModel

Shown = str | bytes  # an example on a page: a text, or a picture as a PNG file


class Examples(NamedTuple):
    """The N examples of a file."""

    inputs: Any  # as ``encode`` takes them
    captions: list[str]
    labels: list[str | None]  # None for an unlabeled example


class Presenter(Protocol):
    """Shows the output of a command; as a context manager, it completes what it has begun."""

    def __enter__(self) -> Presenter: ...

    def __exit__(self, *error: Any) -> None: ...

    @property
    def at_once(self) -> int | None:
        """How many examples to generate and show at a time; None if all are one picture."""

    def show(
        self,
        outputs: Any,
        *,
        sources: Any = None,
        columns: int | None = None,
        details: Sequence[Mapping[str, float]] | None = None,
        conditions: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        """Show examples in order.

        Args:
            outputs: As ``decode`` returns them.
            sources: The examples they were made from, as ``encode`` takes them.
            columns: Number of examples per row, if they are laid out in a grid.
            details: Numbers that belong to each example, by name.
            conditions: What each was generated under, ``label`` or ``number``, for machines.
        """


class ExampleKind(SavedModel):
    """A saved model that knows how examples of its kind of data are read and shown."""

    KIND: ClassVar[str]  # what messages call its examples: "text", "image"
    DEFAULT_FILE: ClassVar[str | None] = None  # where examples are read from if none are named
    ON_A_PAGE: ClassVar[int]  # examples that are not too many next to each other

    def load_embeddings(self, path: Path) -> None:
        """Start from word vectors in a file.

        Raises:
            UserError: The file does not fit, or the model has no words.
        """
        raise UserError(f"{path}: a model of {self.KIND} data has no word embeddings to start from")

    def previews(self, split: Split, count: int) -> dict[str, Any]:
        """Generate samples and reconstructions, by title: rows, or images (N, 1, H, W)."""
        raise NotImplementedError

    def generation_metrics(
        self, split: Split, rows: Sequence[int], *, tokenized: bool, seed: int, **options: Any
    ) -> Callable[[], dict[str, Any]] | None:
        """Return a function that generates examples and measures them; None if nothing is measured.

        Args:
            split: The split with the examples to reconstruct.
            rows: The examples to reconstruct; at most as many are sampled.
            tokenized: Whether words are separated by spaces.
            seed: Seed of all noise.
            options: Options of ``reconstruct``: refine_steps, batch_size.
        """
        return None

    def show_rows(self, split: Split, rows: Sequence[int]) -> list[Shown]:
        """Return examples of a split for a page."""
        raise NotImplementedError

    def show_decoded(
        self,
        z: Tensor,
        *,
        sampled: bool = False,
        same_draws: bool = False,
        seed: int = 0,
        **given: Any,
    ) -> list[Shown]:
        """Generate an example for every z (N, Z), for a page.

        Args:
            z: Latent vectors (N, Z).
            sampled: Whether the examples are drawn from p(x|z); otherwise, each is the most likely
                one, as far as the model can find it.
            same_draws: Whether what is drawn nevertheless uses the same random numbers for all, so
                that the examples differ only because their z do.
            seed: Seed of what is drawn.
            given: ``condition``, as in ``encode``, for a model that has one.
        """
        raise NotImplementedError

    def read_examples(self, source: str, **options: Any) -> Examples:
        """Read the examples in a file, or on standard input for ``-``.

        Args:
            source: The file.
            options: How it is laid out, for kinds of data that have a choice.

        Raises:
            UserError: They cannot be read.
        """
        raise NotImplementedError

    def example_parts(
        self, source: str, size: int, **options: Any
    ) -> Callable[[], Iterator[Examples]]:
        """Read the examples in a file, some at a time.

        Args:
            source: As in ``read_examples``.
            size: Number of examples in a part.
            options: As in ``read_examples``.

        Returns:
            A function that reads them from the start; it can be called again.

        Raises:
            UserError: They cannot be read.
        """
        found = self.read_examples(source, **options)

        def part(start: int) -> Examples:
            some = slice(start, start + size)
            return Examples(found.inputs[some], found.captions[some], found.labels[some])

        return lambda: map(part, range(0, len(found.captions), size))

    def pick_examples(self, names: Sequence[str], read_split: Callable[[], Split]) -> Examples:
        """Return the examples named on the command line, or default ones if there are no names.

        Args:
            names: The arguments on the command line.
            read_split: Reads the test split; called only if the names refer to it.

        Raises:
            UserError: There is no such example.
        """
        raise NotImplementedError

    def presenter(self, *, out: Path | None, format: str, show_sources: bool) -> Presenter:
        """Return an object that shows generated examples on the command line.

        Args:
            out: The file to write; None: the terminal, for examples that it can show.
            format: ``text`` or ``jsonl``, for examples that it can.
            show_sources: Show the source above each example, in the format ``text``.

        Raises:
            UserError: Examples cannot be shown this way.
        """
        raise NotImplementedError
