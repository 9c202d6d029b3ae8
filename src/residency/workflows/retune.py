"""Tune a run's model again: records asked for, their labels checked, merged, tuned, and promoted
only where the new model is shown to be no worse.

Everything lies in ``RUN/retune``: ask.jsonl (what to label), data/ (the parts of the new run),
retune.html and decision.json. Each step is done once; the same command goes on from where it is.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from residency.core.errors import DataError, GateRefused, UserError
from residency.core.files import digest, locked, read_json, read_jsonl, write_json
from residency.core.page import Page, Section, write_page
from residency.core.progress import Silent, Tracker
from residency.core.run_folder import Run
from residency.core.types import PARTS, Example, Note, Report, Value
from residency.corpus import write
from residency.corpus.summary import strictest
from residency.evals.measure import groups_of
from residency.label.active import choose
from residency.label.suspects import find_suspects
from residency.metrics import drift
from residency.metrics.counts import f1
from residency.metrics.drift import Array
from residency.metrics.paired import paired_bootstrap
from residency.ops.model_ledger import ModelLedger
from residency.recipe import Recipe
from residency.tasks.examples import examples
from residency.tasks.scoring import falls
from residency.workflows import watch as watching
from residency.workflows.finished import artefact_of, finished_facts, open_run
from residency.workflows.run import run as tune
from residency.workflows.suggest import cross_validate
from residency.workflows.watch import Field, answers, counts_of

FOLDER = "retune"
FIELD = 0.2
"""Share of the new patients that is kept to measure on."""
SURE = 3.0
"""Standard errors by which new labels may differ from those of the watched records, and"""
WRONG = 0.1
"""in any case so much, of F1 or of the share that is doubted."""
LEARNED = 300
"""Training notes beside which new labels are judged."""
FOLDS = 3
SLOWER = 2.0
"""Times the seconds of the old model that the new one may take."""


class Finding(Value, frozen=True):
    """What a check found."""

    about: str
    passed: bool
    words: str


class Decision(Value, frozen=True):
    """What came of a batch of labels."""

    batch: str
    """Digest of the labelled records."""
    run: str
    """Folder of the new run."""
    passed: bool
    why: str
    findings: tuple[Finding, ...]


def retune(
    run: Path | str,
    overrides: Sequence[str] = (),
    runs: Path = Path("runs"),
    ledger: Path = Path("models"),
    alias: str = "",
    due: bool = False,
    tracker: Tracker | None = None,
    today: date | None = None,
) -> str:
    """The next step of tuning a run's model again, in a sentence; as ``residency retune``.

    Raises ``GateRefused`` where the labels are not to be trusted, or the new model is not shown to
    be better: nothing is promoted then. Otherwise as ``watch``.
    """
    tracker, field = tracker or Silent(), watching.open_field(run, overrides)
    if alias:
        ModelLedger(ledger).entries()  # a broken one is told before an hour of tuning
    folder = field.run / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        asked = folder / "ask.jsonl"
        if not asked.is_file():
            return _ask(field, asked, due, today or date.today(), tracker)
        batch = _labelled(field, asked)
        if isinstance(batch, str):
            return batch
        key, kept = digest([msgspec.to_builtins(note) for note in batch]), folder / "decision.json"
        decision = read_json(kept, Decision) if kept.is_file() else None
        if decision is None or decision.batch != key:
            check_labels(field, batch, tracker)
            decision = _tuned(field, batch, key, runs, tracker)
            write_json(kept, decision)
            write_page(_page(field, decision), folder, "retune")
        if not decision.passed:
            raise GateRefused(f"not promoted: {decision.why} {field.run.name} stays.")
        return _promote(decision, ledger, alias)


# Asking


def _ask(field: Field, path: Path, due: bool, today: date, tracker: Tracker) -> str:
    """Ask for records where there is a reason to."""
    settings = field.settings
    watched, _ = watching.watch(field.run, _overrides(field), tracker)
    if watched.verdict != "drift":
        begun = settings.since or date.fromisoformat(Run(field.run).manifest.created[:10])
        if not due or today < begun + timedelta(days=settings.days):
            return f"Nothing to do. {watched.why}"
    if not settings.pool:
        raise UserError(
            f"watch.pool: {settings.records} more records are to be labelled, and it names none to "
            "choose from; give unlabelled ones of the field with watch.pool=..."
        )
    known = {note.id for note in (*field.one.corpus.notes, *field.notes)}
    texts = {note.text for note in (*field.one.corpus.notes, *field.notes)}
    pool = watching.read_field(field.recipe, settings.pool, "watch.pool", field.card, dated=False)
    begins = watched.weeks[-settings.weeks :][0].begins
    fresh = [
        note
        for note in pool
        if note.id not in known
        and note.text not in texts
        and (note.written_at is None or note.written_at.date() >= begins)
    ]
    if len(fresh) < settings.records:
        raise UserError(
            f"watch.pool: holds {len(fresh)} records since {begins} that were not used, and "
            f"{settings.records} are to be labelled; give more, or set watch.records."
        )
    chosen = choose(
        fresh, [0.0] * len(fresh), settings.records, at_random=1.0, seed=field.recipe.seed
    )
    by_id = {note.id: note for note in fresh}
    bare = (msgspec.structs.replace(by_id[one.note], spans=()) for one in chosen)
    write.write_jsonl(bare, path)
    return f"{watched.why} {_wanted(settings.records, path)}"


def _wanted(count: int, path: Path) -> str:
    return (
        f"Asked for {count} records: label {path} (residency label), then give their gold.jsonl "
        "with watch.labelled=... and run the same command."
    )


def _overrides(field: Field) -> list[str]:
    """The settings of watching, as they stand."""
    given = field.settings.model_dump(mode="json", exclude_defaults=True)
    return [f"watch.{name}={value}" for name, value in given.items()]


def _labelled(field: Field, path: Path) -> list[Note] | str:
    """The records that were asked for with their labels, or in words how many are missing."""
    asked = {row["id"]: row["text"] for row in read_jsonl(path, dict[str, Any])}
    given, settings = field.settings.labelled, field.settings
    if not given or not (field.recipe.root / given).is_file():
        return f"Waiting. {_wanted(len(asked), path)}"
    notes = watching.read_field(field.recipe, given, "watch.labelled", field.card, dated=False)
    found = [note for note in notes if note.id in asked]
    if others := sum(note.text != asked[note.id] for note in found):
        raise DataError(
            f"watch.labelled: {others} records do not have the text that was asked for; give those "
            f"of {path}."
        )
    if len(found) < len(asked):
        return f"Waiting: {len(found)} of {len(asked)} records are labelled in {settings.labelled}."
    return sorted(found, key=lambda note: note.id)


# The labels


def check_labels(field: Field, batch: Sequence[Note], tracker: Tracker) -> None:
    """Raise ``GateRefused`` where labels are far from those of the watched records of the last
    weeks: by the old model, or by models that learned from other notes."""
    trusted = recent(field)
    _agrees(field, batch, trusted, tracker)
    _suspects(field, batch, trusted, tracker)


def recent(field: Field) -> list[Note]:
    """The watched records of the last weeks."""
    newest = max(watching.when(note) for note in field.notes)
    since = newest - timedelta(weeks=field.settings.weeks)
    return [note for note in field.notes if watching.when(note) > since]


def _agrees(field: Field, batch: Sequence[Note], trusted: Sequence[Note], told: Tracker) -> None:
    """The old model against the labels of both."""
    both = []
    for notes in (trusted, batch):
        asked = examples(notes, field.card)
        said = answers(field.artefact, asked, told, "asking the model of new labels")
        both.append(drift.baseline_of(counts_of(asked, said, field.card)))
    old, new = both
    less = float(old.f1[0] - new.f1[0])
    error = float((old.errors[0] ** 2 + new.errors[0] ** 2) ** 0.5)
    if less > max(WRONG, SURE * error):
        raise GateRefused(
            f"not tuned: the model agrees with the new labels by F1 {new.f1[0]:.3f}, with those of "
            f"the watched records of the same weeks by {old.f1[0]:.3f}; have the new ones looked "
            "through (residency label errors), and give them again."
        )


def _suspects(field: Field, batch: Sequence[Note], trusted: Sequence[Note], told: Tracker) -> None:
    """Models that learned from other notes against the labels of both."""
    from residency.workflows.steps import base_of

    notes = [*field.one.corpus.part("train")[:LEARNED], *trusted, *batch]
    stage = field.recipe.stages[0].model_copy(update={"stop": None, "track": ()})
    seed = field.recipe.seed
    beliefs = cross_validate(base_of(field.recipe), field.card, notes, stage, seed, FOLDS, told)
    new = {note.id for note in batch}
    places, odd = {True: 0, False: 0}, {True: 0, False: 0}
    for note, belief in list(zip(notes, beliefs, strict=True))[-len(trusted) - len(batch) :]:
        found = list(find_suspects(note, belief.slots, belief.log_probabilities, field.card.names))
        places[note.id in new] += len(note.spans) + sum(one.kind == "missing" for one in found)
        odd[note.id in new] += len(found)
    shares = [odd[one] / max(1, places[one]) for one in (False, True)]
    whole = sum(odd.values()) / max(1, sum(places.values()))
    error = (whole * (1 - whole) * sum(1 / max(1, places[one]) for one in places)) ** 0.5
    if shares[1] - shares[0] > max(WRONG, SURE * error):
        raise GateRefused(
            f"not tuned: models that learned from other records doubt {shares[1]:.0%} of the "
            f"new labels and {shares[0]:.0%} of those of the watched records; have the new ones "
            "looked through (residency label errors), and give them again."
        )


# Tuning


def merged(field: Field, batch: Sequence[Note], folder: Path) -> tuple[Recipe, list[Note]]:
    """The recipe of the new run, whose parts are written into a folder, and the new records that
    are kept to measure on. The test part stays; a patient who is measured on is learned from
    nowhere."""
    corpus, recipe, name = field.one.corpus, field.recipe, field.one.data
    parts = {part: corpus.part(part) for part in PARTS}
    of_group = {note.group or note.id: part for part, notes in parts.items() for note in notes}
    watched = {note.group or note.id for note in field.notes}
    held = []
    for note in batch:
        group = note.group or note.id
        part = of_group.get(group)
        if group in watched or part == "test" or (part is None and _drawn(recipe.seed, group)):
            held.append(note)
        else:
            parts[part or "train"].append(note)
    parts["train"] = [n for n in parts["train"] if (n.group or n.id) not in watched]
    data: dict[str, Any] = {"format": "jsonl", "stop": 0, "max_rejected": 0}
    data["profile"] = strictest(note.profile for notes in parts.values() for note in notes)
    for part, notes in parts.items():
        if notes:
            write.write_jsonl(notes, folder / f"{part}.jsonl")
            data[part] = os.path.relpath(folder / f"{part}.jsonl", recipe.root)
    value = recipe.mapping()
    value["data"] = {**value["data"], name: data}
    dated = (note for note in (*batch, *field.notes) if note.written_at)
    since = max(watching.when(note) for note in dated).date()
    value["watch"] = {**value.get("watch", {}), "since": since, "labelled": ""}
    return Recipe.from_mapping(value, recipe.root, where=str(folder)), held


def _drawn(seed: int, group: str) -> bool:
    return int(sha256(f"{seed}/{group}".encode()).hexdigest()[:8], 16) / 2**32 < FIELD


def _tuned(field: Field, batch: Sequence[Note], key: str, runs: Path, tracker: Tracker) -> Decision:
    """The new run, and whether it may take the old one's place."""
    recipe, held = merged(field, batch, field.run / FOLDER / "data")
    new = tune(recipe, runs, tracker)
    found = tuple(promotion(field, new, [*recent(field), *held], tracker))
    failed = [one for one in found if not one.passed]
    why = " ".join(f"{one.about}: {one.words}." for one in (failed or found))
    return Decision(batch=key, run=str(new.folder), passed=not failed, why=why, findings=found)


def promotion(field: Field, new: Run, notes: Sequence[Note], tracker: Tracker) -> Iterator[Finding]:
    """What speaks for the new model and against it: on the old test part no worse, over all and by
    type; on field ``notes`` better; no slower, no worse at what else was measured, and not blocked
    by an audit."""
    margin = field.settings.fall
    if field.settings.how == "relative":
        margin *= float(f1(counts_of(field.asked, field.answered, field.card).sum(axis=(0, 1))))
    before, after, seconds = _both(field, new, field.asked, tracker)
    yield from _no_worse(field, before, after, margin)
    asked = examples(notes, field.card)
    before, after, _ = _both(field, new, asked, tracker)
    value, low, high = _difference(before, after, groups_of(asked), None)
    fell = field.settings.rule == "literal" or watching.judge(field, Silent()).verdict == "drift"
    yield Finding(
        about="field",
        passed=low > (0 if fell else -margin),
        words=f"F1 on {len(asked)} field records {_points(value, low, high)}"
        + (", to be above 0" if fell else f", to be above {-100 * margin:g}"),
    )
    slow = seconds[1] / max(seconds[0], 1e-9)
    yield Finding(
        about="speed", passed=slow <= SLOWER, words=f"takes {slow:.2g} times the old one's seconds"
    )
    yield from _others(field, new)
    audit = new.folder / "audit" / "privacy.json"
    verdict = read_json(audit, dict[str, Any]).get("verdict") if audit.is_file() else "not made"
    yield Finding(about="privacy audit", passed=verdict != "blocked", words=str(verdict))


def _no_worse(field: Field, before: Array, after: Array, margin: float) -> Iterator[Finding]:
    """The test part: over all labels a fall of ``margin`` is excluded, and of no type is a fall
    shown."""
    groups = groups_of(field.asked)
    value, low, high = _difference(before, after, groups, None)
    yield Finding(
        about="test part",
        passed=low > -margin,
        words=f"F1 {_points(value, low, high)}, to be above {-100 * margin:g}",
    )
    for label, name in enumerate(field.card.names):
        value, low, high = _difference(before, after, groups, label)
        yield Finding(
            about=f"test part, {name}",
            passed=not (high < 0 and value < -margin),
            words=f"F1 {_points(value, low, high)}",
        )


def _both(
    field: Field, new: Run, asked: Sequence[Example], tracker: Tracker
) -> tuple[Array, Array, list[float]]:
    """Counts of old and new model, and the seconds that they took (the shorter of two)."""
    counts, seconds = [], []
    for artefact in (field.artefact, artefact_of(new.folder)):
        took = []
        for _ in range(2):
            begun = time.perf_counter()
            said = answers(artefact, asked, tracker, "comparing old and new")
            took.append(time.perf_counter() - begun)
        counts.append(counts_of(asked, said, field.card))
        seconds.append(min(took))
    return counts[0], counts[1], seconds


def _difference(
    before: Array, after: Array, groups: Sequence[str], label: int | None
) -> tuple[float, float, float]:
    """By how much F1 rose, with its 90 % interval; over all labels where none is given."""
    shape = before.shape[1:]

    def statistic(sums: Array) -> Array:
        table = sums.reshape(*sums.shape[:-1], *shape)
        return f1(table.sum(axis=-2) if label is None else table[..., label, :])[..., None]

    flat = (len(before), -1)
    return paired_bootstrap(before.reshape(flat), after.reshape(flat), groups, statistic, level=0.9)


def _others(field: Field, new: Run) -> Iterator[Finding]:
    """What else both runs measured: other tasks, questions about harm."""
    measured: list[dict[tuple[str, str], Report]] = []
    for folder in (field.run, new.folder):
        reports = finished_facts(Run(folder)).reports
        measured.append({(one.task, one.part): one for one in reports})
    old, now = measured
    for key in old.keys() & now.keys() - {(field.card.name, "test")}:
        before, after = old[key].scores[0], now[key].scores[0]
        if before.value is None or after.value is None:
            continue
        bound = before.high if falls(before.metric) else before.low
        limit = before.value if bound is None else bound
        worse = after.value > limit if falls(before.metric) else after.value < limit
        words = f"{before.metric} {before.value:.3f} before, {after.value:.3f} now"
        yield Finding(about=" ".join(key), passed=not worse, words=words)


def _points(value: float, low: float, high: float) -> str:
    return f"{100 * value:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"


def _promote(decision: Decision, ledger: Path, alias: str) -> str:
    """Let a name point to the new model."""
    if not alias:
        return f"{decision.run} may take the place: {decision.why} Promote it with --alias NAME."
    run, models = Path(decision.run), ModelLedger(ledger)
    floor = open_run(run)[1].evaluate.floor
    entry = models.add(artefact_of(run), run, floor=floor if floor.asks else None)
    if models.aliases().get(alias, ("",))[-1] != entry.digest:
        models.promote(alias, entry.digest)
    return f"{alias} -> {entry.digest}, of {decision.run}. {decision.why}"


def _page(field: Field, decision: Decision) -> Page:
    return Page(
        title="Tuned again: "
        + ("the new model passes" if decision.passed else "the old one stays"),
        eyebrow=field.run.name,
        lead=decision.why,
        sections=(
            Section(
                title="What was checked",
                columns=("check", "result", "figures"),
                rows=tuple(
                    (one.about, "passed" if one.passed else "failed", one.words)
                    for one in decision.findings
                ),
            ),
        ),
    )
