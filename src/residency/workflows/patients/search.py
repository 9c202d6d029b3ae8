"""Where a patient's notes may have gone: recipes, runs, files of notes, splits and identified zones
below some folders."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from residency.core.errors import ResidencyError, UserError
from residency.core.types import Value
from residency.core.zones import MARKER
from residency.corpus.splitfile import SUFFIX
from residency.deid.engine import keyed
from residency.deid.vault import NAME, Vault, key_from
from residency.recipe import Recipe, read_yaml
from residency.workflows.patients.erasure_log import LOG


class Places(Value, frozen=True):
    """What lies below some folders."""

    recipes: tuple[Path, ...] = ()
    runs: tuple[Path, ...] = ()
    """Folders of runs, evaluations among them."""
    files: tuple[Path, ...] = ()
    """Files of JSON lines outside runs and zones."""
    splits: tuple[Path, ...] = ()
    """Split files outside runs."""
    zones: tuple[Path, ...] = ()
    key: str = "RESIDENCY_KEY"
    """Environment variable that holds the zones' key."""


def find(given: Sequence[Path]) -> Places:
    """Everything at or below the given paths; hidden folders and links are left out.

    Raises ``UserError`` for a path that does not exist, or a recipe named by itself that is none.
    """
    found: dict[str, set[Path]] = {
        name: set() for name in ("recipes", "runs", "files", "splits", "zones")
    }
    key = Places().key
    for path in given:
        if not path.exists():
            raise UserError(
                f"{path}: does not exist; give recipes, runs, folders or files of notes."
            )
        if path.is_file():
            kind = _kind(path)
            if kind is None:
                raise UserError(
                    f"{path}: is no recipe, split or file of JSON lines; give one, or a folder."
                )
            found[kind].add(path.resolve())
        else:
            _walk(path.resolve(), found)
    for recipe in sorted(found["recipes"]):
        loaded = Recipe.load(recipe)
        if loaded.deid is not None:
            key = loaded.deid.key
            found["zones"] |= {
                zone
                for zone in [(loaded.root / loaded.deid.zone).resolve()]
                if (zone / MARKER).is_file()
            }
            found["files"] |= {
                out for out in [(loaded.root / loaded.deid.out).resolve()] if out.is_file()
            }
    return Places(key=key, **{name: tuple(sorted(paths)) for name, paths in found.items()})


def _walk(folder: Path, found: dict[str, set[Path]]) -> None:
    for name, inside, files in os.walk(folder):
        here = Path(name)
        inside[:] = sorted(
            sub for sub in inside if not sub.startswith(".") and not (here / sub).is_symlink()
        )
        if MARKER in files:
            found["zones"].add(here)
            inside.clear()
        elif "manifest.json" in files and "steps" in inside:
            found["runs"].add(here)
            inside[:] = ["evaluations"] if "evaluations" in inside else []
        else:
            for file in files:
                path = here / file
                if not file.startswith(".") and not path.is_symlink() and (kind := _kind(path)):
                    found[kind].add(path)


def _kind(path: Path) -> str | None:
    if path.name.endswith(SUFFIX):
        return "splits"
    if path.suffix in (".jsonl", ".ndjson") and path.name != LOG:
        return "files"
    if path.suffix in (".yaml", ".yml"):
        with suppress(ResidencyError, yaml.YAMLError):
            if {"name", "data", "tasks"} <= read_yaml(path).keys():
                return "recipes"
    return None


class Patient:
    """Whom it is about. Never shown: it has no ``repr`` of its own and is in no message."""

    def __init__(self, given: str, groups: Iterable[str], entries: dict[Path, bytes]) -> None:
        self.given = given
        """What the user gave: the hospital's id, or the group of the notes."""
        self.groups = frozenset(groups)
        """What the patient's notes have as their group."""
        self.entries = entries
        """Zone -> the patient's entry in its vault."""

    def __repr__(self) -> str:
        return "Patient(...)"


def identify(given: str, places: Places) -> Patient:
    """The patient by the hospital's id, where a vault knows it and its key is in the environment,
    else by the group of the notes.

    Raises ``UserError`` for an empty id, ``GateRefused`` where a vault does not open with the key.
    """
    if not given.strip():
        raise UserError(
            "PATIENT: is empty; give the hospital's id of the patient, or the group of the notes."
        )
    groups, entries = set[str](), dict[Path, bytes]()
    for zone in places.zones:
        if not (zone / NAME).is_file() or not os.environ.get(places.key):
            continue
        vault = Vault.open(zone, key_from(places.key))
        try:
            if vault.knows(given):
                groups.add(keyed(vault.secret(given), "patient"))
                entries[zone] = vault.entry(given)
            elif entry := vault.entry_of(lambda secret: keyed(secret, "patient") == given):
                entries[zone] = entry
        finally:
            vault.close()
    return Patient(given, groups or {given}, entries)
