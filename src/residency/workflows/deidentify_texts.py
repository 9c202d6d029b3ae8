"""Plain text without a database: the same finder, profile and report, one file after another."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from residency.core.errors import GateRefused, UserError
from residency.core.files import disk_errors, whole_folder, write_json
from residency.core.page import write_page
from residency.core.progress import Silent, Tracker
from residency.core.types import RawNote
from residency.deid.draws import new_secret
from residency.deid.engine import DeidentifiedNote, Deidentifier, Refused
from residency.deid.options import Deid
from residency.deid.release import ReleaseCheck
from residency.deid.tagger import finder, tagger_of
from residency.workflows.deidentify import Outcome, outcome_page

SUFFIX = ".txt"
TOGETHER = 64
"""Files that are read at once."""


class OneTime:
    """Secrets that nobody keeps: a file is a patient of its own, and there is no way back."""

    def __init__(self) -> None:
        self.drawn: dict[str, bytes] = {}

    def secret(self, patient: str) -> bytes:
        """A random one for each."""
        return self.drawn.setdefault(patient, new_secret())


def deidentify_texts(
    source: Path, lang: str, out: Path, settings: Deid, tracker: Tracker | None = None
) -> Outcome:
    """De-identify a file of plain text, or all ``.txt`` files of a folder, into a new folder, under
    the same names, with a report.

    No columns are known, nothing is kept of the patients, and there is no review: what a tagger
    doubts is masked. Raises ``UserError`` where there is no text or it is not UTF-8, and
    ``GateRefused`` where too many files are refused.
    """
    tracker = tracker or Silent()
    files = [source] if source.is_file() else sorted(source.rglob(f"*{SUFFIX}"))
    if not files:
        raise UserError(f"--text: {source} is no text file and no folder with {SUFFIX} files.")
    if out.exists():
        raise UserError(f"--out: {out} is there already; name a new folder.")
    tagger = tagger_of(settings)
    if tagger is not None:
        tagger.mask = tagger.review
    engine = Deidentifier(settings, OneTime(), tagger=tagger)
    gate, refused, kinds = ReleaseCheck(settings.release, engine), Counter[str](), Counter[str]()
    tracker.start("de-identifying")
    with whole_folder(out) as partial:
        for batch in (files[at : at + TOGETHER] for at in range(0, len(files), TOGETHER)):
            notes = list(_notes(batch, lang))
            for path, raw in zip(batch, notes, strict=True):
                done = engine.process(raw)
                gate.add(raw, done)
                if isinstance(done, Refused):
                    refused[done.reason] += 1
                    continue
                kinds.update(finding.kind for finding in done.findings)
                name = path.name if path == source else str(path.relative_to(source))
                _write(partial / name, done)
            tracker.update(gate.notes)
        verdict = gate.verdict()
        if not verdict.passed:
            raise GateRefused(f"--text: {'; '.join(verdict.reasons)}. Nothing was written.")
        made = gate.notes - gate.refused
        outcome = Outcome(
            profile=settings.profile,
            out=str(out),
            notes=made,
            new=made,
            refused=dict(refused),
            replaced=dict(sorted(kinds.items())),
            destroyed={},
            gate=verdict,
            made_at=datetime.now(UTC),
            finder=finder(settings),
        )
        write_json(partial / "report.json", outcome)
        write_page(outcome_page(source.name, outcome, linked=False), partial, "report")
    tracker.end(f"{made} files, {gate.refused} refused")
    return outcome


def _notes(files: list[Path], lang: str) -> Iterator[RawNote]:
    for path in files:
        with disk_errors(path):
            try:
                text = path.read_text("utf-8-sig")
            except UnicodeDecodeError:
                raise UserError(f"--text: {path} is not UTF-8; convert it first.") from None
        yield RawNote(id=str(path), patient=str(path), text=text, lang=lang)


def _write(path: Path, done: DeidentifiedNote) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(done.note.text, "utf-8")
