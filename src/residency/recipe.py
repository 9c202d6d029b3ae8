"""A recipe: one YAML file that says everything about a run. It only composes; each part is defined beside its code."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, model_validator

from residency.core.errors import UserError, allowed
from residency.core.files import digest
from residency.core.part import Part, parse
from residency.corpus.sources import Data
from residency.deid.settings import Deid
from residency.ingest.settings import Extract
from residency.models.base import BaseModelSettings
from residency.models.remote import Api
from residency.models.settings import Generation, Limits
from residency.tasks.card import Card, load_card
from residency.train.launch import Launch
from residency.train.stage import Stage

SCHEMA = 1


def _base(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


class Task(Part):
    """A card on a data set."""

    card: str
    """A packaged card (``ner``, ``clinical``, ``classify``, ``multilabel``, ``qa``, ``consultation``) or a YAML file beside
    the recipe."""
    data: str
    """Name of an entry of ``data``."""
    output: Literal["auto", "head", "text"] = "auto"
    """``head``: the model marks spans and chooses labels with a head of its own; ``text``: a causal model writes its answer,
    which is read back. ``auto``: a head, save for cards of family answers."""
    limits: Limits = Limits()
    """Models that write: the most tokens that are read and learned."""
    generate: Generation = Generation()
    """Models that write: how answers are written."""


class Evaluate(Part):
    """How the result is measured, on the test part."""

    baselines: tuple[Literal["base"], ...] = ("base",)
    """Systems to compare with; ``base`` is the base with an untrained head."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples behind each interval; 0 for none."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many test records, drawn with the recipe's seed: writing answers takes time."""
    apis: dict[str, Api] = {}
    """Systems on servers that ``residency compare`` knows as ``api:NAME``."""
    show_text: Literal["auto"] | bool = "auto"
    """Whether the report may quote notes; ``auto``: unless the data is pseudonymised."""


class Recipe(Part):
    """From data to a measured model."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: str = Field(pattern=r"^[a-zA-Z0-9][\w.-]{0,63}$")
    seed: int = Field(default=0, ge=0)
    base: Annotated[BaseModelSettings, BeforeValidator(_base)] = BaseModelSettings(id="bundled:tiny-encoder")
    """``bundled:tiny-encoder``, a local folder, a hub id, or a mapping with ``id``, ``revision``, ``segmenter`` ..."""
    extract: Extract | None = None
    """Where identified notes are: a hospital's database. Only ``residency deid`` reads it."""
    deid: Deid | None = None
    """How they are de-identified."""
    data: dict[str, Data] = Field(min_length=1)
    tasks: tuple[Task, ...] = Field(min_length=1, max_length=1)
    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1, max_length=1)
    launch: Launch = Launch()
    """On how many devices it is trained."""
    evaluate: Evaluate = Evaluate()
    _root: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _names_fit(self) -> Recipe:
        for number, task in enumerate(self.tasks):
            if task.data not in self.data:
                raise ValueError(
                    f"tasks[{number}].data: {task.data!r} is not an entry of data; {allowed(self.data, task.data)}"
                )
        return self

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe; ``overrides`` are ``key=value`` with dotted keys.

        Raises ``UserError``: one line for each fault, with the dotted key, what is allowed and the nearest name.
        """
        path = Path(path)
        return cls.from_mapping(read_yaml(path), root=path.parent, overrides=overrides, where=str(path))

    @classmethod
    def from_mapping(
        cls, value: Mapping[str, Any], root: Path = Path(), overrides: Sequence[str] = (), where: str = "recipe"
    ) -> Recipe:
        """A recipe from a mapping; its paths are relative to ``root``."""
        recipe: Recipe = parse(cls, override(copy.deepcopy(dict(value)), overrides), where)
        recipe._root = root.resolve()
        return recipe

    @property
    def root(self) -> Path:
        """Folder that paths are relative to."""
        return self._root

    @property
    def digest(self) -> str:
        """Hash of everything that the recipe says, defaults included, and where its paths lead."""
        return digest({"recipe": self.model_dump(mode="json", by_alias=True), "root": str(self._root)})

    def card(self, task: Task) -> Card:
        """The card of a task."""
        return load_card(task.card, self._root)

    def yaml(self) -> str:
        """The recipe with only what differs from the defaults."""
        value = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises ``UserError`` that names file and line."""
    try:
        value = yaml.safe_load(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: does not exist; write one with residency init, or give another path.") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: is not valid YAML ({error.problem}).") from None
    except yaml.YAMLError:
        raise UserError(f"{path}: is not valid YAML.") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: holds no recipe; it must be a mapping that begins with schema: {SCHEMA} and name: ..."
        )
    return value


def override(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A mapping with ``key=value`` applied; keys are dotted, list items ``[0]`` or ``.0``, values YAML."""
    for text in overrides:
        key, equals, raw = text.partition("=")
        steps = [step for step in re.split(r"[.\[\]]+", key) if step]
        if not equals or not steps:
            raise UserError(f"{text}: is not an override; write key=value, for example stages[0].epochs=3.")
        try:
            new = yaml.safe_load(raw)
        except yaml.YAMLError:
            raise UserError(f"{key}: the value is not valid YAML.") from None
        _set(value, steps, new, key)
    return value


def _set(target: Any, steps: list[str], new: object, key: str) -> None:
    for position, step in enumerate(steps):
        last = position == len(steps) - 1
        if isinstance(target, list):
            if not step.isdigit() or int(step) >= len(target):
                raise UserError(f"{key}: {step!r} is not an item of a list of {len(target)}; count from 0.")
            if last:
                target[int(step)] = new
            else:
                target = target[int(step)]
        elif isinstance(target, dict):
            if last:
                target[step] = new
            else:
                if target.get(step) is None:
                    target[step] = [{}] if steps[position + 1] == "0" else {}
                target = target[step]
        else:
            raise UserError(f"{key}: {'.'.join(steps[:position])} is a plain value; override it as a whole.")


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Residency recipe"}
