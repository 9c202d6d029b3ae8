"""``residency bundle verify``: whether a folder that came without a network is the one that was
made (``scripts/bundle.py``)."""

from __future__ import annotations

import re
from pathlib import Path

from residency.core.errors import DataError, GateRefused, UserError
from residency.core.files import enumerate_lines, file_digest, reason

SUMS = "SHA256SUMS"
LINE = re.compile(rb"([0-9a-f]{64}) [ *](.+?)\r?\n?")
INSTALLED = ("wheels", "bases")
"""Folders that are installed from: what is not listed must not lie there."""


def verify(folder: Path) -> tuple[int, str]:
    """How many files a bundle has, and the SHA-256 of its list, to compare with the one that came
    by another way.

    Raises ``UserError`` for a folder that is no bundle, ``GateRefused`` where a file is missing,
    was changed, or lies beside those that were bundled.
    """
    sums = folder / SUMS
    if not sums.is_file():
        raise UserError(f"{folder}: is no bundle ({SUMS} is missing); name what make bundle made.")
    listed: dict[str, str] = {}
    for number, line in enumerate_lines(sums):
        if (found := LINE.fullmatch(line)) is None:
            raise DataError(f"{sums}:{number}: is not a line of sha256sum; take another copy.")
        listed[found[2].decode("utf-8", "surrogateescape")] = found[1].decode()
    faults = [
        f"{name} {why}" for name, wanted in listed.items() if (why := _fault(folder / name, wanted))
    ]
    faults += [
        f"{name} was added"
        for place in INSTALLED
        for path in sorted((folder / place).rglob("*"))
        if path.is_file() and (name := path.relative_to(folder).as_posix()) not in listed
    ]
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise GateRefused(
            f"{folder}: is not what was bundled: {', '.join(faults[:5])}{more}; take another copy."
        )
    return len(listed), file_digest(sums)


def _fault(path: Path, wanted: str) -> str:
    """What is wrong with a file."""
    if not path.is_file():
        return "is missing"
    try:
        return "" if file_digest(path) == wanted else "was changed"
    except OSError as error:
        return reason(error)[:-1]
