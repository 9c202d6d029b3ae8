"""One run of a model that writes, seen from outside: the same words everywhere, changed templates
refused, kills harmless."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from conftest import CLI, ROOT, lines, write_recipe
from residency.core.files import write_json
from residency.core.run_folder import Run
from residency.evals.examples_view import ANSWERS_SHOWN
from residency.workflows.finished import finished_facts
from residency.workflows.report import report

ORGANS = ("heart", "liver", "kidney", "lung")


def conversations(count: int) -> list[dict[str, Any]]:
    made = []
    for number in range(count):
        organ = ORGANS[number % 4]
        talk = [
            {"role": "user", "content": f"Case {number}: what hurts?"},
            {"role": "assistant", "content": f"The {organ}."},
            {"role": "user", "content": f"Which organ is case {number} about, in one word?"},
            {"role": "assistant", "content": organ},
        ]
        made.append(
            {
                "id": f"c{number}",
                "messages": talk,
                "origin": "model:someone" if number % 2 else "real",
            }
        )
    return made


CARD = {"name": "organs", "family": "answers", "system": "You answer briefly."}


def plan(**changes: Any) -> dict[str, Any]:
    return {
        "schema": 1,
        "name": "organs",
        "base": "bundled:tiny-lm",
        "data": {
            "talks": {
                "format": "messages",
                "path": "data/talks.jsonl",
                "lang": "en",
                "profile": "synthetic",
                "names": {"group": ""},
            }
        },
        "tasks": [{"card": "organs.yaml", "data": "talks", "generate": {"max_tokens": 12}}],
        "stages": [
            {"method": {"kind": "lora", "r": 4}, "steps": 12, "batch": 8, "learning_rate": 2e-3}
        ],
        "evaluate": {"bootstrap": 20},
        **changes,
    }


def project(folder: Path) -> Path:
    lines(folder / "data" / "talks.jsonl", conversations(60))
    (folder / "organs.yaml").write_text(yaml.safe_dump(CARD), "utf-8")
    return write_recipe(folder, plan())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    import residency
    from residency import Recipe

    folder = tmp_path_factory.mktemp("written") / "project"
    recipe = project(folder)
    return folder, residency.run(Recipe.load(recipe), folder / "runs").folder


def evaluated(run: Path, name: str = "tuned") -> dict[str, dict[str, Any]]:
    """Predictions that the run's evaluation kept, by id."""
    (path,) = run.glob(f"eval/*/{name}.predictions.jsonl")
    return {row["id"]: row for row in map(json.loads, path.read_text("utf-8").splitlines())}


def terminal(run: Path, questions: list[str]) -> str:
    """What `residency chat` shows in a pseudo-terminal, carriage returns taken out."""
    ours, theirs = pty.openpty()
    code = "import sys; sys.argv[0] = 'residency'; from residency.cli import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "chat", str(run), "--only", "tuned"],
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.DEVNULL,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        },
        close_fds=True,
    )
    os.close(theirs)
    os.write(ours, "".join(f"{question}\n" for question in [*questions, "/quit"]).encode())
    shown = b""
    while True:
        try:
            block = os.read(ours, 4096)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        shown += block
    assert process.wait() == 0
    os.close(ours)
    return shown.decode().replace("\r", "")


def test_chat_predict_and_eval_write_the_same_words(
    written: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    _, run = written
    kept = evaluated(run)
    by_id = {row["id"]: row for row in conversations(60)}
    asked = [{"id": id, "messages": by_id[id]["messages"][:-1]} for id in kept]
    lines(tmp_path / "ask.jsonl", asked)
    cli(
        "predict",
        run,
        "--input",
        tmp_path / "ask.jsonl",
        "--output",
        tmp_path / "out.jsonl",
        check=0,
    )
    answered = {
        row["id"]: row
        for row in map(json.loads, (tmp_path / "out.jsonl").read_text("utf-8").splitlines())
    }
    assert kept.keys() == answered.keys()
    for id, row in kept.items():
        assert answered[id].get("answer", "") == row["text"]

    one = [
        {"id": "first", "text": "Case 90: what hurts?"},
        {"id": "second", "text": "Why does the liver matter?"},
    ]
    lines(tmp_path / "one.jsonl", one)
    cli(
        "predict",
        run,
        "--input",
        tmp_path / "one.jsonl",
        "--output",
        tmp_path / "single.jsonl",
        check=0,
    )
    found = [
        json.loads(line) for line in (tmp_path / "single.jsonl").read_text("utf-8").splitlines()
    ]
    for asking, row in zip(one, found, strict=True):
        assert f"tuned: {row['answer']}" in terminal(run, [asking["text"]])


def test_a_card_that_asks_something_else_than_was_learned_is_refused(
    written: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    folder, run = written
    card = folder / "organs.yaml"
    before = card.read_text("utf-8")
    try:
        card.write_text(yaml.safe_dump({**CARD, "system": "You answer at length."}), "utf-8")
        refused = cli("eval", run, "evaluate.bootstrap=10", check=1)
    finally:
        card.write_text(before, "utf-8")
    assert refused.stderr.count("\n") == 1
    assert "system changed after training" in refused.stderr
    cli("eval", run, "evaluate.bootstrap=10", check=0)


def test_a_template_file_that_was_changed_is_refused(
    written: tuple[Path, Path], cli: CLI, tmp_path: Path
) -> None:
    import shutil

    _, run = written
    other = tmp_path / "copy"
    shutil.copytree(run, other)
    (template,) = other.glob("train/*/**/chat_template.jinja")
    template.write_text(template.read_text("utf-8").replace("<|end|>", "<|end|> "), "utf-8")
    lines(tmp_path / "ask.jsonl", [{"id": "a", "text": "why?"}])
    refused = cli(
        "predict",
        other,
        "--input",
        tmp_path / "ask.jsonl",
        "--output",
        tmp_path / "o.jsonl",
        check=1,
    )
    assert refused.stderr.strip().count("\n") == 0
    assert not (tmp_path / "o.jsonl").exists()


@pytest.mark.parametrize("verb", ["check", "run"])
def test_a_card_that_names_a_column_which_is_not_there_is_one_sentence(
    tmp_path: Path, cli: CLI, verb: str
) -> None:
    (tmp_path / "table.csv").write_text(
        "a,b\nx,y\n" * 1 + "".join(f"q{n},r{n}\n" for n in range(30)), "utf-8"
    )
    (tmp_path / "own.yaml").write_text(
        yaml.safe_dump(
            {"name": "own", "family": "answers", "prompt": "{{ complaint }}?", "answer": "{{ b }}"}
        ),
        "utf-8",
    )
    source = {
        "format": "instructions",
        "path": "table.csv",
        "fields": {"a": "a", "b": "b"},
        "profile": "synthetic",
    }
    recipe = write_recipe(
        tmp_path, plan(data={"talks": source}, tasks=[{"card": "own.yaml", "data": "talks"}])
    )
    refused = cli(verb, recipe, check=1)
    said = refused.stderr if verb == "run" else refused.stdout + refused.stderr
    assert "'complaint'" in said
    assert "Traceback" not in said


def test_the_report_shows_answers_side_by_side_and_who_wrote_the_references(
    written: tuple[Path, Path],
) -> None:
    _, run = written
    shown = (run / "report.md").read_text("utf-8")
    kept, base = evaluated(run), evaluated(run, "base")
    some = next(row for row in kept.values() if row["text"])
    assert some["text"].splitlines()[0][:20] in shown
    assert any(row["text"].splitlines()[0][:20] in shown for row in base.values() if row["text"])
    model_written = sum(int(id[1:]) % 2 for id in kept)
    assert f"{model_written} of {len(kept)} references were written by a model (someone)" in shown
    assert (run / "report.html").read_text("utf-8").count("references were written by a model") >= 1


@pytest.mark.training
def test_a_killed_run_of_a_model_that_writes_ends_with_identical_numbers(
    tmp_path: Path, killed: Callable[[Path], str]
) -> None:
    folder = tmp_path / "project"
    recipe = project(folder)
    changes = plan(evaluate={"bootstrap": 20, "baselines": []})
    changes["stages"][0].update(steps=30, stop={"metric": "loss"})
    changes["data"]["talks"]["shares"] = {"train": "70%", "dev": "15%", "test": "15%"}
    write_recipe(folder, changes)
    assert "identical to the undisturbed run" in killed(recipe)


def test_answers_that_a_run_did_not_keep_are_asked_for_again_where_notes_are_shown(
    written: tuple[Path, Path],
) -> None:
    _, run = written
    silent = run.parent / "organs-silent"
    shutil.copytree(run, silent)
    facts = finished_facts(Run(run))
    hidden = [
        replace(one, answers=tuple(replace(a, input="", gold="", answer="") for a in one.answers))
        for one in facts.reports
    ]
    write_json(silent / "facts.json", replace(facts, reports=tuple(hidden), show_text=False))
    page = unescape(report(silent, show=True).read_text("utf-8"))
    for one in facts.reports:
        for item in one.answers[:ANSWERS_SHOWN]:
            assert item.input in page and item.answer in page, one.system.name
    assert any(item.answer for item in facts.reports[-1].answers[:ANSWERS_SHOWN])


def test_a_blind_dialogue_is_held_with_the_run_and_its_base(
    written: tuple[Path, Path], tmp_path: Path
) -> None:
    from threading import Lock

    from residency.core.errors import DataError
    from residency.evals.study import codes_of, key_path, open_study, read_key
    from residency.evals.votes import Said, dialogue, read
    from residency.workflows import dialogues
    from residency.workflows.study import new

    run = written[1]
    questions = tmp_path / "q.jsonl"
    questions.write_text('{"id": "q", "question": "Ho khan?"}\n', "utf-8")
    systems = [str(run), f"{run}:base"]
    made = new(systems, tmp_path / "s", ["ann"], items=1, kind="dialogue", questions=questions)
    assert made.slowest > 0 and made.delay >= 1.5 * made.slowest
    study = open_study(tmp_path / "s")
    key = read_key(key_path(study.folder), study.study)
    assert [bool(one.artefact) for one in key.systems] == [True, False]
    held = dialogues.Dialogues(study, key, Lock())
    wrote = {name: dialogues.answer_to(side, ["Ho khan?"]) for name, side in held.sides.items()}
    (shown,), code = study.study.order["ann"], codes_of(study)["ann"]
    for place in (1, 2):
        asked = Said(item=shown.item, place=place, turn=0, text="Ho khan?")
        assert held.ask("ann", code, asked)
        for _ in range(600):
            if held.show("ann", code, asked):
                break
            time.sleep(0.1)
        turns = dialogue(read(study, "ann"), shown.item, place)
        said = wrote[key.system(shown, place).name]
        assert [one.text for one in turns] == ["Ho khan?", said[: len(turns[-1].text)]]
    other = replace(key.systems[0], artefact="0" * 64)
    with pytest.raises(DataError, match="trained again"):
        dialogues.check(other)
