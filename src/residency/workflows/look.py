"""What files are, and the recipe that reads them: format, encoding, language, columns, parts. What
the files do not show is asked."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import replace

from residency.core.encodings import ENOUGH, candidates
from residency.core.errors import DataError, UserError
from residency.core.files import csv_rows, text_lines
from residency.core.part import parse
from residency.core.types import PartName, Value
from residency.corpus import load
from residency.corpus.entities import ALIASES
from residency.corpus.formats import sources
from residency.corpus.formats.conll import detect as scheme_of
from residency.corpus.formats.conll import no_tag, parse_tag
from residency.corpus.json_records import Record, json_records
from residency.corpus.known_forms import CHUNKS, delimiters, detect, tag_columns, unread
from residency.corpus.load import Corpus, Data
from residency.corpus.reader import showable
from residency.ingest.decode import FONTS, Unreadable, by_font, decode_bytes, tcvn3, vni
from residency.tasks.card import CARDS as CARD_FOLDER
from residency.tasks.card import load_card
from residency.workflows import columns as guess
from residency.workflows import look_source
from residency.workflows.columns import NONE, Answers, Setting

LOOKED_AT = 2000
"""Records of which the columns are looked at; what is found is tried on all."""
PARTS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "devel": "dev",
    "development": "dev",
    "valid": "dev",
    "validation": "dev",
    "val": "dev",
    "test": "test",
    "testing": "test",
}
"""What names of files say of their part."""
PAIRS = {"brat": ".txt", "i2b2": ".con", "ccks": ""}
"""Formats of which two files belong together, and the suffix of the one that is named."""
TALKS = frozenset(("alpaca", "sharegpt", "messages", "instructions", "promptcblue"))
WRITTEN = TALKS | {"exam", "pubmedqa", "fhir", "acronyms"}
"""Formats whose answers a model writes."""
CARDS = {"exam": "exam", "pubmedqa": "pubmedqa", "fhir": "fhir", "acronyms": "acronym"}
UNLABELLED = "clinical"
"""The card that notes without labels begin with."""
LEAST = 10
"""Records from which parts can be drawn."""
NEEDED: tuple[PartName, ...] = ("train", "test")


class Looked(Value, frozen=True):
    """What was found."""

    settings: tuple[Setting, ...]
    card: str
    why: str
    """Of the card."""
    writes: bool = False
    """Whether the task needs a base that writes."""
    unlabelled: bool = False
    source: bool = False
    """Whether the settings are those of a source of identified notes (``extract``)."""
    copies: dict[str, str] = {}
    """Place below the project -> text, of files that were not UTF-8."""

    def mapping(self) -> dict[str, Any]:
        """The data set as a recipe has it."""
        return {one.key: one.value for one in self.settings}


class _File(Value, frozen=True):
    """A file, and where it lies as UTF-8."""

    path: Path
    utf8: Path
    encoding: str = ""
    """What it was converted from."""


def look(given: Sequence[Path], folder: Path, answers: Answers) -> Looked:
    """What the files are, for a recipe in ``folder``. Raises ``UserError`` where they cannot be
    read, and where something is left open that nobody is there to be asked."""
    paths = _expanded(given)
    if kind := look_source.kind_of(paths, answers):
        return _source(kind, [], paths, folder, answers)
    folders = [*dict.fromkeys(path.parent for path in paths)]
    here = next(one for one in (folder, *folder.absolute().parents) if one.is_dir())
    with TemporaryDirectory(dir=here, prefix=".looked-") as place:  # beside the notes, as they are
        files = [
            _decoded(path, Path(place) / str(folders.index(path.parent)), answers) for path in paths
        ]
        format, files = _format(files, answers)
        if found := _identified(format, files, folder, answers):
            return found
        named = PAIRS.get(format, "")
        parts = _parts([one for one in files if one.path.suffix == named or not named])
        settings = _settings(format, [one for part in parts.values() for one in part], answers)
        found = _tried(parts, [Setting(key="format", value=format), *settings], answers)
        placed = [
            Setting(key=part, value=_paths(inside, folder), why=_why(part, parts))
            for part, inside in parts.items()
        ]
        copies = {
            _copy(one): _text(one.utf8)
            for one in files
            if one.encoding or (format in PAIRS and any(other.encoding for other in files))
        }
    answers.check_used()
    head, *rest = found.settings
    return replace(found, settings=(head, *placed, *rest), copies=copies)


def _source(
    kind: str, settings: Sequence[Setting], paths: Sequence[Path], folder: Path, answers: Answers
) -> Looked:
    """Files as a source of identified notes, tried on all of them."""
    found, why = look_source.tried(kind, settings, paths, folder, answers)
    answers.check_used()
    marked = any(one.key == "labels" for one in settings)
    return Looked(
        settings=tuple(one for one in found if one.key != "labels"),
        card="ner" if marked else UNLABELLED,
        why=why,
        unlabelled=not marked,
        source=True,
    )


def _identified(
    format: str, files: Sequence[_File], folder: Path, answers: Answers
) -> Looked | None:
    """A table with columns that identify people, as a source; None for any other."""
    if format not in ("csv", "xlsx", "arrow", "jsonl"):
        return None
    where = str(files[0].path)
    delimiter = _delimiter(files[0], answers) if format == "csv" else ","
    sheet = _sheet(files[0].utf8, files[0].path, answers) if format == "xlsx" else ""
    records = [one for file in files for one in _records(format, file.utf8, delimiter, sheet)]
    columns = guess.columns_of(records[:LOOKED_AT])
    if format in ("csv", "xlsx"):
        _check_header(columns, where)
    form = detect(files[0].utf8)
    settings = look_source.table(format, columns, form.columns if form else {}, answers, where)
    if not settings:
        return None
    extra = (("delimiter", delimiter, ","), ("sheet", sheet, ""))
    settings += [Setting(key=key, value=value) for key, value, usual in extra if value != usual]
    if encoding := files[0].encoding:
        codec = "utf-16" if encoding.startswith("utf-16") else encoding
        settings.append(Setting(key="encoding", value=codec, why="as its bytes read as words"))
    return _source(format, settings, [one.path for one in files], folder, answers)


def _expanded(given: Sequence[Path]) -> list[Path]:
    """The files, those of folders among them; raises ``UserError`` where there is none."""
    found: list[Path] = []
    for path in given:
        inside = sorted(path.rglob("*")) if path.is_dir() else [path]
        files = [one for one in inside if one.is_file() and one.name[0] != "."]
        if not files:
            said = "holds no files" if path.is_dir() else "does not exist"
            raise UserError(f"{path}: {said}; give files, or a folder of them.")
        found += files
    if len({*found}) < len(found):
        raise UserError("--data: a file is named twice; name each once.")
    tables = [one for one in found if one.suffix in (".parquet", ".arrow", ".feather")]
    return tables or [one for one in found if one.suffix.lower() not in (".md", ".py", ".license")]


def _decoded(path: Path, beside: Path, answers: Answers) -> _File:
    """A file as UTF-8; raises ``UserError`` where its encoding does not show."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if kind := unread(path):
        raise DataError(f"{path}: is {kind}; no data set is read from it.")
    is_table = data[:4] == b"PAR1" or data[:6] == b"ARROW1" or data[:2] == b"PK"
    if is_table or path.suffix == ".arrow" or data[:4] == b"\xff\xff\xff\xff":
        return _File(path=path, utf8=path)
    encoding = answers.said("encoding") or _encoding(data, path, answers)
    if encoding in ("utf-8", "utf-8-sig"):
        return _File(path=path, utf8=path)
    try:
        text = decode_bytes(data, encoding).removeprefix("\ufeff")
        if encoding in FONTS:
            text, _ = by_font(text, "tcvn3" if encoding == "tcvn3" else "vni")
    except (Unreadable, LookupError):
        raise UserError(f"{path}: cannot be read as {encoding}; give another encoding.") from None
    beside.mkdir(exist_ok=True)
    copy = beside / path.name
    copy.write_bytes(text.encode("utf-8"))
    return _File(path=path, utf8=copy, encoding=encoding)


def _encoding(data: bytes, path: Path, answers: Answers) -> str:
    """What a file is written in; asked where it does not show, and where letters may be those of a
    Vietnamese font."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    if b"\0" in data:  # text of single bytes has none
        return "utf-16-le" if data[1::2].count(b"\0") > data[::2].count(b"\0") else "utf-16-be"
    told = f"{path}: is not UTF-8; in which encoding is it"
    try:
        text, found = data.decode("utf-8"), []
    except UnicodeDecodeError:
        found = candidates(data)
        good = [one for one in found if one.words >= ENOUGH]
        sure = good[:1] and all(one.words + 0.1 < good[0].words for one in good[1:])
        alike = good[1:] and len({data.decode(one.codec, "replace") for one in good}) == 1
        few = sum(byte > 127 for byte in data) < 8
        if few or not (sure or alike):
            names = dict.fromkeys([*(one.codec for one in (good or found)), *FONTS])
            return answers.asked("encoding", told, [*names])
        text = data.decode(good[0].codec, "replace")
    codec = good[0].codec if found else "utf-8"
    fonts = [font for font in FONTS if not text.isascii() and _is_font(text[:20000], font)]
    if not fonts:
        return codec
    told = f"{path}: its letters may be those of a Vietnamese font; in which encoding is it"
    return answers.asked("encoding", told, [*fonts, codec])


def _is_font(text: str, font: str) -> bool:
    """Whether a text is no Vietnamese as it is, and is some as a font shows it."""
    table = tcvn3() if font == "tcvn3" else vni()
    signs = "|".join(map(re.escape, sorted(table, key=len, reverse=True)))
    shown = re.sub(signs, lambda found: table[found[0]], text)
    western = candidates(text.encode("cp1252", "ignore"))
    if any(one.codec == "cp1252" and one.words >= ENOUGH for one in western):
        return False  # French and its like
    return guess.language(text) != "vi" and guess.language(shown) == "vi"


def _format(files: list[_File], answers: Answers) -> tuple[str, list[_File]]:
    """The format of the files, and those that it reads."""
    known = [str(one.model_fields["format"].annotation.__args__[0]) for one in sources()]  # type: ignore[union-attr]
    if said := answers.said("format", known):
        return said, files
    found = {one.utf8: _form(one) for one in files}
    formats = sorted({format for format in found.values() if format})
    where = files[0].path
    if not formats:
        told = f"{where}: nothing shows which format it has; which is it"
        return answers.asked("format", told, known), files
    if pairs := [one for one in formats if one in PAIRS]:
        return pairs[0], files
    if len(formats) > 1:
        raise UserError(
            f"--data: the files are of several formats ({', '.join(formats)}); give those of one."
        )
    return formats[0], [one for one in files if found[one.utf8]]


def _form(file: _File) -> str:
    """The format of a file; the empty string where nothing tells."""
    if file.path.suffix in (".txt", ".ann") and file.path.with_suffix(".ann").is_file():
        return "brat"
    if file.path.with_suffix(".con").is_file():
        return "i2b2"
    found = detect(file.utf8)
    if found and not found.format:
        also = f"; residency extract reads it (extract.kind: {found.kind})" if found.kind else ""
        raise DataError(f"{file.path}: is {found.name}; no data set is read from it{also}.")
    if found and found.format == "jsonl":
        records = [one for _, one in islice(json_records(file.utf8), 50) if isinstance(one, dict)]
        if guess.pair_columns(guess.columns_of(records)) and "text" not in records[0]:
            return "instructions"
    return found.format if found else ""


def _parts(files: Sequence[_File]) -> dict[str, list[_File]]:
    """Which files are which part: by their names, or all together where these do not say."""
    named: dict[str, list[_File]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", f"{file.path.parent.name}/{file.path.stem}".lower())
        part = next((PARTS[word] for word in reversed(words) if word in PARTS), "")
        named.setdefault(part, []).append(file)
    if "train" not in named or "" in named or len(named) < 2:
        return {"path": [*files]}
    if "test" not in named:
        return {"train": named["train"], "test": named["dev"]}
    return {part: named[part] for part in ("train", "dev", "test") if part in named}


def _why(part: str, parts: Mapping[str, Sequence[_File]]) -> str:
    words = {
        "path": "all records: parts are drawn 80/10/10, a group never in two of them",
        "test": "by the name of the file",
    }
    said = words.get(part, words["test"])
    if (
        part == "test"
        and "dev" not in parts
        and not any("test" in str(f.path) for f in parts[part])
    ):
        said = "no file is called test: this one is measured on, and decides nothing"
    encodings = sorted({one.encoding for one in parts[part] if one.encoding})
    return "; ".join([said, *(f"converted to UTF-8 from {name}" for name in encodings)])


def _paths(files: Sequence[_File], folder: Path) -> str | list[str]:
    """The files as the recipe names them; many of one folder by a pattern."""
    found = [
        _copy(one) if one.encoding else os.path.relpath(one.path.resolve(), folder.resolve())
        for one in files
    ]
    beside = {(one.path.parent, one.path.suffix) for one in files}
    if len(found) > 5 and len(beside) == 1 and not any(one.encoding for one in files):
        (parent, suffix) = beside.pop()
        if len([*parent.glob(f"*{suffix}")]) == len(files):
            return f"{Path(found[0]).parent.as_posix()}/*{suffix}"
    return found[0] if len(found) == 1 else found


def _copy(file: _File) -> str:
    return f"data/{file.path.resolve().parent.name or 'files'}/{file.path.name}"


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _settings(format: str, files: Sequence[_File], answers: Answers) -> list[Setting]:
    """The settings of a format beside the paths and the language."""
    where, first = files[0].path, files[0].utf8
    if format == "conll":
        return _conll_settings(first, where, answers)
    if format in ("csv", "xlsx"):
        return _table_settings(format, files, answers)
    if format in ("jsonl", "arrow"):
        return _json_settings(format, files, answers)
    records = [one for file in files for one in _records(format, file.utf8)][:LOOKED_AT]
    columns = guess.columns_of(records)
    if format == "instructions":
        pair = guess.pair_columns(columns)
        names = [one.name for one in pair] if pair else []
        for key, words in (("prompt", "the question"), ("answer", "the answer")):
            if len(names) < 2:
                told = f"{where}: which column holds {words}"
                names.append(answers.asked(key, told, [*columns]))
        return [
            Setting(key="prompt", value=names[0], why="the question"),
            Setting(key="answer", value=names[1], why="what is to be said"),
            *_conversation_names(columns, answers, where),
        ]
    if format in TALKS or format == "exam":
        return _conversation_names(columns, answers, where)
    if format == "label_studio":
        return _label_studio_settings(records, answers, where)
    if format in ("doccano", "prodigy"):
        about = [one.get("meta") or one.get("metadata") or {} for one in records]
        inside = guess.columns_of([one for one in about if isinstance(one, dict)])
        group = guess.patient_column(inside, answers, str(where))
        return _patient("group", group, inside)
    if format == "phoner" and _is_chinese(" ".join(map(str, records[0].get("words", [])))):
        return [Setting(key="joiner", value="", why="Chinese: nothing stands between tokens")]
    return []


def _conll_settings(path: Path, where: Path, answers: Answers) -> list[Setting]:
    found = tag_columns(path)
    rows = [re.split(r"\t| +", line.strip()) for _, line in islice(text_lines(path), 5000)]
    rows = [row for row in rows if len(row) > 1]
    width = max(map(len, rows), default=0)
    tag = found[-1] if found else width - 1
    if len(found) > 1:
        told = f"{where}: several columns hold tags; which is to be learned, counted from 0"
        tag = int(answers.asked("tag", told, [str(one) for one in found]))
    token = 1 if all(row[0].isdigit() for row in rows) and tag > 1 else 0
    tags = [row[tag] for row in rows if len(row) == width]
    settings = [Setting(key="scheme", value="auto", why=f"looks like {scheme_of([tags])}")]
    if token:
        settings.append(Setting(key="token", value=token, why="the first column counts"))
    if tag != width - 1:
        settings.append(Setting(key="tag", value=tag, why="the column of the entities, from 0"))
    if _is_chinese("".join(row[token] for row in rows)):
        why = "Chinese: nothing stands between tokens"
        settings.append(Setting(key="joiner", value="", why=why))
    return settings


def _is_chinese(text: str) -> bool:
    return len(guess.HAN_SIGN.findall(text)) * 2 > len(text.replace(" ", ""))


def _delimiter(file: _File, answers: Answers) -> str:
    """What parts the columns of a table; asked where several signs could."""
    found = delimiters(file.utf8)
    best = max(found.values(), default=0)
    signs = [sign for sign, width in found.items() if width == best]
    if len(signs) < 2:
        return signs[0] if signs else ","
    told = {"tab": "\t", "comma": ",", "semicolon": ";", "bar": "|"}
    names = [name for name, sign in told.items() if sign in signs]
    asked = f"{file.path}: several signs could part the columns; which is it"
    return told[answers.asked("delimiter", asked, names)]


def _records(format: str, path: Path, delimiter: str = ",", sheet: str = "") -> Iterator[Record]:
    """The records of a file, as far as they can be read."""
    if format == "arrow":
        from residency.corpus.tables import arrow_rows

        yield from islice(arrow_rows(path), LOOKED_AT)
        return
    if format in ("csv", "xlsx") or (format == "label_studio" and path.suffix == ".csv"):
        from residency.corpus.tables import xlsx_rows

        lines = (line for _, line in text_lines(path)) if format != "xlsx" else iter(())
        rows = xlsx_rows(path, sheet) if format == "xlsx" else csv_rows(lines, path, delimiter)
        header: list[str] = []
        for _, cells in islice(rows, LOOKED_AT):
            if header:
                yield dict(zip(header, cells, strict=False))
            header = header or cells
        return
    if format in TALKS | {"jsonl", "exam", "label_studio", "doccano", "prodigy", "phoner"}:
        found = (one for _, one in json_records(path))
        yield from islice((one for one in found if isinstance(one, dict)), LOOKED_AT)


def _sheet(path: Path, where: Path, answers: Answers) -> str:
    """The sheet of a workbook that is to be read; the empty string where there is only one."""
    from openpyxl import load_workbook

    book = load_workbook(path, read_only=True)
    try:
        filled = [
            one.title for one in book.worksheets if any(True for _ in one.iter_rows(max_row=2))
        ]
        empty = [
            one.title
            for one in book.worksheets
            if not any(any(c is not None for c in row) for row in one.iter_rows(values_only=True))
        ]
    finally:
        book.close()
    filled = [one for one in filled if one not in empty]
    if len(filled) < 2:
        return ""
    return answers.asked("sheet", f"{where}: has several sheets; which holds the notes", filled)


def _table_settings(format: str, files: Sequence[_File], answers: Answers) -> list[Setting]:
    where, settings = str(files[0].path), list[Setting]()
    delimiter = _delimiter(files[0], answers) if format == "csv" else ","
    sheet = _sheet(files[0].utf8, files[0].path, answers) if format == "xlsx" else ""
    records = [one for file in files for one in _records(format, file.utf8, delimiter, sheet)]
    columns = guess.columns_of(records[:LOOKED_AT])
    _check_header(columns, where)
    if delimiter != ",":
        name = {"\t": "a tab", ";": "a semicolon", "|": "a bar"}.get(delimiter, "")
        settings.append(Setting(key="delimiter", value=delimiter, why=f"{name} parts the columns"))
    if sheet:
        settings.append(Setting(key="sheet", value=sheet, why="as you said"))
    pair = guess.pair_columns(columns)
    if pair and format == "csv" and not answers.said("text", [*columns, NONE]):
        asked = [
            Setting(key="prompt", value=pair[0].name, why="the question"),
            Setting(key="answer", value=pair[1].name, why="what is to be said"),
        ]
        names = _conversation_names(columns, answers, where)
        tab = files[0].utf8.suffix.lower() == ".tsv"
        return [
            Setting(key="format", value="instructions"),
            *(settings if not tab else []),
            *asked,
            *names,
        ]
    found, roles = _roles(columns, answers, where, _known(files[0]))
    settings.append(Setting(key="columns", value=found, why=_told(found, columns)))
    if labels := roles.get("labels"):
        separator = guess.separator_of(columns[labels])
        if separator:
            settings.append(Setting(key="separator", value=separator, why="parts several labels"))
    return settings


def _check_header(columns: Mapping[str, guess.Column], where: str) -> None:
    """Raise ``DataError`` where the first row reads like a record, or stands again."""
    if len(columns) > 1 and all(one.name in one.texts for one in columns.values()):
        raise DataError(
            f"{where}: the names of its columns stand again further down; take them out."
        )
    for one in columns.values():
        long = len(one.name) > 60 or re.fullmatch(r"[\d\s./:+()-]*", one.name) or "@" in one.name
        kinds = [guess.shape(value) for value in one.texts]
        alike = re.search(r"\d", one.name) and kinds.count(guess.shape(one.name)) * 2 > len(kinds)
        if long or alike or (one.name in one.texts and len(columns) > 1):
            raise DataError(
                f"{where}: its first row reads like a record, not like names of columns; put a row "
                "of names before it."
            )


def _known(file: _File) -> dict[str, str]:
    """The columns of a table whose form is a known one (MIMIC, OMOP)."""
    form = detect(file.utf8)
    columns = form.columns if form else {}
    names = {"text": "text", "id": "id", "patient": "group"}
    return {names[key]: name for key, name in columns.items() if key in names}


def _roles(
    columns: Mapping[str, guess.Column],
    answers: Answers,
    where: str,
    known: Mapping[str, str] | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """The columns by the names that settings of formats have for them."""
    if known:  # its tables hold no labels of notes, whatever a column is called
        told = f"{where}: holds notes without labels; which column is to be learned"
        asked = [name for name in columns if name not in known.values()]
        labels = answers.asked("labels", told, [*asked, NONE])
        found = {**known, "labels": "" if labels == NONE else labels}
        return {key: name for key, name in found.items() if name}, {**found, "entities": ""}
    entities = guess.entity_column(columns, answers, where)
    text = guess.text_column(columns, answers, where).name
    rest = {name: one for name, one in columns.items() if name not in (text, entities)}
    group = guess.patient_column(rest, answers, where)
    lang = next((one.name for one in rest.values() if one.called(guess.LANGUAGE)), "")
    number = guess.id_column(rest, {group, lang})
    taken = {text, entities, group, lang, number}
    if entities and answers.said("labels") in ("", NONE):
        labels = ""
        answers.said("labels")
    else:
        labels = guess.label_columns(rest, answers, taken, where)
    found = {"text": text, "entities": entities, "labels": labels, "id": number, "group": group}
    found |= {"lang": lang}
    return {key: name for key, name in found.items() if name}, found


def _told(found: Mapping[str, Any], columns: Mapping[str, guess.Column]) -> str:
    """What is said of the columns that were found."""
    said = [] if found.get("group") else ["no column of patients: each note is its own group"]
    if dates := guess.date_column(columns):
        said.append(
            f"dates stand in {dates}" if showable([dates]) else "there is a column of dates"
        )
    return "; ".join(said) or "a patient is never in two parts"


def _patient(key: str, group: str, columns: Mapping[str, guess.Column]) -> list[Setting]:
    why = "the patient, never in two parts"
    return [Setting(key=key, value=group, why=why)] if group else []


def _conversation_names(
    columns: Mapping[str, guess.Column], answers: Answers, where: object
) -> list[Setting]:
    short = {name: one for name, one in columns.items() if not one.is_text}
    group = guess.patient_column(short, answers, str(where))
    if group in ("", "group"):
        return []
    return [Setting(key="names", value={"group": group}, why="the patient, never in two parts")]


def _label_studio_settings(
    records: Sequence[Record], answers: Answers, where: Path
) -> list[Setting]:
    inside = [one["data"] for one in records if isinstance(one.get("data"), dict)]
    columns = guess.columns_of(inside or records)
    text = guess.text_column(columns, answers, str(where)).name
    rest = {name: one for name, one in columns.items() if name != text}
    group = guess.patient_column(rest, answers, str(where)) if inside else ""
    found = [Setting(key="text", value=text, why="field of the text")] if text != "text" else []
    return found + _patient("group", group, rest)


def _json_settings(format: str, files: Sequence[_File], answers: Answers) -> list[Setting]:
    where = str(files[0].path)
    records = [one for file in files for one in _records(format, file.utf8)][:LOOKED_AT]
    columns = guess.columns_of(records)
    if format == "arrow" and (found := _token_settings(columns, answers, where)) is not None:
        return found
    fields, roles = _roles(columns, answers, where)
    defaults = {"text": "text", "entities": "entities", "id": "id", "group": "group"}
    defaults |= {"lang": "lang", "labels": "labels"}
    fields = {key: name for key, name in fields.items() if defaults[key] != name}
    if roles["entities"]:
        fields |= guess.proved_keys(columns[roles["text"]], columns[roles["entities"]])
    ids = columns.get("id")
    if not roles["id"] and ids and ids.distinct < len(ids.keys):
        raise UserError(
            f"{where}: id stands twice; give each note an id of its own, or call that field "
            "patient."
        )
    settings = []
    if fields:
        settings.append(Setting(key="fields", value=fields, why=_told(roles, columns)))
    if roles["entities"]:
        settings += _ends(columns[roles["entities"]], columns[roles["text"]], answers, where)
    return settings


def _ends(
    entities: guess.Column, text: guess.Column, answers: Answers, where: str
) -> list[Setting]:
    """How ends count, asked where the texts cannot prove it: no quote, and no words with
    borders."""
    said = answers.said("ends", ("exclusive", "inclusive"))
    spans = [one for value in entities.values for one in guess.listed(value)][:200]
    keys = ("text", *ALIASES["quote"])
    quoted = any(isinstance(one, dict) and {*keys} & one.keys() for one in spans)
    quoted |= "quote" in guess.proved_keys(text, entities)
    if not said and (quoted or not _is_chinese("".join(text.texts[:50]))):
        return []
    found, why = said, "as you said"
    if not found:
        pairs = [
            (note, one)
            for note, value in zip(text.all, entities.all, strict=True)
            for one in guess.listed(value)
        ]
        found, why = _proved_ends(pairs), "as the signs behind the spans show"
    told = f"{where}: is the end of a span behind its last character (exclusive), or that character"
    found = found or answers.asked("ends", told, ("exclusive", "inclusive"))
    return [Setting(key="ends", value=found, why=why)]


def _proved_ends(pairs: Sequence[tuple[Any, Any]]) -> str:
    """How the ends of spans count, by what stands behind them: no entity ends in punctuation, and
    many stand before it. The empty string where that tells nothing."""
    behind = {"exclusive": 0, "inclusive": 0}
    spans = 0
    for text, one in pairs:
        names = ("end", *ALIASES["end"])
        end = (
            next((one[name] for name in names if name in one), None)
            if isinstance(one, dict)
            else one[1]
        )
        if isinstance(text, str) and isinstance(end, int):
            spans += 1
            for how, place in (("exclusive", end), ("inclusive", end + 1)):
                sign = text[place : place + 1]
                behind[how] += place <= len(text) and (not sign or not sign.isalnum())
    exclusive, inclusive = behind["exclusive"], behind["inclusive"]
    if spans >= 10 and exclusive * 10 >= spans:
        return "exclusive"
    return "inclusive" if spans >= 10 and not exclusive and inclusive * 10 >= spans else ""


def _token_settings(
    columns: Mapping[str, guess.Column], answers: Answers, where: str
) -> list[Setting] | None:
    """The settings of sentences as lists of tokens and tags; None where they are no such lists."""
    lists = [one for one in columns.values() if one.values and isinstance(one.values[0], list)]
    words = [one for one in lists if one.plain in ("tokens", "words")]
    if len(words) != 1:
        return None
    tags = [
        one
        for one in lists
        if one is not words[0]
        and all(isinstance(tag, str) and not no_tag(tag, bare=False) for tag in one.values[0])
    ]
    tags = [one for one in tags if {parse_tag(t)[1] for v in one.values for t in v} - CHUNKS - {""}]
    name = tags[0].name if len(tags) == 1 else ""
    if not name:
        told = f"{where}: which column holds the tags of the entities"
        name = answers.asked("tag", told, [one.name for one in tags or lists])
    settings = [
        Setting(key=key, value=value, why=why)
        for key, value, default, why in (
            ("tokens", words[0].name, "tokens", "the column of the tokens"),
            ("tags", name, "ner_tags", "the column of the tags"),
        )
        if value != default
    ]
    if _is_chinese("".join(map(str, words[0].values[0]))):
        settings.append(Setting(key="joiner", value="", why="Chinese: nothing between tokens"))
    group = guess.patient_column(
        {n: c for n, c in columns.items() if c not in lists}, answers, where
    )
    return settings + ([Setting(key="fields", value={"group": group})] if group else [])


def _tried(
    parts: Mapping[str, Sequence[_File]], settings: Sequence[Setting], answers: Answers
) -> Looked:
    """The settings, tried on all records; with the card that their answers need."""
    merged = {one.key: one for one in settings}
    where = str(next(one.path for part in parts.values() for one in part))
    corpus = _read(parts, merged)
    if not all(note.lang for note in corpus.notes):
        texts = [note.text for note in corpus.notes]
        lang = guess.language_of(texts, answers, where)
        merged["lang"] = Setting(key="lang", value=lang, why="by its letters and words")
    card, why = _card(corpus, merged, answers, where)
    said = answers.said("near", ("off",))
    if not said and any(not corpus.part(part) for part in NEEDED):
        if len(corpus.notes) < LEAST:
            raise DataError(
                f"{where}: {len(corpus.notes)} records are too few to draw parts from; give more."
            )
        told = f"{where}: so many records are alike that none is held out; are parts to be drawn"
        said = answers.asked(
            "near", f"{told} all the same, which makes scores look better", ("off",)
        )
    if said:
        merged["near"] = Setting(
            key="near", value="off", why="as you said: near-duplicates may part"
        )
    return Looked(
        settings=tuple(merged.values()),
        card=card,
        why=why,
        writes=merged["format"].value in WRITTEN,
        unlabelled=card == UNLABELLED,
    )


def _read(parts: Mapping[str, Sequence[_File]], settings: Mapping[str, Setting]) -> Corpus:
    """All records as the settings read them."""
    value: dict[str, Any] = {one.key: one.value for one in settings.values()}
    value |= {part: [str(one.utf8) for one in files] for part, files in parts.items()}
    data: Any = parse(Data, value, "--data")
    return load.load(data, "notes", Path(), 7)


def _card(
    corpus: Corpus, settings: Mapping[str, Setting], answers: Answers, where: str
) -> tuple[str, str]:
    """The card that the answers in the data need, and why. Asks where there are two kinds of
    answers, or none."""
    format, notes = str(settings["format"].value), corpus.notes
    if format in CARDS:
        return CARDS[format], "what the format holds"
    if format == "promptcblue":
        return _promptcblue_card({note.kind for note in notes}, answers, where)
    if format in TALKS:
        return "qa", "questions and answers in free words"
    spans = sum(len(note.spans) for note in notes)
    labelled = sum(bool(note.labels) for note in notes)
    several = any(len(note.labels) > 1 for note in notes)
    whole = "multilabel" if several else "classify"
    task = answers.said("task", ("ner", whole, NONE))
    if spans and labelled and not task:
        told = f"{where}: holds entities and labels of whole notes; which are to be learned"
        task = answers.asked("task", told, ("ner", whole))
    if not spans and not labelled:
        told = f"{where}: holds no labels; are its notes to be labelled first (task={NONE})"
        task = answers.asked("task", f"{told}, or does a column hold them (labels=...)", (NONE,))
        return UNLABELLED, "to be labelled by people: residency label"
    if (spans and not labelled) or task == "ner":
        kinds = len({span.label for note in notes for span in note.spans})
        return "ner", f"{spans} entities of {kinds} types in {len(notes)} notes"
    names = {label for note in notes for label in note.labels}
    told = f"{len(names)} labels, {'several' if several else 'one'} a note, {len(notes)} notes"
    return whole, told + _doubtful(names)


NO_LABEL = frozenset(("\\n", "null", "nan", "n/a", "na", "#n/a", "none", "nil", "-", "?", "."))


def _doubtful(labels: set[str]) -> str:
    """Which labels may be none, or one in two ways of writing; the empty string for none."""
    alike = Counter(label.strip().casefold() for label in labels)
    written = sorted(one for one in labels if alike[one.strip().casefold()] > 1)
    empty = sorted(one for one in labels if one.strip().casefold() in NO_LABEL)
    told = f"; {', '.join(written[:6])} differ only in how they are written" if written else ""
    told += f"; {', '.join(empty)} may say that there is no label" if empty else ""
    return told + ": data.notes.labels joins and leaves out" if told else ""


def _promptcblue_card(tasks: set[str], answers: Answers, where: str) -> tuple[str, str]:
    """The packaged card of the task that rows of PromptCBLUE belong to."""
    known = {
        str(load_card(f"promptcblue/{path.stem}").name): f"promptcblue/{path.stem}"
        for path in (CARD_FOLDER / "promptcblue").glob("*.yaml")
    }
    if len(tasks) == 1 and (task := next(iter(tasks))) in known:
        return known[task], "the only task of the rows"
    told = f"{where}: holds several tasks; give the rows of one in a file, or name its card"
    return answers.asked("task", told, sorted(known.values())), "as you said"
