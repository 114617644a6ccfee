"""The states of a sweep's runs: a live table on a terminal, a line for every change elsewhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from textvae.training.progress import console
from textvae.training.sweeps.manifest import Manifest, State

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.live import Live

logger = logging.getLogger(__name__)
COLORS: dict[State, str] = {
    "waiting": "dim",
    "running": "cyan",
    "done": "green",
    "failed": "red",
    "stopped": "yellow",
}
SHOWN_FIRST: tuple[State, ...] = ("running", "failed", "stopped", "waiting", "done")
TAIL = 4096  # bytes at the end of a log that hold its last line
ROOM = 6  # lines of a terminal that the rows of the table leave free


class States:
    """Shows the states of the runs of a sweep while it runs, and records them in its manifest.

    Args:
        manifest: The sweep.
        log: Returns the file with the output of a run.
    """

    live: Live | None = None
    stopping = False  # the user has asked to stop

    def __init__(self, manifest: Manifest, log: Callable[[str], Path]) -> None:
        self.manifest, self.log = manifest, log

    def __enter__(self) -> States:
        """Start the live table, if this is a terminal."""
        if console().is_terminal:
            from rich.live import Live

            self.live = Live(get_renderable=self._table, console=console(), refresh_per_second=2)
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table on the screen."""
        if self.live is not None:
            self.live.stop()

    def set(self, name: str, state: State, message: str = "") -> None:
        """Change the state of a run."""
        self.manifest.set_state(name, state, message)
        if self.live is None and state != "waiting":
            logger.info("%s: %s%s", name, state, f": {message}" if message else "")

    def of(self, state: State) -> list[str]:
        """Return the names of the runs in a state, in the order of the grid."""
        grid, runs = self.manifest.grid, self.manifest.runs
        return [name for name in grid if runs[name]["state"] == state]

    def counts(self) -> str:
        """Return how many runs are in each state, as text."""
        counted = Counter(self.manifest.runs[name]["state"] for name in self.manifest.grid)
        return ", ".join(f"{counted[state]} {state}" for state in COLORS if counted[state])

    def _table(self) -> RenderableType:
        from rich.table import Table
        from rich.text import Text

        room = max(1, console().height - ROOM)
        ordered = [name for state in SHOWN_FIRST for name in self.of(state)]
        kept = set(ordered[:room])
        table = Table(box=None, pad_edge=False, expand=True, caption_justify="left")
        table.caption = f"{self.counts()}, in {self.manifest.folder}"
        table.caption += ": stopping, press Ctrl-C again to stop immediately" * self.stopping
        table.add_column("run", no_wrap=True, overflow="ellipsis")
        table.add_column("state", no_wrap=True, min_width=max(map(len, COLORS)))
        table.add_column("", no_wrap=True, overflow="ellipsis", ratio=1)  # what room is left
        for name in (name for name in self.manifest.grid if name in kept):
            run = self.manifest.runs[name]
            state: State = run["state"]
            detail = last_line(self.log(name)) if state == "running" else run["message"]
            table.add_row(Text(name), Text(state, style=COLORS[state]), Text(detail, style="dim"))
        return table


def last_line(log: Path) -> str:
    """Return the last line of a log that is not empty; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
