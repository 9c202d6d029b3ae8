"""The model ledger: trained models by content address, and names that point to them, each change
proved and kept.

::

    models/ledger.jsonl          one line for each change, each with the hash of the line before it
    models/sha256/DIGEST/        an artefact: the files that its artefact.json names
    models/sha256/DIGEST.canary.json   what an older artefact said when it was added

What a name points to is read off the ledger, so that there is nothing that could disagree with it.
A line is added whole or not at all; half a line at the end (a power cut) counts as none.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import msgspec

from residency.core.errors import GateRefused, UserError, allowed
from residency.core.files import disk_errors, file_digest, locked, read_json, write_json
from residency.core.part import parse
from residency.core.types import Report, RunFacts, Value
from residency.evals.floor import SafetyFloor, judge_of, safety_gate
from residency.evals.formats import SAFETY_PART
from residency.evals.study import Harm, harms
from residency.evals.verdicts import BESIDE, INSTEAD, judgements
from residency.models import artefact as artefacts
from residency.models import fingerprint
from residency.models.fingerprint import Fingerprint
from residency.ops import proof
from residency.ops.proof import Proof

LEDGER = "ledger.jsonl"
ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
Prove = Callable[[Path, Path | None], Proof]


class LedgerEntry(Value, frozen=True):
    """A line of the ledger."""

    n: int
    at: str
    """UTC, to the second."""
    what: Literal["add", "promote", "rollback"]
    digest: str
    """Content address of the artefact."""
    previous: str
    """SHA-256 of the line before; empty in the first."""
    alias: str = ""
    """Promotions and rollbacks: the name that points to it from here on."""
    by: str = ""
    """Who asked, where it was asked of a server: the hash of the user id."""
    source: str = ""
    """Added: the folder that it was taken from."""
    base: str = ""
    base_digest: str = ""
    method: str = ""
    output: str = ""
    task: str = ""
    profile: str = ""
    """Added: the least protected profile among the notes that it learned from."""
    canary: str = ""
    """Added: SHA-256 of the file with its fingerprint."""
    recorded: Literal["training", "added", ""] = ""
    """Added: whether the fingerprint was recorded at training time, or when it was added."""
    safety: float | None = None
    """Added: share of safe answers in the run's evaluation of safety, where there is one."""
    verdict: str = ""
    """Added: what the run's results say of it, e.g. ``learned nothing`` or ``clearly better``."""
    harm: Report | None = None
    """Added: the scores of that evaluation; no questions and no answers."""
    floor: dict[str, Any] = {}
    """Added: what the run's recipe demands of them before a promotion (``evaluate.floor``)."""
    judged: tuple[Harm, ...] = ()
    """Added: what blind studies found harmful in its answers; bars every promotion."""
    proof: Proof | None = None
    """Promotions and rollbacks: what the proof found."""


class ProvedChange(Value, frozen=True):
    """A change of a name that was proved, and is not made yet."""

    what: Literal["promote", "rollback"]
    alias: str
    digest: str
    proof: Proof
    by: str = ""
    before: tuple[str, ...] = ()
    """What the name pointed to when it was proved."""


class ModelLedger:
    """A model ledger in a folder."""

    def __init__(self, folder: Path, prove: Prove = proof.prove) -> None:
        self.folder, self._prove = folder, prove

    # Reading

    def entries(self) -> list[LedgerEntry]:
        """All lines, their chain checked. Raises ``GateRefused`` where one was changed, removed or
        moved."""
        path = self.folder / LEDGER
        found: list[LedgerEntry] = []
        previous = ""
        for number, line in enumerate(self._lines(), start=1):
            try:
                entry = msgspec.json.decode(line, type=LedgerEntry)
            except msgspec.DecodeError:
                raise _tampered(path, number) from None
            if (entry.n, entry.previous) != (number, previous):
                raise _tampered(path, number)
            found.append(entry)
            previous = sha256(line).hexdigest()
        return found

    def _lines(self) -> list[bytes]:
        path = self.folder / LEDGER
        with disk_errors(path):
            return path.read_bytes().split(b"\n")[:-1] if path.is_file() else []

    def list(self) -> list[LedgerEntry]:
        """The models that were added, oldest first."""
        return list({one.digest: one for one in self.entries() if one.what == "add"}.values())

    def aliases(self) -> dict[str, tuple[str, ...]]:
        """Name -> the digests that it pointed to; the last is what it points to now. A rollback
        takes the last away."""
        found: dict[str, tuple[str, ...]] = {}
        for one in self.entries():
            if one.what == "promote":
                found[one.alias] = (*found.get(one.alias, ()), one.digest)
            elif one.what == "rollback":
                found[one.alias] = found[one.alias][:-1]
        return found

    def resolve(self, name: str) -> LedgerEntry:
        """The model of a name, of a digest or the beginning of one (8 digits and more), or of a run
        that was added: its folder, or the folder's name with or without its key. Of a run that was
        trained and added again, the last.

        Raises ``UserError`` where there is none, or several.
        """
        added, aliases = {one.digest: one for one in self.list()}, self.aliases()
        if name in aliases:
            return added[aliases[name][-1]]
        found = [one for digest, one in added.items() if len(name) >= 8 and digest.startswith(name)]
        found = found or list(
            {one.source: one for one in self.list() if _of_run(one, name)}.values()
        )
        if len(found) == 1:
            return found[0]
        what = (
            f"stands for several models; write one's digest ({', '.join(_short(found))})"
            if found
            else "is not in the model ledger"
        )
        if found:
            raise UserError(f"{name}: {what}.")
        known = [*aliases, *(digest[:12] for digest in added)]
        more = f"; {allowed(known, name)}" if known else "; add one with residency model add RUN"
        raise UserError(f"{name}: {what}{more}.")

    def path(self, digest: str) -> Path:
        """The folder of an artefact."""
        return self.folder / "sha256" / digest

    def _beside(self, digest: str) -> Path:
        return self.folder / "sha256" / f"{digest}.canary.json"

    # Changing

    def add(
        self,
        artefact: Path,
        run: Path | None = None,
        *,
        record: bool = False,
        link: bool = False,
        floor: SafetyFloor | None = None,
    ) -> LedgerEntry:
        """Take up an artefact (``run``: the run that it is of, whose evaluation of safety is
        noted); a known one stays as it is.

        ``record``: record what it says now, of one that was trained by a version that recorded
        nothing, or the model in training.
        ``link``: the same files on disk instead of copies. ``floor``: what every promotion of it
        demands of that evaluation. Raises ``UserError`` where it is damaged.
        """
        found, digest = artefacts.read(artefact), proof.address(artefact)
        own = self._by_training(artefact, found, digest, record)
        with self._locked():
            known = next((one for one in self.list() if one.digest == digest), None)
            harm = safety(run, artefact, floor) if run is not None else None
            judged = harms(run, digest) if run is not None else ()
            demanded = floor.model_dump(mode="json", exclude_defaults=True) if floor else {}
            self._take(artefact, found, digest, link)
            if (
                known is not None
                and known.recorded == ("training" if own else "added")
                and harm in (None, known.harm)
                and demanded in ({}, known.floor)
                and judged in ((), known.judged)
            ):
                return known
            if not own and not self._beside(digest).is_file():
                write_json(self._beside(digest), proof.record(self.path(digest)))
            return self._append(
                LedgerEntry(
                    n=0,
                    at="",
                    previous="",
                    what="add",
                    digest=digest,
                    source=str(artefact.resolve()),
                    base=found.base.id,
                    base_digest=found.base.digest,
                    method=found.kinds,
                    output=found.output,
                    task=found.task().name,
                    profile=found.profile,
                    canary=found.files[fingerprint.FILE]
                    if own
                    else file_digest(self._beside(digest)),
                    recorded="training" if own else "added",
                    safety=_share(harm) if harm is not None else None,
                    verdict=verdict(run, artefact) if run is not None else "",
                    harm=harm,
                    floor=demanded,
                    judged=judged or (known.judged if known is not None else ()),
                )
            )

    def _by_training(
        self, artefact: Path, found: artefacts.Artefact, digest: str, record: bool
    ) -> bool:
        """Whether a model is proved by what was recorded with its training, and not by what is
        recorded beside it. Raises ``UserError`` where neither is there, nor is to be."""
        beside, own = self._beside(digest).is_file(), fingerprint.FILE in found.files
        if not (own or record or beside):
            raise UserError(
                f"{artefact}: nothing was recorded of it at training time; add it with --record, "
                "which records what it says now."
            )
        return own and not beside and not (record and proof.of_training(artefact, found))

    def _intact(self, digest: str) -> bool:
        try:
            artefacts.read(self.path(digest))
            return proof.address(self.path(digest)) == digest
        except UserError:
            return False

    def _take(self, artefact: Path, found: artefacts.Artefact, digest: str, link: bool) -> None:
        """The files that an artefact names, whole or not at all, checked again where they lie;
        none where they are there and intact."""
        if self._intact(digest):
            return
        target = self.path(digest)
        partial = target.with_name(f"{digest}.partial")
        with disk_errors(target):
            shutil.rmtree(partial, ignore_errors=True)
            for name in (*found.files, artefacts.FILE):
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                if link:
                    os.link(artefact / name, partial / name)
                else:
                    shutil.copyfile(artefact / name, partial / name)
            artefacts.read(partial)
            shutil.rmtree(target, ignore_errors=True)
            partial.rename(target)

    # Names

    def promote(
        self, alias: str, name: str, *, require_safety: float | None = None, by: str = ""
    ) -> LedgerEntry:
        """Let a name point to a model; as of ``ready``."""
        return self.commit(self.ready(alias, name, require_safety=require_safety, by=by))

    def ready(
        self,
        alias: str,
        name: str,
        *,
        require_safety: float | None = None,
        by: str = "",
        again: bool = False,
    ) -> ProvedChange:
        """The promotion of a model (its digest, or another name) under a name, once it is
        proved. ``again``: also where the name points to it already, as a server that runs may
        not know; then no line is added.

        Raises ``GateRefused``, and changes nothing, where the proof fails, or where the model
        falls short of the floor that its run's recipe sets, or its share of safe answers is below
        ``require_safety`` or was never measured.
        """
        if not ALIAS.fullmatch(alias):
            raise UserError(
                f"{alias!r}: is no name for a model; use letters, digits, dots, dashes, at most 64."
            )
        found = self.resolve(name)
        _safe_enough(found, require_safety)
        _harmless(found)
        if not again and self.aliases().get(alias, ("",))[-1] == found.digest:
            raise UserError(f"{alias}: points to {found.digest[:12]} already.")
        return self._ready("promote", alias, found, by)

    def rollback(self, alias: str, *, by: str = "") -> LedgerEntry:
        """Let a name point to what it pointed to before; as of ``ready_back``."""
        return self.commit(self.ready_back(alias, by=by))

    def ready_back(self, alias: str, *, by: str = "") -> ProvedChange:
        """The way back to what a name pointed to before, once that is proved too."""
        history = self.aliases().get(alias)
        if history is None:
            raise UserError(
                f"{alias}: is no name in the model ledger; {allowed(self.aliases(), alias)}."
            )
        if len(history) < 2:
            raise UserError(f"{alias}: never pointed to another model; promote one instead.")
        return self._ready("rollback", alias, self.resolve(history[-2]), by)

    def _ready(
        self, what: Literal["promote", "rollback"], alias: str, found: LedgerEntry, by: str
    ) -> ProvedChange:
        before = self.aliases().get(alias, ())
        return ProvedChange(
            what=what,
            alias=alias,
            digest=found.digest,
            proof=self.proved(found),
            by=by,
            before=before,
        )

    def commit(self, ready: ProvedChange, last: Callable[[], object] | None = None) -> LedgerEntry:
        """Make a change that was proved. ``last`` is called when nothing but the disk can prevent
        it any more; what it raises does.

        Raises ``UserError`` where the name was changed since it was proved.
        """
        with self._locked():
            if self.aliases().get(ready.alias, ()) != ready.before:
                raise UserError(
                    f"{ready.alias}: was changed meanwhile; look with residency model list, then "
                    "try again."
                )
            if last is not None:
                last()
            if ready.what == "promote" and ready.before[-1:] == (ready.digest,):
                return next(
                    one
                    for one in reversed(self.entries())
                    if (one.alias, one.digest) == (ready.alias, ready.digest)
                )
            return self._append(
                LedgerEntry(
                    n=0,
                    at="",
                    previous="",
                    what=ready.what,
                    digest=ready.digest,
                    alias=ready.alias,
                    by=ready.by,
                    proof=ready.proof,
                )
            )

    def recorded(self, digest: str) -> Fingerprint:
        """What was recorded of a model; raises ``GateRefused`` where nothing was."""
        folder, beside = self.path(digest), self._beside(digest)
        return proof.recorded(folder, artefacts.read(folder), beside if beside.is_file() else None)

    def proved(self, found: LedgerEntry) -> Proof:
        """The proof of a model in the ledger; raises ``GateRefused``."""
        folder, beside = self.path(found.digest), self._beside(found.digest)
        if not (folder / artefacts.FILE).is_file() or proof.address(folder) != found.digest:
            raise GateRefused(
                f"not promoted: {folder}: is missing or was changed since it was added; add it "
                "again from its run."
            )
        if found.recorded == "added" and (
            not beside.is_file() or file_digest(beside) != found.canary
        ):
            raise GateRefused(
                f"not promoted: {beside}: is missing or was changed since it was added."
            )
        return self._prove(folder, beside if found.recorded == "added" else None)

    def _append(self, entry: LedgerEntry) -> LedgerEntry:
        """Add a line, forced to disk; half a line that a power cut left is cut off first."""
        path, lines = self.folder / LEDGER, self._lines()
        made = msgspec.structs.replace(
            entry,
            n=len(lines) + 1,
            at=datetime.now(UTC).isoformat(timespec="seconds"),
            previous=sha256(lines[-1]).hexdigest() if lines else "",
        )
        with disk_errors(path), path.open("ab") as file:
            whole = sum(len(line) + 1 for line in lines)
            file.truncate(whole)
            try:
                file.write(msgspec.json.encode(made) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                file.truncate(whole)
                raise
        return made

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in the folder."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder):
            yield


def safety(run: Path, artefact: Path, floor: SafetyFloor | None = None) -> Report | None:
    """The scores of a run's model on the questions about harm, where its evaluation asked (by
    people or a model: where ``residency ratings`` took their marks); of several the least safe."""
    judge = floor.judge if floor is not None else "rule"
    measured = [
        report
        for path in sorted(run.glob("eval/*/reports.json"))
        for report in read_json(path, list[Report])
    ]
    if judge != "rule" and (run / "facts.json").is_file():
        measured = list(read_json(run / "facts.json", RunFacts).reports)
    found = [
        report
        for report in measured
        if report.part == SAFETY_PART
        and judge_of(report) == judge
        and report.system.name in ("tuned", artefact.name)
        and report.scores
    ]
    worst = min(found, key=_share, default=None)
    return worst and Report(
        system=worst.system,
        task=worst.task,
        part=worst.part,
        data_digest=worst.data_digest,
        n=worst.n,
        groups=worst.groups,
        scores=worst.scores,
        references=worst.references if judge != "rule" else {},
        baselines=worst.baselines,
    )


def _of_run(entry: LedgerEntry, run: str) -> bool:
    """Whether a model was added from a run: ``runs/ner-3f9a1c20``, ``ner-3f9a1c20``, ``ner``."""
    source = Path(entry.source)
    folder = source.parents[1] if source.parent.name == "train" else source
    names = (folder.name, folder.name.rpartition("-")[0])
    return run in names or Path(run).resolve() in (folder, source)


def _short(found: Iterable[LedgerEntry]) -> list[str]:
    return [one.digest[:12] for one in found]


def verdict(run: Path, artefact: Path) -> str:
    """What a run's results say of its model (``evals.verdicts.judgements``), each kind once."""
    kinds = [
        one.kind
        for path in sorted(run.glob("eval/*/reports.json"))
        for one in judgements(
            report
            for report in read_json(path, list[Report])
            if report.system.name in (*BESIDE, *INSTEAD, "tuned", artefact.name)
        )
    ]
    return ", ".join(dict.fromkeys(kinds))


def _share(report: Report) -> float:
    return next((s.value or 0.0 for s in report.scores if s.metric == "safe"), 0.0)


def _safe_enough(found: LedgerEntry, least: float | None) -> None:
    """Raises ``GateRefused`` where a model falls short of its recipe's floor, or of the share that
    is asked for now."""
    floors: list[SafetyFloor] = []
    if found.floor:
        floors.append(parse(SafetyFloor, found.floor, "evaluate.floor"))
    if least is not None:
        # both ends of the range are allowed here: with 0, that it was measured at all
        judge = floors[0].judge if floors else "rule"
        floors.append(SafetyFloor.model_construct(safe=least, harmful=1.0, judge=judge))
    try:
        for floor in floors:
            safety_gate([found.harm] if found.harm is not None else [], floor)
    except GateRefused as error:
        raise GateRefused(f"not promoted: {found.digest[:12]}: {error}") from None


def _harmless(found: LedgerEntry) -> None:
    """Raises ``GateRefused`` where raters of a blind study called an answer of a model harmful:
    before it was added, or since, as its run knows."""
    source = Path(found.source)
    later = harms(source.parents[1], found.digest) if source.parent.name == "train" else ()
    for one in (*found.judged, *later):
        raise GateRefused(
            f"not promoted: {found.digest[:12]}: raters called {one.harmful} of its {one.answers} "
            f"answers harmful in the blind study {one.study}; promote another model."
        )


def _tampered(path: Path, number: int) -> GateRefused:
    return GateRefused(
        f"{path}:{number}: was changed, or a line before it was; restore it from a backup."
    )
