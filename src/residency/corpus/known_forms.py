"""Files of formats that are known by how they begin, each with the format that reads it, if one
does."""

from __future__ import annotations

import re
from pathlib import Path

from residency.core.errors import DataError
from residency.core.files import reason

FORMS: tuple[tuple[str, str, str], ...] = (
    (r"PAR1", "a Parquet file", ""),
    (r"ARROW1", "an Arrow file", ""),
    (r"%PDF", "a PDF", ""),
    (r"\x1f\x8b", "a gzip archive", ""),
    (r"SQLite format 3", "a SQLite database", ""),
    (r"PK\x03\x04", "a ZIP archive, such as an Excel workbook (xlsx) or a DOCX", ""),
    (r"\xd0\xcf\x11\xe0", "a file of an old Excel or Word", ""),
    (r"\{\\rtf", "RTF", ""),
    (r"#FORMAT=WebAnno TSV 3", "WebAnno TSV 3 (INCEpTION)", "webanno"),
    (r"#FORMAT=WebAnno TSV", "an old WebAnno TSV", ""),
    (r'c="[^\n]*" \d+:\d+ \d+:\d+\|\|t="', "a list of i2b2 concepts", "i2b2"),
    (r"# global\.columns", "CoNLL-U Plus", "conllu"),
    (r"<[^>]*\bxmi:XMI|(?s:<\?xml.{0,200}<xmi:XMI)", "UIMA XMI (INCEpTION)", ""),
    (r"(?s:(?:<\?xml.{0,300})?<collection>.{0,2000}<document>)", "BioC XML", "bioc"),
    (r"(?s:(?:<\?xml.{0,200})?<(?:deIdi2b2|ROOT)>.{0,100}<TEXT>)", "i2b2 XML", "i2b2_xml"),
    (
        r"(?s:(?:<\?xml.{0,500})?<PubmedArticleSet)",
        "PubMed XML (residency pubmed --file reads it)",
        "",
    ),
    (r"(?s:(?:<\?xml.{0,500})?<ClinicalDocument)", "a CDA document (extract reads it)", ""),
    (r"MSH\|\^~", "an HL7 message (extract reads it)", ""),
    (r'(?s:\{.{0,300}"documents"\s*:\s*\[.{0,600}"passages"\s*:)', "BioC JSON", "bioc"),
    (
        r'(?s:\[?\s*\{"words"\s*:\s*\[.{0,4000}"tags"\s*:\s*\[)',
        "words with tags (PhoNER JSON)",
        "phoner",
    ),
)
"""How a file begins, what it is, and the format that reads it."""


def check_form(path: Path, format: str) -> None:
    """Raise ``DataError`` where a file is plainly of another format than it is read as."""
    if format == "external":
        return
    try:
        with path.open("rb") as file:
            begins = file.read(8192)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    text = begins.removeprefix(b"\xef\xbb\xbf").decode("latin-1").lstrip()
    for pattern, name, reader in FORMS:
        if re.match(pattern, text):
            if reader == format:
                return
            told = (
                f"set format to {reader}"
                if reader
                else "it is not read as a data set: give JSON lines, CSV or one of the other formats"
            )
            raise DataError(f"{path}: is {name}; {told}.")
