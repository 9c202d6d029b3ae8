"""Chinese shared documents (WS/T 500): sections by their codes, values with the names of their
elements, patients by numbers that are theirs and not a visit's; no character of them is lost."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from datetime import datetime
from random import Random
from xml.sax.saxutils import escape, quoteattr

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from residency.ingest.ccda import document
from residency.ingest.decode import STRUCK
from residency.ingest.documents import EMBEDDED
from residency.ingest.rows import RowOutcome
from residency.ingest.shared_documents import SAME, SECTIONS, WHO
from residency.ingest.sources import Ccda

SETTINGS = Ccda(kind="ccda", path="x", lang="zh")
STANDARD = "2.16.156.10011"
PATIENT = f"""
<recordTarget><patientRole><id root="{STANDARD}.1.12" extension="ZY0042"/>
<id root="{STANDARD}.1.13" extension="BA7781"/><id root="{STANDARD}.1.19" extension="JK555666"/>
<addr use="H"><houseNumber>8号</houseNumber><streetName>解放路</streetName><township>城关镇</township>
<county>桃源县</county><city>常德市</city><state>湖南省</state></addr><telecom value="13800138000"/>
<patient><id root="{STANDARD}.1.3" extension="430725195002140013"/><name>王小芳</name>
<birthTime value="19500214"/></patient></patientRole></recordTarget>
<author><assignedAuthor><assignedPerson><name>李明华</name></assignedPerson></assignedAuthor></author>
<componentOf><encompassingEncounter><location><healthCareFacility><serviceProviderOrganization>
<asOrganizationPartOf><wholeOrganization><id root="{STANDARD}.1.21"/><name>三病房</name>
<asOrganizationPartOf><wholeOrganization><id root="{STANDARD}.1.26" extension="0301"/><name>呼吸内科</name>
</wholeOrganization></asOrganizationPartOf></wholeOrganization></asOrganizationPartOf>
</serviceProviderOrganization></healthCareFacility></location></encompassingEncounter></componentOf>
"""


def shared(*sections: str, header: str = PATIENT) -> bytes:
    body = "".join(f"<component>{one}</component>" for one in sections)
    return (
        '<ClinicalDocument xmlns="urn:hl7-org:v3" xmlns:xsi="http://www.w3.org/2001/'
        f'XMLSchema-instance"><realmCode code="CN"/><templateId root="{STANDARD}.2.1.1.54"/>'
        f'<code code="C0034" codeSystem="{STANDARD}.2.4"/><title>入院记录</title>'
        '<effectiveTime value="20260501093000"/><languageCode code="zh-CN"/>'
        f"{header}<component><structuredBody>{body}</structuredBody></component></ClinicalDocument>"
    ).encode()


def section(code: str, *entries: str, display: str = "", text: str = "") -> str:
    inside = "".join(f"<entry>{one}</entry>" for one in entries)
    coded = f'<code code="{code}" displayName={quoteattr(display)}/>'
    return f"<section>{coded}<text>{text}</text>{inside}</section>"


def element(name: str, value: str, inside: str = "") -> str:
    coded = f'<code codeSystem="{STANDARD}.2.2.1" displayName={quoteattr(name)}/>'
    return f'<observation classCode="OBS">{coded}{value}{inside}</observation>'


def text(words: str) -> str:
    return f'<value xsi:type="ST">{escape(words)}</value>'


def read(*sections: str) -> RowOutcome:
    return document(SETTINGS, shared(*sections), "a.xml")


def test_sections_have_their_chinese_names_and_values_the_names_of_their_elements() -> None:
    pressure = (
        '<organizer><code displayName="血压"/><component>'
        + element("收缩压", '<value xsi:type="PQ" value="180" unit="mmHg"/>')
        + "</component><component>"
        + element("舒张压", '<value xsi:type="PQ" value="100" unit="mmHg"/>')
        + "</component></organizer>"
    )
    illness = element("疾病史(含外伤)", text("高血压10年。\n糖尿病5年。"))
    found = read(
        section("10154-3", element("主诉", text("发热伴咳嗽3天")), display="CHIEF COMPLAINT"),
        section(
            "11348-0",
            element("一般健康状况标志", '<value xsi:type="BL" value="false"/>',
                    f"<entryRelationship>{illness}</entryRelationship>"),
        ),
        section("8716-3", pressure),
        section(
            "46241-6",
            element("入院诊断编码", '<value xsi:type="CD" code="J18.900" displayName="肺炎"/>'),
            element("入院日期时间", '<value xsi:type="TS" value="202605010930"/>'),
        ),
        section("99999-9", element("生活方式", text("不吸烟")), display="生活方式章节"),
        section("10164-2"),
    )  # fmt: skip
    assert found.note and found.note.text == (
        "主诉\n发热伴咳嗽3天\n既往史\n一般健康状况标志：否\n疾病史(含外伤)：高血压10年。\n糖尿病5年。\n"
        "生命体征\n血压\n收缩压：180 mmHg\n舒张压：100 mmHg\n入院诊断\n入院诊断编码：肺炎\n"
        "生活方式章节\n生活方式：不吸烟"
    ).replace("血压\n收缩压", "收缩压")
    assert (found.note.kind, found.note.department, found.note.lang, found.note.written_at) == (
        "入院记录",
        "呼吸内科",
        "zh",
        datetime(2026, 5, 1, 9, 30),
    )


def test_whoever_a_document_names_is_known_and_the_patient_is_no_number_of_a_visit() -> None:
    found = read(section("10154-3", element("主诉", text("咳嗽"))))
    assert found.note and found.note.patient == "BA7781"
    assert set(found.note.identifiers) == {
        ("admission", "ZY0042"),
        ("record", "BA7781"),
        ("insurance", "JK555666"),
        ("national_id", "430725195002140013"),
        ("name", "王小芳"),
        ("birth_date", "1950-02-14"),
        ("address", "湖南省常德市桃源县城关镇解放路8号"),
        ("phone", "13800138000"),
        ("clinician", "李明华"),
    }


@pytest.mark.parametrize(
    ("ids", "patient"),
    [
        ((("1.12", "ZY1"), ("9.9.1", "MPI1")), "MPI1"),
        ((("1.12", "ZY1"), ("1.19", "JK1")), "430725195002140013"),
        ((("1.2", "DA1"),), "DA1"),
    ],
)
def test_the_patient_is_the_index_of_the_hospital_else_the_identity_card(
    ids: tuple[tuple[str, str], ...], patient: str
) -> None:
    roots = "".join(f'<id root="{STANDARD}.{root}" extension="{value}"/>' for root, value in ids)
    header = (
        f"<recordTarget><patientRole>{roots}<patient><id root="
        f'"{STANDARD}.1.3" extension="430725195002140013"/></patient></patientRole></recordTarget>'
    )
    made = shared(section("10154-3", element("主诉", text("咳嗽"))), header=header)
    note = document(SETTINGS, made, "a").note
    assert note and note.patient == patient


def test_what_the_narrative_holds_is_not_said_twice() -> None:
    found = read(
        section(
            "10164-2",
            element("现病史", text("患者3天前受凉后发热")),
            element("症状", text("咳黄痰，量中等")),
            element("标志", text("否")),
            text="<paragraph>患者3天前受凉后发热，<content revised='delete'>否认</content>咳嗽</paragraph>",
        )
    )
    assert found.note and found.note.text == (
        "现病史\n患者3天前受凉后发热，咳嗽\n症状：咳黄痰，量中等\n标志：否"
    )
    assert found.remarks == {SAME: len("患者3天前受凉后发热"), STRUCK: 2}


def test_people_in_entries_are_counted_and_known() -> None:
    performer = "<performer><assignedEntity><assignedPerson><name>赵护士</name></assignedPerson></assignedEntity></performer>"
    found = read(section("8648-8", element("诊疗过程描述", text("抗感染治疗"), performer)))
    assert found.note and found.note.text == "住院过程\n诊疗过程描述：抗感染治疗"
    assert ("clinician", "赵护士") in found.note.identifiers and found.remarks == {WHO: 3}


def test_names_of_procedures_and_drugs_are_words() -> None:
    procedure = (
        f'<procedure><code codeSystem="{STANDARD}.2.3.3.12" displayName="阑尾切除术"/></procedure>'
    )
    drug = "<substanceAdministration><consumable><manufacturedProduct><manufacturedLabeledDrug><name>头孢呋辛</name></manufacturedLabeledDrug></manufacturedProduct></consumable></substanceAdministration>"
    found = read(section("47519-4", procedure, drug))
    assert found.note and found.note.text == "手术操作\n阑尾切除术\n头孢呋辛"


def test_an_embedded_picture_or_text_is_no_run_of_letters() -> None:
    def embedded(data: bytes, media: str) -> str:
        return f'<value xsi:type="ED" mediaType="{media}" representation="B64">{b64encode(data).decode()}</value>'

    found = read(
        section(
            "30954-2",
            element("影像", embedded(b"\x89PNG\r\n", "image/png")),
            element("报告", embedded("双肺纹理增多".encode(), "text/plain")),
        )
    )
    assert found.note and found.note.text == "辅助检查\n报告：双肺纹理增多"
    assert found.remarks == {f"{EMBEDDED}: PNG": 1}


def test_entries_of_a_document_of_another_standard_stay_out() -> None:
    data = shared(section("10154-3", element("主诉", text("咳嗽")), text="cough"))
    other = data.replace(STANDARD.encode(), b"2.16.840.1.113883.10")
    note = document(SETTINGS, other, "a").note
    assert note and note.text == "cough"


# Nothing is lost

many = settings(suppress_health_check=list(HealthCheck))
SEEDS = st.integers(0, 2**64).map(Random)
"""What examples are made with: drawing each piece by a strategy takes ten times as long."""


def words_of(chance: Random) -> str:
    return "".join(chance.choices("患者发热咳嗽ab 5-+\n。，：;😀&>", k=chance.randrange(10)))


def entry(chance: Random, depth: int = 2) -> str:
    words = escape(words_of(chance))
    kind = chance.choice(["value", "text", "name", "person", "act"])
    if kind == "person":
        return f"<performer><assignedPerson><name>{words}</name></assignedPerson></performer>"
    if kind == "name":
        return f"<drug><name>{words}</name></drug>"
    inner = "".join(entry(chance, depth - 1) for _ in range(chance.randrange(3) if depth else 0))
    if kind == "act":
        return f"<act>{words}{inner}stray</act>"
    said = text(words_of(chance)) if kind == "value" else f"<text>{words}</text>"
    return element(chance.choice(["现病史", "症状"]), said, f"<x>{inner}</x>")


def sections(chance: Random) -> list[str]:
    codes = [*sorted(SECTIONS), "1-1"]
    return [
        section(
            chance.choice(codes),
            *(entry(chance) for _ in range(chance.randrange(4))),
            text=escape(words_of(chance)),
        )
        for _ in range(chance.randrange(4))
    ]


@many
@given(SEEDS.map(sections))
def test_no_character_of_a_shared_document_is_lost(made: list[str]) -> None:
    root = etree.fromstring(shared(*made))
    every = "".join("".join(one.itertext()) for one in root.iter("{*}section"))
    found = read(*made)
    out = found.note.text if found.note else ""
    lines = [line for line in out.split("\n") if line not in SECTIONS.values()]
    for label in ("现病史：", "症状："):
        lines = [line.removeprefix(label) for line in lines]
    out = "".join("".join(lines).split())
    assert len(out) + sum(found.remarks.values()) == len("".join(every.split()))
    assert not Counter(out) - Counter(every)
