"""``residency plan`` before a run: counts that the model itself confirms, and advice that holds
when it is followed."""

from __future__ import annotations

import gc
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import transformers

from conftest import ROOT
from residency.core.errors import UserError
from residency.recipe import Recipe
from residency.train import estimate
from residency.train.defaults import GENERATIVE_RATES
from residency.train.defaults import resolve as decided
from residency.train.device import Device
from residency.workflows import plan
from residency.workflows.plan import rarely_collected


@pytest.fixture
def weightless(project: Path) -> Path:
    """A recipe for 120 million weights that are not here, all to be trained."""
    source = next(path for path in (ROOT / "src").rglob("tiny-lm") if path.is_dir())
    folder = project / "large"
    folder.mkdir()
    for file in source.iterdir():
        if "token" in file.name or file.suffix == ".jinja":
            shutil.copy(file, folder)
    tokens = len(transformers.AutoTokenizer.from_pretrained(folder))
    transformers.LlamaConfig(
        vocab_size=tokens,
        hidden_size=1024,
        intermediate_size=2816,
        num_hidden_layers=9,
        num_attention_heads=16,
        architectures=["LlamaForCausalLM"],
        pad_token_id=0,
    ).save_pretrained(folder)
    (project / "data" / "qa.jsonl").write_text(
        "".join(
            f'{{"instruction": "What is {i}?", "output": "It is {i} and no more."}}\n'
            for i in range(40)
        ),
        "utf-8",
    )
    recipe = project / "large.yaml"
    recipe.write_text(
        "schema: 1\nname: large\nbase: large\n"
        "data: {qa: {format: alpaca, path: data/qa.jsonl, lang: en}}\n"
        "tasks: [{card: qa, data: qa}]\nstages: [{method: {kind: full}, steps: 5}]\n",
        "utf-8",
    )
    return recipe


def test_the_facts_are_those_of_the_model_itself(project: Path, tiny: Path) -> None:
    (found,) = plan.forecasts(
        Recipe.load(project / "recipe.yaml", ["stages[0].method={kind: full}"]), "24GB"
    )
    facts = dict(found.facts)
    total, trained = (
        int(text.replace(",", "")) for text in re.findall(r"[\d,]*\d", facts["parameters"])
    )
    body = transformers.AutoModel.from_config(
        transformers.AutoConfig.from_pretrained(tiny)
    ).num_parameters()
    head = total - body
    assert trained == total and head % 33 == 0 and head // 33 % 2 == 1, (
        "a head on 32 numbers: B and I of each label, and O"
    )
    assert facts["steps"].startswith("10 of 8 x 1 rows")
    assert found.fits and found.verdict.startswith("fits on 24GB: yes, because at most ")
    assert found.advice == ""


def test_advice_that_is_followed_makes_it_fit(weightless: Path) -> None:
    """120 million weights, their gradients and two moments are 1.9 GB in 32 bits; the card has 1.5
    to give."""
    (found,) = plan.forecasts(Recipe.load(weightless), "2GB")
    assert not found.fits and ": no, because" in found.verdict
    said = re.fullmatch(r"set (.*): then at most (.*) are held at once\.", found.advice)
    assert said and "stages[0].method={kind: lora}" in said[1]
    (again,) = plan.forecasts(Recipe.load(weightless, said[1].split(", ")), "2GB")
    assert again.fits and dict(again.facts)["peak memory"] == said[2]


def test_what_does_not_fit_ends_with_1_and_a_sentence(weightless: Path, cli: Any) -> None:
    done = cli("plan", weightless, "--gpu", "2GB")
    assert done.returncode == 1
    assert (
        "does not fit; change it as said above, or plan for another card with --gpu."
        in " ".join(done.stderr.split())
    )


def test_the_micro_batch_is_the_largest_that_fits(weightless: Path) -> None:
    """A card on which exactly 4 rows fit gives 4, one byte less gives 2; the effective batch stays."""
    recipe = Recipe.load(
        weightless, ["stages[0].method={kind: lora}", "stages[0].micro_batch=auto"]
    )
    base = plan.base_of(recipe, weights=False)
    (subject, _), stage = plan.subject_of_recipe(recipe, base), recipe.stages[0]
    whole = decided(
        stage,
        estimate.parameters_of(subject),
        len(subject.rows.lengths),
        "cuda",
        True,
        kind=GENERATIVE_RATES,
    )

    def chosen(usable: float) -> Any:
        card = Device(kind="cuda", name="toy", usable=usable, bf16=True)
        return estimate.fitted(subject, stage, base, whole, False, 0, card).plan

    card = Device(kind="cuda", name="toy", usable=0, bf16=True)
    four = stage.model_copy(update={"micro_batch": 4, "accumulation": whole.batch // 4})
    settled = decided(
        four,
        estimate.parameters_of(subject),
        len(subject.rows.lengths),
        "cuda",
        True,
        kind=GENERATIVE_RATES,
    )
    peak = estimate.of_plan(subject, four, base, settled, card, False, 0).peak
    assert [(one.micro_batch, one.batch) for one in (chosen(peak), chosen(peak - 1))] == [
        (4, whole.batch),
        (2, whole.batch),
    ]


def test_encoders_that_a_card_does_not_hold_are_not_suggested() -> None:
    """110 million weights of an encoder with 64,000 tokens: 135 million in all, 16 bytes each while
    every one is trained."""
    small, large = plan.suggestions("ner", "4GB")
    assert small.peak > 16 * 134e6 and large.peak > small.peak
    assert (
        plan.advice([small, large], "4GB").startswith("on 4GB: up to an encoder of 110M")
        == small.fits
    )
    none = plan.suggestions("ner", "2GB")
    assert not any(one.fits for one in none)
    assert plan.advice(none, "2GB").startswith("nothing here fits on 2GB")


def test_processes_that_share_a_model_out_hold_a_part_each(weightless: Path) -> None:
    """120 million weights in 32 bits: 0.48 GB, as much for gradients, twice for the optimiser; a
    quarter of each in four processes."""
    found = {}
    for shard in ("false", "true"):
        changes = ["launch.processes=4", f"launch.shard={shard}", "stages[0].batch=4"]
        (one,) = plan.forecasts(Recipe.load(weightless, changes), "24GB")
        found[shard] = dict(one.facts)
    count = int(found["true"]["parameters"].split()[0].replace(",", ""))
    assert found["false"]["weights"] == estimate.human_size(4 * count) and found["true"][
        "weights"
    ] == estimate.human_size(count)
    assert found["true"]["gradients and optimiser"] == estimate.human_size(3 * count)
    assert (
        found["true"]["sharded"] == "among 4 processes; memory is that of each"
        and "sharded" not in found["false"]
    )
    layer = 4 * 1024 * 1024 + 3 * 1024 * 2816 + 2 * 1024
    table = (count - 9 * layer - 1024) // 2
    assert found["true"]["put together from all parts"] == estimate.human_size(
        8 * (layer + max(layer, table) + 1024)
    )


def test_sharing_a_model_out_is_the_first_advice_where_there_are_processes(
    weightless: Path,
) -> None:
    changes = ["launch.processes=4", "stages[0].batch=4"]
    (found,) = plan.forecasts(Recipe.load(weightless, changes), "2GB")
    assert not found.fits and found.advice.startswith("set launch.shard=true")
    (followed,) = plan.forecasts(Recipe.load(weightless, [*changes, "launch.shard=true"]), "2GB")
    assert followed.fits


def test_a_base_of_joined_words_is_planned_by_syllables_without_the_segmenter(
    project: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    joined = shutil.copytree(tiny, project / "phobert-small")
    monkeypatch.setitem(sys.modules, "underthesea", None)
    recipe = Recipe.load(project / "recipe.yaml", [f"base={joined}"])
    (found,) = plan.forecasts(recipe, "24GB")
    assert found.fits


def test_a_plan_of_the_same_rows_settings_and_versions_is_remembered(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, memory = project / "recipe.yaml", tmp_path / "plans"
    (first,) = plan.forecasts(Recipe.load(recipe), memory=memory)

    def anew(*_: object) -> None:
        raise LookupError

    def look(*changes: str) -> list[plan.Forecast]:
        return plan.forecasts(Recipe.load(recipe, changes), memory=memory)

    monkeypatch.setattr(plan, "subject_of_recipe", anew)  # what reads the rows
    (again,) = look()
    assert again.facts[:-1] == first.facts and again.facts[-1][0] == "measured"
    assert again.verdict.partition("usable")[0] == first.verdict.partition("usable")[0]
    for changes in (["stages[0].batch=2"], ["seed=2"], ["stages[0].steps=7"]):
        with pytest.raises(LookupError):
            look(*changes)
    with monkeypatch.context() as other, pytest.raises(LookupError):
        other.setattr(plan, "free_memory", lambda: 1.0)  # it does not fit any more
        look()
    with monkeypatch.context() as other, pytest.raises(LookupError):
        other.setattr(plan, "packages", lambda: {"torch": "3"})
        look()
    (kept,) = memory.iterdir()
    said = kept.read_text("utf-8")
    for damaged in (said[:100], "[]"):
        kept.write_text(damaged, "utf-8")
        with pytest.raises(LookupError):
            look()
    kept.write_text(said, "utf-8")
    with (project / "data" / "notes.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n")
    with pytest.raises(LookupError):
        look()


def test_a_remembered_plan_loads_no_torch(project: Path, tmp_path: Path) -> None:
    said = (
        "import sys; from pathlib import Path; from residency.recipe import Recipe;"
        "from residency.workflows.plan import forecasts;"
        f"found = forecasts(Recipe.load({str(project / 'recipe.yaml')!r}), '24GB',"
        f" memory=Path({str(tmp_path / 'plans')!r})); print('torch' in sys.modules)"
    )
    shown = [subprocess.check_output([sys.executable, "-c", said], text=True) for _ in range(2)]
    assert shown == ["True\n", "False\n"]


def test_garbage_is_looked_for_as_before_once_a_plan_is_made_or_fails() -> None:
    before = gc.get_threshold()
    with pytest.raises(UserError), rarely_collected():
        assert gc.get_threshold()[0] > before[0]
        raise UserError("no such base")
    assert gc.get_threshold() == before
