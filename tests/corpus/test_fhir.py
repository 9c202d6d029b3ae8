"""Questions on FHIR records: invented tables become resources, and every answer is what a person
reads in the tables."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from residency.core.errors import DataError
from residency.core.part import parse
from residency.core.types import Facts, Note
from residency.corpus.formats.fhir import Fhir, read_record
from residency.corpus.ledger import Ledger
from residency.ingest.synthea import bundles, write_bundles
from residency.tasks.card import load_card
from residency.tasks.examples import examples
from residency.tasks.families import named
from residency.tasks.prompts import Parsed

TABLES = {
    "patients": "Id,BIRTHDATE,DEATHDATE,FIRST,LAST,GENDER\np1,1950-02-03,,An,Le,F\np2,1980-01-01,2020-05-05,Bo,Ly,M\n",
    "encounters": "Id,START,STOP,PATIENT,ENCOUNTERCLASS,CODE,DESCRIPTION,REASONCODE,REASONDESCRIPTION\n"
    "e1,2019-01-01T08:00:00Z,2019-01-01T09:00:00Z,p1,wellness,1,Check-up,,\n"
    "e2,2021-03-04T08:00:00Z,2021-03-04T09:00:00Z,p1,wellness,1,Check-up,,\n"
    "e3,2020-06-07T08:00:00Z,2020-06-08T09:00:00Z,p1,emergency,2,Emergency visit,11,Chest pain\n",
    "conditions": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION\n"
    "2015-05-05,,p1,e1,59621000,Hypertension\n"
    "2010-01-01,2010-02-01,p1,e1,22,Acute bronchitis\n"
    "2012-01-01,2012-02-01,p1,e1,22,Acute bronchitis\n",
    "medications": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION,REASONCODE,REASONDESCRIPTION\n"
    "2015-05-05T08:00:00Z,,p1,e1,314076,Lisinopril 10 MG Oral Tablet,59621000,Hypertension\n"
    "2010-01-01T08:00:00Z,2010-01-09T08:00:00Z,p1,e1,7,Amoxicillin 250 MG,,\n",
    "observations": "DATE,PATIENT,ENCOUNTER,CATEGORY,CODE,DESCRIPTION,VALUE,UNITS,TYPE\n"
    "2019-01-01T08:00:00Z,p1,e1,vital-signs,8302-2,Body Height,160.0,cm,numeric\n"
    "2021-03-04T08:00:00Z,p1,e2,vital-signs,8302-2,Body Height,159.5,cm,numeric\n"
    "2021-03-04T08:00:00Z,p1,e2,survey,72166-2,Tobacco smoking status,Never smoker,,text\n",
    "procedures": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION,REASONCODE,REASONDESCRIPTION\n"
    + "".join(f"20{year}-01-01T08:00:00Z,,p1,e1,9,Spirometry,,\n" for year in (10, 11, 12)),
    "allergies": "START,STOP,PATIENT,ENCOUNTER,CODE,DESCRIPTION,CATEGORY,REACTION1,DESCRIPTION1,SEVERITY1\n"
    "2000-01-01,,p1,e1,70618,Penicillin V,medication,271807003,Eruption of skin,MILD\n",
    "immunizations": "DATE,PATIENT,ENCOUNTER,CODE,DESCRIPTION\n"
    "2018-10-01T08:00:00Z,p1,e1,140,Influenza\n2020-10-02T08:00:00Z,p1,e1,140,Influenza\n",
}
ANSWERS = {
    ("onset", "When did Hypertension first begin?"): ("2015-05-05", {"Condition/conditions-1"}),
    ("onset", "When did Acute bronchitis first begin?"): ("2010-01-01", {"Condition/conditions-2"}),
    ("active", "Is the condition Hypertension still active?"): ("yes", {"Condition/conditions-1"}),
    ("active", "Is the condition Acute bronchitis still active?"): (
        "no",
        {"Condition/conditions-2", "Condition/conditions-3"},
    ),
    ("taking", "Is Lisinopril 10 MG Oral Tablet still being prescribed?"): (
        "yes",
        {"MedicationRequest/medications-1"},
    ),
    ("taking", "Is Amoxicillin 250 MG still being prescribed?"): (
        "no",
        {"MedicationRequest/medications-2"},
    ),
    ("reason", "Which condition was Lisinopril 10 MG Oral Tablet prescribed for?"): (
        "Hypertension",
        {"MedicationRequest/medications-1", "Condition/conditions-1"},
    ),
    ("value", "What was the last value of Body Height?"): (
        "159.5 cm",
        {"Observation/observations-2"},
    ),
    ("value", "What was the last value of Tobacco smoking status?"): (
        "Never smoker",
        {"Observation/observations-3"},
    ),
    ("times", "How often was Spirometry done?"): (
        "3",
        {f"Procedure/procedures-{n}" for n in (1, 2, 3)},
    ),
    ("vaccine", "When was the vaccine Influenza last given?"): (
        "2020-10-02",
        {"Immunization/immunizations-2"},
    ),
    ("visit", "When did the last wellness encounter begin?"): ("2021-03-04", {"Encounter/e2"}),
    ("visit", "When did the last emergency encounter begin?"): ("2020-06-07", {"Encounter/e3"}),
    ("allergy", "Which category does the allergy to Penicillin V have?"): (
        "medication",
        {"AllergyIntolerance/allergies-1"},
    ),
}
"""As a person reads them in the tables above."""


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    folder = tmp_path / "csv"
    folder.mkdir()
    for name, text in TABLES.items():
        (folder / f"{name}.csv").write_text(text, "utf-8")
    return folder


def notes(folder: Path, name: str = "p1", **settings: object) -> list[Note]:
    source = parse(
        Fhir, {"format": "fhir", "path": ".", "profile": "synthetic", **settings}, "data"
    )
    path, ledger = folder / f"{name}.json", Ledger()
    notes = [ledger.add_row(row, path, source) for row in source.rows(path)]
    return [note for note in notes if note]


def test_rows_become_resources_with_what_the_tables_hold_and_nothing_empty(tables: Path) -> None:
    first, second = bundles(tables)
    resources = {one["resource"]["id"]: one["resource"] for one in first["entry"]}
    assert len(resources) == 18 and len(second["entry"]) == 1
    assert (
        second["entry"][0]["resource"]["deceasedDateTime"] == "2020-05-05"
        and "deceasedDateTime" not in resources["p1"]
    )
    lisinopril = resources["medications-1"]
    assert lisinopril["status"] == "active" and lisinopril["subject"] == {"reference": "Patient/p1"}
    assert lisinopril["reasonCode"][0]["coding"][0] == {
        "system": "http://snomed.info/sct",
        "code": "59621000",
        "display": "Hypertension",
    }
    assert resources["observations-2"]["valueQuantity"] == {"value": 159.5, "unit": "cm"}
    assert (
        resources["e3"]["class"]["code"] == "EMER"
        and resources["allergies-1"]["reaction"][0]["severity"] == "mild"
    )
    assert (
        '""' not in json.dumps(first)
        and "[]" not in json.dumps(first)
        and "null" not in json.dumps(first)
    )


def test_every_answer_is_what_the_tables_say_with_the_resources_that_say_it(
    tables: Path, tmp_path: Path
) -> None:
    assert write_bundles(tables, tmp_path / "fhir") == 2
    found = notes(tmp_path / "fhir")
    said = {
        (note.kind, note.fields["question"]): (
            note.fields["answer"],
            {one for one in note.fields["references"].split(", ") if one},
        )
        for note in found
    }
    never = {key: value for key, value in said.items() if key[0] == "never"}
    assert {key: value for key, value in said.items() if key not in never} == ANSWERS
    assert len(never) == 3 and set(map(str, never.values())) == {"('no', set())"}
    assert {note.group for note in found} == {"p1"} and len({note.id for note in found}) == len(
        found
    )
    assert all(
        "Condition/conditions-1: Hypertension; 2015-05-05; active" in note.text
        for note in found
        if "Hypertension" in note.fields["question"]
    )


@pytest.mark.parametrize("lang", ["en", "vi", "zh"])
def test_a_card_asks_and_reads_back_the_answer_with_its_references(
    tables: Path, tmp_path: Path, lang: str
) -> None:
    write_bundles(tables, tmp_path / "fhir")
    card = load_card("fhir")
    made = examples(notes(tmp_path / "fhir", language=lang, questions=1), card)
    assert {one.lang for one in made} == {lang} and "references: " in made[0].input
    for example in made:
        assert isinstance(example.gold, Facts)
        words = named("cited").render(example.gold, "")
        assert named("cited").parse(words, "", card) == Parsed(answer=example.gold)
    yes = [one for one in made if one.kind == "taking"]
    assert (
        yes
        and isinstance(yes[0].gold, Facts)
        and yes[0].gold.facts[0][1] in {"yes", "no", "có", "không", "是", "否"}
    )


def test_what_a_model_writes_is_read_leniently_and_never_more_than_it_says() -> None:
    card, read = load_card("fhir"), named("cited").parse
    found = read(
        "Answer: 2015-05-05.\nReferences: [Condition/conditions-1], Condition/conditions-1",
        "",
        card,
    )
    assert found == Parsed(
        answer=Facts(facts=(("answer", "2015-05-05"), ("reference", "Condition/conditions-1"))),
        repairs=(),
    )
    assert read("I do not know.", "", card).answer is None
    assert read("answer: no\nreferences:", "", card).answer == Facts(facts=(("answer", "no"),))


def test_few_candidates_leave_the_rest_out(tables: Path, tmp_path: Path) -> None:
    write_bundles(tables, tmp_path / "fhir")
    assert {
        len(note.fields["record"].splitlines()) for note in notes(tmp_path / "fhir", candidates=2)
    } == {2}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", "is no FHIR bundle"),
        ('{"resourceType": "Patient", "id": "x"}', "resourceType must be Bundle"),
        (
            '{"resourceType": "Bundle", "entry": []}',
            "holds 0 patients; give each patient a bundle of their own",
        ),
    ],
)
def test_what_is_no_bundle_of_one_patient_is_said(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "x.json").write_text(content, "utf-8")
    with pytest.raises(DataError, match=said):
        read_record(tmp_path / "x.json")


def test_tables_that_lack_something_are_said(tables: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no patients\.csv with patients"):
        write_bundles(tmp_path, tmp_path / "fhir")
    (tables / "conditions.csv").write_text("START,PATIENT,CODE,DESCRIPTION\n", "utf-8")
    with pytest.raises(DataError, match=r"conditions\.csv:1: has no column 'STOP'"):
        list(bundles(tables))
    (tables / "conditions.csv").write_text(
        "START,STOP,PATIENT,CODE,DESCRIPTION\n2020-01-01,,p9,1,x\n", "utf-8"
    )
    with pytest.raises(DataError, match=r"conditions\.csv:2: its patient is not in patients\.csv"):
        list(bundles(tables))


def test_the_search_finds_what_matters_in_synthea_records(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2].parent
    folder = (
        Path(os.environ.get("RESIDENCY_SHARED_DATA", root / "shared" / "data")) / "his/synthea_csv"
    )
    if not folder.is_dir():
        pytest.skip("Synthea's tables are not on this machine (RESIDENCY_SHARED_DATA)")
    assert write_bundles(folder, tmp_path) == 27
    found = [
        note for path in sorted(tmp_path.glob("*.json")) for note in notes(tmp_path, path.stem)
    ]
    pairs = [
        (one, note.fields["record"])
        for note in found
        for one in note.fields["references"].split(", ")
        if one
    ]
    assert len(found) > 400 and len({note.group for note in found}) == 27
    assert sum(f"{one}: " in lines for one, lines in pairs) / len(pairs) > 0.9
