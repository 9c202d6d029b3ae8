"""The road from a run to an answer, as a user walks it: trained, added, promoted, served by name, a
second version promoted under load, and back; in 32 bits and in 16."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.testclient import TestClient

from conftest import CLI, lines, recipe_of, row, write_recipe
from residency.models.fingerprint import Fingerprint
from residency.ops.model_ledger import ModelLedger
from residency.recipe import Recipe
from residency.synth.clinical_notes import records

sys.path.append(str(Path(__file__).resolve().parents[1] / "serve"))

from serve_tools import HEADERS, KEY, Threads

NOTE = "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ, được chẩn đoán viêm phổi."
OLD_PROCESSOR = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
"""No instructions for 16 bits."""


def trained(folder: Path, base: Any, name: str, **changes: Any) -> Path:
    import residency

    lines(folder / "data" / "notes.jsonl", [row(note) for note in records("vi", 40, seed=1)])
    recipe = recipe_of(base, name=name, **changes)
    write_recipe(folder, recipe)
    return residency.run(Recipe.load(folder / "recipe.yaml"), folder / "runs").folder


def fingerprint(run: Path) -> dict[str, Any]:
    (path,) = run.glob("train/*/canary.json")
    return dict(json.loads(path.read_text()))


def application(ledger: Path, name: str, dtype: str) -> TestClient:
    """A server of a name of the ledger, in this process."""
    from residency.serve.app import create_app, limited
    from residency.serve.auth import LocalTokens
    from residency.serve.auth.rate import Rate
    from residency.serve.engines.in_process import load
    from residency.serve.guard import Guard
    from residency.serve.promote import ModelChanges
    from residency.serve.records.monitoring import Users
    from residency.serve.settings import Serve

    models = ModelLedger(ledger)
    settings = Serve.model_validate({"dtype": dtype, "limits": {"per_second": 10_000}})
    engine = load(models.path(models.resolve(name).digest), name, settings, "cpu")
    rate, users = Rate(settings.limits), Users(b"x" * 32)
    guard = Guard(settings, {name: engine}, LocalTokens(KEY), rate, users)
    changes = ModelChanges(guard, ledger, lambda path, one: load(path, one, settings, "cpu"))
    app: Any = create_app(guard, changes)
    limited(app)
    return TestClient(app, headers=HEADERS)


class Clients(Threads):
    """Ask all the time; what they were answered."""

    def __init__(self, client: TestClient, count: int) -> None:
        super().__init__(count)
        self.client, self.seen = client, list[tuple[int, str, str]]()
        self.asked = threading.Semaphore(0)

    def ask(self) -> None:
        while not self.stop.is_set():
            found = self.client.post("/extract", json={"text": NOTE})
            said = [(one["start"], one["end"], one["label"]) for one in found.json()["entities"]]
            digest = found.headers["x-residency-digest"]
            self.seen.append((found.status_code, digest, repr(said)))
            self.asked.release()

    def some(self, count: int = 12) -> None:
        """Wait for so many more answers, from now on."""
        while self.asked.acquire(blocking=False):
            pass
        for _ in range(count):
            assert self.asked.acquire(timeout=600)


@pytest.mark.server
@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "auto"), ("bf16", "bf16")])
def test_from_a_run_to_an_answer_and_back(
    precision: str, dtype: str, tiny: Path, tmp_path: Path, cli: CLI
) -> None:
    ledger, runs = tmp_path / "models", []
    where = ("--models", ledger)
    for number, rate in enumerate((0.02, 0.01)):
        stage = {
            "method": {"kind": "lora", "r": 4},
            "steps": 30,
            "batch": 8,
            "learning_rate": rate,
            "precision": precision,
        }
        runs.append(trained(tmp_path / str(number), tiny, f"v{number}", stages=[stage]))
        cli("model", "add", runs[-1], *where, check=0)
        known = fingerprint(runs[-1])
        assert (known["schema"], known["dtype"], [*known["others"]]) == (2, "float32", ["bfloat16"])
        # the CRF beside the encoder is part of what is proved
        assert bool(known["words"]) == bool([*runs[-1].glob("train/*/blend.json")])
    told = cli("model", "promote", "ner", "v0", *where, check=0).stdout
    assert "proved on process float32: " in told and "; process bfloat16: " in told
    digests, alone = [], {}
    for number, run in enumerate(runs):
        told = cli("model", "promote", f"is-{number}", run, *where, check=0).stdout
        digests.append(digest := told.split()[2])
        with application(ledger, f"is-{number}", dtype) as client:
            found = client.post("/extract", json={"text": NOTE}).json()["entities"]
            alone[digest] = repr([(one["start"], one["end"], one["label"]) for one in found])
    assert "[]" not in alone.values(), "a model that marks nothing proves little"
    with application(ledger, "ner", dtype) as client, Clients(client, 4) as clients:
        clients.some()
        made = client.post("/admin/models/ner/promote", json={"digest": digests[1]}, timeout=600)
        assert (made.status_code, made.json()["digest"]) == (200, digests[1]), made.text
        clients.some()
        back = client.post("/admin/models/ner/rollback", timeout=600)
        assert (back.status_code, back.json()["digest"]) == (200, digests[0]), back.text
        clients.some()
    assert {status for status, _, _ in clients.seen} == {200}
    order = [digest for _, digest, _ in clients.seen]
    assert order[0] == order[-1] == digests[0] and digests[1] in order
    assert all(said == alone[digest] for _, digest, said in clients.seen)
    assert ModelLedger(ledger).resolve("ner").digest == digests[0]
    if precision == "bf16":
        promoted_elsewhere(runs[1], ledger)


def promoted_elsewhere(run: Path, ledger: Path) -> None:
    """On a processor without 16 bits."""
    code = "import sys; sys.argv[0] = 'residency'; from residency.cli import main; main()"
    words = ("model", "promote", "elsewhere", str(run), "--models", str(ledger))
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, **OLD_PROCESSOR},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "; process bfloat16: " in done.stdout


def test_a_crf_and_a_model_that_writes_are_promoted_by_their_runs_name(
    tmp_path: Path, cli: CLI
) -> None:
    ledger = tmp_path / "models"
    crf = trained(tmp_path / "crf", "none", "crf-vi", stages=[{"method": {"kind": "crf"}}])
    folder = tmp_path / "writes"
    card = {"name": "organs", "family": "answers", "system": "You answer briefly."}
    talks = [
        {
            "id": f"c{n}",
            "messages": [
                {"role": "user", "content": f"Case {n}: which organ?"},
                {"role": "assistant", "content": ("heart", "liver")[n % 2]},
            ],
        }
        for n in range(24)
    ]
    lines(folder / "data" / "talks.jsonl", talks)
    (folder / "organs.yaml").write_text(yaml.safe_dump(card), "utf-8")
    stage = {
        "method": {"kind": "lora", "r": 4},
        "steps": 4,
        "batch": 8,
        "learning_rate": 2e-3,
        "precision": "bf16",
    }
    data = {"format": "messages", "path": "data/talks.jsonl", "lang": "en", "profile": "synthetic"}
    recipe = {
        "schema": 1,
        "name": "organs",
        "base": "bundled:tiny-lm",
        "data": {"talks": {**data, "names": {"group": ""}}},
        "tasks": [{"card": "organs.yaml", "data": "talks", "generate": {"max_tokens": 4}}],
        "stages": [stage],
        "evaluate": {"bootstrap": 20, "safety": False},
    }
    import residency

    write_recipe(folder, recipe)
    writes = residency.run(Recipe.load(folder / "recipe.yaml"), folder / "runs").folder
    for run, name, engine in ((crf, "crf-vi", "float32"), (writes, "organs", "bfloat16")):
        cli("model", "add", run, "--models", ledger, check=0)
        for said in (name, run.name, run):
            alias = f"a{len(str(said))}"
            told = cli("model", "promote", alias, said, "--models", ledger, check=0).stdout
            assert f"process {engine}: " in told


def test_what_an_earlier_version_recorded_in_training_is_no_charge_against_its_user(
    tiny: Path, tmp_path: Path, cli: CLI
) -> None:
    """A reference that is a rounding away from what is loaded, as autocast left it."""
    from residency.core.files import read_json, write_json
    from residency.models import artefact

    run = trained(tmp_path / "p", tiny, "old")
    (path,) = run.glob("train/*/canary.json")
    now = read_json(path, Fingerprint)
    values = [[one + 0.09 for one in each] for each in now.values]
    write_json(path, {**json.loads(path.read_text()), "schema": 1, "values": values, "others": {}})
    artefact.seal(path.parent, read_json(path.parent / artefact.FILE, artefact.Artefact))
    where = ("--models", tmp_path / "models")
    cli("model", "add", run, *where, check=0)
    refused = cli("model", "promote", "ner", "old", *where, check=2).stderr
    assert "recorded the model in training" in refused and "--record" in refused
    assert "was changed" not in refused
    cli("model", "add", run, "--record", *where, check=0)
    cli("model", "promote", "ner", "old", *where, check=0)
