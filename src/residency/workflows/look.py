"""What files are, and the recipe that reads them: format, encoding, language, columns, parts. What
the files do not show is asked."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from msgspec.structs import replace

from residency.core.encodings import ENOUGH, candidates
from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.core.types import PartName, Value
from residency.corpus import load
from residency.corpus.formats import sources
from residency.corpus.json_records import json_records
from residency.corpus.known_forms import detect, unread
from residency.corpus.load import Corpus, Data
from residency.ingest.decode import FONTS, Unreadable, by_font, decode_bytes, tcvn3, vni
from residency.tasks.card import CARDS as CARD_FOLDER
from residency.tasks.card import load_card
from residency.workflows import columns as guess
from residency.workflows import look_source
from residency.workflows.columns import NONE, Answers, Setting
from residency.workflows.look_settings import (
    LOOKED_AT,
    TALKS,
    TextFile,
    check_header,
    delimiter_of,
    records_of,
    settings_of,
    sheet_of,
)

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
        settings = settings_of(format, [one for part in parts.values() for one in part], answers)
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
    format: str, files: Sequence[TextFile], folder: Path, answers: Answers
) -> Looked | None:
    """A table with columns that identify people, as a source; None for any other."""
    if format not in ("csv", "xlsx", "arrow", "jsonl"):
        return None
    where = str(files[0].path)
    delimiter = delimiter_of(files[0], answers) if format == "csv" else ","
    sheet = sheet_of(files[0].utf8, files[0].path, answers) if format == "xlsx" else ""
    records = [one for file in files for one in records_of(format, file.utf8, delimiter, sheet)]
    columns = guess.columns_of(records[:LOOKED_AT])
    if format in ("csv", "xlsx"):
        check_header(columns, where)
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


def _decoded(path: Path, beside: Path, answers: Answers) -> TextFile:
    """A file as UTF-8; raises ``UserError`` where its encoding does not show."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None
    if kind := unread(path):
        raise DataError(f"{path}: is {kind}; no data set is read from it.")
    is_table = data[:4] == b"PAR1" or data[:6] == b"ARROW1" or data[:2] == b"PK"
    if is_table or path.suffix == ".arrow" or data[:4] == b"\xff\xff\xff\xff":
        return TextFile(path=path, utf8=path)
    encoding = answers.said("encoding") or _encoding(data, path, answers)
    if encoding in ("utf-8", "utf-8-sig"):
        return TextFile(path=path, utf8=path)
    try:
        text = decode_bytes(data, encoding).removeprefix("\ufeff")
        if encoding in FONTS:
            text, _ = by_font(text, "tcvn3" if encoding == "tcvn3" else "vni")
    except (Unreadable, LookupError):
        raise UserError(f"{path}: cannot be read as {encoding}; give another encoding.") from None
    beside.mkdir(exist_ok=True)
    copy = beside / path.name
    copy.write_bytes(text.encode("utf-8"))
    return TextFile(path=path, utf8=copy, encoding=encoding)


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


def _format(files: list[TextFile], answers: Answers) -> tuple[str, list[TextFile]]:
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


def _form(file: TextFile) -> str:
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


def _parts(files: Sequence[TextFile]) -> dict[str, list[TextFile]]:
    """Which files are which part: by their names, or all together where these do not say."""
    named: dict[str, list[TextFile]] = {}
    for file in files:
        words = re.split(r"[^a-z]+", f"{file.path.parent.name}/{file.path.stem}".lower())
        part = next((PARTS[word] for word in reversed(words) if word in PARTS), "")
        named.setdefault(part, []).append(file)
    if "train" not in named or "" in named or len(named) < 2:
        return {"path": [*files]}
    if "test" not in named:
        return {"train": named["train"], "test": named["dev"]}
    return {part: named[part] for part in ("train", "dev", "test") if part in named}


def _why(part: str, parts: Mapping[str, Sequence[TextFile]]) -> str:
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


def _paths(files: Sequence[TextFile], folder: Path) -> str | list[str]:
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


def _copy(file: TextFile) -> str:
    return f"data/{file.path.resolve().parent.name or 'files'}/{file.path.name}"


def _text(path: Path) -> str:
    with path.open(encoding="utf-8", newline="") as file:
        return file.read()


def _tried(
    parts: Mapping[str, Sequence[TextFile]], settings: Sequence[Setting], answers: Answers
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


def _read(parts: Mapping[str, Sequence[TextFile]], settings: Mapping[str, Setting]) -> Corpus:
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
