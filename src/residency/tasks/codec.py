"""Answers as text and back: what a model that writes is asked for, and how its answer is read.

``parse(render(answer, text), text, card).answer == answer`` for every answer that a card allows. An answer that cannot be
read is ``None``: it counts as wrong, and its rate is reported. Nothing that a model writes is ever evaluated as code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

from residency.core.errors import DataError, UserError, allowed
from residency.core.types import Answer, Example, Labels, Span, Spans, Text, Turn, Value
from residency.tasks.card import Card

if TYPE_CHECKING:
    from jinja2 import Template


class Parsed(Value, frozen=True):
    """What a model's words say."""

    answer: Answer | None = None
    """``None`` where nothing can be made of them."""
    repairs: tuple[str, ...] = ()
    """What had to be mended or left out to read them; empty for words in the form that was asked for."""


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
        if card.prompt:
            return fill(
                card.prompt, {"text": example.input, "labels": ", ".join(card.names)}, f"card {card.name}: prompt"
            )
        kinds = "\n".join(
            f"- {label.name}: {label.definition}" if label.definition else f"- {label.name}" for label in card.labels
        )
        return (
            "List the entities of the note as a JSON list of objects with label and text, the text copied exactly; add n "
            f"for the n-th occurrence where the text occurs more than once before.\nLabels:\n{kinds}\n\nNote:\n{example.input}"
        )

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
        rows = first_list(words)
        if rows is None:
            return Parsed()
        spans: list[Span] = []
        for row in rows:
            span = _span(row, text, card)
            if span is None:
                return Parsed()
            spans.append(span)
        return Parsed(answer=Spans(spans=tuple(spans)))


def _span(row: object, text: str, card: Card) -> Span | None:
    if not isinstance(row, dict) or row.get("label") not in card.names:
        return None
    quote, number = row.get("text"), row.get("n", 1)
    if not isinstance(quote, str) or not quote or not isinstance(number, int):
        return None
    start = place(text, quote, number)
    if start is None:
        return None
    code, attributes = row.get("code"), row.get("attributes", ())
    return Span(
        start=start,
        end=start + len(quote),
        label=str(row["label"]),
        quote=quote,
        code=code if isinstance(code, str) else None,
        attributes=tuple(a for a in attributes if isinstance(a, str)) if isinstance(attributes, list) else (),
    )


class LabelCodec:
    """A single label bare, several as a JSON list."""

    def prompt(self, example: Example, card: Card) -> str:
        if card.prompt:
            return fill(
                card.prompt, {"text": example.input, "labels": ", ".join(card.names)}, f"card {card.name}: prompt"
            )
        how = "all labels that apply as a JSON list" if card.multiple else "the one label that applies"
        return f"Answer with {how}: {', '.join(card.names)}.\n\nNote:\n{example.input}"

    def render(self, answer: Answer, text: str) -> str:
        if not isinstance(answer, Labels):
            raise TypeError("a label codec renders labels")
        return answer.labels[0] if len(answer.labels) == 1 else json.dumps(list(answer.labels), ensure_ascii=False)

    def parse(self, words: str, text: str, card: Card) -> Parsed:
        bare = words.strip()
        if bare in card.names:
            return Parsed(answer=Labels(labels=(bare,)))
        rows = first_list(words) if card.multiple else None
        if rows is None or not all(isinstance(row, str) and row in card.names for row in rows):
            return Parsed()
        return Parsed(answer=Labels(labels=tuple(str(row) for row in rows)))


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


CODECS: dict[str, Codec] = {"spans": SpanCodec(), "labels": LabelCodec(), "answers": AnswerCodec()}
"""Family -> codec."""


def conversation(example: Example, card: Card) -> tuple[Turn, ...]:
    """What a model that writes is given: the system turn, if any, and all turns up to the question that it answers."""
    turns = example.turns or (Turn(role="user", text=CODECS[card.family].prompt(example, card)),)
    if card.system and turns[0].role != "system":
        return (Turn(role="system", text=card.system), *turns)
    return turns


def read(words: str, example: Example, card: Card) -> tuple[Answer | None, str | None]:
    """The answer in a model's words, and why there is none or what had to be repaired."""
    parsed = CODECS[card.family].parse(words, example.input, card)
    if parsed.answer is None:
        return None, "the answer cannot be read" if words.strip() else "the answer is empty"
    return parsed.answer, f"repaired: {', '.join(parsed.repairs)}" if parsed.repairs else None


def fill(template: str, values: Mapping[str, str], where: str) -> str:
    """A Jinja template filled with values; it can reach nothing else.

    Raises ``UserError`` for a template that is not Jinja or that names something which is not among the values.
    """
    from jinja2 import TemplateError, UndefinedError

    try:
        return compiled(template).render(values)
    except UndefinedError as error:
        missing = str(error.message).split("'")[1] if "'" in str(error.message) else "a field"
        raise DataError(f"{where}: names {missing!r}, which is not there; {allowed(values, missing)}.") from None
    except TemplateError as error:
        raise UserError(f"{where}: is not a Jinja template ({type(error).__name__}).") from None


@cache
def compiled(template: str) -> Template:
    """A template, compiled once."""
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True).from_string(template)


MOST_TRIES = 20
"""Opening brackets that are tried: a model that writes thousands has not answered."""


def first_list(words: str) -> list[object] | None:
    """The first JSON list in a model's words, whatever stands around it."""
    decoder, position = json.JSONDecoder(), -1
    for _ in range(MOST_TRIES):
        position = words.find("[", position + 1)
        if position < 0:
            return None
        try:
            found, _end = decoder.raw_decode(words, position)
        except json.JSONDecodeError:
            continue
        except RecursionError:
            return None
        return found if isinstance(found, list) else None
    return None


def occurrence(text: str, quote: str, start: int) -> int:
    """Which occurrence of ``quote`` begins at ``start``, from 1; occurrences may overlap."""
    number, position = 1, text.find(quote)
    while 0 <= position < start:
        position = text.find(quote, position + 1)
        number += position <= start
    return number


def place(text: str, quote: str, number: int) -> int | None:
    """Where the ``number``-th occurrence of ``quote`` begins; ``None`` where there is no such occurrence."""
    position = text.find(quote)
    while position >= 0 and number > 1:
        position, number = text.find(quote, position + 1), number - 1
    return position if position >= 0 and number == 1 else None
