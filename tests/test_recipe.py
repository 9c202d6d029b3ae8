"""A recipe says everything about a run; a fault in it is answered with the dotted key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from residency.core.errors import UserError
from residency.corpus.load import Data
from residency.models.adapters import Methods
from residency.models.base import Base
from residency.recipe import Recipe, json_schema, override, read_yaml
from residency.train.stage import Stage

MINIMAL: dict[str, Any] = {
    "name": "a",
    "data": {"notes": {"format": "jsonl", "path": "n.jsonl"}},
    "tasks": [{"card": "ner", "data": "notes"}],
}


def test_a_minimal_recipe_has_sensible_defaults() -> None:
    recipe = Recipe.from_mapping(MINIMAL)
    assert (recipe.base.id, recipe.stages[0].method, recipe.evaluate.baselines) == (
        "bundled:tiny-encoder",
        "auto",
        "auto",
    )


@pytest.mark.parametrize(
    ("settings", "kind"),
    [({}, "freeze"), ({"architecture": "causal"}, "lora"), ({"quantise": "nf4"}, "lora")],
)
def test_a_method_that_is_left_open_is_settled_by_the_base(
    settings: dict[str, Any], kind: str
) -> None:
    base = Base(id="x", path="", digest="", **settings)
    settled = Recipe.from_mapping(MINIMAL).settled(base)
    assert settled.stages[0].configured.kind == kind
    again = Recipe.from_mapping(settled.mapping())
    assert again.stages == settled.stages, "a run's own copy of it says the method"
    named = {**MINIMAL, "stages": [{"method": {"kind": "full"}}]}
    assert Recipe.from_mapping(named).settled(base).stages[0].configured.kind == "full"


def test_a_base_is_a_name_or_a_mapping() -> None:
    assert Recipe.from_mapping({**MINIMAL, "base": "a/b"}).base.id == "a/b"
    assert (
        Recipe.from_mapping({**MINIMAL, "base": {"id": "a/b", "revision": "1"}}).base.revision
        == "1"
    )


@pytest.mark.parametrize(
    ("text", "where", "value"),
    [
        ("seed=9", ("seed",), 9),
        ("base=a/b", ("base",), "a/b"),
        ("data.notes.limit=5", ("data", "notes", "limit"), 5),
        ("tasks[0].card=clinical", ("tasks", 0, "card"), "clinical"),
        ("tasks.0.card=clinical", ("tasks", 0, "card"), "clinical"),
        ("stages[0].epochs=3", ("stages", 0, "epochs"), 3),
        ("evaluate.show_text=true", ("evaluate", "show_text"), True),
        ("stages[0].stop=null", ("stages", 0, "stop"), None),
        ("name=a=b", ("name",), "a=b"),
    ],
)
def test_an_override_sets_one_value(text: str, where: tuple[str | int, ...], value: object) -> None:
    found: Any = override(
        {**MINIMAL, "tasks": [dict(MINIMAL["tasks"][0])], "data": {"notes": {}}}, [text]
    )
    for step in where:
        found = found[step]
    assert found == value


def test_an_override_works_on_what_the_recipe_leaves_out() -> None:
    recipe = Recipe.from_mapping(
        MINIMAL, overrides=["stages[0].learning_rate=1e-3", "evaluate.bootstrap=3"]
    )
    assert (recipe.stages[0].learning_rate, recipe.evaluate.bootstrap) == (0.001, 3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seed", "seed: is not an override; write key=value"),
        ("=1", "is not an override"),
        ("..=1", "is not an override"),
        ("tasks[3].card=x", "tasks[3].card: '3' is not an item of a list of 1; count from 0"),
        ("tasks.first.card=x", "'first' is not an item"),
        ("base.window=32", "base is a plain value; override it as a whole"),
        ("seed=[", "seed: the value is not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_is_answered(text: str, said: str) -> None:
    with pytest.raises(UserError) as refused:
        Recipe.from_mapping({**MINIMAL, "base": "a/b"}, overrides=[text])
    assert said in str(refused.value)


def test_overrides_leave_the_given_mapping_alone() -> None:
    before = json.dumps(MINIMAL)
    Recipe.from_mapping(MINIMAL, overrides=["data.notes.limit=5", "tasks[0].card=clinical"])
    assert json.dumps(MINIMAL) == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"nam": 1}, "nam: unknown key; allowed: "),
        ({"name": "../x"}, "name: "),
        ({"schema": 2}, "schema: 2 is not known; allowed: 1"),
        ({"data": {}}, "data: "),
        (
            {"tasks": [{"card": "ner", "data": "note"}]},
            "tasks[0].data: 'note' is not an entry of data; allowed: notes; did you mean notes?",
        ),
        ({"stages": [{"epoch": 1}]}, "stages[0].epoch: unknown key; "),
        (
            {"stages": [{"method": {"kind": "lorra"}}]},
            "stages[0].method.kind: 'lorra' is not known; ",
        ),
        ({"evaluate": {"bootstrap": -1}}, "evaluate.bootstrap: "),
        ({"evaluate": {"baselines": ["crv"]}}, "evaluate.baselines"),
        (
            {"stages": [{"method": {"kind": "crf"}, "epochs": 3}]},
            "epochs is about neural networks, and method.kind crf is none; leave it out",
        ),
        (
            {"stages": [{"method": {"kind": "crf"}}, {"method": {"kind": "lora"}}]},
            "stages[1].start: a crf starts from no model, and none goes on from it; set start: base",
        ),
        (
            {"stages": [{"method": {"kind": "lora"}}, {"method": {"kind": "crf"}}]},
            "stages[1].start: a crf starts from no model",
        ),
    ],
)
def test_each_fault_is_one_sentence_with_its_dotted_key(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as refused:
        Recipe.from_mapping({**MINIMAL, **change}, where="r.yaml")
    (line,) = str(refused.value).splitlines()
    assert line.startswith("r.yaml: ") and said in line


def test_a_base_is_needed_only_where_something_starts_from_one() -> None:
    crf = {**MINIMAL, "stages": [{"method": {"kind": "crf"}}]}
    assert not Recipe.from_mapping(crf).needs_base
    assert Recipe.from_mapping(crf, overrides=["evaluate.baselines=[base]"]).needs_base
    mixed = [{"method": {"kind": "crf"}}, {"method": {"kind": "lora"}, "start": "base"}]
    assert Recipe.from_mapping({**MINIMAL, "stages": mixed}).needs_base


def test_baselines_that_were_the_default_leave_a_runs_folder_where_it_is() -> None:
    chosen = Recipe.from_mapping(MINIMAL, overrides=["evaluate.baselines=[base]"])
    assert Recipe.from_mapping(MINIMAL).digest == chosen.digest
    other = Recipe.from_mapping(MINIMAL, overrides=["evaluate.baselines=[crf]"])
    assert other.digest != chosen.digest


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(UserError) as refused:
        Recipe.from_mapping({"nam": 1, "seed": "x"}, where="r.yaml")
    assert {line.split(": ")[1] for line in str(refused.value).splitlines()} == {
        "nam",
        "name",
        "seed",
        "data",
        "tasks",
    }


def test_its_own_yaml_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = Recipe.from_mapping(
        {**MINIMAL, "base": {"id": "a/b", "window": 64}}, tmp_path, ["stages[0].epochs=2"]
    )
    (tmp_path / "r.yaml").write_text(recipe.yaml(), "utf-8")
    again = Recipe.load(tmp_path / "r.yaml")
    assert again == recipe and again.digest == recipe.digest


def test_equal_recipes_have_equal_digests_and_others_do_not(tmp_path: Path) -> None:
    first = Recipe.from_mapping(MINIMAL, tmp_path)
    assert first.digest == Recipe.from_mapping({**MINIMAL, "seed": 0}, tmp_path).digest
    assert first.digest != Recipe.from_mapping({**MINIMAL, "seed": 1}, tmp_path).digest
    assert first.digest != Recipe.from_mapping(MINIMAL, tmp_path / "elsewhere").digest


@given(st.text(max_size=40))
def test_no_text_makes_the_reader_fail_otherwise_than_in_one_sentence(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        assert isinstance(read_yaml(path), dict)
    except UserError as error:
        assert str(error).startswith(f"{path}:") and "\n" not in str(error)


def kinds(union: Any, field: str) -> set[str]:
    return {
        get_args(part.model_fields[field].annotation)[0] for part in get_args(get_args(union)[0])
    }


def test_the_schema_names_every_format_method_and_setting() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["type"] == "object" and set(schema["required"]) == {"name", "data", "tasks"}
    assert schema["additionalProperties"] is False
    text = json.dumps(schema)
    for name in kinds(Data, "format") | kinds(Methods, "kind"):
        assert f'"const": "{name}"' in text, name
    definitions = schema["$defs"]
    assert set(definitions["Stage"]["properties"]) == set(Stage.model_fields)
    references = {part.split('"')[0] for part in text.split('"#/$defs/')[1:]}
    assert references <= set(definitions)
    assert {"integer", "string"} <= {one.get("type") for one in schema["properties"].values()}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            ["base={id: x, quantise: nf4}"],
            "launch.shard: weights in nf4 cannot be shared out; set base.quantise=none",
        ),
        (
            ["stages[0].optimiser=adamw_8bit"],
            "stages[0].optimiser: adamw_8bit does not work with launch.shard; set adamw",
        ),
        (
            ["stages[0].method={kind: prefix, projection: 8}"],
            "stages[0].method.projection: belongs to all layers at once, which launch.shard lends "
            "out one by one",
        ),
    ],
)
def test_what_cannot_be_shared_out_is_refused_before_anything_is_read(
    changes: list[str], words: str
) -> None:
    value: dict[str, Any] = {
        "schema": 1,
        "name": "x",
        "data": {"d": {"format": "jsonl", "path": "none.jsonl", "lang": "en"}},
    }
    value["tasks"] = [{"card": "ner", "data": "d"}]
    with pytest.raises(UserError) as refused:
        Recipe.from_mapping(
            value, overrides=["launch.processes=2", "launch.shard=true", "stages=[{}]", *changes]
        )
    assert words in str(refused.value) and "\n" not in str(refused.value)
    Recipe.from_mapping(value, overrides=["launch.processes=2", "stages=[{}]", *changes])
