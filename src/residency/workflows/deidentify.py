"""From a hospital's records to notes that may be learned from: extract, de-identify, verify,
release.

Identified notes lie encrypted in the zone, a segment at a time; what is made of them lies in the
zone too until the release check has passed, and is then moved to ``deid.out``. A killed process
goes on behind the last segment; the next command takes what is new.
"""

from __future__ import annotations

import os
import pickle
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, GateRefused, UserError
from residency.core.files import (
    disk_errors,
    file_digest,
    read_json,
    read_jsonl,
    write_json,
    write_jsonl,
)
from residency.core.page import Page, Section, write_page
from residency.core.part import Part
from residency.core.progress import Silent, Tracker
from residency.core.types import Note, RawNote, Value
from residency.core.zones import open_zone
from residency.corpus.history import MOVED, Moved
from residency.deid.engine import DeidentifiedNote, Deidentifier, Refused
from residency.deid.options import Deid
from residency.deid.release import ReleaseCheck, ReleaseVerdict
from residency.deid.tagger import finder, tagger_of
from residency.deid.vault import NAME as VAULT
from residency.deid.vault import Vault, key_from
from residency.ingest.store import AMENDED, REMOVED, Store
from residency.ingest.transfer import Extraction
from residency.recipe import Recipe
from residency.workflows.deid_workers import Workers, recognisers
from residency.workflows.extract import extract_into, open_store, report_folder
from residency.workflows.review import Review

WAITING = "waiting in the zone, or erased"
EXPIRED = "removed from the zone before it was de-identified"


class Outcome(Value, frozen=True):
    """What de-identification did; holds no text and no identifier."""

    profile: str
    out: str
    notes: int
    """Notes in the output, earlier ones included."""
    new: int
    refused: dict[str, int]
    """Reason -> notes, of all releases; so are the next two and the check: they say what stands in
    the output."""
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
    finder: str = ""
    """What found the identifiers, and how much it was measured to find."""


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
    releasing_digest: str = ""
    """SHA-256 that it has then, and how many notes."""
    releasing_notes: int = 0


REFUSED = "!"
"""What begins the outcome of a note that was refused; the reason follows."""


UNBEGUN: dict[str, Any] = {"size": 0, "made": 0, "refused": {}, "kinds": {}, "destroyed": {}}
"""The state where nothing of a release is made yet."""
SEEN_BYTES = 1 << 16
"""Bytes of what the check knows that a segment pays for: the more it knows, the less often it is
kept."""


class Seen(Value, frozen=True):
    """What the release check has seen, up to a segment: of the notes that are not released yet
    (kept as ``gate``), and of all that were (``checked``)."""

    segment: int
    gate: bytes


def deidentify(recipe: Recipe, tracker: Tracker | None = None) -> Outcome:
    """Take what is new at the source, de-identify what is in the zone, and release it.

    Raises ``UserError`` for missing settings, key or source, ``GateRefused`` where the zone, a key
    or the release check says no: then nothing is at ``deid.out`` that was not there before.
    """
    tracker = tracker or Silent()
    settings = recipe.deid
    if settings is not None and settings.tagger not in ("on", "off"):
        settings = settings.model_copy(update={"tagger": str(recipe.root / settings.tagger)})
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
        tagger = tagger_of(settings, decided=work.review.decided)
        work.review.take()
        extracted = extract_into(recipe, store, tracker)
        vault = Vault.open(work.folder, key_from(settings.key))
        try:
            engine = Deidentifier(settings, vault, recognisers(settings), tagger)
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
        self.review = Review(store, self.folder / f"{recipe.name}.review.csv")
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
            if not found.releasing_digest:  # begun by an earlier version, which only added
                self.keep(releasing_notes=found.released + found.made)
            if self._is_released(found):
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

    def _is_released(self, found: State) -> bool:
        """Whether the file that a release was to put there stands there."""
        if not self.out.exists() or self.out.stat().st_size != found.releasing:
            return False
        return found.releasing_digest in ("", file_digest(self.out))

    def keep(self, outcomes: Iterable[tuple[str, str]] = (), /, **changes: Any) -> None:
        """Change the state, durably, and keep what became of notes with it."""
        self.state = msgspec.structs.replace(self.state, **changes)
        with self.store.writing():
            self.store.note_outcomes(outcomes)
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
        if not self.state.made and not self.state.refused:
            return ReleaseVerdict(passed=True)
        return self._verdict(gate)

    def _verdict(self, gate: ReleaseCheck) -> ReleaseVerdict:
        """What is new must hold by itself, and the whole with it; the figures are the whole's."""
        alone = gate.verdict(alone=True)
        if before := self.store.get("checked", Seen):
            gate.add_earlier(pickle.loads(before.gate))  # sealed by ourselves, as above
        with self.store.writing():
            seen = Seen(segment=self.state.segment, gate=_seen_by(gate))
            self.store.put("checking", seen)
        whole = gate.verdict()
        reasons = tuple(dict.fromkeys([*alone.reasons, *whole.reasons]))
        return msgspec.structs.replace(whole, passed=not reasons, reasons=reasons)

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
        self.review.add(number, notes, results)
        done = [one for one in results if isinstance(one, DeidentifiedNote)]
        lines = b"".join(encoder.encode(row_of(one.note)) + b"\n" for one in done)
        with disk_errors(self.partial), self.partial.open("ab") as file:
            file.write(lines)
            file.flush()
            os.fsync(file.fileno())
        refused = (one.reason for one in results if isinstance(one, Refused))
        kinds = (finding.kind for one in done for finding in one.findings)
        destroyed = (span.label for one in done for span in one.destroyed)
        outcomes = [_outcome_of(raw, one) for raw, one in zip(notes, results, strict=True)]
        self.keep(
            outcomes,
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
        seen = _seen_by(gate)
        with self.store.writing():
            self.store.put("gate", Seen(segment=self.state.segment, gate=seen))
        self.kept, self.waiting = len(seen), 0

    def changes_release(self) -> bool:
        """Whether anything of what was released must change."""
        return bool(self.state.made or self.state.refused or self.store.outdated())

    def release(self, outcome: Outcome | None = None) -> None:
        """Put what was made behind what was released before, in the place of earlier versions where
        there are any; what is no longer at the source goes. ``outcome``: what is to be said of
        it."""
        gone, moved = self._changed()
        if self.state.size or (gone and self.out.exists()):
            with disk_errors(self.out):
                self.out.parent.mkdir(parents=True, exist_ok=True)
                ready, count = _joined(self.out, self.partial, gone)
                self._write_moved(moved, gone)
                self.state = msgspec.structs.replace(
                    self.state,
                    releasing=ready.stat().st_size,
                    releasing_digest=file_digest(ready),
                    releasing_notes=count,
                )
                self._begin(outcome)
                ready.replace(self.out)
        else:
            self.state = msgspec.structs.replace(self.state, releasing_notes=self.state.released)
            self._begin(outcome)
        self._released()

    def _begin(self, outcome: Outcome | None) -> None:
        """From here on the release is ended, whatever happens, and its report is this one."""
        with self.store.writing():
            self.store.put("deid", self.state)
            if outcome is not None:
                self.store.put("outcome", outcome)

    def _changed(self) -> tuple[set[str], list[Moved]]:
        """Ids of released notes that go, and those that are others now."""
        gone, moved = set(self.store.outdated()), []
        before = dict(self.store.outcomes("released WHERE id IN (SELECT id FROM pending)"))
        for name, now in self.store.outcomes("pending"):
            was = before.get(name, now)
            if was != now and not was.startswith(REFUSED):
                gone.add(was)
                moved += [] if now.startswith(REFUSED) else [Moved(id=now, was=was)]
        query = "pending WHERE id IN (SELECT id FROM taken WHERE length(content) = 0)"
        gone |= {now for _, now in self.store.outcomes(query)}
        return gone, moved

    def _write_moved(self, moved: list[Moved], gone: set[str]) -> None:
        """Beside the released notes, which of them were others before: labels and parts of a split
        follow them."""
        path = self.out.with_suffix(MOVED)
        known = list(read_jsonl(path, Moved)) if path.is_file() else []
        kept = [one for one in known if one.id not in gone or one.id in {m.was for m in moved}]
        new = [one for one in moved if one not in kept]
        if new or len(kept) < len(known):
            write_jsonl(path, [*kept, *new])

    def _released(self) -> None:
        """What was made is released: keep what became of each record, and count."""
        state, ever = self.state, Counter(self.state.refused_ever)
        before = dict(self.store.outcomes("released WHERE id IN (SELECT id FROM pending)"))
        gone = "released WHERE id IN (SELECT id FROM taken WHERE length(content) = 0)"
        before |= dict(self.store.outcomes(gone))
        removed = "pending WHERE id IN (SELECT id FROM taken WHERE length(content) = 0)"
        away = {name for name, _ in self.store.outcomes(removed)}
        now = {name: what for name, what in self.store.outcomes("pending") if name not in away}
        ever.subtract(what[1:] for what in before.values() if what.startswith(REFUSED))
        ever.update(what[1:] for what in now.values() if what.startswith(REFUSED))
        with self.store.writing():
            self.store.settle_outcomes()
            if (state.made or state.refused) and (seen := self.store.get("checking", Seen)):
                self.store.put("checked", seen)
            self.state = msgspec.structs.replace(
                state,
                **UNBEGUN,
                releasing=0,
                releasing_digest="",
                refused_ever={reason: count for reason, count in ever.items() if count > 0},
                released=state.releasing_notes,
                released_segment=state.segment,
            )
            self.store.put("deid", self.state)
        self.partial.unlink(missing_ok=True)
        self.review.forget(decisions=True)
        if self.recipe.extract is not None and self.recipe.extract.keep == 0:
            self.store.expire(0, "released", upto=state.segment)

    def discard(self) -> None:
        """Keep nothing of this release; the next command makes it again from the same segments."""
        self.partial.unlink(missing_ok=True)
        self.review.forget()
        self.keep(**UNBEGUN, segment=self.state.released_segment)
        with self.store.writing():
            self.store.forget_outcomes()

    def ledger(self) -> dict[str, int]:
        """What became of every row that was ever read."""
        counts, state = self.store.head.counts, self.state
        rows = {"released": state.released} | {
            f"refused: {reason}": n for reason, n in sorted(state.refused_ever.items())
        }
        aside = {"taken", AMENDED, REMOVED}
        rows |= {
            f"not taken: {reason}": n for reason, n in sorted(counts.items()) if reason not in aside
        }
        amended, removed = counts.get(AMENDED, 0), counts.get(REMOVED, 0)
        rows |= {"earlier versions of amended notes": amended} if amended else {}
        rows |= {REMOVED: removed} if removed else {}
        waiting = counts.get("taken", 0) - state.released - sum(state.refused_ever.values())
        return rows | ({WAITING: waiting - removed} if waiting != removed else {})


def _outcome_of(raw: RawNote, result: DeidentifiedNote | Refused) -> tuple[str, str]:
    """The hospital's id of a note, and what became of it, as the store keeps it."""
    if isinstance(result, Refused):
        return raw.id, f"{REFUSED}{result.reason}"
    return raw.id, result.note.id


def _seen_by(gate: ReleaseCheck) -> bytes:
    """What a release check knows."""
    return pickle.dumps(
        {n: one for n, one in vars(gate).items() if not isinstance(one, Deidentifier | Part)}
    )


def _joined(out: Path, partial: Path, gone: Collection[str]) -> tuple[Path, int]:
    """What is to be released, ready beside ``out``: what was released before and what was made, the
    last of each id, without ``gone``; and how many notes."""
    ready, count = out.with_name(f"{out.name}.partial"), 0
    made: dict[str, bytes] = {}
    for line in _lines(partial):
        made[_id_of(line)] = line
    made = {id: line for id, line in made.items() if id not in gone}
    with ready.open("wb") as target:
        for line in _lines(out):
            id = _id_of(line)
            if id not in gone:
                target.write(made.pop(id, line))
                count += 1
        target.writelines(made.values())
        target.flush()
        os.fsync(target.fileno())
    return ready, count + len(made)


def _lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def _id_of(line: bytes) -> str:
    """The id of a row that ``row_of`` wrote."""
    return msgspec.json.decode(line, type=_Row).id


class _Row(msgspec.Struct):
    id: str


def _refuse(
    recipe: Recipe, work: ZoneFiles, verdict: ReleaseVerdict, extracted: Extraction
) -> None:
    """Write a page that says why, keep nothing else, and raise."""
    outcome = _outcome(work, work.state, verdict, extracted)
    write_page(
        outcome_page(recipe.name, outcome), report_folder(recipe), f"{work.out.stem}.refused"
    )
    waiting = ""
    if verdict.unreviewed:
        work.review.write(range(work.state.released_segment, work.state.segment + 1))
        waiting = (
            f" Write accept or reject before each place of {work.review.path}, and run residency "
            "deid again."
        )
    work.discard()
    raise GateRefused(f"deid.release: {'; '.join(verdict.reasons)}. Nothing was released.{waiting}")


def _write_outcome(
    recipe: Recipe,
    work: ZoneFiles,
    verdict: ReleaseVerdict,
    extracted: Extraction | None,
    release: bool = False,
) -> Outcome:
    """Release, and say beside the output what stands there."""
    kept = _said_before(work)
    new = release and work.changes_release()
    if release:
        made = _outcome(work, work.state, verdict, extracted, kept) if new else None
        work.release(made)
        kept = made or kept
    outcome = kept or _outcome(work, work.state, verdict, extracted)
    outcome = msgspec.structs.replace(
        outcome,
        notes=work.state.released,
        extracted=extracted,
        ledger=work.ledger(),
        final=_is_final(work),
    )
    write_json(work.out.with_suffix(".report.json"), outcome)
    write_page(outcome_page(recipe.name, outcome), work.out.parent, f"{work.out.stem}.report")
    for suffix in ("html", "md"):
        work.out.with_name(f"{work.out.stem}.refused.{suffix}").unlink(missing_ok=True)
    return outcome if new else msgspec.structs.replace(outcome, new=0)


def _said_before(work: ZoneFiles) -> Outcome | None:
    """What was said of the output as it stands, by an earlier version of this package beside it."""
    found, path = work.store.get("outcome", Outcome), work.out.with_suffix(".report.json")
    if found is None and path.is_file() and work.state.released:
        with suppress(DataError):
            return read_json(path, Outcome)
    return found


def _is_final(work: ZoneFiles) -> bool:
    return work.settings.profile == "anonymised" and bool(work.state.released)


def _outcome(
    work: ZoneFiles,
    state: State,
    verdict: ReleaseVerdict,
    extracted: Extraction | None,
    before: Outcome | None = None,
) -> Outcome:
    """What was done; ``state``: how far it was before the release, ``before``: what was said of the
    file as it stood."""

    def whole(name: str, found: Mapping[str, int]) -> dict[str, int]:
        earlier: dict[str, int] = getattr(before, name) if before else {}
        return dict(sorted((Counter(earlier) + Counter(found)).items()))

    return Outcome(
        profile=work.settings.profile,
        out=work.settings.out,
        notes=work.state.released,
        new=state.made if verdict.passed else 0,
        refused=whole("refused", state.refused),
        replaced=whole("replaced", state.kinds),
        destroyed=whole("destroyed", state.destroyed),
        gate=verdict if before is None or state.made or state.refused else before.gate,
        made_at=datetime.now(UTC),
        extracted=extracted,
        ledger=work.ledger(),
        final=_is_final(work),
        finder=finder(work.settings),
    )


def _add_counts(before: Mapping[str, int], found: Iterable[str]) -> dict[str, int]:
    """Counts with what was found since."""
    counts = Counter(before)
    counts.update(found)
    return dict(counts)


def outcome_page(name: str, done: Outcome, linked: bool = True) -> Page:
    """A de-identification as a page without text or identifiers; ``linked``: whether there is a
    vault."""
    gate = done.gate
    lead = (
        f"{done.new:,} notes were released last; {done.out} holds {done.notes:,}."
        if gate.passed
        else f"The release check said no: {'; '.join(gate.reasons)}. Nothing was released."
    )
    caveats = [done.finder] if done.finder else []
    if linked and done.profile != "anonymised":
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
    row |= {name: getattr(note, name) for name in ("lang", "kind", "department")}
    row = {name: value for name, value in row.items() if value or name in ("text", "group")}
    if note.written_at:
        row["written_at"] = note.written_at.isoformat()
    spans = [
        {"start": s.start, "end": s.end, "label": s.label, "text": s.quote} for s in note.spans
    ]
    return {**row, "entities": spans}
