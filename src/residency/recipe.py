"""A recipe: one YAML file that says everything about a run. It only composes; each part is defined
beside its code."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from residency.core.errors import UserError, allowed
from residency.core.files import digest
from residency.core.part import Part, parse
from residency.corpus.load import Data
from residency.deid.options import Deid
from residency.evals.floor import SafetyFloor
from residency.evals.watching import Watch
from residency.evals.words import ReportSettings
from residency.ingest.sources import Extract
from residency.label.campaign import Label
from residency.metrics import answers
from residency.models.base import Base, BaseModelSettings
from residency.models.baselines import BaselineName
from residency.models.generation import Generation, TokenLimits
from residency.models.remote import Api
from residency.tasks.card import Card, load_card
from residency.train.processes import Launch
from residency.train.stage import Stage

SCHEMA = 1


def _base(value: object) -> object:
    return {"id": value} if isinstance(value, str) else value


class Task(Part):
    """A card on a data set."""

    card: str
    """A packaged card (``ner``, ``clinical``, ``classify``, ``multilabel``, ``qa``, ``exam``,
    ``promptcblue/cmeee`` ...) or a YAML file beside the recipe."""
    data: str
    """Name of an entry of ``data``."""
    name: str = Field(default="", pattern=r"^[\w.-]*$")
    """What stages, folders and the report call it; the card's name where not given. Two tasks of
    one card need names."""
    output: Literal["auto", "head", "text"] = "auto"
    """``head``: the model marks spans and chooses labels with a head of its own; ``text``: a causal
    model writes its answer, which is read back. ``auto``: a head, save for cards of family
    answers."""
    limits: TokenLimits = TokenLimits()
    """Generative models: the most tokens that are read and learned."""
    generate: Generation = Generation()
    """Generative models: how answers are written."""
    shots: int = Field(default=0, ge=0, le=50)
    """Generative models: the base is also measured with so many worked examples before each
    question, drawn from the training part by the recipe's seed. They count against
    ``limits.source``: what does not fit is left out, oldest first."""

    @property
    def title(self) -> str:
        """Its name, or its card's."""
        return self.name or Path(self.card).stem


class Evaluate(Part):
    """How the result is measured, on the test part."""

    baselines: Literal["auto"] | tuple[BaselineName, ...] = "auto"
    """Systems to compare with. ``base``: the base with an untrained head; the others learn from the
    training part: ``crf`` (words, shapes, affixes), ``dictionary`` (its spans, the longest match),
    ``majority`` (its commonest labels), ``chance`` (drawn as often as they occur there). ``auto``:
    those of the card's family, and of answers in free words only ``base``."""
    metrics: tuple[str, ...] = Field(default=(), exclude_if=lambda names: not names)
    """Metrics of written answers beside the usual ones: a file of ``metrics/answers``, or
    ``package.module:function``, which gives a reference and an answer a value, or none."""
    prevalence: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        default={}, exclude_if=lambda stated: not stated
    )
    """Of a label where it is to be screened for, e.g. ``{pneumonia: 0.02}``: the report also gives
    PPV and NPV there."""
    bootstrap: int = Field(default=1000, ge=0)
    """Resamples behind each interval; 0 for none."""
    limit: int | None = Field(default=None, ge=1)
    """Only so many test records, drawn with the recipe's seed: writing answers takes time."""
    apis: dict[str, Api] = {}
    """Systems on servers that ``residency compare`` knows as ``api:NAME``."""
    safety: bool = False
    """Generative models: also ask the packaged questions about harm and about what cannot be known,
    in three languages."""
    floor: SafetyFloor = SafetyFloor()
    """What those answers must reach before the model may be promoted; the report says where it
    falls short."""
    most_mark: int = Field(default=10, ge=1, le=100, exclude_if=lambda most: most == 10)
    """The best mark of an answer that people or a judge model mark (``residency ratings``); the
    worst is 0."""
    show_text: Literal["auto"] | bool = "auto"
    """Whether the report may quote notes; ``auto``: unless the data is pseudonymised."""

    @field_validator("metrics")
    @classmethod
    def _metrics_are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            try:
                answers.named(name)
            except UserError as error:
                raise ValueError(str(error).removeprefix("metric: ")) from None
        return names

    @model_validator(mode="after")
    def _floor_is_measured(self) -> Evaluate:
        if self.floor.asks and not self.safety:
            raise ValueError(
                "floor: looks at the answers to the questions about harm; set evaluate.safety=true"
            )
        return self


class Recipe(Part):
    """From data to a measured model."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the recipe's form."""
    name: str = Field(pattern=r"^[a-zA-Z0-9][\w.-]{0,63}$")
    """Begins the name of the run's folder."""
    seed: int = Field(default=0, ge=0)
    """Of split, shuffles, initial weights and resampling: equal recipe, data and machine give
    equal numbers."""
    base: Annotated[BaseModelSettings, BeforeValidator(_base)] = BaseModelSettings(
        id="bundled:tiny-encoder"
    )
    """``bundled:tiny-encoder``, a local folder, a hub id, or a mapping with ``id``, ``revision``,
    ``segmenter`` ..."""
    extract: Extract | None = None
    """Where identified notes are: a hospital's database, or files. Only ``residency extract`` and
    ``deid`` read it."""
    deid: Deid | None = None
    """How they are de-identified."""
    label: Label | None = None
    """Who labels which notes, and where. Only ``residency label`` reads it."""
    data: dict[str, Data] = Field(min_length=1)
    """Data sets, by names of your own."""
    tasks: tuple[Task, ...] = Field(min_length=1)
    """What is to be learned from which data."""
    stages: tuple[Stage, ...] = Field(default=(Stage(),), min_length=1)
    """Trained one after the other; each goes on from the one before, unless it says otherwise."""
    launch: Launch = Launch()
    """On how many devices it is trained."""
    evaluate: Evaluate = Evaluate()
    report: ReportSettings = Field(
        default=ReportSettings(), exclude_if=lambda asked: asked == ReportSettings()
    )
    watch: Watch = Field(default=Watch(), exclude_if=lambda asked: asked == Watch())
    """How the model is watched in the field, and tuned again. Only ``residency watch`` and
    ``residency retune`` read it."""
    _root: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _names_fit(self) -> Recipe:
        for number, task in enumerate(self.tasks):
            if task.data not in self.data:
                raise ValueError(
                    f"tasks[{number}].data: {task.data!r} is not an entry of data; "
                    f"{allowed(self.data, task.data)}"
                )
            if task.title in [other.title for other in self.tasks[:number]]:
                raise ValueError(
                    f"tasks[{number}].name: {task.title!r} is a task already; give each a name of "
                    "its own"
                )
        for number, stage in enumerate(self.stages):
            self._stage_fits(f"stages[{number}]", stage)
            self._start_fits(number, stage)
        titles = [stage.title(number) for number, stage in enumerate(self.stages, start=1)]
        if {"base", "tuned"} & {stage.name for stage in self.stages} or len(titles) != len(
            set(titles)
        ):
            raise ValueError("stages: each needs a name of its own, other than base and tuned")
        return self

    @model_validator(mode="after")
    def _can_be_shared_out(self) -> Recipe:
        if not self.launch.shard:
            return self
        if self.base.quantise != "none":
            raise ValueError(
                f"launch.shard: weights in {self.base.quantise} cannot be shared out; set "
                "base.quantise=none, or launch.shard=false"
            )
        for number, stage in enumerate(self.stages):
            if stage.optimiser != "adamw":
                raise ValueError(
                    f"stages[{number}].optimiser: {stage.optimiser} does not work with "
                    "launch.shard; set adamw, or launch.shard=false"
                )
            if getattr(stage.method, "projection", None) is not None:
                raise ValueError(
                    f"stages[{number}].method.projection: belongs to all layers at once, which "
                    "launch.shard lends out one by one; leave it out, or set launch.shard=false"
                )
        return self

    def _stage_fits(self, where: str, stage: Stage) -> None:
        """Whether a stage names tasks and data that are there."""
        known = [task.title for task in self.tasks]
        for name in stage.tasks:
            if name not in known:
                raise ValueError(f"{where}.tasks: {name!r} is not a task; {allowed(known, name)}")
        named = {
            f"{where}.data": stage.data,
            f"{where}.replay.data": stage.replay.data if stage.replay else None,
        }
        for key, data in named.items():
            if data is not None and data not in self.data:
                raise ValueError(
                    f"{key}: {data!r} is not an entry of data; {allowed(self.data, data)}"
                )
        if stage.data is not None and len(self.tasks_of(stage)) > 1:
            raise ValueError(
                f"{where}.data: the stage trains several tasks; name one of them with {where}.tasks"
            )

    def _start_fits(self, number: int, stage: Stage) -> None:
        """Whether a stage without a base, and the one behind it, go on from nothing."""
        goes_on = stage.start != "base" and (number or stage.start != "previous")
        before = self.stages[number - 1] if number and stage.start == "previous" else stage
        if goes_on and not (stage.needs_base and before.needs_base):
            raise ValueError(
                f"stages[{number}].start: a crf starts from no model, and none goes on from it; "
                "set start: base"
            )

    @property
    def needs_base(self) -> bool:
        """Whether anything in it starts from a base."""
        asked = "base" in self.evaluate.baselines and self.evaluate.baselines != "auto"
        return asked or any(stage.needs_base for stage in self.stages)

    def settled(self, base: Base) -> Recipe:
        """With the methods that suit a base, where stages leave them open."""
        stages = tuple(stage.settled(base) for stage in self.stages)
        return self if stages == self.stages else self.model_copy(update={"stages": stages})

    def tasks_of(self, stage: Stage) -> tuple[Task, ...]:
        """The tasks that a stage trains: those that it names, or all."""
        return tuple(task for task in self.tasks if not stage.tasks or task.title in stage.tasks)

    @classmethod
    def load(cls, path: Path | str, overrides: Sequence[str] = ()) -> Recipe:
        """Read a recipe; ``overrides`` are ``key=value`` with dotted keys.

        Raises ``UserError``: one line for each fault, with the dotted key, what is allowed and the
        nearest name.
        """
        path = Path(path)
        return cls.from_mapping(
            read_yaml(path), root=path.parent, overrides=overrides, where=str(path)
        )

    @classmethod
    def from_mapping(
        cls,
        value: Mapping[str, Any],
        root: Path = Path(),
        overrides: Sequence[str] = (),
        where: str = "recipe",
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
        return digest({"recipe": self.settings, "root": str(self._root)})

    @property
    def settings(self) -> dict[str, Any]:
        """Everything that the recipe says, defaults included, as keys of steps are made of it,
        under the names that it had in earlier versions: so their runs are found again."""
        found = self.model_dump(mode="json", by_alias=True)
        if self.evaluate.baselines == "auto":  # the default of earlier versions
            found["evaluate"]["baselines"] = ["base"]
        return found

    def card(self, task: Task) -> Card:
        """The card of a task."""
        return load_card(task.card, self._root)

    def mapping(self) -> dict[str, Any]:
        """The recipe with only what differs from the defaults, as ``from_mapping`` reads it."""
        value = self.model_dump(mode="json", exclude_unset=True)
        names = {"schema_version": "schema"}
        return {names.get(name, name): one for name, one in value.items()}

    def yaml(self) -> str:
        """The mapping as YAML."""
        return yaml.safe_dump(self.mapping(), sort_keys=False, allow_unicode=True, width=110)


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file that holds a mapping; raises ``UserError`` that names file and line."""
    try:
        return load_yaml(path.read_text("utf-8"), path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: does not exist; write one with residency init, or give another path."
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


def load_yaml(text: str, path: Path) -> dict[str, Any]:
    """The mapping that YAML of a file holds; raises ``UserError`` that names file and line, also
    for a key that stands twice."""
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        _check_keys(tree, path, set())
        value = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path}:{line}: is not valid YAML ({error.problem}).") from None
    except (yaml.YAMLError, ValueError, RecursionError):  # a date such as 2024-99-99
        raise UserError(f"{path}: is not valid YAML.") from None
    if not isinstance(value, dict):
        raise UserError(
            f"{path}: holds no recipe; it must be a mapping that begins with schema: {SCHEMA} and "
            "name: ..."
        )
    return value


def _check_keys(node: yaml.Node | None, path: Path, seen: set[int]) -> None:
    """Raise ``UserError`` with both lines for a key that stands twice in one mapping: YAML would
    take the last and say nothing."""
    if node is None or id(node) in seen:  # an alias stands for a node that was looked at
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _check_keys(item, path, seen)
    if isinstance(node, yaml.MappingNode):
        lines: dict[tuple[str, str], int] = {}
        for key, value in node.value:
            line, name = key.start_mark.line + 1, (key.tag, str(key.value))
            if name in lines:
                raise UserError(
                    f"{path}:{line}: {key.value} stands in line {lines[name]} too; keep one of "
                    "them."
                )
            lines[name] = line
            _check_keys(value, path, seen)


def override(value: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A mapping with ``key=value`` applied; keys are dotted, list items ``[0]`` or ``.0``, values
    YAML."""
    for text in overrides:
        key, equals, raw = text.partition("=")
        steps = [step for step in re.split(r"[.\[\]]+", key) if step]
        if not equals or not steps:
            raise UserError(
                f"{text}: is not an override; write key=value, for example stages[0].epochs=3."
            )
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
                raise UserError(
                    f"{key}: {step!r} is not an item of a list of {len(target)}; count from 0."
                )
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
            raise UserError(
                f"{key}: {'.'.join(steps[:position])} is a plain value; override it as a whole."
            )


def json_schema() -> dict[str, Any]:
    """JSON Schema of a recipe, for editors."""
    schema = Recipe.model_json_schema(by_alias=True)
    parts = schema["$defs"]
    for part in (schema, *parts.values()):
        for value in part.get("properties", {}).values():
            _describe(value, part, parts)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Residency recipe",
    }


def _describe(value: dict[str, Any], part: Mapping[str, Any], parts: Mapping[str, Any]) -> None:
    """Give a key the words of its part, where it has none of its own: one that says which part this
    is, and one that holds a part."""
    held = [
        one["$ref"].rpartition("/")[2] for one in (value, *value.get("anyOf", ())) if "$ref" in one
    ]
    source = part if "const" in value else parts[held[0]] if held else {}
    first = str(source.get("description", "")).partition("\n\n")[0].replace("\n", " ")
    if first:
        value.setdefault("description", first)
