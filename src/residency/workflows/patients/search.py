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
from residency.ingest.store import Merged, Store
from residency.knowledge.passages import SUFFIX as BASE
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
    bases: tuple[Path, ...] = ()
    """Knowledge bases."""
    given: tuple[Path, ...] = ()
    """Folders that were given, and those of the files that were: nothing outside is touched."""
    key: str = "RESIDENCY_KEY"
    """Environment variable that holds the zones' key."""

    def inside(self, path: Path) -> bool:
        """Whether a path lies in what was given."""
        return any(path.resolve().is_relative_to(folder) for folder in self.given)


def find(given: Sequence[Path]) -> Places:
    """Everything at or below the given paths; hidden folders and links are left out.

    Raises ``UserError`` for a path that does not exist, or a recipe named by itself that is none.
    """
    found: dict[str, set[Path]] = {
        name: set() for name in ("recipes", "runs", "files", "splits", "zones", "bases")
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
                    f"{path}: is no recipe, split, knowledge base or file of JSON lines; give one, "
                    "or a folder."
                )
            found[kind].add(path.resolve())
        else:
            _walk(path.resolve(), found)
    folders = tuple((path if path.is_dir() else path.parent).resolve() for path in given)
    inside = Places(given=folders).inside
    for recipe in sorted(found["recipes"]):
        loaded = Recipe.load(recipe)
        if loaded.deid is not None:
            key = loaded.deid.key
            zone = (loaded.root / loaded.deid.zone).resolve()
            out = (loaded.root / loaded.deid.out).resolve()
            found["zones"] |= {zone} if (zone / MARKER).is_file() else set()
            found["files"] |= {out} if out.is_file() else set()
            for path in (zone, out):
                if path.exists() and not inside(path):
                    raise UserError(
                        f"{path}: belongs to {recipe} and lies outside of what was given; give its "
                        "folder too."
                    )
    every = {name: tuple(sorted(paths)) for name, paths in found.items()}
    return Places(key=key, given=folders, **every)


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
    if path.suffix == BASE:
        return "bases"
    if path.suffix in (".jsonl", ".ndjson") and path.name != LOG:
        return "files"
    if path.suffix in (".yaml", ".yml"):
        with suppress(ResidencyError, yaml.YAMLError):
            if {"name", "data", "tasks"} <= read_yaml(path).keys():
                return "recipes"
    return None


class Patient:
    """Whom it is about. Never shown: it has no ``repr`` of its own and is in no message."""

    def __init__(
        self,
        given: str,
        groups: Iterable[str],
        entries: dict[Path, tuple[bytes, ...]],
        names: Iterable[str] = (),
    ) -> None:
        self.given = given
        """What the user gave: the hospital's id, or the group of the notes."""
        self.names = frozenset({given, *names})
        """The same, and the ids of records that were merged with it."""
        self.groups = frozenset(groups)
        """What the patient's notes have as their group."""
        self.entries = entries
        """Zone -> the patient's entries in its vault."""

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
    groups, entries = set[str](), dict[Path, tuple[bytes, ...]]()
    names = {given}
    for zone in places.zones:
        if not (zone / NAME).is_file() or not os.environ.get(places.key):
            continue
        key = key_from(places.key)
        names |= _merged_with(given, zone, key)
        vault = Vault.open(zone, key)
        try:
            known = sorted(name for name in names if vault.knows(name))
            groups |= {keyed(vault.secret(name), "patient") for name in known}
            found = tuple(vault.entry(name) for name in known)
            if not found and (
                entry := vault.entry_of(lambda secret: keyed(secret, "patient") == given)
            ):
                found = (entry,)
            entries |= {zone: found} if found else {}
        finally:
            vault.close()
    return Patient(given, groups or {given}, entries, names)


def _merged_with(given: str, zone: Path, key: bytes) -> set[str]:
    """Ids of the records that were merged with a patient's."""
    found = set[str]()
    for path in sorted(zone.glob("*.notes.sqlite")):
        store = Store.open(zone, path.name.removesuffix(".notes.sqlite"), key)
        into = (store.get("merged", Merged) or Merged()).into
        store.close()
        who = into.get(given, given)
        found |= {who, *(name for name, other in into.items() if other == who)} if into else set()
    return found
