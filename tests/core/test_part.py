"""Every fault of a recipe is one sentence: the key as the user wrote it, what is allowed, the
nearest name."""

import sys
import types
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator

from residency.core.errors import UserError
from residency.core.part import External, Part, Share, parse


class Lora(Part):
    kind: Literal["lora"] = "lora"
    rank: int = Field(default=8, gt=0)


class Prefix(Part):
    kind: Literal["prefix"] = "prefix"
    tokens: int = 16


Method = Annotated[Lora | Prefix, Field(discriminator="kind")]


class Columns(Part):
    text: str
    labels: str | list[str] = ""


class Stage(Part):
    method: Method = Lora()
    learning_rate: Literal["auto"] | float = "auto"
    warmup: Literal["auto", "none"] | Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["linear", "cosine"] = "linear"
    epochs: int = 1
    even: int = 0
    columns: Literal["auto"] | Columns = "auto"
    resume: bool = False

    @field_validator("even")
    @classmethod
    def is_even(cls, value: int) -> int:
        if value % 2:
            raise ValueError("must be even")
        return value


class Recipe(Part):
    name: str
    stages: list[Stage] = []
    data: dict[str, Columns] = {}
    stop: Share = 0.1


def fault(value: object, kind: Any = Recipe) -> str:
    with pytest.raises(UserError) as caught:
        parse(kind, value, "recipe.yaml")
    return str(caught.value).removeprefix("recipe.yaml: ")


def stage_fault(**settings: object) -> str:
    return fault({"name": "x", "stages": [settings]})


def test_a_part_is_checked_and_frozen() -> None:
    recipe = parse(
        Recipe,
        {"name": "x", "stages": [{"method": {"kind": "prefix"}, "learning_rate": "2e-4"}]},
        "here",
    )
    assert recipe.stages[0].method == Prefix()
    assert recipe.stages[0].learning_rate == 2e-4
    with pytest.raises(ValidationError):
        recipe.name = "y"  # type: ignore[misc]


def test_the_place_stands_first_and_each_fault_has_its_line() -> None:
    with pytest.raises(UserError) as caught:
        parse(Recipe, {"stop": "x", "nane": "y"}, "recipe.yaml")
    assert str(caught.value).splitlines() == [
        "recipe.yaml: name: is missing; add it.",
        "recipe.yaml: stop: must be a number.",
        "recipe.yaml: nane: unknown key; allowed: name, stages, data, stop; did you mean name?",
    ]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (
            {"epoch": 3},
            "stages[0].epoch: unknown key; allowed: method, learning_rate, warmup, schedule, "
            "epochs, even, columns, resume; did you mean epochs?",
        ),
        ({"epochs": "many"}, "stages[0].epochs: must be a whole number."),
        ({"epochs": 1.5}, "stages[0].epochs: must be a whole number."),
        ({"resume": "perhaps"}, "stages[0].resume: must be true or false."),
        (
            {"schedule": "cosin"},
            "stages[0].schedule: 'cosin' is not known; allowed: linear, cosine; did you mean "
            "cosine?",
        ),
        ({"even": 3}, "stages[0].even: must be even."),
        (
            {"method": {"kind": "lore"}},
            "stages[0].method.kind: 'lore' is not known; allowed: lora, prefix; did you mean lora?",
        ),
        ({"method": {"rank": 8}}, "stages[0].method.kind: is missing; allowed: lora, prefix."),
        ({"method": "lora"}, "stages[0].method: must be a mapping."),
        ({"method": {"kind": "lora", "rank": 0}}, "stages[0].method.rank: must be greater than 0."),
        (
            {"method": {"kind": "prefix", "rank": 8}},
            "stages[0].method.rank: unknown key; allowed: kind, tokens.",
        ),
    ],
)
def test_faults_inside_a_list_are_named_by_their_dotted_key(
    settings: dict[str, object], sentence: str
) -> None:
    assert stage_fault(**settings) == sentence


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"learning_rate": "fast"}, "stages[0].learning_rate: must be auto or a number."),
        ({"learning_rate": [1]}, "stages[0].learning_rate: must be auto or a number."),
        (
            {"learning_rate": "atuo"},
            "stages[0].learning_rate: must be auto or a number; did you mean auto?",
        ),
        ({"warmup": -1}, "stages[0].warmup: must be auto, none or a number greater than 0."),
        ({"columns": 3}, "stages[0].columns: must be auto or a mapping."),
        (
            {"columns": {"text": "a", "labels": 3}},
            "stages[0].columns.labels: must be text or a list.",
        ),
        (
            {"columns": {"text": "a", "labels": ["b", 3]}},
            "stages[0].columns.labels[1]: must be text.",
        ),
        ({"columns": {"labels": "b"}}, "stages[0].columns.text: is missing; add it."),
        (
            {"columns": {"text": "a", "label": "b"}},
            "stages[0].columns.label: unknown key; allowed: text, labels; did you mean labels?",
        ),
    ],
)
def test_a_value_that_fits_no_member_of_a_union_gives_one_sentence(
    settings: dict[str, object], sentence: str
) -> None:
    assert stage_fault(**settings) == sentence


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"name": "x", "data": {"tb": {"tex": "t"}}}, "data.tb.text: is missing; add it."),
        (
            {"name": "x", "data": {"tb": {"text": "t", "labels": {}}}},
            "data.tb.labels: must be text or a list.",
        ),
        ({"name": "x", "data": [1]}, "data: must be a mapping."),
        ({"name": "x", "stages": 3}, "stages: must be a list."),
        ({"name": 3}, "name: must be text."),
        ([], "the document: must be a mapping."),
    ],
)
def test_faults_of_mappings_and_of_the_whole(value: object, sentence: str) -> None:
    assert fault(value).splitlines()[0] == sentence


def test_a_family_by_itself() -> None:
    assert (
        fault({"kind": "lore"}, Method)
        == "kind: 'lore' is not known; allowed: lora, prefix; did you mean lora?"
    )
    assert fault({}, Method) == "kind: is missing; allowed: lora, prefix."
    assert (
        fault({"tok": 3, "kind": "prefix"}, Method)
        == "tok: unknown key; allowed: kind, tokens; did you mean tokens?"
    )


@pytest.mark.parametrize(
    ("written", "share"), [("10%", 0.1), ("2.5 %", 0.025), (0.1, 0.1), ("0.1", 0.1), (0, 0.0)]
)
def test_a_share_is_a_fraction_or_a_percentage(written: object, share: float) -> None:
    assert parse(Recipe, {"name": "x", "stop": written}, "here").stop == pytest.approx(share)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("100%", "stop: must be less than 1."),
        (-0.1, "stop: must be greater than or equal to 0."),
        ("ten%", "stop: must be a number."),
    ],
)
def test_a_share_outside_0_to_1_is_refused(written: object, sentence: str) -> None:
    assert fault({"name": "x", "stop": written}) == sentence


class Exporter(Part):
    level: int = 1


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("hospital_plugin")
    module.Exporter = type("Mine", (Exporter,), {"__module__": "hospital_plugin"})  # type: ignore[attr-defined]
    module.Other = dict  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "hospital_plugin", module)


@pytest.mark.usefixtures("plugin")
def test_an_external_part_is_imported_and_built_from_its_options() -> None:
    built = External(target="hospital_plugin:Exporter", options={"level": 3}).load(Exporter)
    assert isinstance(built, Exporter)
    assert built.level == 3


@pytest.mark.usefixtures("plugin")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hospital_plugin:Missing", "target: hospital_plugin:Missing cannot be imported"),
        ("no_such_package:Exporter", "target: no_such_package:Exporter cannot be imported"),
        ("hospital_plugin:Other", "target: hospital_plugin:Other is not a Exporter"),
    ],
)
def test_an_external_part_that_cannot_serve_is_refused(target: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        External(target=target).load(Exporter)


def test_the_target_of_an_external_part_names_package_and_class() -> None:
    assert fault({"target": "exporter"}, External).startswith("target: must match pattern")
