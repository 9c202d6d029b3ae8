"""What a generative model is asked, and what was made of its words: prompts and Jinja templates."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.errors import DataError, UserError, allowed
from residency.core.types import Answer, Example, Value

if TYPE_CHECKING:
    from jinja2 import Template

    from residency.tasks.card import Card


class Parsed(Value, frozen=True):
    """What a model's words say."""

    answer: Answer | None = None
    """``None`` where nothing can be made of them."""
    repairs: tuple[str, ...] = ()
    """What had to be mended or left out to read them; empty for words in the form that was asked
    for."""


def ask(form: str, example: Example, card: Card) -> str:
    """A note with what is wanted of it: the card's own prompt, else the packaged one of the card's
    or the note's language."""
    card = card.for_example(example)
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
