"""Risk models: what a card lets through, what it converts and refuses, and how answers are worded."""

from __future__ import annotations

import bz2
import hashlib
import json
import lzma
import math
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from residency.cli import app
from residency.core.errors import DataError, UserError
from residency.knowledge.risk import RiskModel

onnx = pytest.importorskip("onnx")
WEIGHTS, BIAS = (0.5, 0.02, -0.4), -2.0
CARD: dict[str, Any] = {
    "schema": 1,
    "name": "two-years",
    "model": "liver.onnx",
    "inputs": {
        "bilirubin": {
            "kind": "number",
            "unit": "mg/dL",
            "range": [0.3, 28],
            "units": {"umol/L": 0.0584795},
        },
        "age": {"kind": "number", "unit": "years", "range": [26, 79]},
        "sex": {"kind": "category", "values": {"f": 0, "m": 1}},
    },
    "outcome": {"en": "death within two years", "vi": "tử vong trong hai năm", "zh": "两年内死亡"},
    "population": {"en": "312 invented patients"},
    "source": "invented for a test",
}


def write(folder: Path, model: bytes, card: dict[str, Any]) -> Path:
    (folder / "liver.onnx").write_bytes(model)
    path = folder / "liver.yaml"
    told = {"sha256": hashlib.sha256(model).hexdigest(), **card}
    path.write_text(yaml.safe_dump(told, allow_unicode=True, sort_keys=False), "utf-8")
    return path


def logistic(columns: int = 3) -> bytes:
    """A logistic regression, of nodes that the standard defines."""
    h, kind = onnx.helper, onnx.TensorProto
    weights = np.array(WEIGHTS[:columns])
    node = h.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "probabilities"],
        domain="ai.onnx.ml",
        coefficients=[*(-weights), *weights],
        intercepts=[-BIAS, BIAS],
        classlabels_ints=[0, 1],
        post_transform="NONE",
    )
    last = h.make_node("Sigmoid", ["probabilities"], ["p"])
    graph = h.make_graph(
        [node, last],
        "g",
        [h.make_tensor_value_info("x", kind.FLOAT, [None, columns])],
        [h.make_tensor_value_info("p", kind.FLOAT, [None, 2])],
    )
    opsets = [h.make_opsetid("", 17), h.make_opsetid("ai.onnx.ml", 3)]
    model: bytes = h.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()
    return model


@pytest.fixture
def card(tmp_path: Path) -> Path:
    return write(tmp_path, logistic(), CARD)


def by_hand(bilirubin: float, age: float, sex: float) -> float:
    logit = BIAS + WEIGHTS[0] * bilirubin + WEIGHTS[1] * age + WEIGHTS[2] * sex
    return 1 / (1 + math.exp(-logit))


def test_an_answer_is_the_models_and_a_unit_of_the_card_is_converted(card: Path) -> None:
    model = RiskModel(card)
    done = model.ask({"bilirubin": "2 mg/dL", "age": 50, "sex": "f"})
    assert done.risk == pytest.approx(by_hand(2, 50, 0), abs=1e-6)
    again = model.ask({"bilirubin": "34.2 µmol/L", "age": "50 years", "sex": "f"})
    assert again.values["bilirubin"] == pytest.approx(2.0, abs=1e-4)
    assert again.risk == pytest.approx(done.risk, abs=1e-4)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"bilirubin": "34 mg/dL"}, r"bilirubin: outside .*from 0.3 to 28 mg/dL"),
        ({"bilirubin": "600 umol/L"}, r"bilirubin: outside .*from 0.3 to 28 mg/dL"),
        ({"bilirubin": "17"}, r"bilirubin: say the unit; .*umol/L as well as mg/dL"),
        ({"bilirubin": "200"}, r"bilirubin: say the unit"),
        ({"bilirubin": "2 g/L"}, r"bilirubin: not a unit of the card .*mg/dL, umol/L"),
        ({"bilirubin": "1,2 mg/dL"}, r"bilirubin: not a number with a unit; .*1.5 not 1,5"),
        ({"bilirubin": "nan"}, r"bilirubin: not a number"),
        ({"bilirubin": True}, r"bilirubin: not a number"),
        ({"age": 12}, r"age: outside .*from 26 to 79 years"),
        ({"sex": "x"}, r"sex: not a word of the card; allowed: f, m"),
        ({"bili": "2 mg/dL"}, r"bili: no input of two-years; .*did you mean bilirubin"),
    ],
)
def test_what_the_card_does_not_allow_is_refused_in_one_sentence(
    card: Path, given: dict[str, object], says: str
) -> None:
    asked: dict[str, object] = {"bilirubin": "2 mg/dL", "age": 50, "sex": "f", **given}
    with pytest.raises(UserError, match=says) as told:
        RiskModel(card).ask(asked)
    assert "\n" not in str(told.value)


def test_a_number_that_fits_the_cards_own_unit_alone_needs_none(card: Path) -> None:
    assert RiskModel(card).value("bilirubin", "1.1") == 1.1


def test_a_unit_may_begin_with_a_power_of_ten(tmp_path: Path) -> None:
    inputs = {**CARD["inputs"], "age": {"kind": "number", "unit": "10^9/L", "range": [26, 79]}}
    model = RiskModel(write(tmp_path, logistic(), {**CARD, "inputs": inputs}))
    assert model.value("age", "50 10^9/L") == model.value("age", "50") == 50
    with pytest.raises(UserError, match="not a unit of the card"):
        model.value("age", "50^9/L")


def test_an_input_that_lacks_is_named(card: Path) -> None:
    with pytest.raises(UserError, match="needs age, sex too"):
        RiskModel(card).ask({"bilirubin": "2 mg/dL"})


@pytest.mark.parametrize(
    ("lang", "association", "banned"),
    [
        ("en", "association", ["if you", "lower", "reduce", "falls"]),
        ("vi", "mối liên quan", ["nếu", "giảm", "hạ "]),
        ("zh", "关联", ["如果", "降低", "减少"]),
    ],
)
def test_a_what_if_is_an_association_among_other_patients(
    card: Path, lang: Any, association: str, banned: list[str]
) -> None:
    asked = {"bilirubin": "8 mg/dL", "age": 50, "sex": "f"}
    done = RiskModel(card).ask(asked, lang, ("bilirubin", "17.1 umol/L"))
    assert done.what_if == pytest.approx(by_hand(1, 50, 0), abs=1e-4)
    assert association in done.text and "1 mg/dL" in done.text and "8 mg/dL" in done.text
    assert CARD["outcome"][lang] in done.text
    assert [word for word in banned if word in done.text.lower()] == []
    with pytest.raises(UserError, match="bilirubin: outside"):
        RiskModel(card).ask(asked, lang, ("bilirubin", "0.1 mg/dL"))


def test_a_pickle_is_refused_by_name_and_never_opened(tmp_path: Path) -> None:
    path = write(tmp_path, logistic(), {**CARD, "model": "liver.pkl"})
    with pytest.raises(UserError, match=r"liver\.pkl is a pickle, .*export the model to ONNX"):
        RiskModel(path)


def test_another_file_than_the_cards_is_refused(card: Path) -> None:
    (card.parent / "liver.onnx").write_bytes(logistic() + b"\0")
    with pytest.raises(UserError, match=r"sha256: liver\.onnx is another file"):
        RiskModel(card)


def test_a_file_that_is_no_model_or_has_other_columns_is_refused(tmp_path: Path) -> None:
    asked = {"bilirubin": "2 mg/dL", "age": 50, "sex": "f"}
    with pytest.raises(DataError, match="cannot be read as ONNX"):
        RiskModel(write(tmp_path, b"\x80\x04pickled", CARD)).ask(asked)
    with pytest.raises(DataError, match="the card has 3 inputs"):
        RiskModel(write(tmp_path, logistic(2), CARD)).ask(asked)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model": "../liver.onnx"}, "model"),
        ({"populaton": {}}, "populaton"),
        ({"outcome": {"vi": "tử vong"}}, "outcome: needs the words in en"),
        ({"inputs": {"age": {"kind": "number", "range": [9, 9]}}}, r"inputs\.age\.range"),
    ],
)
def test_a_card_with_a_fault_names_the_key(
    tmp_path: Path, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError, match=says):
        RiskModel(write(tmp_path, logistic(), {**CARD, **change}))


def test_a_chat_asks_by_a_tool_call(card: Path, tmp_path: Path) -> None:
    """What a server's chat returns as a call's arguments goes to the command as it is."""
    run = CliRunner()
    tool = json.loads(run.invoke(app, ["risk", "show", str(card), "--tool"]).output)
    schema = tool["function"]["parameters"]
    assert list(schema["properties"]) == ["bilirubin", "age", "sex"] == schema["required"]
    assert schema["properties"]["sex"]["enum"] == ["f", "m"]
    call = tmp_path / "call.json"
    call.write_text(json.dumps({"bilirubin": "34.2 umol/L", "age": "50", "sex": "f"}), "utf-8")
    done = run.invoke(app, ["risk", "ask", str(card), "--call", str(call), "--lang", "vi"])
    told = json.loads(done.output)
    assert told["risk"] == pytest.approx(by_hand(2, 50, 0), abs=1e-4)
    assert "tử vong trong hai năm" in told["text"]
    call.write_text("[1]", "utf-8")
    done = run.invoke(app, ["risk", "ask", str(card), "--call", str(call)])
    assert done.exit_code == 1 and "no JSON object" in str(done.exception)


def test_the_commands(card: Path) -> None:
    run = CliRunner()
    assert "umol/L" in run.invoke(app, ["risk", "show", str(card)]).output
    words = ["bilirubin=8 mg/dL", "age=50", "sex=f", "--what-if", "bilirubin=1 mg/dL"]
    said = run.invoke(app, ["risk", "ask", str(card), *words]).output
    assert f"{100 * by_hand(8, 50, 0):.1f} %" in said and "association" in said
    done = run.invoke(app, ["risk", "ask", str(card), "bilirubin"])
    assert done.exit_code == 1 and "an input and its value" in str(done.exception)


PBC = Path(os.environ.get("RESIDENCY_SURVIVAL", "/usr/lib/R/library/survival/data"))
"""The data of Debian's r-cran-survival."""


def _lzma(data: bytes) -> bytes:
    return lzma.decompress(data, lzma.FORMAT_RAW, filters=[{"id": lzma.FILTER_LZMA2, "preset": 6}])


def pbc() -> dict[str, np.ndarray[Any, Any]]:
    """The real table, read without R: a database of R's is an index of places and the pieces."""
    rdata = pytest.importorskip("rdata")
    if not (PBC / "Rdata.rdb").is_file():
        pytest.skip("wants r-cran-survival, or RESIDENCY_SURVIVAL with the folder of its data")
    read = rdata.conversion.convert
    parsed = rdata.parser.parse_data
    packed = (PBC / "Rdata.rdx").read_bytes()
    index = read(parsed(zlib.decompress(packed, 47), extension=".rds"))
    start, size = (int(one) for one in index["variables"]["pbc"])
    piece = (PBC / "Rdata.rdb").read_bytes()[start : start + size]
    raw = {b"Z": _lzma, b"2": bz2.decompress}.get(piece[4:5])  # after four bytes of length
    whole = raw(piece[5:]) if raw else zlib.decompress(piece[4:])
    table = read(parsed(whole, extension=".rds"))
    return {name: np.asarray(table[name]) for name in ("time", "status", "bili", "age", "sex")}


def test_on_a_real_table_onnx_says_what_scikit_learn_says(tmp_path: Path) -> None:
    skl2onnx = pytest.importorskip("skl2onnx")
    from sklearn.linear_model import LogisticRegression

    rows = pbc()
    dead = (rows["status"] == 2) & (rows["time"] <= 730)
    known = dead | (rows["time"] > 730)
    table = np.column_stack([rows["bili"], rows["age"], rows["sex"] == "m"]).astype(np.float32)
    table, dead = table[known], dead[known]
    fitted = LogisticRegression(max_iter=5000).fit(table, dead.astype(int))
    made = skl2onnx.to_onnx(fitted, table[:1], options={"zipmap": False}).SerializeToString()
    inputs = {**CARD["inputs"]}
    inputs["age"] = {**inputs["age"], "range": [26, 79]}
    model = RiskModel(write(tmp_path, made, {**CARD, "inputs": inputs}))
    wanted = fitted.predict_proba(table)[:, 1]
    names = list(inputs)
    found = [model.probability(dict(zip(names, map(float, row), strict=True))) for row in table]
    worst = float(np.abs(np.array(found) - wanted).max())
    print(f"pbc: {len(table)} patients, {int(dead.sum())} dead within two years; worst {worst:.1e}")
    assert len(rows["bili"]) == 418 and worst <= 1e-6
    with pytest.raises(UserError, match="say the unit"):
        model.ask({"bilirubin": "17", "age": 50, "sex": "f"})
    with pytest.raises(UserError, match="bilirubin: outside"):
        model.ask({"bilirubin": "34 mg/dL", "age": 50, "sex": "f"})
    asked = {"bilirubin": "18.81 umol/L", "age": 50, "sex": "f"}
    row = np.array([[18.81 / 17.1, 50, 0]], dtype=np.float32)
    assert model.ask(asked).risk == pytest.approx(fitted.predict_proba(row)[0, 1], abs=1e-5)
