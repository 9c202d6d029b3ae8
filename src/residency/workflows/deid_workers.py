"""De-identification on several processes: each takes a segment from the zone's store; results come
back in order.

A worker derives surrogates from the vault's secrets, which the parent has drawn before, so that the
result is the same on any number of processes. Text passes between the processes of one user in
memory only; a worker ends when its parent does, however that ends.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self, cast

from residency.core.errors import UserError
from residency.core.types import RawNote
from residency.deid.engine import DeidentifiedNote, Deidentifier, Refused
from residency.deid.find import Recogniser
from residency.deid.options import Deid
from residency.deid.tagger import tagger_of
from residency.deid.vault import Vault, key_from
from residency.ingest.store import Store
from residency.workflows.review import Review

if TYPE_CHECKING:
    from concurrent.futures import Future, ProcessPoolExecutor

WORTH = 8
"""Segments from which several processes pay for being started."""
Result = DeidentifiedNote | Refused


class Workers:
    """Processes, or this one alone where there is little to do."""

    def __init__(
        self, settings: Deid, name: str, folder: Path, store: Store, engine: Deidentifier
    ) -> None:
        self.settings, self.name, self.folder, self.store, self.engine = (
            settings,
            name,
            folder,
            store,
            engine,
        )
        self.pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pool is not None:
            self.pool.shutdown(cancel_futures=True)

    def results(self, numbers: range) -> Iterator[tuple[int, list[RawNote], list[Result]]]:
        """(segment, its notes, what became of them), in order."""
        jobs = min(self.settings.jobs or os.cpu_count() or 1, len(numbers))
        if jobs < 2 or (len(numbers) < WORTH and not self.settings.jobs):
            for number in numbers:
                notes = self.store.read(number)
                self._draw(notes)
                yield number, notes, [self.engine.process(note) for note in notes]
            return
        yield from self._pooled(numbers, jobs)

    def _pooled(
        self, numbers: Iterable[int], jobs: int
    ) -> Iterator[tuple[int, list[RawNote], list[Result]]]:
        from concurrent.futures import ProcessPoolExecutor
        from concurrent.futures.process import BrokenProcessPool
        from multiprocessing import get_context

        pool = self.pool = self.pool or ProcessPoolExecutor(
            jobs, get_context("spawn"), _begin, (self.settings, self.name, str(self.folder))
        )
        waiting: deque[tuple[int, list[RawNote], Future[list[Result]]]] = deque()
        try:
            for number in numbers:
                notes = self.store.read(number)
                self._draw(notes)
                waiting.append((number, notes, pool.submit(_process, number)))
                if len(waiting) > jobs + 1:
                    first, its, future = waiting.popleft()
                    yield first, its, future.result()
            while waiting:
                first, its, future = waiting.popleft()
                yield first, its, future.result()
        except BrokenProcessPool:
            raise UserError(
                "deid.jobs: a process ended unasked (memory?); run again with a smaller deid.jobs: "
                "it goes on where it was."
            ) from None

    def _draw(self, notes: list[RawNote]) -> None:
        """Draw the secrets of patients who are new, in one write."""
        vault = self.engine.vault
        assert isinstance(vault, Vault)
        vault.begin()
        for patient in {note.patient for note in notes if note.patient}:
            vault.secret(patient)
        vault.commit()


def recognisers(settings: Deid) -> list[Recogniser]:
    """The plug-ins that the settings name."""
    return [cast(Recogniser, plugin.load(object)) for plugin in settings.plugins]


_engine: Deidentifier | None = None
_store: Store | None = None


def _begin(settings: Deid, name: str, folder: str) -> None:
    """What a worker holds; called once in each."""
    global _engine, _store
    _end_with_parent()
    key = key_from(settings.key)
    _store = Store.open(Path(folder), name, key)
    vault, review = Vault.open(Path(folder), key), Review(_store, Path())
    tagger = tagger_of(settings, decided=review.decided)
    _engine = Deidentifier(settings, vault, recognisers(settings), tagger)


def _end_with_parent() -> None:
    from multiprocessing import parent_process

    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _process(number: int) -> list[Result]:
    assert _engine is not None and _store is not None
    return [_engine.process(note) for note in _store.read(number)]
