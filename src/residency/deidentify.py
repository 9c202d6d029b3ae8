"""From the hospital's database to notes that may be learned from: extract, de-identify, verify, release.

Identified text is in memory only. What is made lies in the identified zone until the release gate has passed; then it is moved to
``deid.out``. A killed process goes on behind the last batch; the next extraction takes what is new.
"""

from __future__ import annotations

import os
from collections import Counter
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, cast

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.files import digest, disk_errors, read_json, write_json
from residency.core.progress import Silent, Tracker
from residency.core.types import Note, RawNote, Value
from residency.core.zones import open_zone
from residency.deid.engine import Done, Engine
from residency.deid.find import Recogniser
from residency.deid.gate import Gate, Verdict
from residency.deid.vault import Vault, key_from
from residency.ingest import sql
from residency.ingest.sql import Place
from residency.recipe import Recipe

BATCH = 500
"""Notes between two points from which a killed process goes on."""


class State(Value, frozen=True):
    """How far an extraction is, as its file in the zone has it."""

    settings: str
    """Hash of what the statement and the profile are."""
    place: Place = Place()
    released: int = 0
    """Notes in ``deid.out`` so far."""
    size: int = 0
    """Bytes of the unfinished file that count."""
    made: int = 0
    refused: dict[str, int] = {}
    kinds: dict[str, int] = {}
    destroyed: dict[str, int] = {}


class Outcome(Value, frozen=True):
    """What de-identification did; holds no text and no identifier."""

    profile: str
    out: str
    notes: int
    """Notes in the output, earlier ones included."""
    new: int
    refused: dict[str, int]
    """Reason -> notes."""
    replaced: dict[str, int]
    """Kind -> identifiers."""
    destroyed: dict[str, int]
    """Label -> spans that an identifier cut."""
    gate: Verdict
    made_at: datetime


def deidentify(recipe: Recipe, tracker: Tracker | None = None) -> Outcome:
    """Take what is new in the database, de-identify it and release it.

    Raises ``UserError`` for missing settings, key or database, ``GateRefused`` where the zone, the vault's key or the release gate
    says no: then nothing is at ``deid.out`` that was not there before.
    """
    tracker = tracker or Silent()
    extract, settings = recipe.extract, recipe.deid
    if extract is None or settings is None:
        missing = "extract" if extract is None else "deid"
        raise UserError(
            f"{missing}: the recipe has no such section; de-identification needs extract (where notes are) and deid (how)."
        )
    sql.check_select(extract.notes, "extract.notes")
    key = key_from(settings.key)
    zone = open_zone(recipe.root / settings.zone)
    out = recipe.root / settings.out
    vault = Vault.open(zone.root, key)
    try:
        engine = Engine(settings, vault, [cast(Recogniser, plugin.load(object)) for plugin in settings.plugins])
        gate = Gate(settings.release, engine)
        work = _Work(zone.root / f"{recipe.name}.partial.jsonl", zone.root / f"{recipe.name}.state.json", out)
        state = work.resumed(digest([extract.notes, extract.labels, settings.profile]))
        tracker.start("de-identifying")
        before = state.made
        source = sql.notes(extract, recipe.root, state.place)
        while group := tuple(islice(source, BATCH)):
            state = work.add(group, engine, gate, state)
            tracker.update(state.made + sum(state.refused.values()))
        verdict = gate.verdict() if gate.notes else Verdict(passed=True)
        if not verdict.passed:
            work.discard(state)
            raise GateRefused(f"deid.release: {'; '.join(verdict.reasons)}. Nothing was released.")
        total = work.release(state)
        if settings.profile == "anonymised":
            vault.destroy()
        outcome = Outcome(
            profile=settings.profile,
            out=settings.out,
            notes=total,
            new=state.made,
            refused=state.refused,
            replaced=dict(sorted(state.kinds.items())),
            destroyed=state.destroyed,
            gate=verdict,
            made_at=datetime.now(UTC),
        )
        write_json(out.with_suffix(".report.json"), outcome)
        resumed = f", {before} of them before" if before else ""
        tracker.end(f"{state.made} notes{resumed}, {sum(state.refused.values())} refused")
        return outcome
    finally:
        if settings.profile != "anonymised" or vault.path.exists():
            vault.close()


class _Work:
    """The files of an extraction: unfinished notes and state in the zone, what was released outside."""

    def __init__(self, partial: Path, state: Path, out: Path) -> None:
        self.partial, self.state, self.out = partial, state, out

    def resumed(self, settings: str) -> State:
        """Where to go on; raises ``UserError`` where the output was made with other settings."""
        if not self.state.is_file():
            if self.out.exists():
                raise UserError(
                    f"deid.out: {self.out} exists and was not made by this zone; move it away, or choose another name."
                )
            return State(settings=settings)
        found = read_json(self.state, State)
        if found.settings != settings:
            raise UserError(
                f"deid: extract or profile changed since {self.out.name} was begun; choose another name for the recipe and deid.out, "
                f"or remove {self.state} and the output to begin anew."
            )
        if self.partial.exists():
            with self.partial.open("r+b") as file:
                file.truncate(found.size)
        return found

    def add(self, group: tuple[tuple[RawNote, Place], ...], engine: Engine, gate: Gate, state: State) -> State:
        """De-identify a batch and make it durable: notes first, then the vault's secrets, then the state."""
        encoder, lines, made = msgspec.json.Encoder(), bytearray(), 0
        refused, kinds, destroyed = Counter(state.refused), Counter(state.kinds), Counter(state.destroyed)
        engine.vault.begin()
        for raw, _ in group:
            result = engine.process(raw)
            gate.saw(raw, result)
            if isinstance(result, Done):
                lines += encoder.encode(row_of(result.note)) + b"\n"
                made += 1
                kinds.update(finding.kind for finding in result.findings)
                destroyed.update(span.label for span in result.destroyed)
            else:
                refused[result.reason] += 1
        engine.vault.commit()
        with disk_errors(self.partial), self.partial.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        new = msgspec.structs.replace(
            state,
            place=group[-1][1],
            size=state.size + len(lines),
            made=state.made + made,
            refused=dict(refused),
            kinds=dict(kinds),
            destroyed=dict(destroyed),
        )
        write_json(self.state, new)
        return new

    def release(self, state: State) -> int:
        """Put what was made behind what was released before; how many notes that is."""
        total = state.released + state.made
        if self.partial.exists():
            with disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                ready = self.out.with_name(f"{self.out.name}.partial")
                with ready.open("wb") as target:
                    for source in (self.out, self.partial):
                        if source.exists():
                            with source.open("rb") as file:
                                while block := file.read(1 << 20):
                                    target.write(block)
                    target.flush()
                    os.fsync(target.fileno())
                ready.replace(self.out)
                self.partial.unlink()
        write_json(self.state, State(settings=state.settings, place=state.place, released=total))
        return total

    def discard(self, began: State) -> None:
        """Nothing of this extraction is kept; the next one takes the same notes again."""
        self.partial.unlink(missing_ok=True)
        if began.released:
            write_json(self.state, began)
        else:
            self.state.unlink(missing_ok=True)


def row_of(note: Note) -> dict[str, Any]:
    """A note as the JSON lines format of this project has it."""
    row: dict[str, Any] = {"id": note.id, "group": note.group, "text": note.text, "profile": note.profile}
    row |= {name: value for name, value in (("lang", note.lang), ("kind", note.kind)) if value}
    if note.written_at:
        row["written_at"] = note.written_at.isoformat()
    row["entities"] = [{"start": s.start, "end": s.end, "label": s.label, "text": s.quote} for s in note.spans]
    return row
