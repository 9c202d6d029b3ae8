"""A graph proposed from labelled records: several patients, never one; a person accepts."""

from __future__ import annotations

import csv
import json
import stat
from io import StringIO
from pathlib import Path
from typing import Any

import pytest

from residency.core.errors import DataError, UserError
from residency.workflows.graph import facts_of, import_graph, propose


def note(patient: str, *spans: tuple[str, str], negated: str = "", **more: Any) -> dict[str, Any]:
    text, entities = "", []
    for label, words in spans:
        entities.append({"start": len(text), "end": len(text) + len(words), "label": label})
        if words == negated:
            entities[-1]["attributes"] = ["negated"]
        text += words + ". "
    return {"id": patient + text, "group": patient, "text": text, "entities": entities, **more}


def records() -> list[dict[str, Any]]:
    found = []
    for number in range(40):
        spans = [("diagnosis", "Gout"), ("drug", "allopurinol"), ("dose", "300 mg")]
        if number < 24:
            spans.append(("symptom", "joint pain" if number % 2 else "Joint pain"))
        found.append(note(f"a{number}", *spans, negated="" if number else "joint pain"))
    for number in range(60):
        spans = [("diagnosis", "asthma"), ("symptom", "wheeze"), ("symptom", "cough")]
        found.append(note(f"b{number}", *spans))
    found += [note(f"a{n}", ("diagnosis", "gout"), ("symptom", "cough")) for n in range(10)]
    found += [note("a7", ("diagnosis", "gout"), ("symptom", "six toes"))] * 9  # one patient, often
    found += [
        note(f"a{n}", ("diagnosis", "gout"), ("procedure", "Hickam operation")) for n in (1, 2)
    ]
    found += [
        note(f"a{n}", ("diagnosis", "gout"), ("symptom", "rash"), negated="rash") for n in range(9)
    ]
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def test_what_several_patients_have_is_proposed_and_what_a_person_accepts_is_imported(
    tmp_path: Path,
) -> None:
    notes, out = write(tmp_path / "notes.jsonl", records()), tmp_path / "proposals.csv"
    done = propose([notes], out)
    assert (done.patients, done.proposals) == (100, 4)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    rows = list(csv.DictReader(StringIO(out.read_text("utf-8-sig"))))
    told = {(r["subject"].lower(), r["relation"], r["object"].lower()): r for r in rows}
    assert set(told) == {
        ("asthma", "has_finding", "wheeze"),
        ("asthma", "has_finding", "cough"),
        ("gout", "treated_by", "allopurinol"),
        ("gout", "has_finding", "joint pain"),
    }
    pain = told["gout", "has_finding", "joint pain"]
    assert (pain["patients"], pain["of"], pain["others"]) == ("24", "40", "0 %")
    assert pain["frequency"] == "frequent"  # 24 of 40, 60 %
    assert "six toes" not in out.read_text("utf-8") and "300" not in out.read_text("utf-8")
    assert {row["decision"] for row in rows} == {""}
    with pytest.raises(UserError, match="already"):
        propose([notes], out)
    with pytest.raises(DataError, match="not accepted"):
        import_graph(str(out), tmp_path / "none.sqlite")
    rows[0]["decision"], rows[1]["decision"], rows[2]["decision"] = "accept", "reject", "perhaps"
    with out.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    done_import = import_graph(str(out), tmp_path / "g.sqlite")
    assert done_import.facts == 1 and done_import.left == {"not accepted": 3}
    _, facts = facts_of(tmp_path / "g.sqlite", rows[0]["subject"], "en")
    assert facts[0][2].evidence == "records" and "100 patients" in facts[0][2].source


def test_labelled_relations_are_counted_and_labels_of_ones_own_are_named(tmp_path: Path) -> None:
    link = {"relations": [{"head": 0, "tail": 1, "label": "complication"}]}
    rows = [note(f"p{n}", ("Krankheit", "gout"), ("Krankheit", "tophus"), **link) for n in range(5)]
    notes = write(tmp_path / "notes.jsonl", rows)
    done = propose([notes], tmp_path / "a.csv", labels={"Krankheit": "disease"})
    assert done.proposals == 1
    assert "gout,leads_to,tophus,disease,disease,5,5" in (tmp_path / "a.csv").read_text("utf-8")
    done = propose([notes], tmp_path / "b.csv", least=6, labels={"Krankheit": "disease"})
    assert done.proposals == 0


def test_what_cannot_be_counted_is_told_without_text(tmp_path: Path) -> None:
    good = note("p", ("diagnosis", "secretitis"))
    for bad, why in (
        ({**good, "group": ""}, "group"),
        ({**good, "entities": [{"start": 0, "end": 999, "label": "diagnosis"}]}, "outside"),
        ({**good, "text": 5}, "Expected"),
    ):
        with pytest.raises(DataError, match=why) as told:
            propose([write(tmp_path / "n.jsonl", [good, bad])], tmp_path / "x.csv")
        assert "n.jsonl:2" in str(told.value) and "secretitis" not in str(told.value)
    for more in ({"least": 2}, {"labels": {"x": "planet"}}):
        with pytest.raises(UserError):
            propose([write(tmp_path / "n.jsonl", [good])], tmp_path / "x.csv", **more)
    assert not (tmp_path / "x.csv").exists()
