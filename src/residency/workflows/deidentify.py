"""From a hospital's records to notes that may be learned from: extract, de-identify, verify,
release.

Identified notes lie encrypted in the zone, a segment at a time; what is made of them lies in the
zone too until the release check has passed, and is then moved to ``deid.out``. A killed process
goes on behind the last segment; the next command takes what is new.
"""

from __future__ import annotations

import os
import pickle
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import GateRefused, UserError
from residency.core.files import disk_errors, write_json
from residency.core.page import Page, Section, write_page
from residency.core.part import Part
from residency.core.progress import Silent, Tracker
from residency.core.types import Note, RawNote, Value
from residency.core.zones import open_zone
from residency.deid.engine import DeidentifiedNote, Deidentifier, Refused
from residency.deid.options import Deid
from residency.deid.release import ReleaseCheck, ReleaseVerdict
from residency.deid.vault import NAME as VAULT
from residency.deid.vault import Vault, key_from
from residency.ingest.store import Store
from residency.ingest.transfer import Extraction
from residency.recipe import Recipe
from residency.workflows.deid_workers import Workers, recognisers
from residency.workflows.extract import extract_into, open_store, report_folder

EXPIRED = "removed from the zone before it was de-identified"


class Outcome(Value, frozen=True):
    """What de-identification did; holds no text and no identifier."""

    profile: str
    out: str
    notes: int
    """Notes in the output, earlier ones included."""
    new: int
    refused: dict[str, int]
    """Reason -> notes, of this release."""
    replaced: dict[str, int]
    """Kind -> identifiers."""
    destroyed: dict[str, int]
    """Label -> spans that an identifier cut."""
    gate: ReleaseVerdict
    made_at: datetime
    extracted: Extraction | None = None
    ledger: dict[str, int] = {}
    """What became of every row that was ever read: released, refused and not taken with the reason,
    waiting."""
    final: bool = False


class State(Value, frozen=True):
    """How far de-identification is; sealed in the zone's store."""

    profile: str
    segment: int = 0
    """Last segment that is in the unfinished file."""
    released_segment: int = 0
    released: int = 0
    """Notes in ``deid.out`` so far."""
    refused_ever: dict[str, int] = {}
    """Reason -> notes of all releases that were not released."""
    size: int = 0
    """Bytes of the unfinished file that count."""
    made: int = 0
    refused: dict[str, int] = {}
    kinds: dict[str, int] = {}
    destroyed: dict[str, int] = {}
    releasing: int = 0
    """Bytes that ``deid.out`` has once it is released; 0 where no release is on its way."""


UNBEGUN: dict[str, Any] = {"size": 0, "made": 0, "refused": {}, "kinds": {}, "destroyed": {}}
"""The state where nothing of a release is made yet."""
SEEN_BYTES = 1 << 16
"""Bytes of what the check knows that a segment pays for: the more it knows, the less often it is
kept."""


class Seen(Value, frozen=True):
    """What the release check has seen of the notes that are not released yet, up to a segment."""

    segment: int
    gate: bytes


def deidentify(recipe: Recipe, tracker: Tracker | None = None) -> Outcome:
    """Take what is new at the source, de-identify what is in the zone, and release it.

    Raises ``UserError`` for missing settings, key or source, ``GateRefused`` where the zone, a key
    or the release check says no: then nothing is at ``deid.out`` that was not there before.
    """
    tracker = tracker or Silent()
    settings = recipe.deid
    if recipe.extract is None or settings is None:
        missing = "extract" if recipe.extract is None else "deid"
        raise UserError(
            f"{missing}: the recipe has no such section; de-identification needs extract (where "
            "notes are) and deid (how)."
        )
    with open_store(recipe) as store:
        work = ZoneFiles(recipe, settings, store)
        work.recover()
        if store.head.final:
            if (work.folder / VAULT).exists():  # killed between the two
                Vault.open(work.folder, key_from(settings.key)).destroy()
            return _write_outcome(recipe, work, ReleaseVerdict(passed=True), None)
        extracted = extract_into(recipe, store, tracker)
        vault = Vault.open(work.folder, key_from(settings.key))
        try:
            engine = Deidentifier(settings, vault, recognisers(settings))
            verdict = work.through(engine, tracker)
            if not verdict.passed:
                _refuse(recipe, work, verdict, extracted)
            outcome = _write_outcome(recipe, work, verdict, extracted, release=True)
            if settings.profile == "anonymised" and work.state.released:
                store.end()
                vault.destroy()
            return outcome
        finally:
            if vault.path.exists():
                vault.close()


class ZoneFiles:
    """The files of a de-identification: unfinished notes and state in the zone, what was released
    outside."""

    def __init__(self, recipe: Recipe, settings: Deid, store: Store) -> None:
        self.recipe, self.settings, self.store = recipe, settings, store
        self.folder = open_zone(recipe.root / settings.zone).root
        self.partial, self.out = (
            self.folder / f"{recipe.name}.partial.jsonl",
            recipe.root / settings.out,
        )
        self.state = State(profile=settings.profile)
        self.kept, self.waiting = 0, 0
        """Bytes of what is kept of the release check, and segments since."""

    def recover(self) -> None:
        """Find out where to go on; raises ``UserError`` where the output is not what this zone
        made."""
        found = self.store.get("deid", State)
        if found is None:
            if self.out.exists():
                raise UserError(
                    f"deid.out: {self.out} exists and was not made by this zone; move it away, or "
                    "choose another name."
                )
            return
        if found.profile != self.settings.profile:
            raise UserError(
                f"deid.profile: {self.out.name} was begun as {found.profile}; choose another name "
                "for the recipe and another deid.out."
            )
        self.state = found
        if found.releasing:
            if self.out.exists() and self.out.stat().st_size == found.releasing:
                self._released()
            else:
                self.release()
        elif found.released and not self.out.exists():
            raise UserError(
                f"deid.out: {self.out} is gone, which held {found.released} released notes; put it "
                "back, or choose another name for the recipe."
            )
        elif self.partial.exists():
            with disk_errors(self.partial), self.partial.open("r+b") as file:
                file.truncate(self.state.size)

    def keep(self, **changes: Any) -> None:
        """Change the state, durably."""
        self.state = msgspec.structs.replace(self.state, **changes)
        with self.store.writing():
            self.store.put("deid", self.state)

    def _seen(self, gate: ReleaseCheck, workers: Workers) -> None:
        """Give the release check back what it knew of notes that are made and not released; those
        that it was not kept of are shown again."""
        kept = self.store.get("gate", Seen)
        after = self.state.released_segment
        if kept is not None and after < kept.segment <= self.state.segment:
            vars(gate).update(pickle.loads(kept.gate))  # sealed with the zone's key by ourselves
            after, self.kept = kept.segment, len(kept.gate)
        again = self.store.numbers(after)
        for _, notes, results in workers.results(
            range(again.start, min(again.stop, self.state.segment + 1))
        ):
            for raw, result in zip(notes, results, strict=True):
                gate.add(raw, result)

    def through(self, engine: Deidentifier, tracker: Tracker) -> ReleaseVerdict:
        """De-identify every segment that was not yet, and ask the release check."""
        gate = ReleaseCheck(self.settings.release, engine)
        self._count_expired()
        numbers = self.store.numbers(self.state.segment)
        tracker.start("de-identifying")
        before = self.state.made
        with Workers(self.settings, self.recipe.name, self.folder, self.store, engine) as workers:
            self._seen(gate, workers)
            for number, notes, results in workers.results(numbers):
                self.add(number, notes, results, gate)
                tracker.update(self.state.made + sum(self.state.refused.values()))
        resumed = f", {before} of them before" if before else ""
        tracker.end(f"{self.state.made} notes{resumed}, {sum(self.state.refused.values())} refused")
        return (
            gate.verdict() if self.state.made or self.state.refused else ReleaseVerdict(passed=True)
        )

    def _count_expired(self) -> None:
        """Count segments that grew too old, and are gone, before anything was made of them."""
        first = self.store.head.first
        lost = sum(
            rows
            for _, what, number, rows, reason in self.store.ledger()
            if what == "removed" and reason != "erasure" and self.state.segment < number < first
        )
        if lost:
            ever = dict(Counter(self.state.refused_ever) + Counter({EXPIRED: lost}))
            self.keep(segment=max(self.state.segment, first - 1), refused_ever=ever)

    def add(
        self,
        number: int,
        notes: list[RawNote],
        results: list[DeidentifiedNote | Refused],
        gate: ReleaseCheck,
    ) -> None:
        """Make a segment durable: notes first, then the state."""
        encoder, state = msgspec.json.Encoder(), self.state
        for raw, result in zip(notes, results, strict=True):
            gate.add(raw, result)
        done = [one for one in results if isinstance(one, DeidentifiedNote)]
        lines = b"".join(encoder.encode(row_of(one.note)) + b"\n" for one in done)
        with disk_errors(self.partial), self.partial.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        refused = (one.reason for one in results if isinstance(one, Refused))
        kinds = (finding.kind for one in done for finding in one.findings)
        destroyed = (span.label for one in done for span in one.destroyed)
        self.keep(
            segment=number,
            size=state.size + len(lines),
            made=state.made + len(done),
            refused=_add_counts(state.refused, refused),
            kinds=_add_counts(state.kinds, kinds),
            destroyed=_add_counts(state.destroyed, destroyed),
        )
        self.waiting += 1
        if self.waiting * SEEN_BYTES >= self.kept:
            self._keep_seen(gate)

    def _keep_seen(self, gate: ReleaseCheck) -> None:
        held = {n: one for n, one in vars(gate).items() if not isinstance(one, Deidentifier | Part)}
        seen = pickle.dumps(held)
        with self.store.writing():
            self.store.put("gate", Seen(segment=self.state.segment, gate=seen))
        self.kept, self.waiting = len(seen), 0

    def release(self) -> None:
        """Put what was made behind what was released before."""
        if self.partial.exists() and self.state.size:
            before = self.out.stat().st_size if self.out.exists() else 0
            self.keep(releasing=before + self.state.size)
            with disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                _joined(self.out, self.partial)
        self._released()

    def _released(self) -> None:
        state = self.state
        self.keep(
            **UNBEGUN,
            releasing=0,
            refused_ever=dict(Counter(state.refused_ever) + Counter(state.refused)),
            released=state.released + state.made,
            released_segment=state.segment,
        )
        self.partial.unlink(missing_ok=True)
        if self.recipe.extract is not None and self.recipe.extract.keep == 0:
            self.store.expire(0, "released", upto=state.segment)

    def discard(self) -> None:
        """Keep nothing of this release; the next command makes it again from the same segments."""
        self.partial.unlink(missing_ok=True)
        self.keep(**UNBEGUN, segment=self.state.released_segment)

    def ledger(self) -> dict[str, int]:
        """What became of every row that was ever read."""
        counts, state = self.store.head.counts, self.state
        rows = {"released": state.released} | {
            f"refused: {reason}": n for reason, n in sorted(state.refused_ever.items())
        }
        rows |= {
            f"not taken: {reason}": n for reason, n in sorted(counts.items()) if reason != "taken"
        }
        waiting = counts.get("taken", 0) - state.released - sum(state.refused_ever.values())
        return rows | ({"waiting in the zone, or erased": waiting} if waiting else {})


def _joined(out: Path, partial: Path) -> None:
    """Put a file behind another one, whole or not at all."""
    ready = out.with_name(f"{out.name}.partial")
    with ready.open("wb") as target:
        for source in (out, partial):
            if source.exists():
                with source.open("rb") as file:
                    shutil.copyfileobj(file, target, 1 << 20)
        target.flush()
        os.fsync(target.fileno())
    ready.replace(out)


def _refuse(
    recipe: Recipe, work: ZoneFiles, verdict: ReleaseVerdict, extracted: Extraction
) -> None:
    """Write a page that says why, keep nothing else, and raise."""
    outcome = _outcome(work, work.state, verdict, extracted)
    write_page(
        outcome_page(recipe.name, outcome), report_folder(recipe), f"{work.out.stem}.refused"
    )
    work.discard()
    raise GateRefused(f"deid.release: {'; '.join(verdict.reasons)}. Nothing was released.")


def _write_outcome(
    recipe: Recipe,
    work: ZoneFiles,
    verdict: ReleaseVerdict,
    extracted: Extraction | None,
    release: bool = False,
) -> Outcome:
    """Release, and say so beside the output."""
    state = work.state
    if release:
        work.release()
    outcome = _outcome(work, state, verdict, extracted)
    write_json(work.out.with_suffix(".report.json"), outcome)
    write_page(outcome_page(recipe.name, outcome), work.out.parent, f"{work.out.stem}.report")
    for suffix in ("html", "md"):
        work.out.with_name(f"{work.out.stem}.refused.{suffix}").unlink(missing_ok=True)
    return outcome


def _outcome(
    work: ZoneFiles, state: State, verdict: ReleaseVerdict, extracted: Extraction | None
) -> Outcome:
    """What was done; ``state``: how far it was before the release."""
    return Outcome(
        profile=work.settings.profile,
        out=work.settings.out,
        notes=work.state.released,
        new=state.made if verdict.passed else 0,
        refused=state.refused,
        replaced=dict(sorted(state.kinds.items())),
        destroyed=state.destroyed,
        gate=verdict,
        made_at=datetime.now(UTC),
        extracted=extracted,
        ledger=work.ledger(),
        final=work.settings.profile == "anonymised" and bool(work.state.released),
    )


def _add_counts(before: Mapping[str, int], found: Iterable[str]) -> dict[str, int]:
    """Counts with what was found since."""
    counts = Counter(before)
    counts.update(found)
    return dict(counts)


def outcome_page(name: str, done: Outcome) -> Page:
    """A de-identification as a page without text or identifiers."""
    gate = done.gate
    lead = (
        f"{done.new:,} new notes were released; {done.out} holds {done.notes:,}."
        if gate.passed
        else f"The release check said no: {'; '.join(gate.reasons)}. Nothing was released."
    )
    caveats = []
    if done.profile != "anonymised":
        caveats.append(
            "With vault and key these notes can be linked to their patients: they stay personal "
            "data."
        )
    if done.final:
        caveats.append(
            "The vault and all identified notes of the zone were destroyed: nothing can be added "
            "to this corpus."
        )
    sections = [
        _counts("What became of every row", "rows", done.ledger),
        _counts("What was replaced", "kind of identifier", done.replaced),
        _counts("Notes that were refused", "reason", done.refused),
        _counts("Labelled spans that an identifier cut", "label", done.destroyed),
        Section(
            title="The release check",
            columns=("what", "found"),
            rows=tuple(_gate_rows(gate)),
            numeric=(1,),
        ),
    ]
    return Page(
        title=f"De-identification: {name}",
        eyebrow=f"profile {done.profile}, {done.made_at:%Y-%m-%d %H:%M} UTC",
        lead=lead,
        facts=(
            ("released in all", f"{done.notes:,}"),
            ("new", f"{done.new:,}"),
            ("refused", f"{sum(done.refused.values()):,}"),
            ("gate", "passed" if gate.passed else "refused"),
        ),
        caveats=tuple(caveats),
        sections=tuple(section for section in sections if section.rows),
    )


def _counts(title: str, what: str, found: dict[str, int]) -> Section:
    """A table of what was counted."""
    rows = tuple((name.replace("_", " "), f"{count:,}") for name, count in found.items())
    return Section(title=title, columns=(what, "how many"), rows=rows, numeric=(1,))


def _gate_rows(gate: ReleaseVerdict) -> Iterator[tuple[str, str]]:
    """The figures of the release check, by name."""
    for name in gate.__struct_fields__:
        value = getattr(gate, name)
        if isinstance(value, bool):
            yield name.replace("_", " "), "yes" if value else "no"
        elif isinstance(value, int | float):
            yield (
                name.replace("_", " "),
                f"{value:.2%}" if isinstance(value, float) else f"{value:,}",
            )


def row_of(note: Note) -> dict[str, Any]:
    """A note as the JSON lines format of this project has it."""
    row = {"id": note.id, "group": note.group, "text": note.text, "profile": note.profile}
    row |= {name: value for name, value in (("lang", note.lang), ("kind", note.kind)) if value}
    if note.written_at:
        row["written_at"] = note.written_at.isoformat()
    spans = [
        {"start": s.start, "end": s.end, "label": s.label, "text": s.quote} for s in note.spans
    ]
    return {**row, "entities": spans}
