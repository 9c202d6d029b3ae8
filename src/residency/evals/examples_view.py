"""Examples in a report: errors drawn where the reference and the system have them, and written
answers side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from residency.core.types import ErrorItem, Report, Value
from residency.evals.formats import MARKS
from residency.evals.words import ENGLISH, Words

ERRORS_PER_KIND = 8
ANSWERS_SHOWN = 12
KINDS = {
    "missed": "in the gold standard, not found",
    "invented": "found, not in the gold standard",
    "boundary": "right type, wrong extent",
    "type": "right extent, wrong type",
}

Extent = tuple[int, int]


class ErrorView(Value, frozen=True):
    """An error, where the reference and the system have it, and its text cut at these places."""

    item: ErrorItem
    gold: Extent
    said: Extent
    """Where it stands in the note, in characters; nowhere where both ends are equal."""
    text: tuple[tuple[str, str], ...] = ()
    """Pieces, each with what marks it: ``gold``, ``said``, both, or nothing; none where the text is
    withheld."""


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


def errors(report: Report, show_text: bool, words: Words = ENGLISH) -> tuple[ErrorGroup, ...]:
    """Some errors of each kind."""
    found = dict.fromkeys(e.kind for e in report.errors)
    groups = []
    for kind in [*(kind for kind in KINDS if kind in found), *(k for k in found if k not in KINDS)]:
        items = [item for item in report.errors if item.kind == kind]
        about_notes = kind == "type" and not any(item.end for item in items)
        meaning = "another label than the gold standard" if about_notes else KINDS.get(kind, "")
        shown = tuple(_view(item, show_text) for item in items[:ERRORS_PER_KIND])
        groups.append(ErrorGroup(kind=kind, meaning=words(meaning), shown=shown))
    return tuple(groups)


def _view(item: ErrorItem, show_text: bool) -> ErrorView:
    """An error with its two extents. Earlier versions kept none: of theirs, only one that has the
    wrong extent cannot say both."""
    whole, nowhere = (item.start, item.end), (0, 0)
    gold, said = item.gold_at, item.said_at
    if gold == said == nowhere and item.kind != "boundary":
        gold = nowhere if item.kind == "invented" else whole
        said = nowhere if item.kind == "missed" else whole
    pieces = tuple(_pieces(item, gold, said)) if show_text else ()
    return ErrorView(item=item, gold=gold, said=said, text=pieces)


def _pieces(item: ErrorItem, gold: Extent, said: Extent) -> Iterator[tuple[str, str]]:
    """The text around an error, cut where an extent begins or ends."""
    before, opened, rest = item.text.partition(MARKS[0])
    inside, closed, after = rest.partition(MARKS[1])
    if not (opened and closed):
        yield item.text, ""
        return
    yield before, ""
    within = {at - item.start for at in (*gold, *said) if item.start < at < item.end}
    for low, high in pairwise([0, *sorted(within), len(inside)]):
        extents = {"gold": gold, "said": said}
        marks = [name for name, (a, b) in extents.items() if a <= item.start + low < b]
        yield inside[low:high], " ".join(marks or extents)
    yield after, ""


def side_by_side(reports: Sequence[Report], words: Words = ENGLISH) -> tuple[AnswerView, ...]:
    """What all systems answered to the same questions."""
    found = [{item.example: item for item in report.answers} for report in reports]
    shared = [item for item in reports[-1].answers if all(item.example in known for known in found)]
    views = []
    for item in shared[:ANSWERS_SHOWN]:
        if not (item.input or item.gold):
            continue
        given = [known[item.example] for known in found]
        answers = tuple(
            (report.system.name, one.answer, words.said(one.failure))
            for report, one in zip(reports, given, strict=True)
        )
        views.append(
            AnswerView(example=item.example, input=item.input, gold=item.gold, answers=answers)
        )
    return tuple(views)
