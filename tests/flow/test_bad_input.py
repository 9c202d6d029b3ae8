"""Each fault of the user's is answered with one sentence, exit code 1, and nothing half-written;
never with note text."""

from __future__ import annotations

import errno
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from conftest import CLI, SECRET, lines, process, recipe_of, spoken, write_recipe
from residency.core.progress import STATE

BAD = {
    "id": "b",
    "text": f"{SECRET} pain",
    "entities": [{"start": 2, "end": 900, "label": "symptom"}],
}


def sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The one sentence of a refusal."""
    assert done.returncode == 1, done.stdout + done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 1 and said[0].startswith("residency: ") and said[0].endswith((".", "?")), (
        done.stderr
    )
    assert SECRET not in done.stdout + done.stderr
    return said[0].removeprefix("residency: ")


def nothing_left(project: Path) -> None:
    """No step of a run is there, not even in part, and no text outside the data."""
    left = {path.name for path in (project / "runs").rglob("*") if path.is_file()}
    assert left <= {".lock", "log.jsonl", "manifest.json", "recipe.yaml", ".digests.json", STATE}
    for manifest in (project / "runs").rglob("manifest.json"):
        assert '"status": "failed"' in manifest.read_text("utf-8")
    assert [path for path in project.rglob("*") if ".partial" in path.name] == []
    assert spoken(project) == []


def changed(project: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = project / "recipe.yaml"
    value = yaml.safe_load(path.read_text("utf-8"))
    change(value)
    return write_recipe(project, value)


def run(cli: CLI, project: Path, *overrides: str) -> str:
    return sentence(cli("run", project / "recipe.yaml", "--runs", project / "runs", *overrides))


def test_an_empty_file(project: Path, cli: CLI) -> None:
    (project / "data/notes.jsonl").write_bytes(b"")
    assert "data/notes.jsonl: holds no records" in run(cli, project)
    nothing_left(project)


def test_a_missing_field_and_a_missing_column(project: Path, cli: CLI) -> None:
    lines(project / "data/notes.jsonl", [{"id": 1, "note": SECRET}])
    assert re.search(
        r"data/notes\.jsonl:1: has no field 'text'; present: id, note; set fields\.text",
        run(cli, project),
    )
    (project / "data/notes.csv").write_text(f"id,note\n1,{SECRET}\n", "utf-8")
    changed(
        project, lambda r: r.update(data={"notes": {"format": "csv", "path": "data/notes.csv"}})
    )
    assert re.search(
        r"data/notes\.csv:1: has no column 'text'; present: id, note", run(cli, project)
    )
    nothing_left(project)


def test_a_prevalence_of_a_label_that_the_card_does_not_have(project: Path, cli: CLI) -> None:
    done = cli("check", project / "recipe.yaml", "evaluate.prevalence={drgu: 0.1}")
    assert "error: evaluate.prevalence: drgu is not in card clinical; allowed: " in done.stdout
    done = cli("check", project / "recipe.yaml", "evaluate.prevalence={drug: 2}")
    assert "evaluate.prevalence" in sentence(done) and "less than 1" in sentence(done)


def test_a_label_that_the_card_does_not_have(project: Path, cli: CLI) -> None:
    path = project / "data/notes.jsonl"
    path.write_text(path.read_text("utf-8").replace('"label": "drug"', '"label": "drgu"'), "utf-8")
    said = run(cli, project)
    assert (
        "data.notes: label 'drgu' is not in card clinical; allowed: diagnosis" in said
        and "drug" in said
    )


def test_text_that_is_not_utf_8(project: Path, cli: CLI) -> None:
    path = project / "data/notes.jsonl"
    path.write_bytes(path.read_bytes() + b'{"id": "x", "text": "' + SECRET.encode() + b'\xff"}\n')
    assert "data/notes.jsonl:61: is not UTF-8" in run(cli, project)
    nothing_left(project)


def test_a_span_outside_its_text(project: Path, cli: CLI) -> None:
    path = project / "data/notes.jsonl"
    lines(path, [BAD, *map(msgspec.json.decode, path.read_bytes().splitlines()[:3])])
    assert "data/notes.jsonl:1" in run(cli, project)
    nothing_left(project)


@pytest.mark.parametrize(
    ("change", "key", "hint"),
    [
        (lambda r: r.update(evaluat={}), "evaluat: unknown key", "did you mean evaluate?"),
        (
            lambda r: r["stages"][0].update(epoch=3),
            "stages[0].epoch: unknown key",
            "did you mean epochs?",
        ),
        (
            lambda r: r["stages"][0]["method"].update(kind="loar"),
            "stages[0].method.kind: 'loar'",
            "did you mean lora?",
        ),
        (
            lambda r: r["stages"][0]["method"].update(rank=3),
            "stages[0].method.rank: unknown key",
            "allowed: ",
        ),
        (
            lambda r: r["data"]["notes"].update(format="jsnl"),
            "data.notes.format: 'jsnl'",
            "did you mean jsonl?",
        ),
        (
            lambda r: r["tasks"][0].update(data="note"),
            "tasks[0].data: 'note'",
            "did you mean notes?",
        ),
        (
            lambda r: r["tasks"][0].update(card="clinicl"),
            "card: 'clinicl' is not known",
            "did you mean clinical?",
        ),
    ],
)
def test_a_typo_in_the_recipe(project: Path, cli: CLI, change: Any, key: str, hint: str) -> None:
    changed(project, change)
    said = run(cli, project)
    assert key in said and hint in said
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("bundled:tiny-encodr", "base: bundled:tiny-encodr is not bundled"),
        ("./models/none", "base: ./models/none does not exist"),
        (
            "nobody/never-made",
            "base: nobody/never-made is neither a folder nor to be had from the hub",
        ),
    ],
)
def test_a_base_that_does_not_exist(project: Path, cli: CLI, base: str, said: str) -> None:
    assert said in run(cli, project, f"base={base}")
    assert not (project / "runs").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [a\n", "recipe.yaml:2: is not valid YAML"),
        ("- a\n- b\n", "recipe.yaml: holds no recipe"),
        ("", "recipe.yaml: holds no recipe"),
        ("name: a\n\tb: c\n", "recipe.yaml:2: is not valid YAML"),
    ],
)
def test_a_recipe_that_is_no_yaml(project: Path, cli: CLI, text: str, said: str) -> None:
    (project / "recipe.yaml").write_text(text, "utf-8")
    assert said in run(cli, project)


@pytest.mark.parametrize("override", ["epochs", "=3", "..=3"])
def test_an_override_that_is_not_key_and_value(project: Path, cli: CLI, override: str) -> None:
    assert f"{override}: is not an override; write key=value" in run(cli, project, override)


def test_a_file_that_is_missing(project: Path, cli: CLI) -> None:
    assert "data.notes.path: data/none.jsonl matches no file" in run(
        cli, project, "data.notes.path=data/none.jsonl"
    )
    assert "none.yaml: does not exist" in sentence(cli("run", project / "none.yaml"))


def test_a_folder_that_may_not_be_written(project: Path, cli: CLI) -> None:
    (project / "file").write_text("", "utf-8")
    assert "cannot be written (Not a directory)" in sentence(
        cli("run", project / "recipe.yaml", "--runs", project / "file" / "runs")
    )
    assert "cannot be written" in sentence(
        cli("run", project / "recipe.yaml", "--runs", "/proc/runs")
    )
    assert "cannot be written" in sentence(cli("init", project / "file" / "new"))


@pytest.mark.training
def test_a_run_of_another_schema_and_a_folder_that_is_no_run(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    other = tmp_path / "run"
    shutil.copytree(finished[1], other)
    (other / "manifest.json").write_text('{"schema": 99, "shape": "unheard of"}', "utf-8")
    source, output = lines(tmp_path / "in.jsonl", [{"text": SECRET}]), tmp_path / "out.jsonl"
    for verb in (["eval", other], ["predict", other, "-i", source, "-o", output]):
        assert "manifest.json: schema 99 is not read by this version, which reads 1" in sentence(
            cli(*verb)
        )
    assert "is not a run (manifest.json is missing)" in sentence(cli("eval", tmp_path))
    assert not output.exists()


@pytest.mark.training
def test_a_model_whose_file_was_changed(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    other = tmp_path / "run"
    shutil.copytree(finished[1], other)
    weights = other / "train/1-lora/adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x7f")
    source, output = lines(tmp_path / "in.jsonl", [{"text": SECRET}]), tmp_path / "out.jsonl"
    said = sentence(cli("predict", other, "--input", source, "--output", output))
    assert f"{weights}: is missing or was changed after training" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "run"]


@pytest.mark.training
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            [{"text": "a"}, {"id": 2, "note": SECRET}],
            "in.jsonl:2: has no text in the field text; name the field with --text",
        ),
        ([{"text": "a"}, {"text": 3}], "in.jsonl:2: has no text"),
        ([], "in.jsonl: holds no notes"),
        (b'{"text": "' + SECRET.encode() + b"\n", "in.jsonl:1: is not valid JSON"),
        (b'{"text": "\xff' + SECRET.encode() + b'"}\n', "in.jsonl:1: is not"),
    ],
)
def test_prediction_of_a_file_with_a_bad_line(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI, content: Any, said: str
) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(content) if isinstance(content, bytes) else lines(source, content)
    assert said in sentence(
        cli("predict", finished[1], "--input", source, "--output", tmp_path / "out.jsonl")
    )
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.training
def test_prediction_onto_its_input_a_folder_or_from_nothing(
    finished: tuple[Path, Path], tmp_path: Path, cli: CLI
) -> None:
    source = lines(tmp_path / "in.jsonl", [{"text": SECRET}])
    before = source.read_bytes()
    assert "is the input" in sentence(cli("predict", finished[1], "-i", source, "-o", source))
    assert "is a folder" in sentence(cli("predict", finished[1], "-i", source, "-o", tmp_path))
    assert "does not exist" in sentence(
        cli("predict", finished[1], "-i", tmp_path / "no", "-o", tmp_path / "out")
    )
    assert source.read_bytes() == before and list(tmp_path.iterdir()) == [source]


FULL = (
    r"cannot be written \((No space left on device|File too large)\); free space or choose "
    r"another folder"
)


@pytest.mark.training
@pytest.mark.parametrize("left", [4, 60, 160])
def test_a_full_disk_during_a_run(project: Path, small_disk: Path, cli: CLI, left: int) -> None:
    (small_disk / "ballast").write_bytes(b"x" * (512 - left) * 1024)
    assert re.search(
        FULL, sentence(cli("run", project / "recipe.yaml", "--runs", small_disk / "runs"))
    )
    assert [path for path in small_disk.rglob("*") if ".partial" in path.name] == []


@pytest.mark.training
def test_a_full_disk_during_prediction(
    finished: tuple[Path, Path], tmp_path: Path, small_disk: Path, cli: CLI
) -> None:
    source = lines(tmp_path / "in.jsonl", [{"text": f"{SECRET} đau đầu"}] * 300)
    (small_disk / "ballast").write_bytes(b"x" * 504 * 1024)
    output = small_disk / "out.jsonl"
    assert re.search(
        FULL, sentence(cli("predict", finished[1], "--input", source, "--output", output))
    )
    assert not output.exists()


@pytest.mark.training
def test_a_full_disk_during_a_checkpoint(project: Path) -> None:
    limit = (
        "import resource, signal, residency.train.judge as t; t.CHECKPOINT_SECONDS = 0; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, "
        "(40000, 40000))"
    )
    # a checkpoint holds what is trained; of an adapter it would be too small
    full = "stages[0].method={kind: full}"
    done = process("run", project / "recipe.yaml", full, "--runs", project / "runs", code=limit)
    assert re.search(FULL, sentence(done))


def test_what_libraries_say_of_a_full_disk_is_understood(tmp_path: Path) -> None:
    from residency.core.errors import UserError
    from residency.core.run_folder import Run, Step

    def fails(error: Exception) -> Callable[[Path], None]:
        def work(folder: Path) -> None:
            (folder / "half").write_text("half", "utf-8")
            raise error

        return work

    step = Step(name="train/x", settings={}, inputs={}, into="train/x")
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),
        RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"),
        Exception("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        with pytest.raises(UserError, match="cannot be written"):
            run.do(step, fails(error))
    with pytest.raises(RuntimeError, match="shape"):
        run.do(step, fails(RuntimeError("shape mismatch")))
    assert [path.name for path in run.folder.iterdir()] == ["log.jsonl"]


def test_check_reports_every_problem_at_once_and_writes_nothing(
    project: Path, tiny: Path, cli: CLI
) -> None:
    good = (project / "data/notes.jsonl").read_text("utf-8")
    (project / "data/notes.jsonl").write_text(
        good.replace('"label": "drug"', '"label": "drgu"'), "utf-8"
    )
    lines(project / "data/spans.jsonl", [BAD, {**BAD, "id": "c"}])
    data = {
        "notes": {"format": "jsonl", "path": "data/notes.jsonl"},
        "spans": {"format": "jsonl", "path": "data/spans.jsonl"},
        "gone": {"format": "csv", "path": "data/gone.csv"},
    }
    write_recipe(project, recipe_of("./models/none", data=data))
    before = sorted(project.rglob("*"))
    done = cli("check", project / "recipe.yaml")
    assert re.fullmatch(r".*recipe\.yaml: \d+ problems to mend before a run\.", sentence(done))
    told = [line for line in done.stdout.splitlines() if line.startswith("error: ")]
    for part in (
        "base: ./models/none does not exist",
        "data/spans.jsonl:1: row rejected",
        "data/spans.jsonl:2: row rejected",
        "data.spans: 2 of 2 rows are rejected",
        "data.gone.path: data/gone.csv matches no file",
        "data.notes: label 'drgu' is not in card clinical",
    ):
        assert sum(part in line for line in told) == 1, (part, told)
    assert len(told) == 6
    assert sorted(project.rglob("*")) == before


def test_check_shows_tables_where_nothing_is_wrong(project: Path, cli: CLI) -> None:
    before = sorted(project.rglob("*"))
    done = cli("check", project / "recipe.yaml", check=0)
    assert done.stderr == ""
    assert re.search(r"train +48 ", done.stdout) and "rows: kept 60" in done.stdout
    assert "nothing stands in the way" in done.stdout
    assert SECRET not in done.stdout
    assert sorted(project.rglob("*")) == before
