"""Several stages in one run: each goes on from the one before, the last artefact holds them all,
and every stage is measured on everything that any of them learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import CLI, lines, write_recipe

CARD = {"name": "answers", "family": "answers", "system": "You answer briefly."}


def talks(words: tuple[str, ...], count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"r{number}",
            "messages": [
                {"role": "user", "content": f"Case {number}: which {words[0]}?"},
                {"role": "assistant", "content": words[1 + number % (len(words) - 1)]},
            ],
        }
        for number in range(count)
    ]


GENERAL = talks(("organ", "heart", "lung", "skin"), 40)
SPECIAL = talks(("drug", "metformin", "insulin"), 40)
SOURCE = {"format": "messages", "lang": "en", "profile": "synthetic", "names": {"group": ""}}
SHORT = {"steps": 4, "batch": 4, "stop": None}


def plan(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "stages",
        "base": "bundled:tiny-lm",
        "data": {
            "general": {**SOURCE, "path": "data/general.jsonl"},
            "special": {**SOURCE, "path": "data/special.jsonl"},
        },
        "tasks": [{"card": "answers.yaml", "data": "special", "generate": {"max_tokens": 6}}],
        "stages": [
            {"data": "general", "method": {"kind": "prefix", "length": 8}, **SHORT},
            {"method": {"kind": "freeze", "last": 2}, **SHORT},
        ],
        "evaluate": {"bootstrap": 20, "limit": 4},
        **changes,
    }


def project(folder: Path, **changes: Any) -> Path:
    lines(folder / "data" / "general.jsonl", GENERAL)
    lines(folder / "data" / "special.jsonl", SPECIAL)
    (folder / "answers.yaml").write_text(yaml.safe_dump(CARD), "utf-8")
    return write_recipe(folder, plan(**changes))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    import residency
    from residency import Recipe

    folder = tmp_path_factory.mktemp("stages") / "project"
    recipe = project(folder)
    return recipe, residency.run(Recipe.load(recipe), folder / "runs").folder


def facts(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "facts.json").read_text("utf-8"))
    return found


def test_every_stage_is_measured_on_everything_that_any_stage_learned_from(
    trained: tuple[Path, Path],
) -> None:
    found = facts(trained[1])
    asked = [(report["task"], report["system"]["name"]) for report in found["reports"]]
    systems = ("base", "1-prefix", "2-freeze")
    assert asked == [
        (task, system) for task in ("answers", "answers-general") for system in systems
    ]
    assert [(stage["name"], stage["method"]) for stage in found["stages"]] == [
        ("1-prefix", "prefix"),
        ("2-freeze", "freeze"),
    ]
    pairs = [
        (test["a"], test["b"])
        for test in found["reports"][2]["comparisons"]
        if test["metric"] == "loss"
    ]
    assert pairs == [("base", "2-freeze"), ("1-prefix", "2-freeze")]
    digests = {report["task"]: report["data_digest"] for report in found["reports"]}
    assert digests["answers"] != digests["answers-general"]


def test_the_report_sets_every_stage_against_every_data_set(trained: tuple[Path, Path]) -> None:
    for name in ("report.html", "report.md"):
        text = (trained[1] / name).read_text("utf-8")
        assert "What each stage did to each task" in text
        assert text.count("1-prefix") > 2


def test_the_last_artefact_is_enough_alone(trained: tuple[Path, Path], tmp_path: Path) -> None:
    import torch

    from residency.models import artefact
    from residency.models.prefix_layers import prefixes

    _, run = trained
    alone = shutil.copytree(run / "train" / "2-freeze", tmp_path / "alone")
    said, model, chat = artefact.load_chat(alone)
    assert said.kinds == "prefix, freeze"
    assert sorted(str(path.relative_to(alone)) for path in alone.rglob("*.safetensors")) == [
        "changed.safetensors",
        "earlier/1-prefix/changed.safetensors",
    ]
    assert {one.length for _, one in prefixes(model)} == {8}
    ids = torch.tensor([chat.answer_ids("a question of the heart")])
    with torch.inference_mode():
        both = model(input_ids=ids).logits
        first = artefact.load_chat(run / "train" / "1-prefix")[1](input_ids=ids).logits
        base = artefact.fresh(said.base, said.task(), "text").eval()(input_ids=ids).logits
    assert not torch.equal(both, first) and not torch.equal(first, base)


def test_a_file_of_an_earlier_stage_that_was_changed_is_refused(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    from residency.core.errors import UserError
    from residency.models import artefact

    alone = shutil.copytree(trained[1] / "train" / "2-freeze", tmp_path / "alone")
    with (alone / "earlier/1-prefix/changed.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(
        UserError, match=r"earlier/1-prefix/changed.safetensors: is missing or was changed"
    ):
        artefact.read(alone)


def test_a_changed_last_stage_takes_the_first_from_the_earlier_run(
    trained: tuple[Path, Path], cli: CLI
) -> None:
    recipe, run = trained
    told = cli("run", recipe, "--runs", run.parent, "--explain", check=0).stdout
    steps = [
        "data",
        "train/1-prefix",
        "train/2-freeze",
        "eval/answers",
        "eval/answers-general",
        "report",
    ]
    assert [line.split(maxsplit=1) for line in told.splitlines()] == [
        [step, "cached"] for step in steps
    ]
    told = cli(
        "run", recipe, "stages[1].steps=5", "--runs", run.parent, "--explain", check=0
    ).stdout
    words = dict(line.split(maxsplit=1) for line in told.splitlines())
    assert words["train/1-prefix"] == "found in an earlier run"
    assert words["train/2-freeze"] == "runs: stage.steps 4 -> 5"


def test_predict_and_eval_ask_the_last_stage(
    trained: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    _, run = trained
    kept = [
        json.loads(line)
        for line in (run / "eval/answers/2-freeze.predictions.jsonl").read_text().splitlines()
    ]
    by_id = {row["id"]: row for row in SPECIAL}
    lines(
        tmp_path / "ask.jsonl",
        [{**by_id[row["id"]], "messages": by_id[row["id"]]["messages"][:1]} for row in kept],
    )
    cli(
        "predict",
        run,
        "--input",
        tmp_path / "ask.jsonl",
        "--output",
        tmp_path / "out.jsonl",
        check=0,
    )
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row.get("answer", "") for row in out] == [row["text"] for row in kept]
    cli("eval", run, "evaluate.bootstrap=10", check=0)
    (again,) = (run / "evaluations").glob("*/facts.json")
    scores = {
        report["system"]["name"]: {one["metric"]: one["value"] for one in report["scores"]}
        for report in json.loads(again.read_text())["reports"]
    }
    before = {
        r["system"]["name"]: {s["metric"]: s["value"] for s in r["scores"]}
        for r in facts(run)["reports"][:3]
    }
    assert scores["tuned"]["loss"] == pytest.approx(before["2-freeze"]["loss"], abs=1e-6)
    assert scores["base"]["loss"] == pytest.approx(before["base"]["loss"], abs=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["stages[1].start=nowhere"], "nowhere: is not a run"),
        (
            ["stages[1].data=specal"],
            "stages[1].data: 'specal' is not an entry of data; allowed: general, special",
        ),
        (
            ["stages[1].tasks=[answer]"],
            "stages[1].tasks: 'answer' is not a task; allowed: answers; did you mean answers?",
        ),
        (
            ["stages[1].replay={data: genera, share: 10%}"],
            "stages[1].replay.data: 'genera' is not an entry of data",
        ),
        (
            ["stages[1].method={kind: freeze, last: 6}"],
            "method.last: 6 is more than this base's 5 layers; give at most 5.",
        ),
        (
            ["stages[0].method={kind: lora, targets: [wq]}"],
            "method.targets: wq not in this base; allowed: down_proj, ",
        ),
        (
            ["stages[1].name=tuned"],
            "stages: each needs a name of its own, other than base and tuned",
        ),
        (
            ["stages[1].method={kind: prefix, length: 9}"],
            "method.length: 9 differs from the prefix that this stage starts",
        ),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(
    change: list[str], message: str, trained: tuple[Path, Path], cli: CLI
) -> None:
    recipe, run = trained
    told = cli("run", recipe, *change, "--runs", run.parent, check=1)
    assert message in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1 and "Traceback" not in told.stderr


def test_a_stage_from_an_artefact_of_another_base_is_refused(
    trained: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    from residency.models.base import BUNDLED

    recipe, run = trained
    other = shutil.copytree(BUNDLED / "tiny-lm", tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    (other / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 1e-5}))
    told = cli(
        "run",
        recipe,
        f"base={other}",
        f"stages[0].start={run}",
        "--runs",
        tmp_path / "runs",
        check=1,
    )
    assert "was trained on another base (bundled:tiny-lm) than this recipe's" in told.stderr
    assert len(told.stderr.strip().splitlines()) == 1


def test_replayed_rows_stand_among_the_stages_own(tmp_path: Path) -> None:
    from residency import Recipe
    from residency.core.progress import Silent
    from residency.workflows.material import material_of, read_data
    from residency.workflows.run import job_of_stage
    from residency.workflows.steps import read_inputs

    recipe = Recipe.load(project(tmp_path / "p"), ["stages[1].replay={data: general, share: 20%}"])
    inputs = read_inputs(recipe, tmp_path / "runs")
    material = material_of(inputs, read_data(recipe, Silent()), Silent())
    own = len(material.corpora["special"].part("train"))
    job = job_of_stage(material, 1, tmp_path / "w", tmp_path / "o")
    replayed = [row for row in job.train if row.id.startswith("general:")]
    assert len(job.train) - len(replayed) == own
    assert len(replayed) == round(own * 0.2 / 0.8)
    known = {note.id for note in material.corpora["general"].part("train")}
    assert {row.id.removeprefix("general:") for row in replayed} <= known, (
        "never a row that is measured"
    )
    assert len(job_of_stage(material, 0, tmp_path / "w", tmp_path / "o").train) == len(known)


def test_two_tasks_are_learned_together_each_with_its_own_card(tmp_path: Path) -> None:
    import residency
    from residency import Recipe
    from residency.core.progress import Silent
    from residency.models import artefact
    from residency.workflows.finished import artefact_of
    from residency.workflows.material import read_data

    folder = tmp_path / "p"
    other = {**CARD, "name": "organs", "system": "You name organs."}
    tasks = [
        {"card": "answers.yaml", "data": "special", "name": "drugs", "generate": {"max_tokens": 6}},
        {"card": "organs.yaml", "data": "general", "generate": {"max_tokens": 6}},
    ]
    recipe = project(folder, tasks=tasks, stages=[{"method": {"kind": "lora", "r": 2}, **SHORT}])
    (folder / "organs.yaml").write_text(yaml.safe_dump(other), "utf-8")
    run = residency.run(Recipe.load(recipe), folder / "runs")
    found = facts(run.folder)
    assert [(report["task"], report["system"]["name"]) for report in found["reports"]] == [
        (task, system) for task in ("drugs", "organs") for system in ("base", "tuned")
    ]
    said = artefact.read(artefact_of(run.folder))
    assert [said.task().name, *(card.name for card in said.others())] == ["drugs", "organs"]
    stage = found["stages"][0]
    corpora = read_data(Recipe.load(recipe), Silent())
    rows = sum(len(corpus.part("train")) for corpus in corpora.values())
    assert stage["mask"]["rows"] == rows


def test_a_run_is_made_again_from_its_manifest_to_the_same_weights(
    trained: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    _, run = trained
    told = cli("run", run, "--from-manifest", "--runs", tmp_path / "again", check=0).stdout
    assert "1-prefix: the same weights, bit for bit" in told
    assert "2-freeze: the same weights, bit for bit" in told
    told = cli("run", run, "--from-manifest", "--runs", run.parent, check=1).stderr
    assert "holds the run itself; name another folder" in told


def test_a_run_whose_data_was_changed_is_not_made_again(
    trained: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    recipe, run = trained
    data = recipe.parent / "data" / "special.jsonl"
    kept = data.read_bytes()
    data.write_bytes(kept + kept.splitlines(keepends=True)[0].replace(b"r0", b"r99"))
    try:
        told = cli("run", run, "--from-manifest", "--runs", tmp_path / "again", check=1).stderr
    finally:
        data.write_bytes(kept)
    assert "data/special.jsonl is not what it was when the run was made; restore it." in told
