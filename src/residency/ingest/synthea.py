"""Tables as Synthea writes them (CSV) into FHIR R4 bundles, one for each patient: only what the
tables hold.

Synthea's patients are invented. Rows without an id of their own get one from their table and line,
so that the same tables give the same resources.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from residency.core.errors import DataError
from residency.core.files import csv_records, write_json

Resource = dict[str, Any]
Line = dict[str, str]

SNOMED, LOINC = "http://snomed.info/sct", "http://loinc.org"
RXNORM, CVX = "http://www.nlm.nih.gov/research/umls/rxnorm", "http://hl7.org/fhir/sid/cvx"
ACT, TERMS = (
    "http://terminology.hl7.org/CodeSystem/v3-ActCode",
    "http://terminology.hl7.org/CodeSystem",
)
CLASSES = {"emergency": "EMER", "urgentcare": "EMER", "inpatient": "IMP"}
"""Synthea's kinds of encounter as HL7 codes; the others are AMB."""
GENDERS = {"M": "male", "F": "female"}


def bundles(folder: Path) -> Iterator[Resource]:
    """A bundle (``collection``) for each row of ``patients.csv``: the patient, then everything that
    refers to it.

    Raises ``DataError`` for a folder without ``patients.csv``, or a table that lacks a column.
    """
    patients = list(_rows(folder, "patients", ("Id", "BIRTHDATE", "GENDER")))
    if not patients:
        raise DataError(
            f"{folder}: has no patients.csv with patients; name a folder of Synthea's CSV tables."
        )
    of: dict[str, list[Resource]] = {row["Id"]: [_patient(row)] for _, row in patients}
    for table, columns, made in TABLES:
        for number, row in _rows(folder, table, ("PATIENT", "CODE", "DESCRIPTION", *columns)):
            if row["PATIENT"] not in of:
                raise DataError(
                    f"{folder / table}.csv:{number + 1}: its patient is not in patients.csv."
                )
            of[row["PATIENT"]].append(made(row, f"{table}-{number}"))
    for resources in of.values():
        yield {
            "resourceType": "Bundle",
            "type": "collection",
            "entry": [{"resource": _without_empty(resource)} for resource in resources],
        }


def write_bundles(folder: Path, output: Path) -> int:
    """Write each patient's bundle as ``ID.json`` into a folder; returns how many."""
    made = list(bundles(folder))
    for bundle in made:
        write_json(output / f"{bundle['entry'][0]['resource']['id']}.json", bundle)
    return len(made)


def _rows(folder: Path, table: str, columns: tuple[str, ...]) -> Iterator[tuple[int, Line]]:
    """The rows of a table, numbered from 1; none where there is no such file."""
    path = folder / f"{table}.csv"
    if not path.is_file():
        return
    for number, (_, row) in enumerate(csv_records(path, columns), start=1):
        yield number, row


def _concept(system: str, code: str, text: str) -> Resource:
    return (
        {"coding": [{"system": system, "code": code, "display": text}], "text": text}
        if code or text
        else {}
    )


def _state(name: str, code: str) -> Resource:
    return {"coding": [{"system": f"{TERMS}/{name}", "code": code}]}


def _common(kind: str, row: Line, id: str, subject: str = "subject") -> Resource:
    """What all resources of a patient have."""
    found: Resource = {
        "resourceType": kind,
        "id": id,
        subject: {"reference": f"Patient/{row['PATIENT']}"},
    }
    return found | (
        {"encounter": {"reference": f"Encounter/{row['ENCOUNTER']}"}}
        if row.get("ENCOUNTER")
        else {}
    )


def _reason(row: Line) -> list[Resource]:
    reason = _concept(SNOMED, row.get("REASONCODE", ""), row.get("REASONDESCRIPTION", ""))
    return [reason] if reason else []


def _patient(row: Line) -> Resource:
    name = {"family": row.get("LAST", ""), "given": [row["FIRST"]] if row.get("FIRST") else []}
    return {
        "resourceType": "Patient",
        "id": row["Id"],
        "name": [_without_empty(name)] if any(name.values()) else [],
        "gender": GENDERS.get(row["GENDER"], "unknown"),
        "birthDate": row["BIRTHDATE"],
        "deceasedDateTime": row.get("DEATHDATE", ""),
    }


def _encounter(row: Line, _: str) -> Resource:
    kind = row["ENCOUNTERCLASS"]
    return {
        **_common("Encounter", row | {"ENCOUNTER": ""}, row["Id"]),
        "status": "finished" if row["STOP"] else "in-progress",
        "class": {"system": ACT, "code": CLASSES.get(kind, "AMB"), "display": kind},
        "type": [_concept(SNOMED, row["CODE"], row["DESCRIPTION"])],
        "period": _without_empty({"start": row["START"], "end": row["STOP"]}),
        "reasonCode": _reason(row),
    }


def _condition(row: Line, id: str) -> Resource:
    return {
        **_common("Condition", row, id),
        "clinicalStatus": _state("condition-clinical", "resolved" if row["STOP"] else "active"),
        "code": _concept(SNOMED, row["CODE"], row["DESCRIPTION"]),
        "onsetDateTime": row["START"],
        "abatementDateTime": row["STOP"],
    }


def _medication(row: Line, id: str) -> Resource:
    return {
        **_common("MedicationRequest", row, id),
        "status": "completed" if row["STOP"] else "active",
        "intent": "order",
        "medicationCodeableConcept": _concept(RXNORM, row["CODE"], row["DESCRIPTION"]),
        "authoredOn": row["START"],
        "reasonCode": _reason(row),
        "dispenseRequest": {
            "validityPeriod": _without_empty({"start": row["START"], "end": row["STOP"]})
        },
    }


def _observation(row: Line, id: str) -> Resource:
    found = {
        **_common("Observation", row, id),
        "status": "final",
        "category": [_state("observation-category", row["CATEGORY"])]
        if row.get("CATEGORY")
        else [],
        "code": _concept(LOINC, row["CODE"], row["DESCRIPTION"]),
        "effectiveDateTime": row["DATE"],
    }
    try:
        value = float(row["VALUE"]) if row["TYPE"] == "numeric" else None
    except ValueError:
        value = None
    if value is not None:
        return found | {"valueQuantity": _without_empty({"value": value, "unit": row["UNITS"]})}
    return found | {"valueString": row["VALUE"]}


def _procedure(row: Line, id: str) -> Resource:
    return {
        **_common("Procedure", row, id),
        "status": "completed",
        "code": _concept(SNOMED, row["CODE"], row["DESCRIPTION"]),
        "performedPeriod": _without_empty({"start": row["START"], "end": row["STOP"]}),
        "reasonCode": _reason(row),
    }


def _immunization(row: Line, id: str) -> Resource:
    return {
        **_common("Immunization", row, id, "patient"),
        "status": "completed",
        "vaccineCode": _concept(CVX, row["CODE"], row["DESCRIPTION"]),
        "occurrenceDateTime": row["DATE"],
    }


def _allergy(row: Line, id: str) -> Resource:
    reactions = [
        _without_empty(
            {"manifestation": [_concept(SNOMED, row[f"REACTION{n}"], words)], "severity": severity}
        )
        for n in (1, 2)
        if (words := row.get(f"DESCRIPTION{n}", ""))
        for severity in [row.get(f"SEVERITY{n}", "").lower()]
    ]
    return {
        **_common("AllergyIntolerance", row, id, "patient"),
        "clinicalStatus": _state(
            "allergyintolerance-clinical", "resolved" if row["STOP"] else "active"
        ),
        "category": [row["CATEGORY"]] if row.get("CATEGORY") else [],
        "code": _concept(SNOMED, row["CODE"], row["DESCRIPTION"]),
        "onsetDateTime": row["START"],
        "reaction": reactions,
    }


def _without_empty(value: Resource) -> Resource:
    """Without fields that hold nothing, which FHIR does not allow."""
    return {name: one for name, one in value.items() if one not in ("", [], {}, None)}


TABLES: tuple[tuple[str, tuple[str, ...], Callable[[Line, str], Resource]], ...] = (
    ("encounters", ("Id", "START", "STOP", "ENCOUNTERCLASS"), _encounter),
    ("conditions", ("START", "STOP"), _condition),
    ("medications", ("START", "STOP"), _medication),
    ("observations", ("DATE", "VALUE", "UNITS", "TYPE"), _observation),
    ("procedures", ("START", "STOP"), _procedure),
    ("allergies", ("START", "STOP"), _allergy),
    ("immunizations", ("DATE",), _immunization),
)
"""Table, the columns that it must have, and what becomes of a row."""
