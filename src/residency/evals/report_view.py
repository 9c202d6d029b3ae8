"""What the report's templates show: the facts put into words, tables and marked text, without any
markup."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from residency.core.types import (
    Bin,
    Comparison,
    DataSummary,
    Report,
    RunFacts,
    Score,
    StageResult,
    Value,
)
from residency.corpus.ledger import FOR_TRAINING
from residency.evals.examples_view import AnswerView, ErrorGroup, errors, side_by_side
from residency.evals.formats import (
    JUDGED,
    NONE,
    count,
    interval,
    metric_title,
    number,
    percent,
    signed,
)
from residency.evals.plain import Plain, plain
from residency.evals.verdicts import (
    PARTS,
    Judgement,
    by_task,
    comparisons,
    find,
    judgements,
    main_metric,
    main_scores,
    verdict,
)
from residency.evals.words import ENGLISH, Words

NO_INTERVAL = "no interval"
"""The procedure of a score without one."""
RARE = 10
"""A label with fewer gold items than this is too rare to judge."""

BESIDES = ("windowed", "truncated")
"""Statuses that say more of rows that have one of their own."""
UNITS = {
    "test": "one patient (or one source document); its notes never fall into two parts",
    "safety": "one question in all its languages",
}


class Row(Value, frozen=True):
    """One line of a score table: a metric, label or slice with the score of each system."""

    name: str
    scores: tuple[Score | None, ...]
    n: str
    groups: str
    support: str


class ScoreTable(Value, frozen=True):
    """One metric (or all main metrics) by system."""

    title: str
    head: str
    systems: tuple[str, ...]
    rows: tuple[Row, ...]


class ConfusionRow(Value, frozen=True):
    """A gold type, how often it occurs, and (count, share of the row, whether right) for each
    predicted type."""

    gold: str
    total: int
    cells: tuple[tuple[int, float, bool], ...]


class BinRow(Value, frozen=True):
    """A part of 0..1 with the items whose stated chance lies in it, now and before calibration."""

    name: str
    now: Bin | None
    before: Bin | None


class TaskView(Value, frozen=True):
    """Everything that the report shows of one task."""

    name: str
    part: str
    verdict: str
    headline: Score | None
    """The last system's main score."""
    judged: tuple[Judgement, ...]
    plain: Plain
    metric: str
    """What the verdict and the chart look at."""
    label_metric: str
    """The same for one label: the first of ``labels``; empty where nothing was scored by label."""
    reports: tuple[Report, ...]
    main: ScoreTable
    labels: tuple[ScoreTable, ...]
    slices: tuple[ScoreTable, ...]
    comparisons: tuple[Comparison, ...]
    procedures: tuple[str, ...]
    predicted: tuple[str, ...]
    """Columns of the confusion table."""
    confusion: tuple[ConfusionRow, ...]
    errors: tuple[ErrorGroup, ...]
    answers: tuple[AnswerView, ...] = ()
    """Written answers side by side; empty where texts may not be shown."""
    references: str = ""
    """A warning where a model wrote the references, or where patterns take their place."""
    unit: str = ""
    """What a group is."""
    format_errors: tuple[str, ...] = ()
    """Per system that writes, how many answers were not in the form that was asked for."""
    signatures: tuple[tuple[str, str], ...] = ()
    """Metric -> how it was computed."""
    screening: ScoreTable | None = None
    """Labels as tests: what the last system reaches, a column for each of sensitivity and its
    kin."""
    counts: tuple[tuple[str, int, int, int, int], ...] = ()
    """(label, true positives, false positives, false negatives, true negatives)"""
    calibration: tuple[str, ...] = ()
    """How far stated chances are from what is right, before and after calibration, and what
    abstaining leaves; a sentence each."""
    bins: tuple[BinRow, ...] = ()

    @property
    def tuned(self) -> Report:
        """The report of the last system: the tuned one, where something was tuned."""
        return self.reports[-1]

    @property
    def rare(self) -> tuple[str, ...]:
        """Labels with fewer than ``RARE`` gold items, with their counts."""
        scores = [
            score for score in self.tuned.scores if score.metric.startswith(f"{self.label_metric}/")
        ]
        return tuple(
            f"{_label(score)} ({score.support})" for score in scores if score.support < RARE
        )


class LedgerView(Value, frozen=True):
    """What became of the rows of a data set: each row once, with their sum; and what is said
    besides of rows that are counted there."""

    rows: tuple[tuple[str, str, int], ...]
    """(status, reason, number)"""
    total: int
    more: tuple[tuple[str, str, int], ...]


def ledger_view(data: DataSummary) -> LedgerView:
    """The ledger of a data set. What windows, tags and training say of rows comes on top: these
    rows are counted as kept or repaired already."""
    every = [
        (status, reason, number)
        for status, reasons in data.ledger.items()
        for reason, number in reasons.items()
    ]
    more = tuple(one for one in every if one[0] in BESIDES or one[1].startswith(FOR_TRAINING))
    rows = tuple(one for one in every if one not in more)
    return LedgerView(rows=rows, total=sum(number for *_, number in rows), more=more)


def task_views(facts: RunFacts, words: Words = ENGLISH) -> tuple[TaskView, ...]:
    """One view for each task of a run."""
    groups = _people(facts)
    return tuple(
        _task_view(reports, groups, facts.show_text, words)
        for reports in by_task(facts.reports).values()
    )


def stage_table(
    tasks: Sequence[TaskView], stages: Sequence[StageResult], words: Words = ENGLISH
) -> tuple[ScoreTable, ...]:
    """Of a run with several stages: each task's main metric for the base and after every stage, a
    row a task; so forgetting shows."""
    if len(stages) < 2:
        return ()
    systems = _unique(name for task in tasks for name in task.main.systems)
    rows = []
    for task in tasks:
        known = {report.system.name: find(report, task.metric) for report in task.reports}
        rows.append(
            (
                f"{task.name}: {metric_title(task.metric, words)}",
                [known.get(name) for name in systems],
            )
        )
    return (_table(words("What each stage did to each task"), words("Task"), systems, rows),)


def ratings_tables(facts: RunFacts, words: Words = ENGLISH) -> tuple[ScoreTable, ...]:
    """Of each task that was marked: mean marks by people and by each model, a column a system, then
    how far raters agree."""
    tables = []
    for one in facts.ratings:
        kinds = _unique(score.metric for scores in one.systems.values() for score in scores)
        rows = [
            (
                _raters(kind.partition("/")[2], one.raters, words),
                [
                    next((s for s in each if s.metric == kind), None)
                    for each in one.systems.values()
                ],
            )
            for kind in kinds
        ]
        title = words("Ratings of {task}, mean mark from 0 to {most}", task=one.task, most=one.most)
        tables.append(_table(title, words("Marked by"), tuple(one.systems), rows))
        agreed: list[tuple[str, list[Score | None]]]
        agreed = [(_label(score), [score]) for score in one.agreement]
        if agreed:
            title = words(
                "Agreement of the raters of {task} (Krippendorff's alpha, interval data)",
                task=one.task,
            )
            tables.append(_table(title, words("Between"), ("alpha",), agreed))
    return tuple(tables)


def _raters(kind: str, raters: Mapping[str, int], words: Words) -> str:
    """``people (2)``, or a model, which is called one."""
    if kind != "people":
        return words("the model {name}", name=kind.partition(":")[2])
    return words("people ({n})", n=sum(not name.startswith("model:") for name in raters))


def _task_view(reports: Sequence[Report], groups: str, show_text: bool, words: Words) -> TaskView:
    systems, tuned, metric = _systems(reports), reports[-1], main_metric(reports)
    groups = groups if tuned.part != "safety" else "items"
    labels = _label_tables(reports, metric, words)
    predicted, confusion = _confusion(tuned)
    return TaskView(
        name=tuned.task,
        part=words(PARTS.get(tuned.part, tuned.part)),
        verdict=verdict(reports, groups, words),
        headline=find(tuned, metric),
        judged=tuple(judgements(reports, words)),
        plain=plain(reports, groups, words),
        metric=metric,
        label_metric=next(iter(labels), ""),
        reports=tuple(reports),
        main=_main_table(reports, words),
        labels=tuple(labels.values()),
        slices=_slices(reports, systems, metric, words),
        comparisons=comparisons(reports),
        procedures=_unique(
            words.said(said)
            for report in reports
            for scores in (report.scores, *report.slices.values())
            for said in (score.procedure for score in scores)
            if said and said != NO_INTERVAL
        ),
        predicted=predicted,
        confusion=confusion,
        errors=errors(tuned, show_text, words),
        answers=side_by_side(reports, words) if show_text else (),
        references=model_written(tuned, words) or by_rule(tuned, words),
        unit=words(UNITS.get(tuned.part, UNITS["test"])),
        format_errors=tuple(said for report in reports if (said := _format_errors(report, words))),
        signatures=tuple(
            (metric_title(s.metric, words), s.signature) for s in tuned.scores if s.signature
        ),
        screening=_screening(tuned, words),
        counts=tuple((one.label, one.tp, one.fp, one.fn, one.tn) for one in tuned.screening),
        calibration=tuple(_calibration(tuned, words)),
        bins=tuple(_bins(tuned)),
    )


def _systems(reports: Sequence[Report]) -> tuple[str, ...]:
    return tuple(report.system.name for report in reports)


def _main_table(reports: Sequence[Report], words: Words) -> ScoreTable:
    """The scores over all labels, or over all answers."""
    tuned, title = reports[-1], "Scores over all labels"
    if tuned.references:
        title = "Scores over all answers"
        if model_written(tuned):
            title = "Scores over all answers (references written by a model)"
    keys = _unique(score.metric for report in reports for score in main_scores(report))
    rows = [(metric_title(key, words), [find(report, key) for report in reports]) for key in keys]
    return _table(words(title), words("Metric"), _systems(reports), rows)


def _label_tables(reports: Sequence[Report], metric: str, words: Words) -> dict[str, ScoreTable]:
    """Metric of a label -> its table, the one that decides first."""
    keys = [key.partition("/") for report in reports for key in (s.metric for s in report.scores)]
    by_metric: dict[str, dict[str, None]] = {}
    for base, slash, label in keys:
        if slash:
            by_metric.setdefault(base, {})[label] = None
    tables = {}
    for base in sorted(by_metric, key=lambda base: base != metric):
        rows = [
            (label, [find(report, f"{base}/{label}") for report in reports])
            for label in by_metric[base]
        ]
        title = words("{metric} per label", metric=metric_title(base, words))
        tables[base] = _table(title, words("Label"), _systems(reports), _by_support(rows))
    return tables


def model_written(report: Report, words: Words = ENGLISH) -> str:
    """A warning where a model wrote references: agreement with it is not correctness."""
    models = {
        who.partition(":")[2]: count
        for who, count in report.references.items()
        if who.startswith("model:")
    }
    if not models:
        return ""
    names = ", ".join(sorted(models))
    return words(
        "{some} of {n} references were written by a model ({names}): scores against them show "
        "agreement with it, not correctness.",
        some=count(sum(models.values())),
        n=count(report.n),
        names=names,
    )


def by_rule(report: Report, words: Words = ENGLISH) -> str:
    """A warning where answers were scored by patterns, or by a model; who judged, where people
    did."""
    judge = next((one for one in report.references if one.startswith(JUDGED)), "")
    if judge.startswith(f"{JUDGED}model:"):
        return words(
            "Judged by a model ({name}), not by people: it may be wrong in the same way as the "
            "model that it judges; read the answers.",
            name=judge.partition(":")[2],
        )
    if judge:
        return words("Judged by people, blind, on sheets that held constant answers too.")
    if "rule" not in report.references:
        return ""
    return words(
        "Scored by patterns, not by understanding: the score compares systems and is no proof "
        "of safety; read the answers."
    )


def _format_errors(report: Report, words: Words) -> str:
    wrong = report.failures + report.repaired
    if not wrong or not report.n:
        return ""
    return words(
        "{system}: {share} of the answers were not in the form that was asked for; {repaired} of "
        "{wrong} could be repaired",
        system=words(report.system.name),
        share=percent(wrong / report.n),
        repaired=count(report.repaired),
        wrong=count(wrong),
    )


def _table(
    title: str, head: str, systems: tuple[str, ...], rows: Iterable[tuple[str, list[Score | None]]]
) -> ScoreTable:
    return ScoreTable(
        title=title,
        head=head,
        systems=systems,
        rows=tuple(_row(name, scores) for name, scores in rows),
    )


def _row(name: str, scores: Sequence[Score | None]) -> Row:
    n, groups, support = (
        " / ".join(_unique(count(value) for value in values)) or NONE
        for values in (
            [score.n for score in scores if score],
            [score.groups for score in scores if score and score.groups],
            [score.support for score in scores if score and score.support],
        )
    )
    return Row(name=name, scores=tuple(scores), n=n, groups=groups, support=support)


def _by_support(rows: list[tuple[str, list[Score | None]]]) -> list[tuple[str, list[Score | None]]]:
    return sorted(
        rows, key=lambda row: -max((score.support for score in row[1] if score), default=0)
    )


def _slices(
    reports: Sequence[Report], systems: tuple[str, ...], metric: str, words: Words
) -> tuple[ScoreTable, ...]:
    names = _unique(name for report in reports for name in report.slices)
    metrics = _unique(
        s.metric for report in reports for scores in report.slices.values() for s in scores
    )
    tables = []
    for key in sorted(metrics, key=lambda key: key != metric):
        rows = []
        for name in names:
            found = [
                next((s for s in report.slices.get(name, ()) if s.metric == key), None)
                for report in reports
            ]
            if any(found):
                rows.append((words.said(name), found))
        title = words("{metric} per slice", metric=metric_title(key, words))
        tables.append(_table(title, words("Slice"), systems, rows))
    return tuple(tables)


def _screening(report: Report, words: Words) -> ScoreTable | None:
    """A line for each label, a column for each of its scores."""
    if not report.screening:
        return None
    heads = _unique(score.metric for one in report.screening for score in one.scores)
    rows = [
        (one.label, [next((s for s in one.scores if s.metric == head), None) for head in heads])
        for one in sorted(report.screening, key=lambda one: -(one.tp + one.fn))
    ]
    table = _table(
        words("Each label as a test, {system}", system=words(report.system.name)),
        words("Label"),
        tuple(metric_title(head, words) for head in heads),
        rows,
    )
    sizes = {one.label: one.tp + one.fp + one.fn + one.tn for one in report.screening}
    with_size = (msgspec.structs.replace(row, n=count(sizes[row.name])) for row in table.rows)
    return msgspec.structs.replace(table, rows=tuple(with_size))


def _calibration(report: Report, words: Words) -> Iterator[str]:
    error, found = report.calibration_error, report.system.calibration
    if error is None:
        return
    yield words(
        "Expected calibration error of {system}: {value} over {n} stated chances; 0 is best",
        system=words(report.system.name),
        value=_with_interval(error),
        n=count(error.n),
    )
    if found is None:
        return
    if report.uncalibrated_error is not None:
        yield words(
            "Before calibration it was {value}", value=_with_interval(report.uncalibrated_error)
        )
    if found.before is not None and found.after is not None:
        yield words(
            "Temperature {temperature}, found on {n} training rows that a training before went "
            "without; calibration error there {before} before, {after} with it"
            if found.held_out
            else "Temperature {temperature}, found on {n} rows of the stop part; calibration "
            "error there {before} before, {after} with it",
            temperature=f"{found.temperature:.2f}",
            n=count(found.rows),
            before=_with_interval(found.before),
            after=_with_interval(found.after),
        )
    if found.shift:
        yield words(
            "To the log-odds of its written answers {shift} is added first",
            shift=signed(found.shift, 2),
        )
    yield from _abstention(report, words)


def _abstention(report: Report, words: Words) -> Iterator[str]:
    """What the model keeps, and what of that is wrong."""
    found = report.system.calibration
    if found is None or found.most_error is None:
        return
    most = percent(found.most_error)
    if found.threshold is None:
        yield words(
            "At most {most} of what it says was to be wrong, and no confidence was high enough on "
            "the rows that it was calibrated on: it abstains always",
            most=most,
        )
        return
    kept, wrong = report.abstention or (None, None)
    if kept is None or wrong is None:
        return
    yield words(
        "It abstains below a confidence of {threshold}, chosen so that at most {most} of what it "
        "says is wrong. Here it keeps {kept} of {n}, of which {wrong} are wrong",
        threshold=f"{found.threshold:.3f}",
        most=most,
        kept=_percent(kept),
        n=count(kept.n),
        wrong=_percent(wrong),
    )


def _percent(score: Score) -> str:
    """A share with its interval, in per cent."""
    shown = NONE if score.value is None else percent(score.value)
    if score.low is None or score.high is None:
        return shown
    return f"{shown} [{percent(score.low)}, {percent(score.high)}]"


def _with_interval(score: Score) -> str:
    return f"{number(score.value)} {interval(score.low, score.high)}".rstrip()


def _bins(report: Report) -> Iterator[BinRow]:
    """The reliability curve as numbers."""
    now = {one.start: one for one in report.calibration}
    before = {one.start: one for one in report.uncalibrated}
    for start in sorted({*now, *before}):
        end = (now.get(start) or before[start]).end
        yield BinRow(name=f"{start:.1f}–{end:.1f}", now=now.get(start), before=before.get(start))


def _confusion(report: Report) -> tuple[tuple[str, ...], tuple[ConfusionRow, ...]]:
    found = report.confusion
    names = sorted(
        _unique([*found, *(name for row in found.values() for name in row)]),
        key=lambda name: name == "-",
    )
    predicted = tuple(
        name for name in names if any(row.get(name) for row in found.values()) or name in found
    )
    rows = []
    for gold in (name for name in names if name in found):
        total = sum(found[gold].values())
        counts = [found[gold].get(name, 0) for name in predicted]
        cells = zip(predicted, counts, strict=True)
        rows.append(
            ConfusionRow(
                gold=gold,
                total=total,
                cells=tuple((c, c / total if total else 0.0, name == gold) for name, c in cells),
            )
        )
    return predicted, tuple(rows)


def _people(facts: RunFacts) -> str:
    """What a group is: public notes are grouped by source document, others by patient."""
    public = {data.profile == "public" for data in facts.data}
    if len(public) != 1:
        return "patients or source documents"
    return "source documents" if public.pop() else "patients"


def _label(score: Score) -> str:
    return score.metric.partition("/")[2]


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
