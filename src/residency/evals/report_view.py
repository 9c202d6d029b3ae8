"""What the report's templates show: the facts put into words, tables and marked text, without any
markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import msgspec

from residency.core.types import Comparison, ErrorItem, Report, RunFacts, Score, StageResult, Value
from residency.evals.formats import (
    MARKS,
    NONE,
    count,
    interval,
    metric_in_sentence,
    metric_title,
    metric_value,
    number,
    percent,
    probability,
    signed,
)
from residency.tasks.scoring import falls

ERRORS_PER_KIND = 8
ANSWERS_SHOWN = 12
NO_INTERVAL = "no interval"
"""The procedure of a score without one."""
RARE = 10
"""A label with fewer gold items than this is too rare to judge."""

KINDS = {
    "missed": "in the gold standard, not found",
    "invented": "found, not in the gold standard",
    "boundary": "right type, wrong extent",
    "type": "right extent, wrong type",
}
PARTS = {
    "safety": "questions about harm and abstention",
    "test": "held-out notes",
    "dev": "dev notes (also used to stop training)",
    "train": "training notes",
}


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


class ErrorView(Value, frozen=True):
    """An error with its text cut where it is marked; all three empty where the text is withheld."""

    item: ErrorItem
    text: tuple[str, str, str] = ("", "", "")


class ErrorGroup(Value, frozen=True):
    """Some errors of one kind."""

    kind: str
    meaning: str
    shown: tuple[ErrorView, ...]


class AnswerView(Value, frozen=True):
    """A question with its reference and what each system answered: (system, answer, why there is
    none)."""

    example: str
    input: str
    gold: str
    answers: tuple[tuple[str, str, str], ...]


class TaskView(Value, frozen=True):
    """Everything that the report shows of one task."""

    name: str
    part: str
    verdict: str
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
    """Labels as tests: what the last system reaches, a column for each of sensitivity and its kin."""
    counts: tuple[tuple[str, int, int, int, int], ...] = ()
    """(label, true positives, false positives, false negatives, true negatives)"""
    calibration: str = ""
    """How far stated chances are from what is right, in a sentence."""

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


def by_task(reports: Iterable[Report]) -> dict[str, list[Report]]:
    """Reports by task, in their order."""
    tasks: dict[str, list[Report]] = {}
    for report in reports:
        tasks.setdefault(report.task, []).append(report)
    return tasks


def task_views(facts: RunFacts) -> tuple[TaskView, ...]:
    """One view for each task of a run."""
    groups = _people(facts)
    return tuple(
        _task_view(name, reports, groups, facts.show_text)
        for name, reports in by_task(facts.reports).items()
    )


def stage_table(tasks: Sequence[TaskView], stages: Sequence[StageResult]) -> tuple[ScoreTable, ...]:
    """Of a run with several stages: each task's main metric for the base and after every stage, a
    row a task; so forgetting shows."""
    if len(stages) < 2:
        return ()
    systems = _unique(name for task in tasks for name in task.main.systems)
    rows = []
    for task in tasks:
        known = {report.system.name: _find(report, task.metric) for report in task.reports}
        rows.append(
            (f"{task.name}: {metric_title(task.metric)}", [known.get(name) for name in systems])
        )
    return (_table("What each stage did to each task", "Task", systems, rows),)


def main_scores(report: Report) -> tuple[Score, ...]:
    """The scores over all labels."""
    return tuple(score for score in report.scores if "/" not in score.metric)


def main_metric(reports: Sequence[Report]) -> str:
    """The metric that the verdict names: the first one that systems are compared by, else the first
    of all."""
    known = [score.metric for report in reports for score in main_scores(report)]
    compared = [
        comparison.metric for comparison in _comparisons(reports) if comparison.metric in known
    ]
    return next(iter(compared + known), "")


def verdict(reports: Sequence[Report], groups: str = "patients") -> str:
    """One sentence in plain words: what the last system reaches, on how much, and against which
    baselines."""
    tuned, metric = reports[-1], main_metric(reports)
    score = _find(tuned, metric)
    if score is None:
        return f"{_capital(_who(tuned))} was not scored on {tuned.task}."
    size = f"{count(tuned.n)} {PARTS.get(tuned.part, tuned.part)}" + (
        f" of {count(tuned.groups)} {groups}" if 0 < tuned.groups < tuned.n else ""
    )
    said = (
        f"{_capital(_who(tuned))} reaches {metric_in_sentence(metric)} {_rounded(score)} on {size}"
    )
    for report in reports[:-1]:
        baseline = _find(report, metric)
        if baseline is None:
            continue
        said += f"; {_who(report)} {_rounded(baseline)}"
        pair = (metric, report.system.name, tuned.system.name)
        test = next((c for c in _comparisons(reports) if (c.metric, c.a, c.b) == pair), None)
        if test is not None:
            said += (
                f" (difference {signed(test.difference, 2)} "
                f"{interval(test.low, test.high, 2)}, {probability(test.p)}"
            )
            said += f"{_reading(test)})"
    return said + "."


def _task_view(name: str, reports: Sequence[Report], groups: str, show_text: bool) -> TaskView:
    systems, tuned, metric = _systems(reports), reports[-1], main_metric(reports)
    groups = groups if tuned.part != "safety" else "items"
    labels = _label_tables(reports, metric)
    predicted, confusion = _confusion(tuned)
    return TaskView(
        name=name,
        part=PARTS.get(tuned.part, tuned.part),
        verdict=verdict(reports, groups),
        metric=metric,
        label_metric=next(iter(labels), ""),
        reports=tuple(reports),
        main=_main_table(reports),
        labels=tuple(labels.values()),
        slices=_slices(reports, systems, metric),
        comparisons=_comparisons(reports),
        procedures=_unique(
            said
            for report in reports
            for scores in (report.scores, *report.slices.values())
            for said in (score.procedure for score in scores)
            if said and said != NO_INTERVAL
        ),
        predicted=predicted,
        confusion=confusion,
        errors=_errors(tuned, show_text),
        answers=side_by_side(reports) if show_text else (),
        references=model_written(tuned) or by_rule(tuned),
        unit=UNITS.get(tuned.part, UNITS["test"]),
        format_errors=tuple(said for report in reports if (said := _format_errors(report))),
        signatures=tuple(
            (metric_title(s.metric), s.signature) for s in tuned.scores if s.signature
        ),
        screening=_screening(tuned),
        counts=tuple((one.label, one.tp, one.fp, one.fn, one.tn) for one in tuned.screening),
        calibration=_calibration(tuned),
    )


def _systems(reports: Sequence[Report]) -> tuple[str, ...]:
    return tuple(report.system.name for report in reports)


def _main_table(reports: Sequence[Report]) -> ScoreTable:
    """The scores over all labels, or over all answers."""
    tuned, title = reports[-1], "Scores over all labels"
    if tuned.references:
        written = " (references written by a model)" if model_written(tuned) else ""
        title = f"Scores over all answers{written}"
    keys = _unique(score.metric for report in reports for score in main_scores(report))
    rows = [(metric_title(key), [_find(report, key) for report in reports]) for key in keys]
    return _table(title, "Metric", _systems(reports), rows)


def _label_tables(reports: Sequence[Report], metric: str) -> dict[str, ScoreTable]:
    """Metric of a label -> its table, the one that decides first."""
    keys = [key.partition("/") for report in reports for key in (s.metric for s in report.scores)]
    by_metric: dict[str, dict[str, None]] = {}
    for base, slash, label in keys:
        if slash:
            by_metric.setdefault(base, {})[label] = None
    tables = {}
    for base in sorted(by_metric, key=lambda base: base != metric):
        rows = [
            (label, [_find(report, f"{base}/{label}") for report in reports])
            for label in by_metric[base]
        ]
        title = f"{metric_title(base)} per label"
        tables[base] = _table(title, "Label", _systems(reports), _by_support(rows))
    return tables


def side_by_side(reports: Sequence[Report]) -> tuple[AnswerView, ...]:
    """What all systems answered to the same questions."""
    found = [{item.example: item for item in report.answers} for report in reports]
    shared = [item for item in reports[-1].answers if all(item.example in known for known in found)]
    return tuple(
        AnswerView(
            example=item.example,
            input=item.input,
            gold=item.gold,
            answers=tuple(
                (report.system.name, known[item.example].answer, known[item.example].failure)
                for report, known in zip(reports, found, strict=True)
            ),
        )
        for item in shared[:ANSWERS_SHOWN]
        if item.input or item.gold
    )


def model_written(report: Report) -> str:
    """A warning where a model wrote references: agreement with it is not correctness."""
    models = {
        who.partition(":")[2]: count
        for who, count in report.references.items()
        if who.startswith("model:")
    }
    if not models:
        return ""
    names = ", ".join(sorted(models))
    return (
        f"{count(sum(models.values()))} of {count(report.n)} references were written by a model "
        f"({names}): scores against "
        "them show agreement with it, not correctness."
    )


def by_rule(report: Report) -> str:
    """A warning where answers were scored by patterns."""
    if "rule" not in report.references:
        return ""
    return (
        "Scored by patterns, not by understanding: the score compares systems and is no proof "
        "of safety; read the answers."
    )


def _format_errors(report: Report) -> str:
    wrong = report.failures + report.repaired
    if not wrong or not report.n:
        return ""
    return (
        f"{report.system.name}: {percent(wrong / report.n)} of the answers were not in the form "
        "that was asked for; "
        f"{count(report.repaired)} of {count(wrong)} could be repaired"
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
    reports: Sequence[Report], systems: tuple[str, ...], metric: str
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
                rows.append((name, found))
        tables.append(_table(f"{metric_title(key)} per slice", "Slice", systems, rows))
    return tuple(tables)


def _screening(report: Report) -> ScoreTable | None:
    """A line for each label, a column for each of its scores."""
    if not report.screening:
        return None
    heads = _unique(score.metric for one in report.screening for score in one.scores)
    rows = [
        (one.label, [next((s for s in one.scores if s.metric == head), None) for head in heads])
        for one in sorted(report.screening, key=lambda one: -(one.tp + one.fn))
    ]
    table = _table(
        f"Each label as a test, {report.system.name}",
        "Label",
        tuple(map(metric_title, heads)),
        rows,
    )
    sizes = {one.label: one.tp + one.fp + one.fn + one.tn for one in report.screening}
    with_size = (msgspec.structs.replace(row, n=count(sizes[row.name])) for row in table.rows)
    return msgspec.structs.replace(table, rows=tuple(with_size))


def _calibration(report: Report) -> str:
    error = report.calibration_error
    if error is None:
        return ""
    return (
        f"Expected calibration error of {report.system.name}: {number(error.value)} "
        f"{interval(error.low, error.high)}"
    ).rstrip() + f" over {count(error.n)} stated chances; 0 is best"


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


def _errors(report: Report, show_text: bool) -> tuple[ErrorGroup, ...]:
    kinds = _unique(
        [
            *(kind for kind in KINDS if any(e.kind == kind for e in report.errors)),
            *(e.kind for e in report.errors),
        ]
    )
    groups = []
    for kind in kinds:
        items = [item for item in report.errors if item.kind == kind]
        shown = tuple(
            ErrorView(item=item, text=_marked(item)) if show_text else ErrorView(item=item)
            for item in items[:ERRORS_PER_KIND]
        )
        about_notes = not any(item.end for item in items)
        meaning = (
            "another label than the gold standard"
            if about_notes and kind == "type"
            else KINDS.get(kind, "")
        )
        groups.append(ErrorGroup(kind=kind, meaning=meaning, shown=shown))
    return tuple(groups)


def _marked(item: ErrorItem) -> tuple[str, str, str]:
    """Before, inside and after the stretch that the error is about; all before where it is about
    the whole note."""
    before, opened, rest = item.text.partition(MARKS[0])
    marked, closed, after = rest.partition(MARKS[1])
    return (before, marked, after) if opened and closed else (item.text, "", "")


def _comparisons(reports: Sequence[Report]) -> tuple[Comparison, ...]:
    return tuple(comparison for report in reports for comparison in report.comparisons)


WHO = {
    "tuned": "the tuned model",
    "base": "the untuned base model",
    "crf": "a CRF over words, shapes and affixes",
    "dictionary": "the dictionary of the training part",
    "majority": "the commonest labels",
    "chance": "chance",
}
CLEAR = 0.05
"""p below which a difference is called clear."""


def _people(facts: RunFacts) -> str:
    """What a group is: public notes are grouped by source document, others by patient."""
    public = {data.profile == "public" for data in facts.data}
    if len(public) != 1:
        return "patients or source documents"
    return "source documents" if public.pop() else "patients"


def _find(report: Report, metric: str) -> Score | None:
    return next((score for score in report.scores if score.metric == metric), None)


def _who(report: Report) -> str:
    name = report.system.name
    return WHO.get(name, f"the system {name}")


def _reading(test: Comparison) -> str:
    """What a test says; where its report holds several, its corrected p must say so too."""
    p = test.p if test.p_corrected is None else test.p_corrected
    if test.low <= 0 <= test.high or p >= CLEAR:
        return ", no clear difference"
    worse = test.low > 0 if falls(test.metric) else test.high < 0
    return ", clearly worse" if worse else ", clearly better"


class Judgement(Value, frozen=True):
    """What a result says of a model, in one of five kinds, for terminal, report, card and ledger."""

    task: str
    kind: Literal["learned nothing", "not better", "cannot tell", "clearly better", "worse"]
    words: str


def judgements(reports: Iterable[Report]) -> list[Judgement]:
    """What the results of the last system of each task say: that it learned nothing, or by the
    paired tests how it stands to the base and to a CRF that learned from the same training part."""
    found = []
    for task, each in by_task(reports).items():
        metric, tuned = main_metric(each), each[-1]
        score = _find(tuned, metric)
        if tuned.part == "safety" or score is None or score.value is None:
            continue
        if score.value <= 0 and not falls(metric):
            words = (
                f"{task}: {_who(tuned)} learned nothing: {metric_in_sentence(metric)} is 0 on "
                f"{count(tuned.n)} {PARTS.get(tuned.part, tuned.part)}. Do not use it; train longer, "
                "or on more records."
            )
            found.append(Judgement(task=task, kind="learned nothing", words=words))
            continue
        for name, title in BESIDE.items():
            pair = (metric, name, tuned.system.name)
            test = next((c for c in _comparisons(each) if (c.metric, c.a, c.b) == pair), None)
            if test is not None:
                found.append(_judged(task, tuned, test, title))
    return found


BESIDE = {"base": "base", "crf": "CRF"}
"""Baselines that a model is judged beside."""


def _judged(task: str, tuned: Report, test: Comparison, title: str) -> Judgement:
    """How a paired test sets a system beside a baseline."""
    way = -1 if falls(test.metric) else 1
    low, high = sorted((way * test.low, way * test.high))
    p = test.p if test.p_corrected is None else test.p_corrected
    figures = (
        f"({metric_in_sentence(test.metric)} differs by {signed(test.difference, 2)} "
        f"{interval(test.low, test.high, 2)})"
    )
    who, size = f"{task}: {_who(tuned)}", f"{count(tuned.groups)} independent groups"
    if low > 0 and p < CLEAR:
        words = f"{who} is clearly better than the {title} {figures}."
        return Judgement(task=task, kind="clearly better", words=words)
    if title == "CRF":
        words = (
            f"{who} is not better than the CRF on this test part {figures}: words, shapes and "
            "affixes do as well."
        )
        return Judgement(task=task, kind="not better", words=words)
    if high < 0:
        return Judgement(task=task, kind="worse", words=f"{who} is worse than the base {figures}.")
    if way * test.difference <= 0:
        words = f"{who} is not better than the base {figures}."
        return Judgement(task=task, kind="not better", words=words)
    words = f"{who}: whether it is better than the base cannot be told with {size} {figures}."
    return Judgement(task=task, kind="cannot tell", words=words)


def below_floor(reports: Iterable[Report]) -> list[str]:
    """The sentences of ``judgements`` that speak against a model."""
    return [one.words for one in judgements(reports) if one.kind != "clearly better"]


def _rounded(score: Score) -> str:
    return f"{metric_value(score.value, 2)} {interval(score.low, score.high, 2)}".rstrip()


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _label(score: Score) -> str:
    return score.metric.partition("/")[2]


def _unique(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
