"""Files as a source of identified notes: which columns are what, whom they identify, and the
section ``extract`` of a recipe that takes them. Only names of columns and counts are told, never a
value."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from residency.core.errors import DataError, UserError
from residency.core.part import parse
from residency.corpus.known_forms import detect
from residency.ingest.file_source import READERS, find_files, reader_of
from residency.ingest.sources import AnyFiles, Extract, Kind
from residency.workflows import columns as guess
from residency.workflows.columns import NONE, Answers, Column, Setting

MESSAGES = ("hl7", "ccda", "claims", "fhir")
"""Kinds of sources whose files say themselves what is what."""
LANGUAGES = ("vi", "zh", "en")
NAMES: dict[Kind, str] = {
    "name": """name patient_name full_name fullname first_name last_name given_name family_name
        surname middle_name ten ho_ten hoten ho_va_ten ten_benh_nhan ten_bn hoten_bn ho_ten_bn
        ho_ten_benh_nhan 姓名 患者姓名 病人姓名 名字""",
    "relative": """relative relative_name next_of_kin guardian guardian_name mother_name father_name
        contact_name nguoi_nha nguoi_than ten_nguoi_nha nguoi_giam_ho ho_ten_cha ho_ten_me 联系人
        联系人姓名 家属 家属姓名 监护人""",
    "clinician": """doctor doctor_name physician clinician provider provider_name author attending
        nurse bac_si bacsi ten_bac_si bs_dieu_tri bac_si_dieu_tri nguoi_ghi 医生 医师 主治医师
        主管医师 经治医师 医生姓名 护士""",
    "record": """mrn medical_record_number record_number record_no chart_no so_benh_an ma_ba
        so_ho_so ma_bn ma_benh_nhan 病案号 病历号""",
    "admission": """admission_id hadm_id encounter_id encounter visit_id stay_id ma_lk ma_dieu_tri
        so_nhap_vien so_vao_vien 住院号 门诊号 就诊号 急诊号""",
    "national_id": """national_id ssn social_security_number cccd cmnd so_cccd so_cmnd can_cuoc
        so_can_cuoc identity_card id_card passport 身份证 身份证号 身份证号码 证件号 证件号码""",
    "insurance": """insurance insurance_number insurance_no insurance_id bhyt ma_bhyt so_bhyt
        so_the_bhyt ma_the_bhyt ma_the 医保号 医保卡号 社保号 社保卡号""",
    "phone": """phone phone_number telephone tel mobile mobile_phone cell sdt so_dien_thoai
        dien_thoai dtdd 电话 手机 手机号 联系电话 电话号码 手机号码""",
    "email": "email e_mail email_address mail thu_dien_tu 邮箱 电子邮件 电子邮箱",
    "address": "address addr street home_address dia_chi noi_o cho_o 地址 住址 家庭住址 现住址 "
        "家庭地址",
    "birth_date": "birth_date birthdate birthday dob date_of_birth ngay_sinh nam_sinh 出生日期 "
        "出生年月 生日",
    "account": "account account_number account_no bank_account so_tai_khoan 账号 银行卡号",
}  # fmt: skip
"""Kind of identifier -> what its columns are usually called."""
SHAPES: dict[Kind, re.Pattern[str]] = {
    "email": re.compile(r"[^@\s]+@[^@\s]+\.\w+"),
    "insurance": re.compile(r"[A-Z]{2}\s?\d(?:\s?\d){12}"),
    "national_id": re.compile(r"\d{17}[\dXx]|\d{3}-\d{2}-\d{4}|0\d{11}"),
    "phone": re.compile(r"(?:\+84|\+?86|0)[\s.-]?\d(?:[\s.-]?\d){8,9}|1[3-9]\d{9}"),
}
"""Kind of identifier -> how its values look, whatever their column is called."""
PERSONS = frozenset(
    ("relative", "national_id", "insurance", "phone", "email", "address", "birth_date")
)
"""Kinds of which one column shows that a table identifies people."""
BARE = "name ten 名字"
"""Names of columns that may be those of a document or a drug as well."""
ROLES: dict[str, str] = {
    "kind": """kind type note_type category document_type loai loai_phieu loai_benh_an 类型 文书类型
        文书名称 病历类型 记录类型""",
    "department": "department dept ward site khoa khoa_phong 科室 病区 科别",
    "version": "version version_no version_number phien_ban lan_sua 版本 版本号",
    "deleted": "deleted is_deleted iserror da_xoa huy 删除 是否删除 作废 是否作废",
    "line": "line line_no line_number so_dong 行号",
    "lang": guess.LANGUAGE,
}  # fmt: skip
"""Column of a note (``extract.columns``) -> what it is usually called."""
WRITTEN = """written_at note_date note_time note_datetime charttime chartdate date datetime time
    created created_at ngay ngay_ghi ngay_gio ngay_kham ngay_tao thoi_gian ngay_vao_vien 日期 时间
    记录时间 记录日期 书写时间 创建时间 就诊日期"""


def kind_of(paths: Sequence[Path], answers: Answers) -> str:
    """The kind of messages and documents that files are; the empty string for tables and data sets.
    Asks where a FHIR record may be read for its notes, or be asked about."""
    forms = [detect(path) for path in paths]
    kinds = {form.kind if form else "" for form in forms}
    kind = kinds.pop() if len(kinds) == 1 else ""
    if kind not in MESSAGES or not any(form and form.format for form in forms):
        return kind if kind in MESSAGES else ""
    told = (
        f"{paths[0]}: are the notes in its FHIR resources to be taken and de-identified "
        "(notes), or "
    )
    told += "questions to be made on its records (records)"
    return "" if answers.asked("fhir", told, ("notes", "records")) == "records" else kind


def table(
    kind: str, columns: Mapping[str, Column], known: Mapping[str, str], answers: Answers, where: str
) -> list[Setting]:
    """The settings of a table of identified notes; none where nothing in it identifies people.
    ``known``: its columns where its form is a known one. Raises ``UserError`` where something is
    left open that nobody is there to be asked."""
    found = _identifiers(columns)
    said = answers.said("identified", ("yes", "no"))
    if said == "no" or not (said or PERSONS & found.keys() or "name" in found):
        return []
    sure = PERSONS & found.keys() or any(
        not columns[one].called(BARE) for one in found.get("name", ())
    )
    labels = [one for one in columns.values() if one.called(guess.FIRST)]
    marked = [one for one in columns.values() if one.is_entities]
    if not said and (labels or marked or not sure):
        told = (
            f"{where}: has columns of {', '.join(sorted(found))}; do its notes identify people "
            "and go through "
        )
        told += (
            "de-identification first (identified=yes), which leaves labels of whole notes behind"
        )
        if answers.asked("identified", told, ("yes", "no")) == "no":
            return []
    rest = {n: c for n, c in columns.items() if n not in _taken(found)}
    text = known.get("text") or guess.text_column(rest, answers, where).name
    roles = {**_roles(rest, text, known, answers, where), **known, "text": text}
    roles["patient"] = known.get("patient") or _patient(columns, text, answers, where)
    roles["id"] = known.get("id") or _id(rest, roles, answers, where)
    dates = "as the columns are called" if roles.get("written_at") else "no column says when"
    settings = [
        Setting(key="columns", value=roles, why=f"{dates}; the patient is in the vault alone")
    ]
    if found:
        why = "looked for in every note, in every form"
        named = {key: names[0] if len(names) == 1 else names for key, names in found.items()}
        settings.append(Setting(key="identifiers", value=named, why=why))
    if kind == "jsonl" and any(one.name in ("spans", "entities") for one in marked):
        settings.append(Setting(key="labels", value="yes"))
    return settings


def _identifiers(columns: Mapping[str, Column]) -> dict[str, list[str]]:
    """Kind -> columns that hold identifiers, by their names, or by what their values look like."""
    found: dict[str, list[str]] = {}
    for column in columns.values():
        kind = next((kind for kind, names in NAMES.items() if column.called(names)), "")
        if kind == "name" and column.is_text:
            kind = ""  # a text under such a name is none of a person
        keys = column.keys
        for shape, pattern in SHAPES.items():
            fits = sum(bool(pattern.fullmatch(one.strip())) for one in keys)
            kind = kind or (shape if keys and fits >= 0.9 * len(keys) else "")
        if kind and column.values and not column.is_entities:
            found.setdefault(kind, []).append(column.name)
    return found


def _taken(found: Mapping[str, Sequence[str]]) -> set[str]:
    return {
        name
        for kind, names in found.items()
        if kind not in ("record", "admission")
        for name in names
    }


def _roles(
    rest: Mapping[str, Column], text: str, known: Mapping[str, str], answers: Answers, where: str
) -> dict[str, str]:
    """What else a note has, and when it was written, asked where several columns hold times."""
    others = [one for name, one in rest.items() if name != text]
    found = {
        role: next((one.name for one in others if one.called(names) and not one.is_entities), "")
        for role, names in ROLES.items()
    }
    dates = [one for one in others if one.is_date or _is_time(one)]
    usual = [one for one in dates if one.called(WRITTEN)]
    if len(dates) > 1 and len(usual) != 1 and "written_at" not in known:
        told = f"{where}: several columns hold times; which says when the note was written"
        said = answers.asked("written_at", told, [*(one.name for one in dates), NONE])
        usual = [one for one in dates if one.name == said]
    else:
        usual = usual or dates
    found["written_at"] = usual[0].name if usual else ""
    return {role: name for role, name in found.items() if name}


def _is_time(column: Column) -> bool:
    """Whether values are times, as databases and workbooks have them."""
    return bool(column.values) and all(hasattr(one, "isoformat") for one in column.values)


def _patient(columns: Mapping[str, Column], text: str, answers: Answers, where: str) -> str:
    """The column of the patient, which a source must have."""
    rest = {name: one for name, one in columns.items() if name != text}
    found = [one for one in rest.values() if one.called(guess.PATIENT) and one.keys]
    if found and not answers.said("patient", [*rest]):
        numbered = {tuple(guess.numbered(one.all)) for one in found}
        if len(found) == 1 or len(numbered) == 1:
            return found[0].name
    told = f"{where}: which column tells patients apart (their number at the hospital)"
    return answers.asked("patient", told, [one.name for one in found] or [*rest])


def _id(rest: Mapping[str, Column], roles: Mapping[str, str], answers: Answers, where: str) -> str:
    """The column of a note's own number."""
    taken = {roles["text"], roles["patient"], roles.get("written_at", "")}
    left = {n: c for n, c in rest.items() if n not in taken and not (c.is_date or _is_time(c))}
    if roles.get("line") or roles.get("version"):  # a number that stands in several rows
        found = [one for one in left.values() if one.called(guess.ID) and one.keys]
        if len(found) == 1:
            return found[0].name
    if not answers.said("id", [*rest]) and (usual := guess.id_column(left, set(roles.values()))):
        return usual
    told = f"{where}: which column holds the number of the note itself, another for each note"
    unique = [n for n, c in left.items() if c.keys and c.distinct == len(c.all)]
    return answers.asked("id", told, unique or [*left])


def tried(
    kind: str, settings: Sequence[Setting], paths: Sequence[Path], folder: Path, answers: Answers
) -> tuple[list[Setting], str]:
    """The whole section, read on all files as extraction reads them, and what came of it.

    Raises ``DataError`` where no note comes of it, or one number is of several notes."""
    value: dict[str, Any] = {one.key: one.value for one in settings if one.key != "labels"}
    where, place = str(paths[0]), _path(kind, paths, folder)
    root = folder.resolve()
    whole = os.path.normpath(root / place)  # the folder is not there yet
    source: AnyFiles = parse(Extract, {"kind": kind, "path": whole, **value}, "extract")
    if len(found := find_files(source, root)) != len(paths):
        raise UserError(
            f"--data: {len(paths)} files are given and {place} has {len(found)} that are read as "
            f"{kind}; put those that belong together into one folder."
        )
    read, seen = reader_of(source, found, root), Counter[str]()
    texts, patients, reasons = list[str](), set[str](), Counter[str]()
    langs, versions = Counter[str](), bool(value.get("columns", {}).get("version"))
    for number, path in enumerate(found, 1):
        name = os.path.relpath(path, root)
        for one in read(source, path, name, f"file {number} of {len(found)}"):
            reasons.update({one.skipped: one.rows} if one.skipped else {})
            if one.note:
                seen[one.note.id] += not (one.version or versions)
                patients.add(one.note.patient)
                langs[one.note.lang] += 1
                texts += [one.note.text] if len(texts) < 500 else []
    if not seen:
        told = next(iter(reasons), "they hold nothing")
        raise DataError(f"{where}: no note comes of these files as {kind} ({told}).")
    if max(seen.values()) > 1 and kind not in MESSAGES:
        raise UserError(
            f"{where}: one number is of several notes; name the column that holds another for each "
            "with --answer id=..., or a column version or line."
        )
    head = [Setting(key="kind", value=kind, why="a source of identified notes")]
    head.append(Setting(key="path", value=place))
    lang = value.get("lang", "") or (guess.language_of(texts, answers, where))
    if lang not in LANGUAGES:
        raise UserError(
            f"{where}: de-identification knows {', '.join(LANGUAGES)}; {lang} it does not."
        )
    why = f"{len(seen)} notes of {len(patients)} patients"
    why += "".join(f"; {count} not taken: {said}" for said, count in reasons.most_common(3))
    return [*head, *settings, Setting(key="lang", value=lang, why="by its letters and words")], why


def _path(kind: str, paths: Sequence[Path], folder: Path) -> str:
    """The files as one path of a source: a file, a folder, or those of a folder with one ending."""
    parents = {path.resolve().parent for path in paths}
    if len(paths) == 1:
        return os.path.relpath(paths[0].resolve(), folder.resolve())
    root = Path(os.path.commonpath([*parents]))
    place = os.path.relpath(root, folder.resolve())
    suffixes = {path.suffix.lower() for path in paths}
    if suffixes <= {*READERS[kind][0]}:
        return place
    return f"{place}/*{suffixes.pop()}" if len(parents) == len(suffixes) == 1 else place
