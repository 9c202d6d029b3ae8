"""Risk models: an ONNX model beside a card that says what it may be asked.

The card names each input with its unit, the range it was trained in, and the population. What is
outside the card is refused; a what-if is worded as an association, never as an effect. Only ONNX is
read: a pickle runs code when it is opened.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import Field

from residency.core.errors import DataError, UserError, allowed
from residency.core.files import read_text, sha256
from residency.core.part import Part, parse
from residency.core.types import Value

Lang = Literal["vi", "zh", "en"]
Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,63}$")]
VALUE = re.compile(r"([+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d{1,2})?)\s*([^\d\s,.;].*|10\^.*)?")
PICKLES = (".pkl", ".pickle", ".joblib", ".sav", ".dill")

ANSWER: dict[Lang, str] = {
    "en": "Of patients like this one in the training data ({population}) the model puts the share "
    "with “{outcome}” at {risk}.",
    "vi": "Ở những bệnh nhân tương tự trong dữ liệu huấn luyện ({population}), mô hình ước tính "
    "tỷ lệ “{outcome}” là {risk}.",
    "zh": "在训练数据（{population}）中与该患者相似的患者里，模型估计“{outcome}”的比例为{risk}。",
}
WHAT_IF: dict[Lang, str] = {
    "en": "Of patients like this one but with {name} {other} instead of {value}: {risk}. This is "
    "an association in those data; it does not say what a change of {name} would bring about.",
    "vi": "Ở những bệnh nhân tương tự nhưng có {name} {other} thay vì {value}: {risk}. Đây là mối "
    "liên quan trong dữ liệu đó; không cho biết thay đổi {name} sẽ gây ra điều gì.",
    "zh": "相似但{name}为{other}（而非{value}）的患者：{risk}。这是该数据中的关联，不表示改变"
    "{name}会带来什么结果。",
}
WARNING: dict[Lang, str] = {
    "en": "An aid; the treating doctor decides.",
    "vi": "Chỉ để hỗ trợ; bác sĩ điều trị quyết định.",
    "zh": "仅供参考，由主治医师决定。",
}


class Quantity(Part):
    """A number with its unit."""

    kind: Literal["number"] = "number"
    unit: str = ""
    """That the model was trained in; empty for a count or a ratio."""
    range: tuple[float, float]
    """Smallest and largest value in the training data, in ``unit``."""
    units: dict[str, Annotated[float, Field(gt=0)]] = {}
    """Other units, and what a value in them is multiplied by to be in ``unit``."""


class Category(Part):
    """One of a few words."""

    kind: Literal["category"]
    values: Annotated[dict[str, float], Field(min_length=2)]
    """Each word, and the number that the model was trained with."""


class RiskCard(Part):
    """What a risk model may be asked, and what its answer means."""

    schema_: Literal[1] = Field(alias="schema")
    name: Name
    model: Annotated[str, Field(pattern=r"^[^/\\]+$")]
    """The ONNX file, in the card's folder."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """Of the ONNX file."""
    inputs: Annotated[
        dict[Name, Annotated[Quantity | Category, Field(discriminator="kind")]],
        Field(min_length=1),
    ]
    """In the order of the model's columns; of a binary classifier of scikit-learn's, exported with
    ``zipmap`` off."""
    outcome: dict[Lang, str]
    """What the probability is of, within which time."""
    population: dict[Lang, str]
    """Whose data the model was trained on."""
    source: str
    """Who made it, from which data, under which licence."""


class Risk(Value, frozen=True):
    """An answer: the probability, and the same with one input changed."""

    model: str
    risk: float
    text: str
    values: dict[str, float]
    """Of the inputs, in the card's units."""
    what_if: float | None = None


class RiskModel:
    """A card and its model, each checked as it is read.

    Raises ``UserError`` where the card, its hash or its model is at fault.
    """

    def __init__(self, path: Path) -> None:
        self.card = _read(path)
        self.path = path.parent / self.card.model
        if self.path.suffix.lower() in PICKLES:
            raise UserError(
                f"{path}: model: {self.card.model} is a pickle, which runs code when it is opened; "
                "export the model to ONNX (skl2onnx) and name the .onnx file."
            )
        if self.path.suffix.lower() != ".onnx" or not self.path.is_file():
            raise UserError(f"{path}: model: {self.card.model}: no .onnx file beside the card.")
        self._bytes = self.path.read_bytes()
        if (found := sha256(self._bytes)) != self.card.sha256:
            raise UserError(
                f"{path}: sha256: {self.card.model} is another file ({found}); have whoever "
                "answers for the model check it, then write its hash into the card."
            )

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        try:
            found = onnxruntime.InferenceSession(self._bytes, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's exceptions have no common base
            raise DataError(
                f"{self.path}: cannot be read as ONNX ({type(error).__name__}); export it again."
            ) from None
        columns = [one.shape[-1] for one in found.get_inputs() if one.type == "tensor(float)"]
        if columns != [len(self.card.inputs)] or len(found.get_inputs()) != 1:
            raise DataError(
                f"{self.path}: takes {found.get_inputs()[0].shape}, the card has "
                f"{len(self.card.inputs)} inputs; a model takes one table of 32-bit numbers, a "
                "column for each input."
            )
        return found

    def probability(self, values: Mapping[str, float]) -> float:
        """Of the outcome, for values in the card's units."""
        import numpy as np

        row = np.array([[values[name] for name in self.card.inputs]], dtype=np.float32)
        last = self._session.run(None, {self._session.get_inputs()[0].name: row})[-1]
        if getattr(last, "shape", None) != (1, 2) or not 0 <= float(last[0, 1]) <= 1:
            raise DataError(
                f"{self.path}: gives no table of two probabilities; export a binary classifier "
                "with zipmap off."
            )
        return float(last[0, 1])

    def ask(
        self,
        given: Mapping[str, object],
        lang: Lang = "en",
        change: tuple[str, object] | None = None,
    ) -> Risk:
        """The answer for values such as ``17 umol/L``, and for one of them changed.

        Raises ``UserError`` for an input that lacks, is unknown or is outside what the card says.
        """
        card = self.card
        for name in (*given, *([change[0]] if change else ())):
            if name not in card.inputs:
                raise UserError(f"{name}: no input of {card.name}; {allowed(card.inputs, name)}.")
        if lacking := [name for name in card.inputs if name not in given]:
            raise UserError(f"{card.name}: needs {', '.join(lacking)} too.")
        values = {name: self.value(name, given[name]) for name in card.inputs}
        risk = self.probability(values)
        told, other = [_said(ANSWER, card, lang, risk=f"{100 * risk:.1f} %")], None
        if change:
            name, raw = change
            changed = values | {name: self.value(name, raw)}
            other = self.probability(changed)
            shown = {"value": self.shown(name, values), "other": self.shown(name, changed)}
            told.append(_said(WHAT_IF, card, lang, risk=f"{100 * other:.1f} %", name=name, **shown))
        return Risk(card.name, risk, " ".join([*told, WARNING[lang]]), values, other)

    def value(self, name: str, given: object) -> float:
        """An input in the card's unit; raises ``UserError``."""
        found, text = self.card.inputs[name], str(given).strip()
        if isinstance(found, Category):
            if text not in found.values:
                raise UserError(f"{name}: not a word of the card; {allowed(found.values)}.")
            return found.values[text]
        low, high = found.range
        wanted = f"from {low:g} to {high:g} {found.unit}".rstrip()
        parts = VALUE.fullmatch(text)
        if parts is None or isinstance(given, bool):
            raise UserError(f"{name}: not a number with a unit; write one {wanted}, 1.5 not 1,5.")
        number, unit = float(parts[1]), _plain(parts[2] or "")
        factors = {_plain(found.unit): 1.0} | {_plain(u): f for u, f in found.units.items()}
        others = [one for one in found.units if low <= number * found.units[one] <= high]
        if not unit and found.unit and others:
            raise UserError(
                f"{name}: say the unit; without one the number could be {' or '.join(others)} as "
                f"well as {found.unit} ({wanted})."
            )
        if unit and unit not in factors:
            units = allowed([found.unit, *found.units] if found.unit else ["no unit"])
            raise UserError(f"{name}: not a unit of the card ({wanted}); {units}.")
        value = number * factors[unit or _plain(found.unit)]
        if not low <= value <= high:
            raise UserError(
                f"{name}: outside what the model was trained on ({wanted}); it cannot say anything "
                "of such a patient."
            )
        return value

    def shown(self, name: str, values: Mapping[str, float]) -> str:
        """A value as the card writes it: a number with its unit, or a word."""
        found = self.card.inputs[name]
        if isinstance(found, Category):
            return next(word for word, code in found.values.items() if code == values[name])
        return f"{values[name]:.4g} {found.unit}".rstrip()

    def tool(self) -> dict[str, object]:
        """The model as a tool of a chat (OpenAI's form); its arguments go to ``ask``."""
        card = self.card
        return {
            "type": "function",
            "function": {
                "name": card.name,
                "description": f"Probability of {card.outcome['en']}. Trained on "
                f"{card.population['en']}. Values as the record writes them, with their units.",
                "parameters": {
                    "type": "object",
                    "properties": {name: _schema(one) for name, one in card.inputs.items()},
                    "required": list(card.inputs),
                    "additionalProperties": False,
                },
            },
        }


def _read(path: Path) -> RiskCard:
    try:
        found = yaml.safe_load(read_text(path))
    except yaml.YAMLError as error:
        raise UserError(f"{path}: no YAML ({type(error).__name__}).") from None
    card = cast("RiskCard", parse(RiskCard, found, str(path)))
    for key, said in (("outcome", card.outcome), ("population", card.population)):
        if "en" not in said:
            raise UserError(f"{path}: {key}: needs the words in en; vi and zh may stand too.")
    for name, one in card.inputs.items():
        if isinstance(one, Quantity) and not one.range[0] < one.range[1]:
            raise UserError(f"{path}: inputs.{name}.range: the smallest, then the largest value.")
        if isinstance(one, Quantity) and one.units and not one.unit:
            raise UserError(f"{path}: inputs.{name}.unit: needed where other units are.")
    return card


def _plain(unit: str) -> str:
    return unit.strip().replace("µ", "u").replace("μ", "u").replace(" ", "").lower()


def _said(words: Mapping[Lang, str], card: RiskCard, lang: Lang, **more: str) -> str:
    def own(text: Mapping[Lang, str]) -> str:
        return text.get(lang, text["en"])

    return words[lang].format(outcome=own(card.outcome), population=own(card.population), **more)


def _schema(found: Quantity | Category) -> dict[str, object]:
    if isinstance(found, Category):
        return {"type": "string", "enum": list(found.values)}
    units = " or ".join(filter(None, [found.unit, *found.units])) or "no unit"
    low, high = found.range
    return {"type": "string", "description": f"{units}; {low:g} to {high:g} {found.unit}".strip()}
