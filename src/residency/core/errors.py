"""The exception tree.

ResidencyError
├── UserError     the user's input is at fault: one sentence, exit code 1
│   └── DataError   a row, file or corpus is at fault
└── GateRefused   a gate (privacy, release, promotion) said no: exit code 2

A message says what is wrong, where (file and line, or dotted key), what is allowed and what to do
next. It never holds note text, prompts, credentials or a dump of the configuration.
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class ResidencyError(Exception):
    """Base of everything that Residency raises on purpose."""

    exit_code = 1


class UserError(ResidencyError):
    """The user's input is at fault; the message is one clear sentence."""


class DataError(UserError):
    """A data file or one of its rows is at fault; names file and line, never the text."""


class GateRefused(ResidencyError):
    """A gate refused to let something through; nothing was written."""

    exit_code = 2


def allowed(values: Iterable[object], got: object = None, most: int = 20) -> str:
    """``allowed: a, b, c; did you mean b?`` for an error message."""
    names = [str(value) for value in values]
    shown = ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
    close = get_close_matches(str(got), names, n=1, cutoff=0.5) if got is not None else []
    return f"allowed: {shown}" + (f"; did you mean {close[0]}?" if close else "")
