"""Places of doubt wait for a person in the zone, and what is decided there is done; plain text needs
no database."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pytest
import yaml

from residency.core.errors import GateRefused, UserError
from residency.deid.options import Deid
from residency.deid.tagger import LABELS, ReviewedTagger, Tagged, TaggerCard
from residency.recipe import Recipe
from residency.workflows import deidentify, deidentify_texts

ROWS = [("n1", "p1", "Qrstava is well."), ("n2", "p2", "Zyxwova is well.")]


class Doubter:
    """Finds the first word of each text as likely as not."""

    card = TaggerCard(1, LABELS, 64, 0.9, 0.2, {}, 1, 1, 1, 0)

    def tag(self, text: str, least: float) -> list[Tagged]:
        return [Tagged(0, len(re.findall(r"^\w*", text)[0]), "name", 0.5)]


@pytest.fixture
def ward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.setenv("RESIDENCY_KEY", "0123456789abcdef" * 4)
    for module in (deidentify, deidentify_texts):
        monkeypatch.setattr(
            module,
            "tagger_of",
            lambda settings, decided=lambda *_: None: ReviewedTagger(Doubter(), settings, decided),  # type: ignore[arg-type]
        )
    with (tmp_path / "notes.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("id", "patient", "text"), *ROWS])
    recipe = {
        "schema": 1,
        "name": "ward",
        "extract": {"kind": "csv", "path": "notes.csv", "lang": "en"},
        "deid": {"tagger": "off", "release": {"similar": 1}},
        "data": {"ward": {"format": "jsonl", "path": "data/deidentified.jsonl", "lang": "en"}},
        "tasks": [{"card": "clinical", "data": "ward"}],
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe), "utf-8")
    return Recipe.load(tmp_path / "recipe.yaml", [])


def decide(path: Path, decisions: dict[str, str]) -> None:
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        written = csv.DictWriter(file, list(lines[0]))
        written.writeheader()
        written.writerows(one | {"decision": decisions.get(one["place"], "")} for one in lines)


def test_nothing_is_released_until_every_place_is_decided_and_then_as_decided(ward: Recipe) -> None:
    file = ward.root / "identified/ward.review.csv"
    with pytest.raises(GateRefused, match=r"2 of 2 notes have places .* accept or reject") as said:
        deidentify.deidentify(ward)
    assert "Qrstava" not in str(said.value)
    assert file.stat().st_mode & 0o077 == 0
    decide(file, {"Qrstava": "accept"})
    with pytest.raises(GateRefused, match="1 of 2 notes"):
        deidentify.deidentify(ward)
    assert "Zyxwova" in file.read_text("utf-8-sig") and "Qrstava" not in file.read_text("utf-8-sig")
    decide(file, {"Zyxwova": "reject"})
    done = deidentify.deidentify(ward)
    assert done.notes == 2 and not file.exists()
    texts = (ward.root / "data/deidentified.jsonl").read_text("utf-8")
    assert "Zyxwova is well" in texts and "Qrstava" not in texts


def test_a_decision_that_is_none_is_one_sentence_and_the_file_stays(ward: Recipe) -> None:
    file = ward.root / "identified/ward.review.csv"
    with pytest.raises(GateRefused):
        deidentify.deidentify(ward)
    decide(file, {"Qrstava": "perhaps"})
    with pytest.raises(UserError, match="line 2: decision must be accept"):
        deidentify.deidentify(ward)
    assert file.exists()


def test_what_nobody_has_looked_at_may_be_released_where_the_settings_say_so(ward: Recipe) -> None:
    release = ward.deid.release.model_copy(update={"unreviewed": 1.0})  # type: ignore[union-attr]
    allowed = ward.model_copy(
        update={"deid": ward.deid.model_copy(update={"release": release})}  # type: ignore[union-attr]
    )
    done = deidentify.deidentify(allowed)
    assert done.notes == 2 and done.gate.unreviewed == 2
    assert not (ward.root / "identified/ward.review.csv").exists()


def test_a_folder_of_texts_keeps_its_names_and_what_is_doubtful_is_masked(
    ward: Recipe, tmp_path: Path
) -> None:
    source, out = tmp_path / "texts", tmp_path / "out"
    (source / "a").mkdir(parents=True)
    (source / "a/one.txt").write_text("Qrstava called 090 123 4567.", "utf-8")
    (source / "two.txt").write_text("Zyxwova is well.", "utf-8")
    done = deidentify_texts.deidentify_texts(source, "en", out, Deid())
    texts = [(out / name).read_text("utf-8") for name in ("a/one.txt", "two.txt")]
    assert "Qrstava" not in texts[0] and "4567" not in texts[0] and texts[1].endswith("is well.")
    assert "Zyxwova" not in texts[1] and done.notes == 2
    report = json.loads((out / "report.json").read_text("utf-8"))
    assert report["replaced"]["name"] == 2 and "rules" in report["finder"]
    assert not (tmp_path / "identified").exists()


def test_a_folder_without_texts_is_one_sentence(ward: Recipe, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no text file and no folder with .txt files"):
        deidentify_texts.deidentify_texts(tmp_path / "empty", "en", tmp_path / "out", Deid())
    assert not (tmp_path / "out").exists()
