"""Answers as text and back: what a model that writes is asked for, and how its answer is read.

``parse(render(answer, text), text, card).answer == answer`` for every answer that a card allows. An
answer that cannot be read is ``None``: it counts as wrong, and its rate is reported. Nothing that a
model writes is ever evaluated as code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from residency.core.errors import DataError, UserError, allowed
from residency.core.types import Answer, Example, Labels, Span, Spans, Text, Turn, Value
from residency.tasks import answer_repair
from residency.tasks.card import Card
from residency.tasks.line_codecs import FORMS

if TYPE_CHECKING:
    from jinja2 import Template


class Parsed(Value, frozen=True):
    """What a model's words say."""

    answer: Answer | None = None
    """``None`` where nothing can be made of them."""
    repairs: tuple[str, ...] = ()
    """What had to be mended or left out to read them; empty for words in the form that was asked
    for."""


class Codec(Protocol):
    """How a family of tasks is put into words."""

    def prompt(self, example: Example, card: Card) -> str:
        """What the model is asked."""

    def render(self, answer: Answer, text: str) -> str:
        """A gold answer about ``text``, in words."""

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """What a model's words say about ``text``."""


class SpanCodec:
    """Entities as a JSON list; a quote that occurs several times says which occurrence is meant."""

    def prompt(self, example: Example, card: Card) -> str:
        return asked("spans", example, card)

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Spans):
            raise TypeError("a span codec renders spans")
        rows: list[dict[str, Any]] = []
        for span in answer.spans:
            quote = text[span.start : span.end]
            row: dict[str, Any] = {"label": span.label, "text": quote}
            if (number := occurrence(text, quote, span.start)) > 1:
                row["n"] = number
            if span.code:
                row["code"] = span.code
            if span.attributes:
                row["attributes"] = list(span.attributes)
            rows.append(row)
        return json.dumps(rows, ensure_ascii=False)

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """Perfect JSON as it is; else mended, each thing that was mended or left out named
        (``tasks/repair.py``)."""
        names = answer_repair.Names(card.names, [label.title for label in card.labels])
        found = answer_repair.first_list(words)
        if found is not None and (not found[0] or any(isinstance(row, dict) for row in found[0])):
            rows, repairs = found[0], [answer_repair.AROUND] if found[1] else []
        elif (lines := answer_repair.by_line(words, names)) is not None and "{" not in words:
            rows, repairs = lines, [answer_repair.LINES]
        elif (mended := answer_repair.items(words)) is not None:
            rows, repairs = mended
        elif answer_repair.says_nothing(words):
            rows, repairs = [], [answer_repair.NONE]
        else:
            return Parsed()
        spans, faults = _spans(rows, text, names)
        if rows and not spans:
            return Parsed()
        return Parsed(
            answer=Spans(spans=tuple(spans)), repairs=answer_repair.unique([*repairs, *faults])
        )


def _spans(
    rows: Sequence[object], text: str, names: answer_repair.Names
) -> tuple[list[Span], list[str]]:
    """What the items say about the text, and what had to be mended or left out."""
    spans: dict[Span, None] = {}
    faults: list[str] = []
    folded = answer_repair.Folded(text)
    for row in rows:
        label = names.of(row.get("label")) if isinstance(row, dict) else None
        quote = row.get("text") if isinstance(row, dict) else None
        if (
            not isinstance(row, dict)
            or "label" not in row
            or not isinstance(quote, str)
            or not quote
        ):
            faults.append(answer_repair.UNREAD)
            continue
        if label is None:
            faults.append(answer_repair.UNKNOWN)
            continue
        if label != row["label"]:
            faults.append(answer_repair.LABEL)
        number = row.get("n", 1)
        number = number if isinstance(number, int) and not isinstance(number, bool) else 1
        at = _located(text, quote, number, folded, faults)
        if at is None:
            faults.append(answer_repair.ABSENT)
            continue
        span = _span(row, label, text, at)
        if span in spans:
            later = _located(text, quote, number + 1, folded, []) if "n" not in row else None
            while later is not None and _span(row, label, text, later) in spans:
                number += 1
                later = _located(text, quote, number + 1, folded, [])
            faults.append(answer_repair.TWICE if later is None else answer_repair.NEXT)
            span = span if later is None else _span(row, label, text, later)
        spans[span] = None
    return list(spans), faults


def _located(
    text: str, quote: str, number: int, folded: answer_repair.Folded, faults: list[str]
) -> tuple[int, int] | None:
    """Where an occurrence of a quote stands in the text: as it is written, else folded."""
    if quote in text:
        start = place(text, quote, number)
        return None if start is None else (start, start + len(quote))
    for at in islice(folded.places(quote), number - 1, number) if number > 0 else ():
        faults.append(answer_repair.FOLDED)
        return at
    return None


def _span(row: Mapping[str, Any], label: str, text: str, at: tuple[int, int]) -> Span:
    code, attributes = row.get("code"), row.get("attributes", ())
    return Span(
        start=at[0],
        end=at[1],
        label=label,
        quote=text[at[0] : at[1]],
        code=code if isinstance(code, str) else None,
        attributes=tuple(a for a in attributes if isinstance(a, str))
        if isinstance(attributes, list)
        else (),
    )


class LabelCodec:
    """A single label bare, several as a JSON list."""

    def prompt(self, example: Example, card: Card) -> str:
        return asked("labels" if card.multiple else "label", example, card)

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Labels):
            raise TypeError("a label codec renders labels")
        return (
            answer.labels[0]
            if len(answer.labels) == 1
            else json.dumps(list(answer.labels), ensure_ascii=False)
        )

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        """The label, or the list of labels; where it is put otherwise, what the words name: of one
        label exactly one."""
        bare = words.strip()
        if bare in card.names:
            return Parsed(answer=Labels(labels=(bare,)))
        names = answer_repair.Names(card.names, [label.title for label in card.labels])
        found = answer_repair.first_list(words)
        if card.multiple and found is not None and all(isinstance(row, str) for row in found[0]):
            return _named(found[0], names, [answer_repair.AROUND] if found[1] else [])
        if (one := names.of(bare)) is not None:
            return Parsed(answer=Labels(labels=(one,)), repairs=(answer_repair.LABEL,))
        if card.multiple:
            if answer_repair.says_nothing(words):
                return Parsed(answer=Labels(), repairs=(answer_repair.NONE,))
            pieces = re.split(
                r"[,，;；、|\n]", words[: answer_repair.LONGEST].strip(answer_repair.TRIMMED + "[]")
            )
            if any(names.of(piece) for piece in pieces):
                return _named(
                    [piece for piece in pieces if piece.strip()], names, [answer_repair.LINES]
                )
        within = names.within(words)
        if within and (card.multiple or len(within) == 1):
            kept = tuple(name for name in card.names if name in within)
            return Parsed(answer=Labels(labels=kept), repairs=(answer_repair.AROUND,))
        return Parsed()


def _named(rows: Sequence[object], names: answer_repair.Names, repairs: list[str]) -> Parsed:
    """The labels of a list, each once; unknown ones left out."""
    found: dict[str, None] = {}
    for row in rows:
        name = names.of(row)
        if name is None:
            repairs.append(answer_repair.UNKNOWN)
            continue
        if name != row and answer_repair.LINES not in repairs:
            repairs.append(answer_repair.LABEL)
        if name in found:
            repairs.append(answer_repair.TWICE)
        found[name] = None
    return (
        Parsed()
        if rows and not found
        else Parsed(answer=Labels(labels=tuple(found)), repairs=answer_repair.unique(repairs))
    )


class AnswerCodec:
    """Free text is its own form."""

    def prompt(self, example: Example, card: Card) -> str:
        return example.input

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Text):
            raise TypeError("an answer codec renders text")
        return answer.text

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        return Parsed(answer=Text(text=words.strip())) if words.strip() else Parsed()


CODECS: dict[str, Codec] = {
    "spans": SpanCodec(),
    "labels": LabelCodec(),
    "answers": AnswerCodec(),
    **FORMS,
}
"""Family -> codec."""


def conversation(example: Example, card: Card) -> tuple[Turn, ...]:
    """What a model that writes is given: the system turn, if any, and all turns up to the question
    that it answers."""
    turns = example.turns or (Turn(role="user", text=CODECS[card.family].prompt(example, card)),)
    if card.system and turns[0].role != "system":
        return (Turn(role="system", text=card.system), *turns)
    return turns


def read(words: str, example: Example, card: Card) -> tuple[Answer | None, str | None]:
    """The answer in a model's words, and why there is none or what had to be repaired."""
    parsed = CODECS[card.family].parse(words, example.input, card.asked_of(example))
    if parsed.answer is None:
        return None, "the answer cannot be read" if words.strip() else "the answer is empty"
    return parsed.answer, f"repaired: {', '.join(parsed.repairs)}" if parsed.repairs else None


def said(answer: Answer | None, card: Card) -> str:
    """An answer as people read it: in the words that a model would write; none for no answer."""
    return "" if answer is None else CODECS[card.family].render(answer, "")


def asked(form: str, example: Example, card: Card) -> str:
    """A note with what is wanted of it: the card's own prompt, else the packaged one of the card's
    or the note's language."""
    card = card.asked_of(example)
    if card.prompt:
        values = {"text": example.input, "labels": separator(card).join(card.names)}
        return fill(card.prompt, values, f"card {card.name}: prompt")
    forms = prompts()[form]
    lang = next((tag for tag in (card.language, example.lang.split("-")[0]) if tag in forms), "en")
    return compiled(forms[lang]).render(text=example.input, labels=card.labels)


def separator(card: Card) -> str:
    """What stands between labels in a prompt."""
    return "，" if card.language == "zh" else ", "


@cache
def prompts() -> dict[str, dict[str, str]]:
    """Form of answer -> language -> template."""
    import yaml

    found: dict[str, dict[str, str]] = yaml.safe_load(
        Path(__file__).with_name("prompts.yaml").read_text("utf-8")
    )
    return found


def fill(template: str, values: Mapping[str, str | tuple[str, ...]], where: str) -> str:
    """A Jinja template filled with values; it can reach nothing else.

    Raises ``UserError`` for a template that is not Jinja or that names something which is not among
    the values.
    """
    from jinja2 import TemplateError, UndefinedError

    try:
        return compiled(template).render(values)
    except UndefinedError as error:
        missing = str(error.message).split("'")[1] if "'" in str(error.message) else "a field"
        raise DataError(
            f"{where}: names {missing!r}, which is not there; {allowed(values, missing)}."
        ) from None
    except TemplateError as error:
        raise UserError(f"{where}: is not a Jinja template ({type(error).__name__}).") from None


@cache
def compiled(template: str) -> Template:
    """A template, compiled once."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True
    ).from_string(template)


def occurrence(text: str, quote: str, start: int) -> int:
    """Which occurrence of ``quote`` begins at ``start``, from 1; occurrences may overlap."""
    number, position = 1, text.find(quote)
    while 0 <= position < start:
        position = text.find(quote, position + 1)
        number += position <= start
    return number


def place(text: str, quote: str, number: int) -> int | None:
    """Where the ``number``-th occurrence of ``quote`` begins; ``None`` where there is no such
    occurrence."""
    position = text.find(quote)
    while position >= 0 and number > 1:
        position, number = text.find(quote, position + 1), number - 1
    return position if position >= 0 and number == 1 else None
