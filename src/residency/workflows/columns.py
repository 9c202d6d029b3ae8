"""What the columns of records are, by their names and what stands in them; where two could be meant
it is asked, never chosen."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

import msgspec

from residency.core.errors import UserError, allowed
from residency.core.files import NO_JSON
from residency.core.types import Value
from residency.core.units import HAN
from residency.corpus.entities import ALIASES, looks_like_entities
from residency.corpus.json_records import Record
from residency.corpus.reader import showable
from residency.locale.tokenise import detect

NONE = "none"
"""The answer that there is no such column."""
TEXT = """text content note notes note_text body report narrative document sentence sentences
    abstract full_text noi_dung van_ban ghi_chu benh_an mo_ta dien_bien noidung vanban 文本 内容
    正文 病历 句子 原文 病历内容 病历文本"""
LABELS = """label labels class classes category categories target tag tags y nhan phan_loai loai lop
    department khoa chuyen_khoa diagnosis chan_doan icd icd10 icd_10 icd_code ma_icd code codes
    outcome 标签 类别 分类 科室 诊断 疾病"""
FIRST = """label labels class classes category target y nhan phan_loai 标签 类别 分类"""
PATIENT = """patient patient_id patientid pat_id patid patient_no patient_number patient_code
    subject subject_id person person_id pid mrn medical_record_number group group_id ma_bn mabn
    ma_benh_nhan benh_nhan benhnhan so_benh_an ma_ba patient_pseudonym pseudonym 患者 患者编号
    患者id 病人 病人id 病人编号 病案号 住院号 就诊号"""
DOCUMENT = (
    "doc doc_id docid document_id pmid source_id article_id report_id file file_name filename 文档"
)
ID = """id note_id noteid row_id rowid record_id uid uuid key ma so_phieu ma_phieu note_no 编号 序号
    记录号 报告编号 sample_id"""
NUMBERS = """age tuoi 年龄 length_of_stay los score bmi weight height so_ngay_dieu_tri can_nang
    chieu_cao 体重 身高 住院天数"""
"""Columns of measures, which repeat as numbers of patients do."""
DATE = re.compile(
    r"(?:\d{4}[-/.年]\d{1,2}[-/.月]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4})(?:\D.*)?", re.S
)
QUESTION = """question query ask prompt instruction input user cau_hoi hoi 问题 提问 问
    question_text patient_question"""
ANSWER = """answer response output reply completion assistant long_answer tra_loi cau_tra_loi dap_an
    回答 答案 答 回复 answer_text doctor_answer"""
LANGUAGE = "lang language ngon_ngu 语言"
ENGLISH = """the of and in with to was is for no on a an patient or by as are were not at from
    has had he she this that left right pain without after days day normal history mg denies
    which be his her"""
BARE_VIETNAMESE = """benh nhan khong dau sot va ngay bi cho vien tien su chan doan dieu tri
    kham thuoc duoc nguoi"""
OTHERS = """der die und mit das nicht ist le la les des et une du est el los las con y para por
    il di che per una het een van met en dan yang dengan untuk pasien z nie na"""
VIETNAMESE = re.compile("[ăđơưạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹ]", re.IGNORECASE)
HAN_SIGN = re.compile(f"[{HAN}]")
LONG = 15
"""Characters, Han counted twice, from which values on average are texts rather than names."""

Ask = Callable[["Question"], str]


class Setting(Value, frozen=True):
    """A key of a data set or a source, its value, and why."""

    key: str
    value: Any
    why: str = ""


class Question(Value, frozen=True):
    """What the files do not say."""

    key: str
    words: str
    choices: tuple[str, ...] = ()


class Answers:
    """What the user has said (``--answer KEY=VALUE``), or says when asked."""

    def __init__(self, given: Mapping[str, str], ask: Ask | None = None) -> None:
        self._given = dict(given)
        self._ask = ask
        self._used: set[str] = set()

    def said(self, key: str, choices: Sequence[str] = ()) -> str:
        """What was said beforehand; the empty string where nothing was. Raises ``UserError`` for an
        answer that is none of the choices."""
        self._used.add(key)
        value = self._given.get(key, "")
        if value and choices and value not in choices:
            told = allowed(showable(choices), value)
            raise UserError(f"--answer {key}: {value!r} is not possible; {told}.")
        return value

    def asked(self, key: str, words: str, choices: Sequence[str] = ()) -> str:
        """The answer to a question; raises ``UserError`` that holds the question and the option
        that answers it where nobody is there to ask."""
        if value := self.said(key, choices):
            return value
        question = Question(key=key, words=words, choices=tuple(choices))
        if self._ask is None:
            shown = showable(choices)[:20]
            hidden = ["a name as the file has it (not shown: it may be a person's)"]
            told = ", ".join(shown + (hidden if len(shown) < min(20, len(choices)) else []))
            told = f", one of: {told}" if told else ""
            raise UserError(f"{words}? Say it with --answer {key}=...{told}.")
        self._given[key] = self._ask(question)
        return self.said(key, choices)

    def check_used(self) -> None:
        """Raise ``UserError`` for an answer to what these files do not ask."""
        if unused := sorted(self._given.keys() - self._used):
            raise UserError(
                f"--answer {unused[0]}: is nothing that these files leave open; "
                f"{allowed(sorted(self._used), unused[0])}."
            )


def plain(name: str) -> str:
    """A name without case, marks and signs: ``Mã BN`` is ``ma_bn``."""
    found = unicodedata.normalize("NFD", name.strip().casefold().replace("đ", "d"))
    found = "".join(sign for sign in found if not unicodedata.combining(sign))
    return re.sub(r"\W+", "_", found).strip("_")


def shape(value: str) -> str:
    """What signs a code is made of: ``BN-102`` is ``a-9``."""
    return re.sub(r"[^\W\d_]+", "a", re.sub(r"\d+", "9", value.strip()))


@cache
def _words(text: str) -> frozenset[str]:
    return frozenset(plain(one).replace("_", "") for one in text.split())


class Column:
    """A column: its name and what stands in it."""

    def __init__(self, name: str, values: Sequence[Any]) -> None:
        self.name, self.plain = name, plain(name)
        self.all = values
        self.values = [one for one in values if one not in (None, "", [])]

    def called(self, names: str) -> bool:
        """Whether its name is one of those that are usual."""
        return self.plain.replace("_", "") in _words(names)  # SubjectID is subject_id

    @cached_property
    def texts(self) -> list[str]:
        """Its values, where all of them are strings."""
        good = all(isinstance(one, str) for one in self.values)
        return [one.strip() for one in self.values] if good else []

    @cached_property
    def keys(self) -> list[str]:
        """Its values as identifiers; none where they are lists or mappings."""
        return [str(one) for one in self.values if isinstance(one, str | int)]

    @cached_property
    def weight(self) -> float:
        """Mean length of a text; Han characters, which say more, count twice."""
        count = len(self.texts) or 1
        return sum(len(one) + len(HAN_SIGN.findall(one)) for one in self.texts) / count

    @property
    def distinct(self) -> int:
        """How many different values."""
        return len(set(self.keys))

    @property
    def is_date(self) -> bool:
        """Whether its values are dates."""
        dates = sum(bool(DATE.fullmatch(one)) for one in self.texts)
        return bool(self.texts) and dates >= 0.9 * len(self.texts)

    @property
    def is_text(self) -> bool:
        """Whether its values are texts."""
        different = len(set(self.texts)) * 2 > len(self.texts)
        return bool(self.texts) and self.weight >= LONG and different and not self.is_date

    @property
    def is_entities(self) -> bool:
        """Whether its values are lists of spans, or JSON of such."""
        return any(looks_like_entities(_decoded(one)) for one in self.values)


def _decoded(value: object) -> object:
    if isinstance(value, str) and value[:1] == "[":
        try:
            found: object = msgspec.json.decode(value)
        except NO_JSON:
            return value
        return found
    return value


def listed(value: object) -> list[Any]:
    """A list, or the list that a text holds as JSON; an empty one for anything else."""
    found = _decoded(value)
    return found if isinstance(found, list) else []


def columns_of(records: Sequence[Record]) -> dict[str, Column]:
    """The columns of records, by name, in the order in which they are met."""
    names = dict.fromkeys(name for record in records for name in record)
    return {name: Column(name, [record.get(name) for record in records]) for name in names}


def named(answers: Answers, key: str, columns: Mapping[str, Column]) -> str | None:
    """The column that the user named; None where nobody did."""
    value = answers.said(key, (*columns, NONE))
    return None if not value else ("" if value == NONE else value)


def text_column(columns: Mapping[str, Column], answers: Answers, where: str) -> Column:
    """The column of the notes' texts. Raises ``UserError`` where there is none."""
    if name := named(answers, "text", columns):
        return columns[name]
    found = sorted((c for c in columns.values() if c.is_text), key=lambda one: -one.weight)
    found = [one for one in found if not one.is_entities]
    usual = [one for one in found if one.called(TEXT)]
    if not found:
        short = [c for c in columns.values() if c.called(TEXT) and c.texts]
        if len(short) == 1:
            return short[0]
        names = [c.name for c in columns.values() if c.texts]
        if not names:
            raise UserError(
                f"{where}: no field of its records holds texts; give a table with a row of names, "
                "JSON objects a line, or one list of them."
            )
        return columns[answers.asked("text", f"{where}: no column holds texts; which is it", names)]
    if len(usual) == 1 and usual[0].weight * 2 > found[0].weight:
        return usual[0]
    if all(one.weight * 4 < found[0].weight for one in found[1:]):
        return found[0]
    told = f"{where}: several columns hold texts; which holds the note"
    return columns[answers.asked("text", told, [one.name for one in found])]


def pair_columns(columns: Mapping[str, Column]) -> tuple[Column, Column] | None:
    """The columns of a question and of its answer in free words; None where there is no such pair,
    or more than one."""
    asked = [one for one in columns.values() if one.called(QUESTION) and one.texts]
    said = [one for one in columns.values() if one.called(ANSWER) and one.texts]
    if len(asked) != 1 or len(said) != 1 or not asked[0].is_text:
        return None
    free = len(set(said[0].texts)) * 2 > len(said[0].texts)
    return (asked[0], said[0]) if free else None


def patient_column(columns: Mapping[str, Column], answers: Answers, where: str) -> str:
    """The column of the patient, or else of the document; the empty string where there is none."""
    if (name := named(answers, "group", columns)) is not None:
        return name
    for names in (PATIENT, DOCUMENT):
        found = [one for one in columns.values() if one.called(names) and one.keys]
        found = [one for one in found if names == PATIENT or one.distinct < len(one.keys)]
        ways = {tuple(numbered(one.all)) for one in found}
        if len(ways) == 1:
            return found[0].name
        if found:
            told = f"{where}: several columns could be the patient; which is it"
            return _none_is_empty(answers.asked("group", told, [*(c.name for c in found), NONE]))
    unknown = [one for one in columns.values() if _repeats(one)]
    if not unknown:
        return ""
    told = f"{where}: column {unknown[0].name} repeats like a number of patients; is it the patient"
    if not showable([unknown[0].name]):
        told = f"{where}: a column repeats like a number of patients; which is the patient"
    return _none_is_empty(answers.asked("group", told, [*(one.name for one in unknown), NONE]))


def _none_is_empty(value: str) -> str:
    return "" if value == NONE else value


def numbered(values: Sequence[Any]) -> list[int]:
    """The values by the order in which they are met: equal for two columns that part rows alike."""
    seen: dict[str, int] = {}
    return [seen.setdefault(str(one), len(seen)) for one in values]


def _repeats(column: Column) -> bool:
    """Whether values are codes of which many stand twice, as numbers of patients do."""
    codes = [one for one in column.keys if re.fullmatch(r"[\w./-]*\d[\w./-]*", one)]
    known = any(map(column.called, (LABELS, ID, NUMBERS))) or column.is_date
    if known or len(codes) < len(column.all) or len(codes) < 10:
        return False
    rising = all(one <= other for one, other in pairwise(codes)) and len(codes[0]) < 3
    return 0.2 * len(codes) <= column.distinct < len(codes) and not rising


def id_column(columns: Mapping[str, Column], taken: set[str]) -> str:
    """The column whose values are the notes' own numbers; the empty string where there is none."""
    for column in columns.values():
        unique = len(column.keys) == len(column.all) == column.distinct
        if column.called(ID) and unique and column.name not in taken:
            return column.name
    return ""


def date_column(columns: Mapping[str, Column]) -> str:
    """The first column of dates; the empty string where there is none."""
    return next((one.name for one in columns.values() if one.is_date), "")


def entity_column(columns: Mapping[str, Column], answers: Answers, where: str) -> str:
    """The column of the entities; the empty string where there is none."""
    if (name := named(answers, "entities", columns)) is not None:
        return name
    texts = [one for one in columns.values() if one.is_text]
    found = [
        one.name
        for one in columns.values()
        if one.is_entities or any(proved_keys(text, one) for text in texts)
    ]
    if len(found) > 1:
        told = f"{where}: several columns hold entities; which are to be learned"
        return answers.asked("entities", told, found)
    return found[0] if found else ""


def proved_keys(text: Column, entities: Column) -> dict[str, str]:
    """What the keys of entities are called, where quotes that stand at their offsets prove it and
    the names are none that are known; nothing elsewhere."""
    items = [
        (whole, one)
        for whole, value in zip(text.all, entities.all, strict=True)
        for one in listed(value)
        if isinstance(whole, str) and isinstance(one, dict)
    ]
    pairs = Counter(
        (start, quote)
        for whole, one in items
        for start, value in one.items()
        for quote, words in one.items()
        if (place := _place(value)) is not None
        and isinstance(words, str)
        and words
        and whole[place : place + len(words)] == words
    )
    (start, quote), times = pairs.most_common(1)[0] if pairs else (("", ""), 0)
    if not times or times < 0.9 * len(items):
        return {}
    found = {"start": start, "quote": quote}
    for key in items[0][1]:
        ends = [
            _place(one.get(key)) == (_place(one.get(start)) or 0) + len(str(one.get(quote)))
            for _, one in items
        ]
        if key != start and sum(ends) >= 0.9 * len(items):
            found["end"] = key
    kinds = {
        key: {one.get(key) for _, one in items}
        for key, value in items[0][1].items()
        if isinstance(value, str) and key not in found.values()
    }
    usual = [key for key in kinds if key in ("label", *ALIASES["label"])]
    few = [key for key in kinds if len(kinds[key]) * 2 <= len(items)]
    if len(named_so := usual or few) != 1:
        return {}
    found["label"] = named_so[0]
    return {
        key: name
        for key, name in found.items()
        if name not in (key, *ALIASES[key]) and (key, name) != ("quote", "text")
    }


def _place(value: object) -> int | None:
    """An offset, which may be written as text."""
    if isinstance(value, str) and value.isdecimal() and len(value) < 10:
        return int(value)
    return value if type(value) is int else None


def label_columns(
    columns: Mapping[str, Column], answers: Answers, taken: set[str], where: str
) -> str:
    """The column of the labels of whole notes; the empty string where there is none. A name that
    says nothing is asked about."""
    if (name := named(answers, "labels", columns)) is not None:
        return name
    found = [one for one in columns.values() if one.name not in taken and _categories(one)]
    usual = [one for one in found if one.called(LABELS)]
    first = [one for one in usual if one.called(FIRST)]
    if len(first) == 1:
        return first[0].name
    if len(usual) == 1 and len(found) == 1:
        return usual[0].name
    if not found:
        return ""
    rest = [one for one in columns.values() if one.name not in taken and not one.is_date]
    if len(rest) == 1:  # beside the text there is nothing else
        return found[0].name
    told = f"{where}: which column holds the labels that are to be learned"
    return _none_is_empty(answers.asked("labels", told, [*(one.name for one in found), NONE]))


def _categories(column: Column) -> bool:
    """Whether values are few words that recur."""
    if column.is_date or column.is_entities or not column.values:
        return False
    if column.called(LANGUAGE) or column.called(NUMBERS):
        return False
    values = [label for one in column.values for label in _labels(one)]
    if not values or not all(0 < len(one) <= 80 for one in values):
        return False
    separator = separator_of(column)
    parts = [part.strip() for one in values for part in (one.split(separator or "\0"))]
    kinds = len(set(parts))
    recurs = kinds * 2 <= len(parts) or (column.called(LABELS) and kinds < len(parts))
    return kinds > 1 and recurs


def _labels(value: object) -> list[str]:
    many = value if isinstance(value, list) else [value]
    return [str(one) for one in many if isinstance(one, str | int) and not isinstance(one, bool)]


def separator_of(column: Column) -> str:
    """What parts several labels in a cell: a sign of which the parts recur more than the cells; the
    empty string where each cell is one label."""
    cells, best = set(column.texts), ""
    for sign in ("|", ";", "；", "、", ",", "，", "/"):
        if not any(sign in cell for cell in cells):
            continue
        parts = [part.strip() for cell in cells for part in cell.split(sign)]
        singles = {cell for cell in cells if sign not in cell}
        if all(parts) and (len(set(parts)) < len(cells) or singles & set(parts)):
            best = sign
            break
    return best


def language_of(texts: Sequence[str], answers: Answers, where: str) -> str:
    """The language of texts: by script and marks, and for Latin letters by words that only one
    language has. Asks where that tells nothing, and where texts are of several languages."""
    if lang := answers.said("lang"):
        return lang
    told = Counter(one for one in map(language, texts[:500]) if one)
    whole = language("\n".join(texts[:500]))
    sure = sum(told.values())
    if whole and told[whole] >= 0.9 * sure:
        return whole
    what = "are in several languages" if len(told) > 1 and whole else "do not show their language"
    question = f"{where}: the texts {what}; which is it (a tag such as vi, zh, en or fr)"
    return answers.asked("lang", question)


def language(text: str) -> str:
    """The language of a text; the empty string where it does not show."""
    if len(re.findall("[\u3040-\u30ff]", text)) * 20 > len(text):
        return "ja"
    if len(re.findall("[\uac00-\ud7af]", text)) * 5 > len(text):
        return "ko"
    composed = unicodedata.normalize("NFC", text)
    found = detect(composed)
    words = re.findall(r"[^\W\d_]+", composed.lower())
    if found == "zh" or not words:
        return found
    own = sum(bool(VIETNAMESE.search(word)) for word in words)
    if own >= max(1, 0.1 * len(words)):
        return "vi"
    shares = [
        sum(word in _words(known) for word in words) for known in (ENGLISH, BARE_VIETNAMESE, OTHERS)
    ]
    english, bare, others = shares
    clear = english >= max(1, 0.06 * len(words)) and english >= 2 * max(bare, others)
    letters = sum(word.isascii() for word in words) >= 0.97 * len(words)
    return "en" if clear and letters else ""
