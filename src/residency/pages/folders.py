"""The projects below the folder that the pages are of, and their runs. A name from a request is
looked for among those that are there; none is ever made into a path."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

from residency.core.errors import ResidencyError, UserError
from residency.core.files import disk_errors
from residency.core.run_folder import Run

RECIPE = "recipe.yaml"
BEGUN = ".begun"
"""The mark of a project whose files are here and whose recipe is not written yet."""
DATA = "data"
RUNS = "runs"


class Missing(UserError):
    """There is no such project, run or page."""


def projects(root: Path) -> list[Path]:
    """Folders with a recipe, or with files for one, in the order of their names."""
    found = (path for path in root.iterdir() if path.name[0] != "." and path.is_dir())
    return sorted(
        path
        for path in found
        if path.resolve().parent == root.resolve()
        and any((path / mark).is_file() for mark in (RECIPE, BEGUN))
    )


def project(root: Path, name: str) -> Path:
    """A project by its name; raises ``Missing``."""
    return _named(projects(root), name, "project")


def _named(found: list[Path], name: str, what: str) -> Path:
    for path in found:
        if path.name == name:
            return path
    raise Missing(f"There is no such {what} here.")


def runs(root: Path, project: Path) -> list[Path]:
    """The runs of a project, the newest first: those below it, and those that a terminal has put
    beside it."""
    here = [*_runs(project / RUNS, root)]
    beside = [path for path in _runs(root / RUNS, root) if _is_of(path, project)]
    return sorted([*here, *beside], key=lambda path: path.stat().st_mtime, reverse=True)


def _runs(folder: Path, root: Path) -> Iterator[Path]:
    for path in folder.glob("*/manifest.json"):
        if path.parent.resolve().is_relative_to(root.resolve()):
            yield path.parent


def _is_of(run: Path, project: Path) -> bool:
    try:
        return (run / Run(run).manifest.root).resolve() == project.resolve()
    except ResidencyError:
        return False


def run_of(root: Path, project: Path, name: str) -> Path:
    """A run by its name; raises ``Missing``."""
    return _named(runs(root, project), name, "run")


def uploads(project: Path) -> list[Path]:
    """The files that a project was begun with."""
    return sorted(path for path in (project / DATA).iterdir() if path.is_file())


def begin(root: Path, name: str, files: dict[str, bytes]) -> Path:
    """A new project with files, which its owner alone may read; called after the first file where
    it is given no name. Raises ``UserError`` for no files, two of one name, and a name that is
    taken."""
    if not files:
        raise UserError("No file was chosen; choose one or more.")
    wanted = safe(name or next(iter(files)).partition(".")[0]) or "project"
    place = root / wanted
    number = 2
    while not name and place.exists():
        place, number = root / f"{wanted}-{number}", number + 1
    if place.exists():
        raise UserError(f"{wanted}: is there already; choose another name.")
    with disk_errors(place):
        place.mkdir(mode=0o700)
        (place / DATA).mkdir(mode=0o700)
        for called, content in files.items():
            file = place / DATA / called
            file.touch(mode=0o600)
            file.write_bytes(content)
        (place / BEGUN).touch(mode=0o600)
    return place


def safe(name: str) -> str:
    """A name as a file or folder may have it: letters, digits, dot, dash and underscore."""
    found = re.sub(r"[^\w.-]+", "-", unicodedata.normalize("NFC", name)).strip("-.")
    while len(found.encode()) > 120:  # a system takes 255 bytes, and parts are added to it
        found = found[1:]
    return found
