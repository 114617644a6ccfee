"""Which columns of a file or a dataset on the Hub are the text and the label."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from textvae.errors import OptionError, UserError, did_you_mean
from textvae.text.data.labels import label_of, number_of

_SHOWN_NAMES, _SHOWN_CHARACTERS = 20, 40  # in messages


class MissingColumn(UserError):
    """A file has no column of a name that was asked for."""


Row = tuple[int, str | None, str | None]  # line, text, label (None: unlabeled)


@dataclass(frozen=True)
class Columns:
    """Names of columns; ``a.b`` is the field ``b`` of the column ``a``, unless it is a column.

    Attributes:
        text: Columns of the text, which are joined with spaces; empty if not chosen yet.
        label: Column of the label, or None.
        labels: Whether to read labels at all.
        label_named: Whether the user named the label column; one that was detected may hold
            anything, and what is not a label leaves its example unlabeled.
        usual: The text and label columns of the training data, used if a file has them and none
            were named.
        numeric: Whether the labels are numbers, which are read as they are: -1 is one of them.
        verbatim: Whether the labels are text of any kind, of which none stands for a missing label.
        label_seen: Whether the record that the columns were detected from has a label; those of
            JSON may differ.
    """

    text: tuple[str, ...] = ()
    label: str | None = None
    labels: bool = True
    label_named: bool = False
    usual: tuple[tuple[str, ...], str | None] = ((), None)
    numeric: bool = False
    verbatim: bool = False
    label_seen: bool = True
    unread: str | None = None  # a column that is almost named ``label``, for the log

    @classmethod
    def parse(
        cls,
        text: str | None,
        label: str | None,
        labels: bool = True,
        usual: tuple[str | None, str | None] = (None, None),
        numeric: bool = False,
    ) -> Columns:
        """Parse the options; a text may be several columns, separated by commas.

        Args:
            text: The text column.
            label: The label column.
            labels: Whether to read labels at all.
            usual: The text and the label column to use if neither is named and a file has them.
            numeric: Whether the labels are numbers.

        Raises:
            UserError: There is a label column, but no labels are to be read.
        """
        if label and not labels:
            raise OptionError("no effect without labels: leave one out", label_column=label)
        usual_columns = (_split(usual[0]), usual[1] or None)
        return cls(_split(text), label or None, labels, bool(label), usual_columns, numeric)

    @property
    def named(self) -> tuple[str, ...]:
        """The columns named so far."""
        return (*self.text, *((self.label,) if self.label else ()))

    def describe(self) -> str:
        """Return the columns in words, for the log."""
        maybe = "" if self.label_seen else ", if there is one"
        label = f", label: {self.label}{maybe}" if self.label else ""
        unread = f"; {self.unread!r} is not read: see --data.label_column" if self.unread else ""
        return f"text: {' + '.join(self.text)}{label}{unread}"

    def resolve(self, present: Mapping[str, Any], where: str, unnamed: str = "") -> Columns:
        """Check the columns against those of a file, and detect those that were not named.

        Args:
            present: The columns of the file, by name; a nested column is a mapping.
            where: The file, for messages.
            unnamed: Added to the message if the text column cannot be detected.

        Returns:
            The columns to read.

        Raises:
            UserError: If a named column is missing, or the text column cannot be detected.
        """
        if not present:
            raise UserError(f"{where}: it has no columns")
        usual, usual_label = self.usual
        text = self.text or (usual if all(has_column(present, name) for name in usual) else ())
        text = text or (("text",) if "text" in present else tuple(present) * (len(present) == 1))
        if not text:
            trained = (
                f"{' or '.join(map(repr, usual))}, as in the training data, or " if usual else ""
            )
            raise UserError(
                f"{where}: no column {trained}'text'; set --data.text_column to one of "
                f"{listed(present)}{unnamed}"
            )
        found = replace(self, text=text)
        for name in (usual_label, "label"):
            if (
                self.labels
                and not found.label
                and name
                and has_column(present, name)
                and name not in text
            ):
                found = replace(found, label=name)
        if self.labels and not found.label:
            alike = (name for name in present if name.casefold() in ("label", "labels"))
            found = replace(found, unread=next((name for name in alike if name not in text), None))
        for name in found.named:
            if not has_column(present, name):
                near = did_you_mean(name, present)
                raise MissingColumn(f"{where}: no column {name!r}; it has {listed(present)}{near}")
        return found

    def pick(self, record: Mapping[str, Any], where: str, line: int) -> Row:
        """Get text and label of one record.

        Args:
            record: The values of all columns.
            where: The file, for messages.
            line: The line, for messages.

        Returns:
            Line, text and label.

        Raises:
            UserError: If the text is missing in this record or is not a string, or the label is not
                what ``read_label`` accepts.
        """
        texts = [_text(record, name, where, line) for name in self.text]
        joined = " ".join(text for text in texts if text)
        if self.label is None or not has_column(record, self.label):
            return line, joined, None
        return line, joined, self.read_label(_value(record, self.label), where, line)

    def read_label(self, value: Any, where: str, line: int) -> str | None:
        """Return the name of a label, None for a missing one.

        Args:
            value: The value of the label column.
            where: The file, for messages.
            line: The line, for messages.

        Raises:
            UserError: The labels are numbers, and this is none; or the user named the label column,
                and this is not a single value.
        """
        if self.verbatim:
            return _as_text(value)
        try:
            return number_of(value) if self.numeric else label_of(value)
        except ValueError as kind:
            if self.numeric:
                named = f" in column {self.label!r}" if self.label else ""
                raise UserError(f"{where}, line {line}: {kind}{named} is not a number") from None
            if not self.label_named:
                return None
            raise UserError(
                f"{where}, line {line}: label {self.label!r} is of type {kind}, not a string or a "
                "number; name another --data.label_column, or set --data.labels false"
            ) from None


def _as_text(value: Any) -> str | None:
    """Return a value of any type as text; None if it is missing."""
    if value is None or value != value:  # NaN is not itself
        return None
    return json.dumps(value, default=str) if isinstance(value, bool | dict | list) else str(value)


def _split(names: str | None) -> tuple[str, ...]:
    return tuple(name for part in (names or "").split(",") if (name := part.strip()))


def has_column(record: Mapping[str, Any], name: str) -> bool:
    """Return whether a record has a column; ``a.b`` is a field of ``a``."""
    try:
        _value(record, name)
    except KeyError:
        return False
    return True


def _value(record: Mapping[str, Any], name: str) -> Any:
    """Return the value of a column; ``a.b`` is a field of ``a``."""
    if name in record:
        return record[name]
    value: Any = record
    for part in name.split("."):
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise KeyError(name)
        value = value[part]
    return value


def _text(record: Mapping[str, Any], name: str, where: str, line: int) -> str:
    if not has_column(record, name):
        raise UserError(f"{where}, line {line}: no {name!r} here; it has {listed(record)}")
    value = _value(record, name)
    if isinstance(value, list) and all(isinstance(token, str) for token in value):
        return " ".join(value)
    if not isinstance(value, str | None):
        kind = type(value).__name__
        raise UserError(f"{where}, line {line}: {name!r} is of type {kind}, not a string")
    return value or ""


def listed(names: Iterable[str]) -> str:
    """Return the names of columns for a message: on one line, and not too many."""
    all_names = list(names)
    shown = [_shown(name) for name in all_names[:_SHOWN_NAMES]]
    more = len(all_names) - len(shown)
    return ", ".join([*shown, f"and {more} more"] if more else shown) or "no columns"


def _shown(name: str) -> str:
    name = name if name.isprintable() else repr(name)[1:-1]
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"
