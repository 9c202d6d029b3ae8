"""Files of formats that are known by how they begin, by their names, or by their first record, each
with what reads it, if anything does."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import msgspec

from residency.core.errors import DataError
from residency.core.files import NO_JSON, csv_rows, read_text, reason, text_lines
from residency.core.types import Value
from residency.corpus.formats.conll import no_tag, parse_tag
from residency.corpus.formats.jsonl import foreign_form
from residency.corpus.json_records import json_records

FORMS: tuple[tuple[str, str, str], ...] = (
    (r"PAR1", "a Parquet file", "arrow"),
    (r"ARROW1|\xff\xff\xff\xff.{4}\x10\x00\x00\x00", "an Arrow file", "arrow"),
    (r"%PDF", "a PDF", ""),
    (r"\x1f\x8b", "a gzip archive", ""),
    (r"BZh[1-9]1AY|\xfd7zXZ\x00|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!", "a packed archive", ""),
    (r"(?s:.{128}DICM)", "a DICOM file", ""),
    (r"\x00\x01\x00\x00Standard (?:Jet|ACE) DB", "an Access database", ""),
    (r"\$FL[23]", "an SPSS file (sav)", ""),
    (r"(?s:\x00{12}\xc2\xea\x81\x60\xb3\x14)", "a SAS file (sas7bdat)", ""),
    (r"HEADER RECORD\*{7}LIB", "a SAS transport file (xpt)", ""),
    (r"<stata_dta>", "a Stata file (dta)", ""),
    (r"RDX[23]\n|RDA[23]\n|X\n\x00\x00\x00[\x02\x03]\x00", "a file of R (rds, RData)", ""),
    (r"Obj\x01", "an Avro file", ""),
    (r"\x89HDF", "an HDF5 file", ""),
    (r"\x93NUMPY", "a NumPy file", ""),
    (r"\x80[\x02-\x05]", "a pickle of Python", ""),
    (r"\x89PNG|\xff\xd8\xff|GIF8|II\*\x00|MM\x00\*", "a picture", ""),
    (r"SQLite format 3", "a SQLite database", ""),
    (r"PK\x03\x04", "a ZIP archive, such as an Excel workbook (xlsx) or a DOCX", ""),
    (r"\xd0\xcf\x11\xe0", "a file of an old Excel or Word, or one with a password", ""),
    (r"\{\\rtf", "RTF", ""),
    (r"#FORMAT=WebAnno TSV 3", "WebAnno TSV 3 (INCEpTION)", "webanno"),
    (r"#FORMAT=WebAnno TSV", "an old WebAnno TSV", ""),
    (r'c="[^\n]*" \d+:\d+ \d+:\d+\|\|t="', "a list of i2b2 concepts", "i2b2"),
    (r"# global\.columns", "CoNLL-U Plus", "conllu"),
    (r"<[^>]*\bxmi:XMI|(?s:<\?xml.{0,200}<xmi:XMI)", "UIMA XMI (INCEpTION)", "xmi"),
    (r"(?s:(?:<\?xml.{0,300})?<collection>.{0,2000}<document>)", "BioC XML", "bioc"),
    (r"(?s:(?:<\?xml.{0,200})?<(?:deIdi2b2|ROOT)>.{0,100}<TEXT>)", "i2b2 XML", "i2b2_xml"),
    (
        r"(?s:(?:<\?xml.{0,500})?<PubmedArticleSet)",
        "PubMed XML (residency pubmed --file reads it)",
        "",
    ),
    (r"(?s:(?:<\?xml.{0,500})?<ClinicalDocument)", "a CDA document (extract reads it)", ""),
    (
        r"(?s:(?:<\?xml.{0,500})?<GIAMDINHHS)",
        "claims of Vietnamese health insurance (extract reads them)",
        "",
    ),
    (
        r"(?s:(?:<\?xml.{0,500})?<[A-Z]\w+ [^>]*xmlns=.http://hl7\.org/fhir)",
        "FHIR in XML (extract reads it)",
        "",
    ),
    (r"(?s:(?:<\?xml.{0,300}?)?<GateDocument)", "GATE XML", ""),
    (r"(?s:(?:<\?xml.{0,300}?)?<TEI)", "TEI XML", ""),
    (r"(?s:(?:<\?xml.{0,300}?)?<annotations textSource)", "Knowtator XML", ""),
    (r"(?:FHS|BHS|MSH)\|\^~", "an HL7 message (extract reads it)", ""),
    (r'(?s:\[?\s*\{.{0,300}"documents"\s*:\s*\[.{0,600}"passages"\s*:)', "BioC JSON", "bioc"),
    (
        r'(?s:\[?\s*\{"words"\s*:\s*\[.{0,4000}"tags"\s*:\s*\[)',
        "words with tags (PhoNER JSON)",
        "phoner",
    ),
)
"""How a file begins, what it is, and the format that reads it."""


INSIDE = {
    "xl/": ("an Excel workbook (xlsx)", "xlsx"),
    "word/": ("a Word document (docx)", ""),
    "ppt/": ("a PowerPoint file (pptx)", ""),
    "content.xml": ("an OpenDocument file (odt, ods)", ""),
}
"""What a ZIP archive holds, what it then is, and the format that reads it."""
SUFFIXES = {
    ".doc": "an old Word document (doc)",
    ".docx": "a Word document (docx)",
    ".odt": "an OpenDocument text (odt)",
    ".ods": "an OpenDocument sheet (ods)",
    ".pdf": "a PDF",
    ".xls": "an old Excel workbook (xls)",
    ".xlsb": "a binary Excel workbook (xlsb)",
    ".ppt": "an old PowerPoint file (ppt)",
    ".pptx": "a PowerPoint file (pptx)",
    ".sav": "an SPSS file (sav)",
    ".por": "an SPSS file (por)",
    ".sas7bdat": "a SAS file (sas7bdat)",
    ".xpt": "a SAS transport file (xpt)",
    ".dta": "a Stata file (dta)",
    ".rds": "a file of R (rds)",
    ".rdata": "a file of R (RData)",
    ".dcm": "a DICOM file",
    ".mdb": "an Access database (mdb)",
    ".accdb": "an Access database (accdb)",
    ".dbf": "a dBASE table (dbf)",
    ".sqlite": "a SQLite database",
    ".avro": "an Avro file",
    ".orc": "an ORC file",
    ".h5": "an HDF5 file",
    ".msg": "an Outlook message (msg)",
    ".eml": "an e-mail (eml)",
    ".spacy": "a DocBin of spaCy",
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".tif", ".tiff"), "a picture"),
    **dict.fromkeys((".7z", ".rar", ".tar"), "a packed archive"),
    **dict.fromkeys((".npy", ".npz"), "a NumPy file"),
    **dict.fromkeys((".pkl", ".pickle"), "a pickle of Python"),
    ".zip": "a ZIP archive",
}
"""Kinds of files that are known and not read, by their suffix."""
READ_BY_EXTRACT = {
    "a Parquet file": "arrow",
    "an Arrow file": "arrow",
    "an Excel workbook (xlsx)": "xlsx",
    "a CDA document (extract reads it)": "ccda",
    "an HL7 message (extract reads it)": "hl7",
    "FHIR in XML (extract reads it)": "fhir",
    "claims of Vietnamese health insurance (extract reads them)": "claims",
}
RECORDS: tuple[tuple[set[str], set[str], str, str], ...] = (
    ({"originalText"}, set(), "CCKS JSON", "ccks"),
    ({"data", "annotations"}, set(), "an export of Label Studio", "label_studio"),
    ({"projects"}, set(), "an export of Label Studio", "label_studio"),
    ({"words", "tags"}, set(), "words with tags (PhoNER JSON)", "phoner"),
    ({"messages"}, set(), "conversations", "messages"),
    ({"conversations"}, set(), "conversations (ShareGPT)", "sharegpt"),
    ({"instruction", "output"}, set(), "instructions (Alpaca)", "alpaca"),
    ({"question", "answer"}, {"options", "points"}, "questions of an exam", "exam"),
    ({"input", "target"}, {"type", "task_dataset", "answer_choices"}, "PromptCBLUE", "promptcblue"),
    ({"start_char_idx", "length_acronym", "expansion"}, set(), "acronyms", "acronyms"),
)
"""Keys that a record has, keys of which it has one, what it is, and the format that reads it."""
TABLES = {
    "MIMIC": {
        "id": "ROW_ID",
        "patient": "SUBJECT_ID",
        "text": "TEXT",
        "kind": "CATEGORY",
        "written_at": "CHARTTIME",
        "deleted": "ISERROR",
    },
    "OMOP": {
        "id": "note_id",
        "patient": "person_id",
        "text": "note_text",
        "kind": "note_title",
        "written_at": "note_datetime",
    },
}
"""Whose notes a table holds -> its columns, as ``extract.columns`` names them."""


CHUNKS = frozenset(["NP", "VP", "PP", "ADVP", "ADJP", "SBAR", "PRT", "CONJP", "INTJ", "LST", "UCP"])
"""Phrases, which are no entities: CoNLL-2003 has a column of them."""


class Form(Value, frozen=True):
    """What a file is."""

    name: str
    """In words, with its article."""
    format: str = ""
    """The format that reads it as a data set (``data.NAME.format``)."""
    kind: str = ""
    """The kind of source that reads identified notes of it (``extract.kind``)."""
    columns: dict[str, str] = {}
    """What its columns are (``extract.columns``), where its form is a known one."""


def check_form(path: Path, format: str) -> None:
    """Raise ``DataError`` where a file is plainly of another format than it is read as."""
    if format == "external":
        return
    found = _by_beginning(path)
    cut = format == "xlsx" and found is not None and "ZIP" in found.name  # its reader says so
    if found and (found.format == format or cut):
        return
    if found is None and (name := SUFFIXES.get(path.suffix.lower())):
        found = Form(name=name)
    if found:
        told = (
            f"set format to {found.format}"
            if found.format
            else "it is not read as a data set: give JSON lines, CSV or one of the other formats"
        )
        raise DataError(f"{path}: is {found.name}; {told}.")


def other_form(path: Path, format: str, suffixes: Sequence[str]) -> str:
    """What a file that cannot be read in a format looks like; the empty string where it does not
    look like another. ``suffixes``: those of files of the format."""
    found = detect(path)
    if not found or found.format in ("", "csv", format):
        return ""  # a sign that parts columns is in many files
    if found.format == "jsonl" and ".jsonl" in suffixes:
        return ""
    return f"it looks like {found.name}: set format to {found.format}"


def unread(path: Path) -> str:
    """What a file is, where it is of a kind that nothing here reads; the empty string elsewhere."""
    found = _by_beginning(path)
    if found is None:
        return SUFFIXES.get(path.suffix.lower(), "")
    return "" if found.format or found.kind else found.name


def detect(path: Path) -> Form | None:
    """What a file is, by how it begins, its name, its first record, or its columns; None where
    nothing tells. Raises ``DataError`` for a file that cannot be read."""
    if found := _by_beginning(path):
        return found
    suffix = path.suffix.lower()
    if name := SUFFIXES.get(suffix):
        return Form(name=name)
    if path.name.endswith("original.txt"):
        return Form(name="a text of CCKS 2017", format="ccks")
    if suffix in (".ann", ".txt") and path.with_suffix(".ann").is_file():
        return Form(name="brat standoff", format="brat")
    with suppress(DataError):  # another encoding: its bytes tell nothing more
        first = next((line.strip() for _, line in text_lines(path) if line.strip()), "")
        if first[:1] in ("{", "["):
            records = [one for _, one in islice(json_records(path), 2)] or [""]
            whole = _whole(path) if len(records) == 1 or isinstance(records[0], str) else None
            if isinstance(whole, dict):
                return _by_record(whole, alone=True)
            if isinstance(records[0], dict):
                return _by_record(records[0])
        if tag_columns(path):
            return Form(name="tokens and tags in columns", format="conll")
        if re.match(r"\d+\|[ta]\|", first):
            return Form(name="PubTator", format="pubtator")
    if suffix in (".csv", ".tsv"):
        return _by_header(path)
    with suppress(DataError):
        return Form(name="a table", format="csv") if delimiters(path) else None
    return None


def _whole(path: Path) -> object:
    """What a file of one JSON value holds; None where it is none."""
    with suppress(*NO_JSON):
        found: object = msgspec.json.decode(read_text(path))
        return found
    return None


def _by_record(record: dict[str, Any], alone: bool = False) -> Form:
    """What a JSON file is, by its first record, or the only one (``alone``)."""
    keys = record.keys()
    if "resourceType" in keys:
        return Form(name="FHIR", format="fhir", kind="fhir")
    told = foreign_form(record, record.get("relations"))
    for wanted, either, name, format in RECORDS:
        if wanted <= keys and (not either or either & keys):
            return Form(name=name, format=format)
    if told:
        return Form(name=told.removeprefix("this is ").partition(":")[0], format=told.split()[-1])
    inside = next(iter(record.values()), None)
    if "text" not in keys and isinstance(inside, dict) and "QUESTION" in inside:
        return Form(name="PubMedQA", format="pubmedqa")
    lists = [one for one in record.values() if isinstance(one, list) and one]
    if alone and "text" not in keys and len(lists) == 1 and isinstance(lists[0][0], dict):
        if "paragraphs" in lists[0][0]:
            return Form(name="SQuAD JSON")
        return Form(name="one JSON object around a list (give the list itself, or JSON lines)")
    return Form(name="JSON lines", format="jsonl", kind="jsonl")


def _by_header(path: Path) -> Form:
    """What a CSV file is, by the names of its columns."""
    with path.open("rb") as file:
        line = file.readline(1 << 16).removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    delimiter = max(",\t;|", key=line.count)
    names: set[str] = set()
    with suppress(csv.Error):  # of UTF-16
        names = {one.strip() for one in next(csv.reader([line], delimiter=delimiter), [])}
    by_capitals = {one.upper(): one for one in names}
    for whose, columns in TABLES.items():
        if {column.upper() for column in columns.values()} <= by_capitals.keys():
            found = {name: by_capitals[column.upper()] for name, column in columns.items()}
            return Form(name=f"notes of {whose}", format="csv", kind="csv", columns=found)
    if {"annotation_id", "annotator"} <= names:
        return Form(name="a CSV export of Label Studio", format="label_studio")
    return Form(name="CSV", format="csv", kind="csv")


def _by_beginning(path: Path) -> Form | None:
    """What a file is by its first bytes."""
    try:
        with path.open("rb") as file:
            begins = file.read(8192)
        if begins.startswith(b"\x1f\x8b"):
            with suppress(OSError, EOFError, zlib.error), gzip.open(path) as inside:
                if b"<PubmedArticleSet" in inside.read(4096):
                    return Form(name="PubMed XML (residency pubmed --file reads it)")
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    if begins.startswith(b"PK\x03\x04"):
        with suppress(BadZipFile, OSError), ZipFile(path) as archive:
            names = archive.namelist()
            for part, (name, format) in INSIDE.items():
                if any(one.startswith(part) for one in names):
                    return Form(name=name, format=format, kind=READ_BY_EXTRACT.get(name, ""))
    raw = begins.removeprefix(b"\xef\xbb\xbf").decode("latin-1")
    for text in (raw.lstrip(), raw):
        for pattern, name, format in FORMS:
            if re.match(pattern, text):
                return Form(name=name, format=format, kind=READ_BY_EXTRACT.get(name, ""))
    return None


def tag_columns(path: Path) -> list[int]:
    """The columns of a file of tokens that hold tags of entities, counted from 0; none where it is
    no such file."""
    rows = [
        re.split(r"\t" if "\t" in line else " +", line.rstrip("\r\n\t "))
        for _, line in islice(text_lines(path), 20000)
        if line.strip() and not line.startswith("-DOCSTART-")
    ]
    width = max((len(row) for row in rows), default=0)
    if width < 2 or sum(len(row) == width for row in rows) < 0.9 * len(rows):
        return []
    found = []
    for column in range(1, width):
        tags = [row[column] for row in rows if len(row) == width]
        good = [tag for tag in tags if not no_tag(tag, bare=False)]
        types = {parse_tag(tag)[1] for tag in good if tag != "O"}
        bare = tags.count("O") * 2 >= len(tags) and all(re.fullmatch(r"\w+", tag) for tag in tags)
        if (len(good) >= 0.9 * len(tags) and types and not types <= CHUNKS) or (
            bare and not types and len(set(tags)) > 1
        ):
            found.append(column)
    return found


def delimiters(path: Path) -> dict[str, int]:
    """The signs that could part the columns of a table, each of which gives rows as many cells as
    the header has, with that number."""
    lines = [line for _, line in islice(text_lines(path), 400)]
    found: dict[str, int] = {}
    for sign in ("\t", ",", ";", "|"):
        with suppress(DataError, csv.Error):
            rows = [cells for _, cells in csv_rows(lines, path, sign)]
            rows = rows[:-1] if len(lines) == 400 else rows  # the last may be cut
            if len(rows) > 1 and len(rows[0]) > 1:
                fit = sum(len(row) == len(rows[0]) for row in rows)
                if fit >= 0.95 * len(rows):
                    found[sign] = len(rows[0])
    return found
