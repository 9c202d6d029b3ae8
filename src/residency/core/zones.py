"""The identified zone: the only folder where text of identified patients may be stored, never mixed
with runs.

A zone is its owner's alone (mode 0700) and marked, and kept apart from runs and version control. It
does not encrypt or expire what lies in it: whatever stores identified notes does.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from residency.core.errors import GateRefused, UserError
from residency.core.files import disk_errors, read_json, write_json
from residency.core.types import Value

MARKER = ".residency-zone.json"
SCHEMA = 1


class Zone(Value, frozen=True):
    """A folder that was checked to be an identified zone."""

    root: Path
    """Without symbolic links."""


class _Marker(Value, frozen=True):
    """What the marker file of a zone holds."""

    schema: int


def open_zone(root: Path) -> Zone:
    """The zone at ``root``; a new or empty folder becomes one, with mode 0700 and a marker.

    Raises ``GateRefused`` for a folder that others may enter or own, that is a symbolic link, or
    that lies in a ``runs`` folder or in a git checkout that does not ignore it; ``UserError`` for
    one that is no folder, holds other things already or was marked by a newer version.
    """
    if root.is_symlink():
        raise GateRefused(
            f"zone: {root} is a symbolic link; name the folder itself, so that what is checked is "
            "what is used."
        )
    place = root.resolve()
    _check_place(place)
    if place.exists() and not place.is_dir():
        raise UserError(f"zone: {place} is not a folder; choose another.")
    with disk_errors(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        place.mkdir(mode=0o700, exist_ok=True)
    _check_owner(place)
    marker = place / MARKER
    if marker.is_file():
        if read_json(marker, _Marker).schema > SCHEMA:
            raise UserError(
                f"zone: {place} was made by a newer version of residency; update this one."
            )
    elif any(place.iterdir()):
        raise UserError(
            f"zone: {place} holds other files already; choose a new or an empty folder."
        )
    else:
        write_json(marker, _Marker(schema=SCHEMA))
    return Zone(root=place)


@contextmanager
def locked(zone: Zone, name: str) -> Iterator[None]:
    """Work in a zone that no other process does at the same time; the lock goes with the process,
    however it ends.

    Raises ``UserError`` where another process holds it.
    """
    import fcntl

    path = zone.root / f"{name}.lock"
    with disk_errors(path):
        file = path.open("ab")
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"zone: another command works on {name} in {zone.root}; wait for its end."
            ) from None
        yield


def in_zone(path: Path) -> bool:
    """Whether a path, links followed, lies in an identified zone or is one. The path need not
    exist."""
    place = path.resolve()
    return any((folder / MARKER).is_file() for folder in (place, *place.parents))


def assert_outside(path: Path) -> None:
    """Raises ``GateRefused`` where a folder of a run lies in an identified zone, or a zone in
    it."""
    if in_zone(path):
        raise GateRefused(
            f"{path}: lies in an identified zone; runs hold no identified text, choose a folder "
            "outside."
        )
    if inner := next(path.rglob(MARKER), None):
        raise GateRefused(
            f"{path}: holds the identified zone {inner.parent}; move the zone out of it."
        )


def _check_place(place: Path) -> None:
    if any(part.lower() == "runs" for part in place.parts):
        raise GateRefused(
            f"zone: {place} lies in a runs folder, which is shown and shared; choose a folder "
            "outside."
        )
    checkout = next(
        (folder for folder in (place, *place.parents) if (folder / ".git").exists()), None
    )
    if checkout and not _is_ignored(checkout, place):
        raise GateRefused(
            f"zone: {place} lies in the git checkout {checkout} and could be committed; "
            "choose a folder outside, or ignore it in .gitignore."
        )


def _is_ignored(checkout: Path, place: Path) -> bool:
    git = shutil.which("git")
    if git is None:
        return False
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    asked = subprocess.run(
        [git, "-C", str(checkout), "check-ignore", "--quiet", str(place / MARKER)],
        env=environment,
        capture_output=True,
        check=False,
    )
    return asked.returncode == 0


def _check_owner(place: Path) -> None:
    status = place.stat()
    if status.st_uid != os.getuid():
        raise GateRefused(f"zone: {place} belongs to another user; choose a folder of your own.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise GateRefused(
            f"zone: {place} is open to other users; run chmod 700 {place} and check who has read "
            "it."
        )
