"""A hundred pieces of bad input over all verbs: one clear sentence, exit code 1, nothing written, no
word of a note, no traceback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import CLI, ROOT, SECRET, lines, recipe_of

NOTE = {"id": "1", "text": f"{SECRET} ho", "entities": [{"start": 0, "end": 10, "label": "drug"}]}
R = "p/recipe.yaml"

# Changes to a good recipe, by dotted key, that every verb that reads one refuses.
CHANGES = """
seed=-1 | seed: must be greater than or equal to 0
seed=x | seed: must be a whole number
name="a b" | name: must match
schema=2 | schema
data={} | data
tasks=[] | tasks
tasks[0].data=x | 'x' is not an entry of data
tasks[0].output=headd | did you mean head
tasks[0].shots=51 | tasks[0].shots: must be less than or equal to 50
stages=[] | stages
stages[0].epochs=1e308 | stages[0].epochs
stages[0].epochs=.inf | stages[0].epochs
stages[0].epochs=.nan | stages[0].epochs
stages[0].epochs=0 | epochs
stages[0].epochs=-3 | epochs
stages[0].method={kind:\u0020lora,r:\u00201000000000} | stages[0].method.r: must be less than or equal to 16384
stages[0].method={kind:\u0020lora,r:\u00200} | stages[0].method.r
stages[0].method={kind:\u0020prefix,length:\u00201000000000} | stages[0].method.length
stages[0].method=lora | method
stages[0].batch=1000000000000 | batch
stages[0].batch=0 | batch
stages[0].accumulation=0 | stages[0].accumulation
stages[0].steps=0 | stages[0].steps
stages[0].steps=1e30 | stages[0].steps
stages[0].learning_rate=fast | stages[0].learning_rate: must be
stages[0].learning_rate=-1 | stages[0]: learning rates must be above 0
stages[0].warmup=1 | stages[0].warmup
stages[0].optimiser=adam | did you mean adamw
stages[0].schedule=step | stages[0].schedule
stages[0].precision=bf32 | stages[0].precision
stages[0].betas=[0.9] | stages[0].betas
stages[0].stop={patience:\u00200} | stages[0].stop.patience
stages[0].tasks=[x] | 'x' is not a task
stages[0].colour=red | stages[0].colour: unknown key
data.notes.shares={train:\u00201.2} | data.notes.shares
data.notes.stop=2 | data.notes.stop
data.notes.limit=0 | data.notes.limit
data.notes.near=often | data.notes.near
data.notes.offsets=bytes | data.notes.offsets
data.notes.train=data/notes.jsonl | path and train exclude each other
data.notes.format=parquet | data.notes.format
data.notes.max_rejected=150% | data.notes.max_rejected
base={window:\u002032} | base.id: is missing
base= | base
evaluate.bootstrap=-1 | evaluate.bootstrap
evaluate.baselines=[crff] | did you mean crf
evaluate.metrics=[rogue] | rogue
launch.processes=0 | launch.processes
report.language=fr | report.language
stages[7].epochs=1 | is not an item of a list
name.first=x | name is a plain value
=1 | is not an override
"""
BAD_RECIPES = [
    tuple(part.strip() for part in line.split(" | ")) for line in CHANGES.strip().splitlines()
]

# Arguments -> what is said. Files: see ``place``.
COMMANDS: list[tuple[str, str]] = [
    ("check none.yaml", "does not exist"),
    ("check twice.yaml", "twice.yaml:3: name stands in line 2 too"),
    ("check latin.yaml", "is not UTF-8"),
    ("check p", "cannot be read"),
    ("check list.yaml", "holds no recipe"),
    ("check date.yaml", "is not valid YAML"),
    ("check deep.yaml", "is not valid YAML|holds no recipe|unknown key"),
    ("run none.yaml", "does not exist"),
    ("run p --from-manifest", "is not a run"),
    ("run p/recipe.yaml --runs afile", "cannot be written"),
    ("plan none.yaml", "does not exist"),
    ("plan p/recipe.yaml --gpu potato", "potato"),
    ("plan p/recipe.yaml --gpu -5GB", "-5GB|option"),
    ("split none.yaml", "does not exist"),
    ("curve none.yaml", "does not exist"),
    ("extract p/recipe.yaml", "RESIDENCY_KEY|extract"),
    ("extract none.yaml", "does not exist"),
    ("deid none.yaml", "does not exist"),
    ("deid p/recipe.yaml", "RESIDENCY_KEY|extract|deid"),
    ("label push p/recipe.yaml", "label"),
    ("label agreement none.yaml", "does not exist"),
    ("label next p --pool notes.jsonl --output out.jsonl", "is not a run|No such option"),
    ("predict p -i notes.jsonl -o out.jsonl", "is not a run"),
    ("predict none -i notes.jsonl -o out.jsonl", "is not a run|does not exist"),
    ("predict p", "Missing option"),
    ("eval p", "is not a run"),
    ("eval none", "is not a run|does not exist"),
    ("report p", "is not a run"),
    ("report p --lang fr", "fr|is not a run"),
    ("chat p", "is not a run"),
    ("chat p --only both", "both"),
    ("compare p base", "is not a run"),
    ("compare", "Missing argument"),
    ("bench p", "is not a run"),
    ("ratings sheet p --rater a -o out.csv", "is not a run"),
    ("ratings read p notes.jsonl", "is not a run|csv"),
    ("cblue score notes.jsonl notes.jsonl", "."),
    ("cblue submit none.json notes.jsonl -o out.json", "none.json"),
    ("serve p", "is not a run|artefact"),
    ("serve none port=0", "port|none"),
    ("export onnx p --out new", "is not a run"),
    ("export crf p --out new", "is not a run"),
    ("export merged p --out new", "is not a run"),
    ("export gguf p --out new.gguf", "is not a run"),
    ("export triton p --out new", "is not a run|Missing"),
    ("export onnx none --out new", "is not a run|does not exist"),
    ("export onyx p", "No such command|did you mean"),
    ("tagger --out p", "is there already|not empty|is not"),
    ("tagger --out afile", "is there already|a file|is not"),
    ("tagger --out new --base none", "none"),
    ("tagger --out new --steps 0", "steps|x>=1"),
    ("tagger --out new --negatives none", "none"),
    ("tagger --out new --world none", "none"),
    ("tagger --out new --choose none", "none"),
    ("tagger", "Missing option"),
    ("backup none --out new.bak", "none"),
    ("backup p --out new.bak --key no_such_key", "no_such_key"),
    ("backup p --out p/inside.bak", "p/inside.bak"),
    ("backup p --out afile", "afile"),
    ("backup p", "Missing option"),
    ("restore none --into new", "none"),
    ("restore notes.jsonl --into new", "notes.jsonl"),
    ("restore afile --into new", "afile"),
    ("restore afile --into p", "p"),
    ("restore afile", "Missing option"),
    ("bundle verify none", "none"),
    ("bundle verify p", "p"),
    ("bundle verify afile", "afile"),
    ("bundle check p", "No such command|did you mean"),
    ("model add p", "is not a run|artefact"),
    ("model promote live nothing", "nothing"),
    ("model import chatglm none --into new", "none"),
    ("model import glm none", "glm"),
    ("audit verify none", "none"),
    ("audit head none", "none"),
    ("pubmed --file none.xml", "none.xml"),
    ("pubmed --file notes.jsonl", "notes.jsonl"),
    ("synth none.jsonl --by base", "none.jsonl"),
    ("fhir none", "none"),
    ("trace P1 none", "none"),
    ("erase P1 none", "none"),
    ("import llamafactory none.yaml", "does not exist"),
    ("import llamafactory accelerate.yaml", "an accelerate configuration"),
    ("import axolotl accelerate.yaml", "did you mean|allowed"),
    ("init p", "is there already"),
    ("init afile", "is a file"),
    ("init new --hospital fr", "did you mean|allowed"),
    ("init new --data none.csv", "none.csv: does not exist"),
    ("init new --data some.pdf", "is a PDF"),
    ("init new --data deep.json", "nothing shows which format"),
    ("init new --data packed.jsonl", "is a gzip archive"),
    ("init new --data words.txt", "which is it"),
    ("init new --data empty.csv", "."),
    ("init new --data notes.jsonl --answer colour", "write KEY=VALUE"),
    ("init new --data notes.jsonl --answer lang=vi", "too few"),
    ("demo lang=fr --folder new", "fr"),
    ("schema extra", "extra"),
    ("chek p/recipe.yaml", "No such command|did you mean"),
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one of everything that is bad."""
    monkeypatch.chdir(tmp_path)
    lines(tmp_path / "p/data/notes.jsonl", [NOTE])
    lines(tmp_path / "notes.jsonl", [NOTE])
    recipe = yaml.safe_dump(recipe_of("bundled:tiny-encoder"), sort_keys=False)
    texts = {
        R: recipe,
        "twice.yaml": "schema: 1\nname: a\nname: b\n",
        "list.yaml": f"- {SECRET}\n",
        "date.yaml": "name: 2024-99-99\n",
        "deep.yaml": "a: " + "[" * 3000 + "]" * 3000 + "\n",
        "accelerate.yaml": "compute_environment: LOCAL_MACHINE\nnum_processes: 2\n",
        "words.txt": f"{SECRET} has a cough.\nAnd more words.\n",
        "empty.csv": "",
        "afile": "",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text, "utf-8")
    (tmp_path / "latin.yaml").write_bytes("name: é\n".encode("latin-1"))
    (tmp_path / "some.pdf").write_bytes(b"%PDF-1.7\n")
    (tmp_path / "deep.json").write_text("[" * 5000 + "]" * 5000, "utf-8")
    (tmp_path / "packed.jsonl").write_bytes(b"\x1f\x8b\x08\x00" + bytes(50))
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def refused(cli: CLI, place: Path, *arguments: Any) -> str:
    """The one sentence of a refusal that left everything as it was."""
    before = tree(place)
    done = cli(*arguments)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in told and SECRET not in told, told
    said = done.stderr.splitlines()
    assert len(said) == 1 and said[0].startswith("residency: "), told
    assert said[0].endswith((".", "?")) and len(said[0]) < 700, said[0]
    assert tree(place) == before
    return said[0]


@pytest.mark.parametrize(("change", "wanted"), BAD_RECIPES, ids=[one for one, _ in BAD_RECIPES])
def test_a_recipe_that_cannot_be(change: str, wanted: str, place: Path, cli: CLI) -> None:
    assert wanted in refused(cli, place, "check", R, change)


@pytest.mark.parametrize(("command", "wanted"), COMMANDS, ids=[one for one, _ in COMMANDS])
def test_a_command_that_cannot_be(
    command: str, wanted: str, place: Path, cli: CLI, monkeypatch: pytest.MonkeyPatch
) -> None:
    if command.startswith(("backup", "restore")):  # what is wrong is not the key
        monkeypatch.setenv("RESIDENCY_KEY", "ab" * 32)
    assert re.search(wanted, refused(cli, place, *command.split()))


def test_they_are_a_hundred() -> None:
    assert len(BAD_RECIPES) + len(COMMANDS) >= 100


def test_five_thousand_bad_rows_are_a_few_lines_and_a_count(place: Path, cli: CLI) -> None:
    bad = [
        {**NOTE, "id": str(n), "entities": [{"start": 1, "end": 900, "label": "x"}]}
        for n in range(5000)
    ]
    lines(place / "p/data/notes.jsonl", bad)
    done = cli("check", R)
    told = (done.stdout + done.stderr).splitlines()
    assert done.returncode == 1 and len(told) < 40
    assert any("4995 more rows rejected" in line for line in told)


SHUT = [
    ("check p/recipe.yaml", "p/data"),
    ("check shut/recipe.yaml", "shut"),
    ("run p/recipe.yaml --runs still/runs", "still"),
    ("init still/new", "still"),
    ("init new --data p/data", "p/data"),
    ("predict shut -i notes.jsonl -o out.jsonl", "shut"),
    ("import llamafactory shut/train.yaml", "shut"),
]


@pytest.mark.parametrize(("command", "closed"), SHUT, ids=[one for one, _ in SHUT])
def test_a_folder_that_may_not_be_read_or_written_is_one_sentence(
    command: str, closed: str, place: Path
) -> None:
    """Root may do everything, so it runs without that right."""
    root = os.getuid() == 0
    if root and not shutil.which("setpriv"):
        pytest.skip("root needs setpriv, to give up its rights")
    for name, mode in (("shut", 0o000), ("still", 0o555)):
        (place / name).mkdir(mode=mode)
    if closed == "p/data":
        (place / closed).chmod(0o000)
    without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if root else []
    before = sorted(place.glob("*"))
    done = subprocess.run(
        [*without, sys.executable, "-m", "residency", *command.split()],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    for name in ("shut", "still", "p/data"):
        (place / name).chmod(0o755)
    told = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in told, told
    assert re.search("ermission|not readable", told) and closed in told, told
    assert len(done.stderr.splitlines()) == 1 and sorted(place.glob("*")) == before


def test_python_dash_m_and_completion() -> None:
    import residency

    assert {"Recipe", "run", "check", "predict", "UserError"} <= set(dir(residency))
    done = subprocess.run(
        [sys.executable, "-m", "residency", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == residency.__version__


def test_printed_commands_quote_names_with_blanks(place: Path, cli: CLI) -> None:
    done = cli("init", "my project", check=0)
    assert "residency check 'my project/recipe.yaml'" in done.stdout
    assert json.dumps(done.stderr) == '""'
