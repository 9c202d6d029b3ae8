"""De-identification of public text without a structured source: what is found in files with gold
identifiers, what in text without any.

``pii_synthetic`` is general English (1,500 sentences): the kinds that a hospital note has are shown
one by one, the rest as "out of scope" (ages below 90, titles, nationalities, years, weekdays, bare
cities and companies, names without any word around them). Texts of medical corpora hold hardly any
identifier, so findings per 1,000 characters are an upper limit of what is taken without need; real
dates and names in them count as well.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from _common import parser, report, run, say, shared_data
from residency.deid.engine import normalised
from residency.deid.find import Finding, resolve
from residency.deid.rules import rules_of

SCOPE = (
    "EMAIL_ADDRESS",
    "PHONE_NUMBER",
    "US_SSN",
    "US_DRIVER_LICENSE",
    "CREDIT_CARD",
    "IBAN_CODE",
    "IP_ADDRESS",
    "DOMAIN_NAME",
    "ZIP_CODE",
    "STREET_ADDRESS",
    "PERSON",
)


def main() -> None:
    options = parser(__doc__)
    given = options.parse_args()
    data = shared_data()
    most = 50 if given.quick else 100_000
    rows = [*gold(data, most), *plain_text(data, most)]
    columns = (
        "text",
        "language",
        "characters",
        "recall",
        "precision",
        "findings per 1,000 characters",
        "by kind",
    )
    report("deid_corpora", given, columns, rows)


def found_in(text: str, lang: str) -> list[Finding]:
    """Findings of the rules."""
    return resolve(rules_of(lang).find(text, lang))


def gold(data: Path, most: int) -> Iterable[list[str]]:
    """Files with gold identifiers."""
    rows = json.loads(next((data / "en/pii_synthetic").glob("*.json")).read_text("utf-8"))[:most]
    items = [
        (
            row["full_text"],
            [(s["start_position"], s["end_position"], s["entity_type"]) for s in row["spans"]],
        )
        for row in rows
    ]
    yield scored("pii_synthetic", "en", items)
    lines = [
        json.loads(line)
        for line in (data / "deid_golden/vi.jsonl").read_text("utf-8").splitlines()
        if line
    ]
    yield scored(
        "deid_golden",
        "vi",
        [
            (one["text"], [(s["start"], s["end"], s["label"]) for s in one["gold_spans"]])
            for one in lines
        ],
    )
    one = json.loads((data / "deid_golden/zh-Hans.json").read_text("utf-8"))
    yield scored(
        "deid_golden",
        "zh",
        [(one["text"], [(s["start"], s["end"], s["label"]) for s in one["expected_entities"]])],
    )
    hard = json.loads((data / "deid_golden/hard_negatives.json").read_text("utf-8"))["fixtures"]
    for lang in sorted({one["language"] for one in hard} & {"vi", "zh", "en"}):
        yield counted(
            "hard negatives", lang, [one["text"] for one in hard if one["language"] == lang]
        )


def scored(
    name: str, lang: str, items: Sequence[tuple[str, list[tuple[int, int, str]]]]
) -> list[str]:
    """Recall by kind and precision: every letter and digit of an identifier must be found."""
    every: Counter[str] = Counter()
    hit: Counter[str] = Counter()
    findings = false = length = 0
    for text, marks in items:
        found = found_in(text, lang)
        covered = {i for one in found for i in range(one.start, one.end)}
        length += len(text)
        for start, end, kind in marks:
            every[kind] += 1
            hit[kind] += all(i in covered for i in range(start, end) if text[i].isalnum())
        findings += len(found)
        false += sum(not any(a < one.end and one.start < b for a, b, _ in marks) for one in found)
    scope = [kind for kind in every if kind in SCOPE or name != "pii_synthetic"]
    kinds = ", ".join(f"{kind} {hit[kind]} of {every[kind]}" for kind in scope)
    recall = sum(hit[kind] for kind in scope) / max(sum(every[kind] for kind in scope), 1)
    row = [
        name,
        lang,
        f"{length:,}",
        f"{recall:.3f}",
        f"{1 - false / max(findings, 1):.3f}",
        "-",
        kinds,
    ]
    say(" | ".join(row))
    return row


def plain_text(data: Path, most: int) -> Iterable[list[str]]:
    """Medical text."""
    vi = [
        path.read_text("utf-8", "replace")
        for path in sorted((data / "vi/vietbioner/brat_annotator_a").rglob("*.txt"))
    ]
    yield counted("VietBioNER, brat texts", "vi", vi[:most])
    yield counted(
        "ICD-10 names",
        "vi",
        [next(p for p in (data / "vi/icd10").rglob("*") if p.is_file()).read_text("utf-8")],
    )
    train = json.loads((data / "vi/acrdraid/train.json").read_text("utf-8"))
    yield counted("acrDrAid, train", "vi", [str(one["text"]) for one in train[:most]])
    with (data / "zh/huatuo/general_qa.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in islice(file, min(most, 3000))]
    yield counted(
        "Huatuo, general", "zh", [f"{one['instruction']}\n{one.get('output', '')}" for one in lines]
    )
    liver = data / "zh/huatuo/liver_cancer.json"
    yield counted("Huatuo, liver cancer", "zh", liver.read_text("utf-8").splitlines()[:most])
    cmed = (data / "zh/cmedqaner/train.json").read_text("utf-8").splitlines()
    yield counted(
        "cMedQANER, train", "zh", [json.loads(line)["text"] for line in cmed[:most] if line]
    )
    with (data / "en/mts_dialog/MTS-Dialog-TrainingSet.csv").open(encoding="utf-8") as file:
        sections = list(csv.DictReader(file))[:most]
    yield counted("MTS-Dialog, notes", "en", [row["section_text"] for row in sections])
    yield counted("MTS-Dialog, dialogues", "en", [row["dialogue"] for row in sections])
    sentences = (data / "en/ncbi_disease/train.tsv").read_text("utf-8").split("\n\n")[:most]
    yield counted(
        "NCBI disease, train",
        "en",
        [
            " ".join(line.split()[0] for line in one.splitlines() if line.split())
            for one in sentences
        ],
    )


def counted(name: str, lang: str, texts: Iterable[str]) -> list[str]:
    """How much is found."""
    kinds: Counter[str] = Counter()
    length = 0
    for text in texts:
        shown = normalised(text).apply(text)
        length += len(shown)
        kinds.update(one.kind for one in found_in(shown, lang))
    rate = f"{1000 * sum(kinds.values()) / max(length, 1):.3f}"
    row = [
        name,
        lang,
        f"{length:,}",
        "-",
        "-",
        rate,
        ", ".join(f"{kind} {n}" for kind, n in kinds.most_common()),
    ]
    say(" | ".join(row))
    return row


if __name__ == "__main__":
    run(main)
