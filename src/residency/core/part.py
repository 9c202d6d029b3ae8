"""Configuration lives beside the part that it configures.

A part is an immutable pydantic model. A family is a discriminated union of parts in their own
module, plus ``External`` for parts that live in another package. No registry, no registration by
import.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from itertools import pairwise
from textwrap import dedent
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import CoreSchema, ErrorDetails

from residency.core.errors import UserError, allowed

T = TypeVar("T")


class Part(BaseModel):
    """Base of every configurable part: unknown keys are errors, values do not change after
    loading."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        allow_inf_nan=False,
    )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        """The schema, each property described by the docstring under its attribute.

        They are read from the source here and not, as ``use_attribute_docstrings`` does it,
        whenever a class is made: that was a quarter of the time of every command's start.
        """
        found = handler(schema)
        described = _docstrings(cls)
        for name, own in handler.resolve_ref_schema(found).get("properties", {}).items():
            if text := described.get(name):
                own.setdefault("description", text)
        return found


def _docstrings(cls: type[BaseModel]) -> dict[str, str]:
    """Key in a file -> the docstring under its attribute, of a part and of those it stands on;
    nothing of one whose source cannot be read."""
    found: dict[str, str] = {}
    for one in (one for one in reversed(cls.__mro__) if issubclass(one, Part)):
        with suppress(OSError):
            (made,) = ast.parse(dedent(inspect.getsource(one))).body
            for field, text in pairwise(made.body if isinstance(made, ast.ClassDef) else ()):
                match field, text:
                    case (
                        ast.AnnAssign(target=ast.Name(id=name)),
                        ast.Expr(value=ast.Constant(value=str(said))),
                    ) if name in cls.model_fields:
                        found[cls.model_fields[name].alias or name] = inspect.cleandoc(said)
    return found


class External(Part):
    """A part that lives outside this package; ``load`` imports it and builds it from
    ``options``."""

    kind: Literal["external"] = "external"
    target: str = Field(pattern=r"^[\w.]+:\w+$")
    """``package.module:Class``"""
    options: dict[str, Any] = {}
    """What it is built from."""

    def load(self, family: type[T]) -> T:
        """The configured part; raises ``UserError`` where it cannot be imported or is of another
        family."""
        built = imported(self.target)(**self.options)
        if not isinstance(built, family):
            raise UserError(
                f"target: {self.target} is not a {family.__name__}; external parts subclass it."
            )
        return built


def renamed(**keys: str) -> Any:
    """A validator for a part whose keys have new names: ``_old_keys = renamed(old="new")``.

    The old key is read for two releases, with one line that names the new one. A field that
    carries ``Field(serialization_alias="old")`` keeps its old name in dumps by alias, from which
    runs are told: what was done under the old name is still recognised.
    """

    def read_old(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        found = {old: new for old, new in keys.items() if old in value and new not in value}
        for old, new in found.items():
            _tell_renamed(old, new)
        return {found.get(key, key): one for key, one in value.items()} if found else value

    return model_validator(mode="before")(read_old)


@cache
def _tell_renamed(old: str, new: str) -> None:
    """Say once in a process what a key is called now."""
    logging.getLogger(__name__).warning(
        "%s is called %s now; the old name is read for two more releases.", old, new
    )


def imported(target: str) -> Any:
    """What ``package.module:name`` stands for; raises ``UserError`` where it cannot be imported."""
    module, _, name = target.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise UserError(
            f"target: {target} cannot be imported; install its package into this environment, or "
            "check the name."
        ) from None


def _share(value: object) -> object:
    if isinstance(value, str) and value.strip().endswith("%"):
        try:
            return float(value.strip()[:-1]) / 100
        except ValueError:
            return value
    return value


Share = Annotated[float, BeforeValidator(_share), Field(ge=0, lt=1)]
"""A fraction: ``0.1`` or ``10%``."""


def _switched(value: object) -> object:
    return ("off", "on")[value] if isinstance(value, bool) else value


ON_OFF = BeforeValidator(_switched)
"""For choices with ``on`` and ``off``, which YAML reads as true and false."""


def parse(kind: type[T] | Any, value: object, where: str) -> T:
    """Check a value against a part, a family or any annotated type.

    Raises ``UserError``: one line for each fault, with the dotted key, what is allowed and the
    nearest name.
    """
    try:
        result: T = TypeAdapter(kind).validate_python(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=True)
        faults = _sentences([fault for fault in found if not _follows(fault, found)], kind)
        raise UserError("\n".join(f"{where}: {fault}" for fault in dict.fromkeys(faults))) from None
    return result


def _follows(fault: ErrorDetails, others: list[ErrorDetails]) -> bool:
    """Whether a list is only too short because of faulty items, which have sentences of their
    own."""
    deeper = (other["loc"] for other in others if len(other["loc"]) > len(fault["loc"]))
    return fault["type"] == "too_short" and any(
        loc[: len(fault["loc"])] == fault["loc"] for loc in deeper
    )


def _sentences(faults: list[ErrorDetails], root: Any, depth: int = 0) -> list[str]:
    """One sentence for each fault; one for all members of a union (``Literal["auto"] | float``)
    that do not fit.

    ``depth`` is how many steps of the locations are known to lead to one member.
    """
    groups: dict[object, tuple[int, list[ErrorDetails]]] = {}
    for number, fault in enumerate(faults):
        steps = _steps(root, fault["loc"])
        member = next((at for at in range(depth, len(steps)) if steps[at].member), None)
        key = number if member is None else fault["loc"][:member]
        groups.setdefault(key, (-1 if member is None else member, []))[1].append(fault)
    sentences: list[str] = []
    for member, group in groups.values():
        inside = [
            fault for fault in group if len(fault["loc"]) > member + 1 or fault["type"] in _SPECIFIC
        ]
        if member < 0:
            sentences.append(_sentence(group[0], root))
        # the value has the shape of this member: what is wrong inside is what the user wants to
        # know
        elif inside:
            sentences += _sentences(inside, root, member + 1)
        else:
            sentences.append(_choice(group, root))
    return sentences


def _choice(faults: list[ErrorDetails], root: Any) -> str:
    """What a union allows, as one sentence: ``learning_rate: must be auto or a number.``"""
    literals = [
        value for fault in faults if fault["type"] == "literal_error" for value in _literals(fault)
    ]
    phrases = [phrase for fault in faults for phrase in (_literals(fault) or [_expected(fault)])]
    *others, last = dict.fromkeys(phrases)
    got = faults[0].get("input")
    close = get_close_matches(got, literals, n=1) if isinstance(got, str) else []
    hint = f"; did you mean {close[0]}?" if close else "."
    shown = f"{', '.join(others)} or {last}" if others else last
    return f"{_dotted(faults[0]['loc'], root) or 'the document'}: must be {shown}{hint}"


def _sentence(fault: ErrorDetails, root: Any) -> str:
    location = fault["loc"]
    key = _dotted(location, root) or "the document"
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "extra_forbidden":
        names = _fields_at(root, location[:-1])
        return _stop(f"{key}: unknown key; {allowed(names, location[-1])}")
    if kind == "missing":
        return f"{key}: is missing; add it."
    if kind == "union_tag_not_found":
        return (
            f"{_join(key, _discriminator(context))}: is missing; "
            f"{allowed(_tags(root, location), most=40)}."
        )
    if kind == "union_tag_invalid":
        tags = [tag.strip().strip("'") for tag in str(context.get("expected_tags", "")).split(",")]
        tag = context.get("tag")
        return _stop(
            f"{_join(key, _discriminator(context))}: {tag!r} is not known; "
            f"{allowed(tags, tag, most=40)}"
        )
    if kind == "literal_error":
        got = fault.get("input")
        shown = (
            f"{got!r} is not known; "
            if isinstance(got, str | int | float) and len(str(got)) < 40
            else ""
        )
        return _stop(f"{key}: {shown}{allowed(_literals(fault), got)}")
    if kind in _EXPECTED:
        return f"{key}: must be {_EXPECTED[kind]}."
    return _stop(f"{key}: {_plain(fault)}")


_EXPECTED = {
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("list_type", "tuple_type", "set_type", "frozen_set_type"), "a list"),
    **dict.fromkeys(
        ("dict_type", "mapping_type", "model_type", "model_attributes_type"), "a mapping"
    ),
    "string_type": "text",
    "path_type": "a path",
}
_SPECIFIC = frozenset(
    {"value_error", "assertion_error", "union_tag_invalid", "union_tag_not_found"}
)


def _expected(fault: ErrorDetails) -> str:
    """What one member of a union would take, to follow "must be"."""
    phrase = _EXPECTED.get(fault["type"]) or _plain(fault).removeprefix("must be ")
    bounded = fault["type"].startswith(("greater_than", "less_than"))
    return f"a number {phrase}" if bounded else phrase


def _plain(fault: ErrorDetails) -> str:
    message = fault["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return re.sub(r"^\w+ should ", "must ", message).removeprefix("Input ")


def _literals(fault: ErrorDetails) -> list[str]:
    if fault["type"] != "literal_error":
        return []
    return [
        value.strip("' ")
        for value in str(fault.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(",")
    ]


def _stop(sentence: str) -> str:
    return sentence if sentence.endswith("?") else sentence.rstrip(".") + "."


def _join(key: str, name: str) -> str:
    return name if key == "the document" else f"{key}.{name}"


def _discriminator(context: Mapping[str, Any]) -> str:
    return str(context.get("discriminator", "kind")).strip("'")


class _Step(NamedTuple):
    """One step of an error location."""

    step: int | str
    kind: Any
    """The type behind it."""
    written: bool = True
    """Whether the user wrote it: a key or a position, not a name that pydantic gives to a member of
    a union."""
    member: bool = False
    """Whether it names a member of a union that is told by trying, not by a tag."""


def _steps(root: Any, location: tuple[int | str, ...]) -> list[_Step]:
    """Walk a type along an error location."""
    steps: list[_Step] = []
    kind: Any = root
    for step in location:
        found = _walk(kind, step)
        kind = found.kind
        steps.append(found)
    return steps


def _walk(kind: Any, step: int | str) -> _Step:
    options = [option for option in _members(kind) if option is not type(None)]
    models = _models(options)
    tagged = [model for model in models if _tag(model) == step]
    if tagged and not any(step in model.model_fields for model in models if model not in tagged):
        return _Step(step, tagged[0], written=False)
    if (
        isinstance(step, str)
        and len(options) > 1
        and not all(option in models and _tag(option) for option in options)
    ):
        return _Step(step, _member(options, step), written=False, member=True)
    field = next(
        (model.model_fields[str(step)] for model in models if str(step) in model.model_fields), None
    )
    if field is not None:
        return _Step(step, field.annotation)
    inner = next((option for option in options if get_origin(option) in _CONTAINERS), None)
    if inner is not None:
        arguments = [argument for argument in get_args(inner) if argument is not Ellipsis]
        return _Step(step, arguments[-1] if arguments else Any, written=step != "[key]")
    return _Step(step, Any, written=step != "[key]")


_CONTAINERS = (list, tuple, dict, set, frozenset, Sequence, Mapping)


def _member(options: list[Any], label: str) -> Any:
    """The member of a union that pydantic calls ``label``: ``float``, ``list[str]``,
    ``literal['auto']``, a model's name."""
    if label.startswith("tagged-union"):
        return Union[tuple(_models(options))]  # noqa: UP007
    names = (
        (getattr(get_origin(option) or option, "__name__", "").lower(), option)
        for option in options
    )
    return next(
        (option for name, option in names if name and label.lower().partition("[")[0] == name), Any
    )


def _models(options: list[Any]) -> list[type[BaseModel]]:
    return [
        option for option in options if isinstance(option, type) and issubclass(option, BaseModel)
    ]


def _members(kind: Any) -> list[Any]:
    """A type taken apart: the members of unions, without annotations."""
    if get_origin(kind) is Annotated:
        return _members(get_args(kind)[0])
    if get_origin(kind) in (Union, types.UnionType):
        return [member for part in get_args(kind) for member in _members(part)]
    return [kind]


def _tag(model: type[BaseModel]) -> str | None:
    for name in ("kind", "format", "via", "by"):
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is Literal:
            return str(get_args(field.annotation)[0])
    return None


def _dotted(location: tuple[int | str, ...], root: Any) -> str:
    dotted = ""
    for step, _, written, _ in _steps(root, location):
        if written:
            dotted += (
                f"[{step}]" if isinstance(step, int) else (f".{step}" if dotted else str(step))
            )
    return dotted


def _fields_at(root: Any, location: tuple[int | str, ...]) -> list[str]:
    steps = _steps(root, location)
    models = _models(_members(steps[-1].kind if steps else root))
    return list(dict.fromkeys(name for model in models for name in model.model_fields))


def _tags(root: Any, location: tuple[int | str, ...]) -> list[str]:
    steps = _steps(root, location)
    return [
        tag
        for model in _models(_members(steps[-1].kind if steps else root))
        if (tag := _tag(model))
    ]
