"""Scenes and frames: from the text files of the grammar to the expression of a whole document.

A scene is a table of slots that belong together: a task with tips, a problem with causes and fixes,
two rivals with a verdict. A frame is a sentence with slots. Binding a scene to the frames of an
intent and a tone gives a question and an answer about the same thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from expressions import Choice, Expression, NotationError, Sequence, parse, parse_choice

# A lexicon line is `<keyword> <head> > <group> > <group>`; these are the slots it fills.
SCENES = {
    "how": ("how-to", "task", ("tip",)),
    "why": ("why", "problem", ("cause", "fix")),
    "pick": ("recommendation", "pick", ("option", "reason")),
    "pair": ("comparison", "purpose", ("ab", "why_a", "why_b")),
    "what": ("definition", "term", ("meaning", "fact")),
    "view": ("opinion", "thing", ("pro", "con")),
}

Slots = dict[str, Expression]
Frames = dict[tuple[str, ...], list[str]]


@dataclass
class Subject:
    """A subject and its scenes."""

    name: str
    scenes: dict[str, list[Slots]]  # by intent


@dataclass
class Topic:
    """A topic: slots for all of its documents, and its subjects."""

    name: str
    slots: Slots
    subjects: list[Subject]


def read_frames(text: str) -> Frames:
    """Parse ``[name key ...]`` sections, each a list of alternatives."""
    sections: Frames = {}
    current: list[str] = []
    for line in _lines(text):
        if line.startswith("["):
            current = sections.setdefault(tuple(line.strip("[] ").split()), [])
        else:
            current.append(line.strip())
    return sections


def read_topic(name: str, text: str) -> Topic:
    """Parse a lexicon: ``also`` and ``cred`` lines for the topic, then ``[subject]`` sections."""
    general: dict[str, list[str]] = {}
    subjects: list[Subject] = []
    for line in _lines(text):
        keyword, _, body = line.partition(" ")
        if line.startswith("["):
            subjects.append(Subject(line.strip("[] "), {key: [] for key, _, _ in SCENES.values()}))
        elif keyword in SCENES and subjects:
            subjects[-1].scenes[SCENES[keyword][0]].extend(read_scenes(keyword, body))
        elif not subjects:
            general.setdefault(keyword, []).append(body)
        else:
            raise NotationError(f"{name}: cannot read {line!r}")
    for subject in subjects:
        if not all(subject.scenes.values()):
            raise NotationError(f"{name}: {subject.name} has no scene for some intent")
    return Topic(name, {key: parse_choice(lines) for key, lines in general.items()}, subjects)


def read_scenes(keyword: str, body: str) -> list[Slots]:
    """Parse a lexicon line into scenes (tables of slots): one, or two for a comparison."""
    _, head, names = SCENES[keyword]
    first, *groups = [part.strip() for part in body.split(" > ")]
    if len(groups) != len(names):
        raise NotationError(f"{keyword} needs {len(names)} groups after its head: {body!r}")
    fillers = {name: group.split(" / ") for name, group in zip(names, groups, strict=True)}
    slots = {head: parse(first)}
    if keyword == "pair":
        return _two_verdicts(slots, fillers)
    slots.update({name: parse_choice(lines) for name, lines in fillers.items()})
    if keyword == "how":
        tips = [parse(line) for line in fillers["tip"]]
        # Tips are listed in the order in which they are done, and a pair keeps that order.
        pairs = [Sequence((a, parse("<joiner>"), b)) for a, b in combinations(tips, 2)]
        slots["steps"] = Choice(tuple(pairs))
    return [slots]


def _two_verdicts(slots: Slots, fillers: dict[str, list[str]]) -> list[Slots]:
    """The same question with either answer: the winner and its reasons are local choices."""
    a, b = (parse(side) for side in fillers["ab"])
    reasons_a, reasons_b = parse_choice(fillers["why_a"]), parse_choice(fillers["why_b"])
    shared = {**slots, "a": a, "b": b}
    return [
        {**shared, "win": a, "lose": b, "why": reasons_a},
        {**shared, "win": b, "lose": a, "why": reasons_b},
    ]


def _lines(text: str) -> Iterator[str]:
    """Lines without comments and blanks; an indented line continues the previous one."""
    pending = ""
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            pending += " " + line.strip()
            continue
        if pending:
            yield pending
        pending = "" if line.startswith("#") else line.strip()
    if pending:
        yield pending


class Turns:
    """Sentence frames, which turn a scene into the expression of a whole document."""

    def __init__(self, frames: Frames) -> None:
        self.sizes = {key: len(lines) for key, lines in frames.items()}
        self.helpers: Slots = {}
        self.sections: dict[tuple[str, ...], Expression] = {}
        for key, lines in frames.items():
            section = parse_choice(lines).bind(self.helpers)
            self.sections[key] = section
            if len(key) == 1 and key != ("document",):
                self.helpers[key[0]] = section
        self.bound: dict[tuple, Expression] = {}

    def document(self, topic: Topic, scene: Slots, intent: str, tone: str) -> Expression:
        """Make the expression of all documents about a scene."""
        slots = {name: self.sections[name, tone] for name in ("open", "close", "reply", "end")}
        slots["ask"] = self._turn("ask", scene, intent, tone)
        slots["answer"] = self._turn("answer", scene, intent, tone)
        document = self._bind(("document",), topic.slots).bind(slots)
        if document.slots:
            raise NotationError(f"nothing fills {sorted(document.slots)}")
        return document

    def _turn(self, name: str, scene: Slots, intent: str, tone: str) -> Expression:
        """The frames for all tones and those for this tone, every line equally likely."""
        keys = [(name, intent), (name, intent, tone)]
        options = tuple(self._bind(key, scene) for key in keys)
        return Choice(options, tuple(float(self.sizes[key]) for key in keys))

    def _bind(self, key: tuple[str, ...], slots: Slots) -> Expression:
        """Bind once per scene, so that what the tones share is the same object in memory."""
        memo_key = (*key, id(slots))
        if memo_key not in self.bound:
            # Lexicon entries may also use the helpers, hence the second pass.
            self.bound[memo_key] = self.sections[key].bind(slots).bind(self.helpers)
        return self.bound[memo_key]
