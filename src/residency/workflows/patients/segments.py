"""The encrypted notes of identified zones, as far as they are one patient's."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from residency.core.types import RawNote
from residency.core.zones import locked, open_zone
from residency.deid.vault import NAME, Vault, key_from
from residency.ingest.store import Store
from residency.workflows.patients.search import Patient, Places

SUFFIX = ".notes.sqlite"


def count_notes(patient: Patient, places: Places) -> dict[Path, int]:
    """Store -> the patient's notes in it; only where the key is in the environment."""
    found: dict[Path, int] = {}
    for path in _stores(places):
        with _opened(path, patient, places.key) as (store, matches):
            count = sum(matches(note) for number in store.numbers(0) for note in store.read(number))
        if count:
            found[path] = count
    return found


def remove(patient: Patient, places: Places, ids: Collection[str]) -> dict[Path, int]:
    """Take the patient's notes out of every store; how many of each. Nothing of theirs is taken
    again. ``ids``: of the released notes.

    Raises ``UserError`` while another command works on a store.
    """
    gone: dict[Path, int] = {}
    for path in _stores(places):
        lock = locked(open_zone(path.parent), path.name.removesuffix(SUFFIX))
        with lock, _opened(path, patient, places.key) as (store, matches):
            count = store.erase(matches, patient.names)
            store.forget_released(ids)
        if count:
            gone[path] = count
    return gone


def _stores(places: Places) -> list[Path]:
    if not os.environ.get(places.key):
        return []
    return [path for zone in places.zones for path in sorted(zone.glob(f"*{SUFFIX}"))]


@contextmanager
def _opened(
    path: Path, patient: Patient, variable: str
) -> Iterator[tuple[Store, Callable[[RawNote], bool]]]:
    """A store, and what says whether a note is the patient's: by the hospital's id, or by the entry
    in the zone's vault."""
    zone, key = path.parent, key_from(variable)
    with ExitStack() as stack:
        store = Store.open(zone, path.name.removesuffix(SUFFIX), key)
        stack.callback(store.close)
        entries = patient.entries.get(zone, ())
        vault = Vault.open(zone, key) if entries and (zone / NAME).is_file() else None
        if vault is not None:
            stack.callback(vault.close)

        def matches(note: RawNote) -> bool:
            return note.patient in patient.names or (
                vault is not None and vault.entry(note.patient) in entries
            )

        yield store, matches
