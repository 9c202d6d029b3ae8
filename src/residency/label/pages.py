"""What annotators, and those who lead them, read: agreement, and feedback on a practice round."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from residency.core.page import Page, Section
from residency.core.types import Note, Score, Span
from residency.label.agreement import Agreement
from residency.label.annotations import Version
from residency.label.differences import Place
from residency.label.duration import TimeEstimate

CONTEXT = 40
"""Characters shown on either side of a place."""
GUIDE = (
    "Krippendorff suggests to rely on data from an alpha of 0.80 on, and on tentative conclusions "
    "only from 0.667. An alpha of 0 is "
    "what chance would give."
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
    alpha, strict, relaxed = (
        found.alpha[0],
        _named(found.pooled, "strict_f1"),
        _named(found.pooled, "relaxed_f1"),
    )
    sections = [
        Section(
            title="By label",
            text=GUIDE,
            columns=("label", "alpha of characters", "95 %", "strict F1", "95 %", "relaxed F1"),
            numeric=(1, 2, 3, 4, 5),
            rows=tuple(
                (
                    label,
                    number(one.value),
                    bounds(one),
                    number(_named(found.pooled, f"strict_f1/{label}").value),
                    bounds(_named(found.pooled, f"strict_f1/{label}")),
                    number(_named(found.pooled, f"relaxed_f1/{label}").value),
                )
                for one in found.alpha[1:]
                for label in [one.metric.partition("/")[2]]
            ),
            svg=plots.get("labels", ""),
            caption="F1 of all pairs of annotators together, with 95 % intervals over patients.",
        ),
        Section(
            title="By annotator",
            text="F1 of each with all the others together. Who stands out low may have read the "
            "guideline in another way.",
            columns=("annotator", "notes", "strict F1", "95 %", "relaxed F1"),
            numeric=(1, 2, 3, 4),
            rows=tuple(
                (
                    name,
                    f"{found.done[name]:,}",
                    number(one.value),
                    bounds(one),
                    number(_named(found.annotators, f"relaxed_f1/{name}").value),
                )
                for one in found.annotators
                if one.metric.startswith("strict")
                for name in [one.metric.partition("/")[2]]
            ),
        ),
        Section(
            title="By pair",
            columns=("pair", "strict F1", "95 %", "relaxed F1"),
            numeric=(1, 2, 3),
            rows=tuple(
                (
                    pair.replace("~", " and "),
                    number(one.value),
                    bounds(one),
                    number(_named(found.pairs, f"relaxed_f1/{pair}").value),
                )
                for one in found.pairs
                if one.metric.startswith("strict")
                for pair in [one.metric.partition("/")[2]]
            ),
        ),
        _confusion(found),
    ]
    if found.drift:
        sections.append(_drift(found, plots.get("drift", "")))
    if estimates:
        sections.append(time_section(estimates))
    sections.append(_worst(found, notes, show_text))
    return Page(
        title="Agreement",
        eyebrow=f"{found.notes:,} notes of {found.groups:,} patients, {len(found.done)} annotators",
        lead=_lead(found),
        facts=(
            ("alpha of characters", f"{number(alpha.value)} ({bounds(alpha)})"),
            ("strict F1", f"{number(strict.value)} ({bounds(strict)})"),
            ("relaxed F1", f"{number(relaxed.value)} ({bounds(relaxed)})"),
        ),
        caveats=tuple(caveats),
        sections=tuple(sections),
    )


def _lead(found: Agreement) -> str:
    low = min(
        found.alpha[1:],
        key=lambda one: 2.0 if one.value is None or math.isnan(one.value) else one.value,
        default=found.alpha[0],
    )
    name = low.metric.partition("/")[2]
    return (
        f"The annotators agree with an alpha of {number(found.alpha[0].value)} on characters. "
        + (f"They differ most on {name} ({number(low.value)}). " if name else "")
        + (
            f"{sum(len(one.places) for one in found.worst)} places in the {len(found.worst)} worst "
            "notes are listed below."
        )
    )


def _confusion(found: Agreement) -> Section:
    labels = [one.metric.partition("/")[2] for one in found.alpha[1:]]
    columns = [*labels, "-"]
    rows = []
    for one in [*labels, "-"]:
        row = found.confusion.get(one, {})
        if row:
            rows.append(
                (
                    one if one != "-" else "nothing",
                    *(f"{row[c]:,}" if c in row else "" for c in columns),
                )
            )
    return Section(
        title="Confusion",
        text="What one annotator calls as the row says, another calls as the column says. Both "
        "directions of each pair are counted, so "
        "the table is symmetric.",
        columns=("", *labels, "nothing"),
        numeric=tuple(range(1, len(columns) + 1)),
        rows=tuple(rows),
    )


def _drift(found: Agreement, svg: str) -> Section:
    return Section(
        title="Drift",
        text="Strict F1 with the others in four equal parts of each annotator's notes, in the "
        "order in which they were done. A change "
        "whose interval leaves out 0 is more than chance.",
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
            row = [note.note, number(note.f1), f"{place.start} to {place.end}"]
            row += [
                "; ".join(_said(span) for span in place.versions.get(name, ())) or "-"
                for name in found.done
            ]
            rows.append((*row, shown(notes[note.note].text, place) if show_text else ""))
    columns = ("note", "F1", "characters", *found.done, *(("text",) if show_text else ()))
    return Section(
        title="Worst disagreements",
        text="The notes with the lowest strict F1, with every place at which annotators differ."
        + ("" if show_text else " Their text is not shown: the notes are pseudonymised only."),
        columns=columns,
        rows=tuple(row[: len(columns)] for row in rows),
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


def shown(text: str, place: Place) -> str:
    """A place with its surroundings."""
    start, end = max(0, place.start - CONTEXT), min(len(text), place.end + CONTEXT)
    before, inside, after = (
        text[start : place.start],
        text[place.start : place.end],
        text[place.end : end],
    )
    return f"{'…' if start else ''}{before}[{inside}]{after}{'…' if end < len(text) else ''}"


def _said(span: Span) -> str:
    extra = [*span.attributes, *([span.code] if span.code else [])]
    return f"{span.label} {span.start} to {span.end}" + (f" ({', '.join(extra)})" if extra else "")


def said_in_words(version: Version, text: str) -> str:
    """A version with its quotes, for whoever decides."""
    return (
        "; ".join(f"{span.label}: {text[span.start : span.end]}" for span in version) or "nothing"
    )


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
