"""``residency init --data`` writes the right recipe, or asks: what a file does not show is never
chosen silently."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
import yaml

from conftest import CLI
from residency.core.errors import UserError
from residency.ingest.decode import tcvn3
from residency.recipe import Recipe
from residency.synth.clinical_notes import records
from residency.workflows import check
from residency.workflows.columns import Answers, Question
from residency.workflows.init import write_for

VI, ZH, EN, FR = "vi", "zh", "en", "fr"
FRENCH = [
    "fièvre",
    "toux",
    "douleur",
    "patient",
    "depuis",
    "jours",
    "sans",
    "avec",
    "traitement",
    "hôpital",
    "le",
    "la",
    "une",
    "présente",
    "élevée",
    "nuit",
    "matin",
    "thorax",
    "genou",
    "chute",
    "léger",
    "sévère",
    "médecin",
    "examen",
    "normal",
]


@pytest.fixture(autouse=True)
def no_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data is what is asked here, not the base."""
    monkeypatch.setattr(check, "base_of", lambda recipe: None)


@cache
def notes(of: str, count: int = 60) -> list[dict[str, Any]]:
    """Invented notes in one line, with their entities, two of each patient."""
    made = []
    draw = Random(3)
    for number, note in enumerate(records("en" if of == FR else of, count, 5)):
        text = " ".join(draw.choices(FRENCH, k=12)) if of == FR else note.text.replace("\n", " ")
        spans = [{"start": s.start, "end": s.end, "label": s.label} for s in note.spans]
        patient = f"P{number * 7 % (count // 2):03d}"
        made.append({"number": number, "text": text, "entities": spans, "patient": patient})
    return made


def tagged(of: str, pattern: str) -> list[tuple[list[str], list[tuple[str, str]]]]:
    """Tokens of each note, and of each token whether it begins or goes on with an entity."""
    out = []
    for note in notes(of):
        words, tags = [], []
        for found in re.finditer(pattern, note["text"]):
            words.append(found[0])
            spans = [s for s in note["entities"] if s["start"] <= found.start() < s["end"]]
            first = bool(spans) and spans[0]["start"] == found.start()
            tags.append(("B" if first else "I", spans[0]["label"]) if spans else ("O", ""))
        out.append((words, tags))
    return out


def put(path: Path, rows: list[Any], encoding: str = "utf-8") -> Path:
    """JSON lines."""
    lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_bytes((lines + "\n").encode(encoding))
    return path


def sheet(
    path: Path, header: list[str], rows: list[list[Any]], sign: str, encoding: str = "utf-8"
) -> Path:
    """A table, quoted as RFC 4180 says."""
    out = io.StringIO()
    csv.writer(out, delimiter=sign).writerows([header, *rows])
    path.write_bytes(out.getvalue().encode(encoding))
    return path


def tokens(path: Path, of: str, how: str, extra: bool = False) -> Path:
    """Columns of tokens and tags."""
    out = []
    for words, tags in tagged(of, r"\S" if how == "bioes" else r"[^\W_]+|[^\w\s]"):
        for number, (word, (place, label)) in enumerate(zip(words, tags, strict=True)):
            ends = number + 1 == len(tags) or tags[number + 1][0] != "I"
            if how == "iob1" and place == "B":
                same = number and tags[number - 1][1] == label
                place = "B" if same else "I"
            elif how == "bioes" and label and ends:
                place = "S" if place == "B" else "E"
            tag = f"{place}-{label}" if label else "O"
            out.append("\t".join([word, *(["NN", "B-NP"] if extra else []), tag]))
        out.append("")
    path.write_text("\n".join(out), "utf-8")
    return path


def diagnosed(of: str) -> list[list[Any]]:
    """Number, text, one of three departments, patient, date."""
    wards = {VI: ["Nội", "Ngoại", "Nhi"], ZH: ["内科", "外科", "儿科"]}.get(of, ["A", "B", "C"])
    return [
        [f"N{n['number']}", n["text"], wards[n["number"] % 3], n["patient"], "2024-03-05"]
        for n in notes(of)
    ]


HEADS = ["id", "note", "label", "patient_id", "written"]


def csv_vi(root: Path) -> Path:
    return sheet(
        root / "phieu.csv",
        ["mã phiếu", "nội dung", "nhãn", "mã BN", "ngày"],
        diagnosed(VI),
        ",",
        "utf-8-sig",
    )


def csv_cp1258(root: Path) -> Path:
    rows = [[_for_1258(str(cell)) for cell in row] for row in diagnosed(VI)]
    return sheet(root / "cu.csv", HEADS, rows, ";", "cp1258")


def _for_1258(text: str) -> str:
    """Vietnamese as Windows-1258 writes it: letters whole, tones behind them."""
    out = ""
    for sign in unicodedata.normalize("NFC", text):
        try:
            sign.encode("cp1258")
            out += sign
        except UnicodeEncodeError:
            base, *marks = unicodedata.normalize("NFD", sign)
            tones = [m for m in marks if m in "\u0300\u0301\u0303\u0309\u0323"]
            shape = [m for m in marks if m not in tones]
            out += unicodedata.normalize("NFC", base + "".join(shape)) + "".join(tones)
    return out


def brat(root: Path) -> Path:
    folder = root / "brat"
    folder.mkdir()
    for note in notes(EN):
        name = f"n{note['number']}"
        (folder / f"{name}.txt").write_text(note["text"], "utf-8")
        (folder / f"{name}.ann").write_text(
            "".join(
                f"T{i}\t{s['label']} {s['start']} {s['end']}\t{note['text'][s['start'] : s['end']]}\n"
                for i, s in enumerate(note["entities"], start=1)
            ),
            "utf-8",
        )
    return folder


def pubtator(root: Path) -> Path:
    out = ""
    for note in notes(EN):
        number, text = 100 + note["number"], note["text"]
        out += f"{number}|t|{text}\n{number}|a|\n"
        out += "".join(
            f"{number}\t{s['start']}\t{s['end']}\t{text[s['start'] : s['end']]}\tSymptom\n"
            for s in note["entities"]
        )
        out += "\n"
    (root / "abstracts.txt").write_text(out, "utf-8")
    return root / "abstracts.txt"


def workbook(root: Path) -> Path:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    for row in [HEADS, *diagnosed(ZH)]:
        book.active.append(row)
    book.save(root / "表.xlsx")
    return root / "表.xlsx"


def parquet(root: Path) -> Path:
    arrow = pytest.importorskip("pyarrow")
    found = tagged(EN, r"\S+")
    words = [one for one, _ in found]
    tags = [[f"{p}-{label}" if label else "O" for p, label in one] for _, one in found]
    __import__("pyarrow.parquet").parquet.write_table(
        arrow.table({"tokens": words, "ner_tags": tags}), root / "train.parquet"
    )
    return root / "train.parquet"


def studio(root: Path) -> Path:
    tasks = [
        {
            "id": note["number"],
            "data": {"report": note["text"], "patient_id": note["patient"]},
            "annotations": [
                {
                    "completed_by": 1,
                    "result": [
                        {
                            "type": "labels",
                            "id": str(i),
                            "value": {"start": s["start"], "end": s["end"], "labels": [s["label"]]},
                        }
                        for i, s in enumerate(note["entities"])
                    ],
                }
            ],
        }
        for note in notes(EN)
    ]
    (root / "project-3.json").write_text(json.dumps(tasks, indent=1), "utf-8")
    return root / "project-3.json"


def named_parts(root: Path) -> Path:
    folder = root / "parts"
    folder.mkdir()
    rows = [
        {"id": str(n["number"]), "text": n["text"], "entities": n["entities"]} for n in notes(VI)
    ]
    for part, here in (("train", rows[:24]), ("dev", rows[24:32]), ("test", rows[32:])):
        put(folder / f"{part}.jsonl", here)
    return folder


def cmeee(root: Path) -> Path:
    rows = [
        {
            "text": note["text"],
            "entities": [
                {
                    "start_idx": s["start"],
                    "end_idx": s["end"],
                    "type": "sym",
                    "entity": note["text"][s["start"] : s["end"]],
                }
                for s in note["entities"]
            ],
        }
        for note in notes(ZH)
    ]
    (root / "cmeee.json").write_text(json.dumps(rows, ensure_ascii=False), "utf-8")
    return root / "cmeee.json"


def own_keys(root: Path) -> Path:
    """Entities under keys that only their quotes explain."""
    rows = [
        {
            "content": n["text"],
            "mention_data": [
                {
                    "offset": str(s["start"]),
                    "stelle": n["text"][s["start"] : s["end"]],
                    "art": s["label"],
                }
                for s in n["entities"]
            ],
        }
        for n in notes(ZH)
    ]
    return put(root / "own.json", rows)


def other_names(root: Path) -> Path:
    rows = [
        {
            "note_id": f"k{n['number']}",
            "body": n["text"],
            "mrn": n["patient"],
            "marks": n["entities"],
        }
        for n in notes(EN)
    ]
    return put(root / "x.ndjson", rows)


class Case(NamedTuple):
    make: Callable[[Path], Path]
    format: str
    card: str
    lang: str
    more: dict[str, Any] = {}


def in_tcvn3() -> list[list[Any]]:
    """Vietnamese by font, as signs of a Western system in UTF-8."""
    signs = {shown: stored for stored, shown in tcvn3().items()}
    return [
        ["".join(signs.get(one, one) for one in n["text"].lower()), "xyz"[n["number"] % 3]]
        for n in notes(VI)
    ]


def talk(of: str) -> list[tuple[str, str]]:
    texts = [n["text"] for n in notes(of)]
    return [*zip(texts, reversed(texts), strict=True)]


CASES = {
    "conll en": Case(lambda r: tokens(r / "en.txt", EN, "bio"), "conll", "ner", "en"),
    "conll of five columns, iob1": Case(
        lambda r: tokens(r / "vi.conll", VI, "iob1", extra=True), "conll", "ner", "vi"
    ),
    "signs in bioes": Case(
        lambda r: tokens(r / "zh.bmes", ZH, "bioes"), "conll", "ner", "zh", {"joiner": ""}
    ),
    "brat": Case(brat, "brat", "ner", "en"),
    "pubtator": Case(pubtator, "pubtator", "ner", "en"),
    "jsonl in parts": Case(
        named_parts,
        "jsonl",
        "ner",
        "vi",
        {
            "train": "../parts/train.jsonl",
            "dev": "../parts/dev.jsonl",
            "test": "../parts/test.jsonl",
        },
    ),
    "cmeee": Case(cmeee, "jsonl", "ner", "zh"),
    "keys of their own": Case(
        own_keys,
        "jsonl",
        "ner",
        "zh",
        {
            "fields": {
                "text": "content",
                "entities": "mention_data",
                "start": "offset",
                "quote": "stelle",
                "label": "art",
            }
        },
    ),
    "other names": Case(
        other_names,
        "jsonl",
        "ner",
        "en",
        {"fields": {"text": "body", "entities": "marks", "id": "note_id", "group": "mrn"}},
    ),
    "jsonl in gb18030": Case(
        lambda r: put(
            r / "gb.jsonl",
            [
                {"id": str(n["number"]), "text": n["text"], "entities": n["entities"]}
                for n in notes(ZH)
            ],
            "gb18030",
        ),
        "jsonl",
        "ner",
        "zh",
    ),
    "doccano": Case(
        lambda r: put(
            r / "all.jsonl",
            [
                {
                    "id": n["number"],
                    "text": n["text"],
                    "label": [[s["start"], s["end"], "symptom"] for s in n["entities"]],
                }
                for n in notes(VI)
            ],
        ),
        "doccano",
        "ner",
        "vi",
    ),
    "prodigy": Case(
        lambda r: put(
            r / "db.jsonl",
            [
                {
                    "text": n["text"],
                    "spans": n["entities"],
                    "answer": "accept",
                    "meta": {"patient": n["patient"]},
                }
                for n in notes(EN)
            ],
        ),
        "prodigy",
        "ner",
        "en",
        {"group": "patient"},
    ),
    "label studio": Case(
        studio, "label_studio", "ner", "en", {"text": "report", "group": "patient_id"}
    ),
    "csv of label studio": Case(
        lambda r: sheet(
            r / "ls.csv",
            ["annotation_id", "annotator", "id", "label", "text"],
            [
                [
                    n["number"],
                    1,
                    n["number"],
                    json.dumps([{**s, "labels": [s["label"]]} for s in n["entities"]]),
                    n["text"],
                ]
                for n in notes(EN)
            ],
            ",",
        ),
        "label_studio",
        "ner",
        "en",
    ),
    "names in capitals and an age": Case(
        lambda r: sheet(
            r / "t.csv",
            ["NoteID", "SubjectID", "Narrative", "Age", "Outcome"],
            [
                [
                    f"n{n['number']}",
                    n["patient"],
                    n["text"],
                    30 + n["number"] % 20,
                    "xyz"[n["number"] % 3],
                ]
                for n in notes(EN)
            ],
            ",",
        ),
        "csv",
        "classify",
        "en",
        {
            "columns": {
                "text": "Narrative",
                "labels": "Outcome",
                "id": "NoteID",
                "group": "SubjectID",
            }
        },
    ),
    "phoner": Case(
        lambda r: put(
            r / "words.json",
            [
                {"words": words, "tags": [f"{p}-{label}" if label else "O" for p, label in tags]}
                for words, tags in tagged(VI, r"\S+")
            ],
        ),
        "phoner",
        "ner",
        "vi",
    ),
    "csv with a mark, vi": Case(
        csv_vi,
        "csv",
        "classify",
        "vi",
        {"columns": {"text": "nội dung", "labels": "nhãn", "id": "mã phiếu", "group": "mã BN"}},
    ),
    "csv in cp1258": Case(
        csv_cp1258,
        "csv",
        "classify",
        "vi",
        {
            "delimiter": ";",
            "columns": {"text": "note", "labels": "label", "id": "id", "group": "patient_id"},
        },
    ),
    "tsv in utf-16": Case(
        lambda r: sheet(r / "a.tsv", HEADS, diagnosed(EN), "\t", "utf-16"),
        "csv",
        "classify",
        "en",
        {
            "delimiter": "\t",
            "columns": {"text": "note", "labels": "label", "id": "id", "group": "patient_id"},
        },
    ),
    "csv in gb18030": Case(
        lambda r: sheet(
            r / "b.csv", ["编号", "病历", "科室", "病案号", "日期"], diagnosed(ZH), ",", "gb18030"
        ),
        "csv",
        "classify",
        "zh",
        {"columns": {"text": "病历", "labels": "科室", "id": "编号", "group": "病案号"}},
    ),
    "csv with several labels": Case(
        lambda r: sheet(
            r / "m.csv",
            ["text", "labels"],
            [[n["text"], ["a|b", "b", "c|a"][n["number"] % 3]] for n in notes(EN)],
            ",",
            "utf-8",
        ),
        "csv",
        "multilabel",
        "en",
        {"separator": "|", "columns": {"text": "text", "labels": "labels"}},
    ),
    "xlsx": Case(
        workbook,
        "xlsx",
        "classify",
        "zh",
        {"columns": {"text": "note", "labels": "label", "id": "id", "group": "patient_id"}},
    ),
    "parquet": Case(parquet, "arrow", "ner", "en"),
    "alpaca": Case(
        lambda r: put(
            r / "alpaca.json", [{"instruction": q, "input": "", "output": a} for q, a in talk(VI)]
        ),
        "alpaca",
        "qa",
        "vi",
    ),
    "sharegpt": Case(
        lambda r: put(
            r / "talks.jsonl",
            [
                {"conversations": [{"from": "human", "value": q}, {"from": "gpt", "value": a}]}
                for q, a in talk(ZH)
            ],
        ),
        "sharegpt",
        "qa",
        "zh",
    ),
    "question and answer in csv": Case(
        lambda r: sheet(
            r / "qa.csv",
            ["department", "title", "ask", "answer"],
            [["A", "t", q, a] for q, a in talk(EN)],
            ",",
            "utf-8",
        ),
        "instructions",
        "qa",
        "en",
        {"prompt": "ask", "answer": "answer"},
    ),
}


def written(files: list[Path], folder: Path, **said: str) -> dict[str, Any]:
    """The data set of the recipe that is written, which must pass the check."""
    write_for(files, folder, Answers(said))
    recipe = Recipe.load(folder / "recipe.yaml")
    findings, _ = check.check(recipe)
    faults = [one.message for one in findings if one.level == "error"]
    if said.get("task") == "none":
        assert recipe.label is not None and "hold no entities" in faults.pop()  # until labelled
    assert faults == []
    found: dict[str, Any] = yaml.safe_load((folder / "recipe.yaml").read_text("utf-8"))
    return {**found["data"]["notes"], "card": recipe.tasks[0].card}


@pytest.mark.parametrize("name", CASES)
def test_the_right_recipe_without_a_question(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    found = written([case.make(tmp_path)], tmp_path / "project")
    assert (found["format"], found["card"], found["lang"]) == (case.format, case.card, case.lang)
    assert {key: found.get(key) for key in case.more} == case.more
    named = {"columns", "fields", "group", "names", "delimiter", "separator", "train", "dev", "tag"}
    assert not {key for key in found if key in named} - case.more.keys()


LEFT_OPEN: dict[str, tuple[Callable[[Path], Path], str, str, str]] = {
    "two columns of texts": (
        lambda r: sheet(r / "t.csv", ["finding", "advice", "label"], [[n["text"], n["text"][::-1], "ab"[n["number"] % 2]] for n in notes(EN)], ",", "utf-8"),
        "several columns hold texts; which holds the note", "text", "finding",
    ),
    "labels under a name that says nothing": (
        lambda r: sheet(r / "t.csv", ["text", "sex", "col7"], [[n["text"], "mf"[n["number"] % 2], "xyz"[n["number"] % 3]] for n in notes(EN)], ",", "utf-8"),
        "which column holds the labels", "labels", "col7",
    ),
    "a column of numbers that may be patients": (
        lambda r: sheet(r / "t.csv", ["text", "label", "ref"], [[n["text"], "xyz"[n["number"] % 3], n["patient"]] for n in notes(EN)], ",", "utf-8"),
        "is it the patient", "group", "ref",
    ),
    "no language": (
        lambda r: sheet(r / "t.csv", ["text", "label"], [[n["text"], "xyz"[n["number"] % 3]] for n in notes(FR)], ",", "utf-8"),
        "do not show their language", "lang", "fr",
    ),
    "ends that nothing proves": (
        lambda r: put(r / "z.jsonl", [{"text": n["text"], "entities": [{**s, "end": s["end"] - 1} for s in n["entities"]]} for n in notes(ZH)]),
        "is the end of a span behind its last character", "ends", "inclusive",
    ),
    "entities and labels": (
        lambda r: put(r / "b.jsonl", [{"id": str(n["number"]), "text": n["text"], "entities": n["entities"], "labels": "xyz"[n["number"] % 3]} for n in notes(EN)]),
        "holds entities and labels of whole notes", "task", "ner",
    ),
    "a table of MIMIC, whose CATEGORY is no label": (
        lambda r: sheet(
            r / "NOTEEVENTS.csv",
            ["ROW_ID", "SUBJECT_ID", "CHARTTIME", "CATEGORY", "ISERROR", "TEXT"],
            [
                [n["number"], n["patient"], "2101-01-01", "ab"[n["number"] % 2], "", n["text"]]
                for n in notes(EN)
            ],
            ",",
        ),
        "holds notes without labels; which column is to be learned",
        "labels",
        "CATEGORY",
    ),
    "notes without labels": (
        lambda r: put(r / "n.jsonl", [{"id": str(n["number"]), "text": n["text"]} for n in notes(EN)]),
        "holds no labels", "task", "none",
    ),
    "few signs of an old encoding": (
        lambda r: sheet(r / "t.csv", ["text", "label"], [[n["text"] + ("é" if n["number"] == 3 else ""), "xyz"[n["number"] % 3]] for n in notes(EN)], ",", "cp1252"),
        "is not UTF-8; in which encoding is it", "encoding", "cp1252",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LEFT_OPEN)
def test_what_a_file_leaves_open_is_asked_with_the_option_that_answers_it(
    name: str, tmp_path: Path
) -> None:
    make, question, key, answer = LEFT_OPEN[name]
    file, folder = make(tmp_path), tmp_path / "project"
    with pytest.raises(UserError, match=f"{question}.*--answer {key}="):
        write_for([file], folder, Answers({}))
    assert not folder.exists()
    asked: list[Question] = []
    write_for([file], folder, Answers({}, lambda one: asked.append(one) or answer))  # type: ignore[func-returns-value]
    assert [one.key for one in asked] == [key]
    by_option = written([file], tmp_path / "other", **{key: answer})
    assert by_option == written([file], tmp_path / "third", **{key: answer})


def test_what_was_found_and_why_stands_in_the_recipe(tmp_path: Path) -> None:
    write_for([csv_cp1258(tmp_path)], tmp_path / "p", Answers({}))
    text = (tmp_path / "p/recipe.yaml").read_text("utf-8")
    assert "converted to UTF-8 from cp1258" in text and "a semicolon parts the columns" in text
    assert "bệnh" in unicodedata.normalize(
        "NFC", next((tmp_path / "p/data").rglob("cu.csv")).read_text("utf-8")
    )


def test_labels_that_may_be_none_or_one_in_two_ways_of_writing_are_told(tmp_path: Path) -> None:
    rows = [[n["text"], ["mild", "Mild", "severe", "NULL"][n["number"] % 4]] for n in notes(EN)]
    write_for(
        [sheet(tmp_path / "t.csv", ["text", "label"], rows, ",")], tmp_path / "p", Answers({})
    )
    text = (tmp_path / "p/recipe.yaml").read_text("utf-8")
    assert "Mild, mild differ only in how they are written" in text
    assert "NULL may say that there is no label" in text and "data.notes.labels" in text


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.pdf", b"%PDF-1.7 ...", "is a PDF"),
        ("a.hl7", b"MSH|^~\\&|A|B\rPID|1\r", "no note comes of these files"),
        ("a.bin", bytes(range(128, 256)) * 4, "in which encoding"),
        (
            "a.csv",
            b"text,label\nFever since Monday,a\ntext,label\nCough for days,b\n",
            "the names of its columns stand again",
        ),
        ("a.txt", b"Only words are here.\nAnd more words.\n", "which format"),
        (
            "a.csv",
            b"Fever since Monday,yes\nCough for days,no\nPain in the arm,yes\n",
            "no column|reads like|texts|labels",
        ),
    ],
)
def test_what_is_no_data_set_is_refused_and_nothing_is_written(
    name: str, content: bytes, said: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        write_for([tmp_path / name], tmp_path / "p", Answers({}))
    assert not (tmp_path / "p").exists()


def test_an_answer_that_is_not_asked_or_not_possible_is_refused(tmp_path: Path) -> None:
    file = csv_vi(tmp_path)
    with pytest.raises(UserError, match="--answer colour: is nothing that these files leave open"):
        write_for([file], tmp_path / "p", Answers({"colour": "red"}))
    with pytest.raises(UserError, match="--answer text: 'notes' is not possible"):
        write_for([file], tmp_path / "p", Answers({"text": "notes"}))


def test_several_files_are_given_as_a_shell_lists_them(tmp_path: Path, cli: CLI) -> None:
    rows = [
        {"id": str(n["number"]), "text": n["text"], "entities": n["entities"]} for n in notes(EN)
    ]
    train = put(tmp_path / "ward_train.jsonl", rows[:40])
    test = put(tmp_path / "ward_test.jsonl", rows[40:])
    done = cli("init", tmp_path / "my project", "--data", train, test, check=0)
    assert "residency check '" in done.stdout
    found = yaml.safe_load((tmp_path / "my project/recipe.yaml").read_text("utf-8"))
    parts = {key: found["data"]["notes"].get(key) for key in ("train", "test", "path")}
    assert parts == {"train": "../ward_train.jsonl", "test": "../ward_test.jsonl", "path": None}


def test_letters_of_a_vietnamese_font_are_asked_about(tmp_path: Path) -> None:
    file = sheet(tmp_path / "t.csv", ["text", "label"], in_tcvn3(), ",")
    with pytest.raises(UserError, match=r"may be those of a Vietnamese font.*--answer encoding="):
        write_for([file], tmp_path / "p", Answers({}))
