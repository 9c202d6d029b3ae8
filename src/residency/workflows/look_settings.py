"""What the files of a format show of the settings that read them: columns, roles, encodings of
tags, ends of spans. What they do not show is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from residency.core.errors import DataError, UserError
from residency.core.files import csv_rows, text_lines
from residency.core.types import Value
from residency.corpus.entities import ALIASES
from residency.corpus.formats.conll import detect as scheme_of
from residency.corpus.formats.conll import no_tag, parse_tag
from residency.corpus.json_records import Record, json_records
from residency.corpus.known_forms import CHUNKS, delimiters, detect, tag_columns
from residency.corpus.reader import showable
from residency.workflows import columns as guess
from residency.workflows.columns import NONE, Answers, Setting

LOOKED_AT = 2000
"""Records of which the columns are looked at; what is found is tried on all."""
TALKS = frozenset(("alpaca", "sharegpt", "messages", "instructions", "promptcblue"))


class TextFile(Value, frozen=True):
    """A file, and where it lies as UTF-8."""

    path: Path
    utf8: Path
    encoding: str = ""
    """What it was converted from."""


def settings_of(format: str, files: Sequence[TextFile], answers: Answers) -> list[Setting]:
    """The settings of a format beside the paths and the language."""
    where, first = files[0].path, files[0].utf8
    if format == "conll":
        return _conll_settings(first, where, answers)
    if format in ("csv", "xlsx"):
        return _table_settings(format, files, answers)
    if format in ("jsonl", "arrow"):
        return _json_settings(format, files, answers)
    records = [one for file in files for one in records_of(format, file.utf8)][:LOOKED_AT]
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


def delimiter_of(file: TextFile, answers: Answers) -> str:
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


def records_of(format: str, path: Path, delimiter: str = ",", sheet: str = "") -> Iterator[Record]:
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


def sheet_of(path: Path, where: Path, answers: Answers) -> str:
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


def _table_settings(format: str, files: Sequence[TextFile], answers: Answers) -> list[Setting]:
    where, settings = str(files[0].path), list[Setting]()
    delimiter = delimiter_of(files[0], answers) if format == "csv" else ","
    sheet = sheet_of(files[0].utf8, files[0].path, answers) if format == "xlsx" else ""
    records = [one for file in files for one in records_of(format, file.utf8, delimiter, sheet)]
    columns = guess.columns_of(records[:LOOKED_AT])
    check_header(columns, where)
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


def check_header(columns: Mapping[str, guess.Column], where: str) -> None:
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


def _known(file: TextFile) -> dict[str, str]:
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


def _json_settings(format: str, files: Sequence[TextFile], answers: Answers) -> list[Setting]:
    where = str(files[0].path)
    records = [one for file in files for one in records_of(format, file.utf8)][:LOOKED_AT]
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
