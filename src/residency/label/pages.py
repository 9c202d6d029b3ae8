"""What annotators, and those who lead them, read: agreement, and feedback on a practice round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from residency.core.page import Page, Section
from residency.core.types import Note, Score, Span
from residency.label.agreement import Agreement, TimeEstimate

CONTEXT = 40
"""Characters shown on either side of a place."""
GUIDE = (
    "Krippendorff suggests to rely on data from an alpha of 0.80 on, and on tentative conclusions "
    "only from 0.667. An alpha of 0 is what chance would give."
)


def agreement_page(
    found: Agreement,
    notes: Mapping[str, Note],
    show_text: bool,
    estimates: Sequence[TimeEstimate] = (),
    plots: Mapping[str, str] | None = None,
    caveats: Sequence[str] = (),
) -> Page:
    """Agreement as a page; ``plots`` are SVG by section (``labels``, ``drift``)."""
    plots = plots or {}
    sections = [*_by(found, plots.get("labels", "")), _confusion(found)]
    if found.drift:
        sections.append(_drift(found, plots.get("drift", "")))
    if estimates:
        sections.append(time_section(estimates))
    sections.append(_worst(found, notes, show_text))
    facts = {
        "alpha of characters": found.alpha[0],
        "strict F1": _named(found.pooled, "strict_f1"),
        "relaxed F1": _named(found.pooled, "relaxed_f1"),
    }
    return Page(
        title="Agreement",
        eyebrow=f"{found.notes:,} notes of {found.groups:,} patients, {len(found.done)} annotators",
        lead=_lead(found),
        facts=tuple((name, f"{number(one.value)} ({bounds(one)})") for name, one in facts.items()),
        caveats=tuple(caveats),
        sections=tuple(sections),
    )


def _by(found: Agreement, svg: str) -> list[Section]:
    """Agreement by label, by annotator and by pair."""
    by_label = ((_of(one), number(one.value), bounds(one)) for one in found.alpha[1:])
    people, pairs = found.annotators, found.pairs
    done = {name: f"{found.done[name]:,}" for name in _strict(people)}
    return [
        Section(
            title="By label",
            text=GUIDE,
            columns=("label", "alpha of characters", "95 %", *F1_COLUMNS),
            numeric=(1, 2, 3, 4, 5),
            rows=tuple((*cells, *_f1_cells(found.pooled, cells[0])) for cells in by_label),
            svg=svg,
            caption="F1 of all pairs of annotators together, with 95 % intervals over patients.",
        ),
        Section(
            title="By annotator",
            text="F1 of each with all the others together. Who stands out low may have read the "
            "guideline in another way.",
            columns=("annotator", "notes", *F1_COLUMNS),
            numeric=(1, 2, 3, 4),
            rows=tuple((name, notes, *_f1_cells(people, name)) for name, notes in done.items()),
        ),
        Section(
            title="By pair",
            columns=("pair", *F1_COLUMNS),
            numeric=(1, 2, 3),
            rows=tuple(
                (pair.replace("~", " and "), *_f1_cells(pairs, pair)) for pair in _strict(pairs)
            ),
        ),
    ]


F1_COLUMNS = ("strict F1", "95 %", "relaxed F1")


def _of(score: Score) -> str:
    """Of what a score is: its metric's name behind the slash."""
    return score.metric.partition("/")[2]


def _strict(scores: Sequence[Score]) -> list[str]:
    """Of what there are strict scores, in their order."""
    return [_of(one) for one in scores if one.metric.startswith("strict")]


def _f1_cells(scores: Sequence[Score], of: str) -> tuple[str, str, str]:
    """The cells of ``F1_COLUMNS``."""
    strict, relaxed = _named(scores, f"strict_f1/{of}"), _named(scores, f"relaxed_f1/{of}")
    return number(strict.value), bounds(strict), number(relaxed.value)


def _lead(found: Agreement) -> str:
    low = min(
        found.alpha[1:],
        key=lambda one: 2.0 if one.value is None or math.isnan(one.value) else one.value,
        default=None,
    )
    differ = f"They differ most on {_of(low)} ({number(low.value)}). " if low else ""
    places = sum(len(one.places) for one in found.worst)
    return (
        f"The annotators agree with an alpha of {number(found.alpha[0].value)} on characters. "
        f"{differ}{places} places in the {len(found.worst)} worst notes are listed below."
    )


def _confusion(found: Agreement) -> Section:
    names = {**{_of(one): _of(one) for one in found.alpha[1:]}, "-": "nothing"}
    rows = tuple(
        (name, *(f"{row[column]:,}" if column in row else "" for column in names))
        for label, name in names.items()
        if (row := found.confusion.get(label))
    )
    return Section(
        title="Confusion",
        text="What one annotator calls as the row says, another calls as the column says. Both "
        "directions of each pair are counted, so the table is symmetric.",
        columns=("", *names.values()),
        numeric=tuple(range(1, len(names) + 1)),
        rows=rows,
    )


def _drift(found: Agreement, svg: str) -> Section:
    return Section(
        title="Drift",
        text="Strict F1 with the others in four equal parts of each annotator's notes, in the "
        "order in which they were done. A change whose interval leaves out 0 is more than chance.",
        columns=("annotator", "first", "second", "third", "last", "second half - first", "95 %"),
        numeric=(1, 2, 3, 4, 5, 6),
        rows=tuple(
            (
                one.annotator,
                *(number(p.value) for p in one.periods),
                f"{one.change.value:+.3f}",
                bounds(one.change),
            )
            for one in found.drift
        ),
        svg=svg,
    )


def _worst(found: Agreement, notes: Mapping[str, Note], show_text: bool) -> Section:
    rows = []
    for note in found.worst:
        for place in note.places:
            versions = (place.versions.get(name, ()) for name in found.done)
            cells = ("; ".join(map(_cell, version)) or "-" for version in versions)
            row = (note.note, number(note.f1), f"{place.start} to {place.end}", *cells)
            text = (in_context(notes[note.note].text, place.start, place.end),) if show_text else ()
            rows.append((*row, *text))
    columns = ("note", "F1", "characters", *found.done, *(("text",) if show_text else ()))
    return Section(
        title="Worst disagreements",
        text="The notes with the lowest strict F1, with every place at which annotators differ."
        + ("" if show_text else " Their text is not shown: the notes are pseudonymised only."),
        columns=columns,
        rows=tuple(rows),
        numeric=(1,),
    )


def time_section(estimates: Sequence[TimeEstimate]) -> Section:
    """How long the rest will take."""
    return Section(
        title="Time",
        text="From the first notes of each annotator, by the number of characters. Breaks that the "
        "tool counted as work are in it.",
        columns=("annotator", "from notes", "median a note", "left", "hours for them", "95 %"),
        numeric=(1, 2, 3, 4, 5),
        rows=tuple(
            (
                one.annotator,
                str(one.notes),
                f"{one.median:.0f} s",
                f"{one.left:,}",
                f"{one.hours:.1f}",
                f"{one.low:.1f} to {one.high:.1f}",
            )
            for one in estimates
        ),
    )


def in_context(text: str, start: int, end: int) -> str:
    """A place in brackets with its surroundings."""
    first, last = max(0, start - CONTEXT), min(len(text), end + CONTEXT)
    before, after = "…" if first else "", "…" if last < len(text) else ""
    return f"{before}{text[first:start]}[{text[start:end]}]{text[end:last]}{after}"


def _cell(span: Span) -> str:
    extra = [*span.attributes, *([span.code] if span.code else [])]
    return f"{span.label} {span.start} to {span.end}" + (f" ({', '.join(extra)})" if extra else "")


def number(value: float | None) -> str:
    """Three decimals; a dash for what cannot be computed."""
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"


def bounds(score: Score) -> str:
    """The interval, where there is one."""
    return (
        "-" if score.low is None or score.high is None else f"{score.low:.3f} to {score.high:.3f}"
    )


def _named(scores: Sequence[Score], metric: str) -> Score:
    return next(score for score in scores if score.metric == metric)
