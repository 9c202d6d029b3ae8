"""Configuration lives beside the part that it configures.

A part is an immutable pydantic model. A family is a discriminated union of parts in their own module, plus
``External`` for parts that live in another package. No registry, no registration by import.
"""

from __future__ import annotations

import importlib
import types
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from residency.core.errors import UserError, allowed

T = TypeVar("T")


class Part(BaseModel):
    """Base of every configurable part: unknown keys are errors, values do not change after loading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=True, use_attribute_docstrings=True
    )


class External(Part):
    """A part that lives outside this package; ``load`` imports it and builds it from ``options``."""

    kind: Literal["external"] = "external"
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """``package.module:Class``"""
    options: dict[str, Any] = {}

    def load(self, family: type[T]) -> T:
        """The configured part; raises ``UserError`` where it cannot be imported or is of another family."""
        module, _, name = self.target.partition(":")
        try:
            found = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError):
            raise UserError(
                f"target: {self.target} cannot be imported; install its package into this environment, or check the name."
            ) from None
        built = found(**self.options)
        if not isinstance(built, family):
            raise UserError(f"target: {self.target} is not a {family.__name__}; external parts subclass it.")
        return built


def _share(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)]
"""A fraction: ``0.1`` or ``10%``."""


def parse(kind: type[T] | Any, value: object, where: str) -> T:
    """Check a value against a part, a family or any annotated type.

    Raises ``UserError``: one line for each fault, with the dotted key, what is allowed and the nearest name.
    """
    try:
        result: T = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        faults = [_sentence(fault, kind) for fault in error.errors(include_url=False, include_input=True)]
        raise UserError("\n".join(f"{where}: {fault}" for fault in dict.fromkeys(faults))) from None
    return result


def _sentence(fault: ErrorDetails, root: Any) -> str:
    location = fault["loc"]
    key = _dotted(location, root) or "the document"
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        names = _fields_at(root, location[:-1])
        return f"{key}: unknown key; {allowed(names, location[-1])}."
    if kind == "missing":
        return f"{key}: is missing; add it."
    if kind == "union_tag_not_found":
        return f"{_join(key, _discriminator(context))}: is missing; {allowed(_tags(root, location))}."
    if kind == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",")]
        return f"{_join(key, _discriminator(context))}: {context.get('tag')!r} is not known; {allowed(tags, context.get('tag'))}."
    if kind == "literal_error":
        values = [value.strip("' ") for value in str(context.get("expected", "")).replace(" or ", ", ").split(",")]
        got = fault.get("input")
        shown = f"{got!r} is not known; " if isinstance(got, str | int | float) and len(str(got)) < 40 else ""
        return f"{key}: {shown}{allowed(values, got)}."
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    message = message.removeprefix("Input ").rstrip(".")
    return f"{key}: {message}."


def _join(key: str, name: str) -> str:
    return name if key == "the document" else f"{key}.{name}"


def _discriminator(context: Mapping[str, Any]) -> str:
    return str(context.get("discriminator", "kind")).strip("'")


def _steps(root: Any, location: tuple[int | str, ...]) -> list[tuple[int | str, Any, bool]]:
    """Walk a type along an error location: (step, type after it, whether the step is a key the user wrote)."""
    steps: list[tuple[int | str, Any, bool]] = []
    kind: Any = root
    for step in location:
        options = _members(kind)
        models = [option for option in options if isinstance(option, type) and issubclass(option, BaseModel)]
        tagged = [model for model in models if _tag(model) == step]
        if tagged and not any(step in model.model_fields for model in models if model not in tagged):
            kind = tagged[0]
            steps.append((step, kind, False))
            continue
        field = next((model.model_fields[str(step)] for model in models if str(step) in model.model_fields), None)
        if field is not None:
            kind = field.annotation
            steps.append((step, kind, True))
            continue
        inner = next((option for option in options if get_origin(option) in (list, tuple, dict)), None)
        if inner is not None:
            arguments = [a for a in get_args(inner) if a is not Ellipsis]
            kind = arguments[-1] if arguments else Any
            steps.append((step, kind, True))
            continue
        named = [model for model in models if model.__name__ == step]
        if named:
            kind = named[0]
        steps.append((step, kind, isinstance(step, int) or (not named and step in str(location[-1:]))))
    return steps


def _members(kind: Any) -> list[Any]:
    """A type taken apart: the members of unions, without annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _tag(model: type[BaseModel]) -> str | None:
    for name in ("kind", "format"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return str(get_args(field.annotation)[0])
    return None


def _dotted(location: tuple[int | str, ...], root: Any) -> str:
    dotted = ""
    for step, _, written in _steps(root, location):
        if written:
            dotted += f"[{step}]" if isinstance(step, int) else (f".{step}" if dotted else str(step))
    return dotted


def _fields_at(root: Any, location: tuple[int | str, ...]) -> list[str]:
    steps = _steps(root, location)
    kind = steps[-1][1] if steps else root
    names: list[str] = []
    for model in _members(kind):
        if isinstance(model, type) and issubclass(model, BaseModel):
            names.extend(name for name in model.model_fields if name not in names)
    return names


def _tags(root: Any, location: tuple[int | str, ...]) -> list[str]:
    steps = _steps(root, location)
    kind = steps[-1][1] if steps else root
    return [
        tag
        for model in _members(kind)
        if isinstance(model, type) and issubclass(model, BaseModel) and (tag := _tag(model))
    ]
