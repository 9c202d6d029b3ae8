"""UIMA CAS in XMI, as INCEpTION and WebAnno export it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from residency.core.errors import DataError
from residency.core.xml_files import xml_root
from residency.corpus.formats.webanno import utf16_place
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import OUTSIDE, Raw

CAS, XMI = "{http:///uima/cas.ecore}", "{http://www.omg.org/XMI}"
OWN = "{http:///webanno/custom.ecore}"
GIVEN = "{http:///de/tudarmstadt/ukp/dkpro/core/api/"
"""Layers that come with the tool (tokens, sentences, entities); those of its users are ``OWN``."""
LABELS = ("value", "label", "category", "type")


class Xmi(Source):
    """UIMA CAS XMI: the text of each view (Sofa) is a note, the file their group. Read: the
    annotations of one span layer, and relations between them (Governor, Dependent). Offsets count
    UTF-16 units, as UIMA has them. The type system beside the file is not needed.
    """

    format: Literal["xmi"]
    layer: str = ""
    """Layer to read, by the last part of its name; where empty, ``NamedEntity``, or the only span
    layer that its users made."""
    feature: str = ""
    """Feature that holds the label; where empty, value, label, category or type, or the only
    one."""

    def suffixes(self) -> tuple[str, ...]:
        return (".xmi",)

    def rows(self, path: Path) -> Iterator[Row]:
        root = xml_root(path, f"{XMI}XMI")
        views = [one for one in root.iterfind(f"{CAS}Sofa") if one.get("sofaString")]
        if not views:
            raise DataError(f"{path}: holds no text; export the document as UIMA CAS XMI again.")
        spans = [one for one in root if one.get("begin") is not None and one.get("sofa")]
        layer = self._layer(spans, path)
        marked = [one for one in spans if one.tag == layer]
        feature = self._feature(marked, path)
        for number, view in enumerate(views, start=1):
            text, sofa = view.get("sofaString"), view.get(f"{XMI}id")
            inside = [one for one in marked if one.get("sofa") == sofa]
            yield Row(
                line=number if len(views) > 1 else 0,
                group=path.stem,
                text=text,
                spans=tuple(_raw(one, text, feature) for one in inside),
                relations=tuple(_relations(root, sofa)),
            )

    def _layer(self, spans: list[Any], path: Path) -> str:
        """The tag of the layer's elements; the empty string where nothing is marked."""
        found = Counter(one.tag for one in spans)
        named = {tag for tag in found if tag.rpartition("}")[2] == (self.layer or "NamedEntity")}
        own = {tag for tag in found if tag.startswith(OWN)}
        chosen = named if self.layer else (own if len(own) == 1 and not named else named)
        others = own - chosen if not self.layer else set()
        if len(chosen) > 1 or others or (self.layer and not chosen):
            present = sorted(tag.rpartition("}")[2] for tag in found)
            raise DataError(
                f"{path}: has span layers {', '.join(present[:20]) or 'none'}; set layer to one "
                "of them."
            )
        return next(iter(chosen), "")

    def _feature(self, marked: list[Any], path: Path) -> str:
        basic = {f"{XMI}id", "sofa", "begin", "end", "identifier"}
        present = dict.fromkeys(name for one in marked for name in one.keys() if name not in basic)  # noqa: SIM118
        usual = [name for name in LABELS if name in present]
        chosen = self.feature or (usual or list(present) or [""])[0]
        if marked and (
            chosen not in present or (not self.feature and not usual and len(present) > 1)
        ):
            raise DataError(
                f"{path}: the layer has the features {', '.join(present) or 'none'}; set feature "
                "to the one that holds the label."
            )
        return chosen


def _raw(one: Any, text: str, feature: str) -> Raw:
    key, label = one.get(f"{XMI}id", ""), one.get(feature, "")
    begin, end = one.get("begin", ""), one.get("end", "")
    place = (
        utf16_place(text, int(begin), int(end)) if begin.isdecimal() and end.isdecimal() else None
    )
    if place is None or not label:
        fault = OUTSIDE if place is None else "span has no label"
        return Raw(fragments=(), label=label, key=key, fault=fault)
    code = one.get("identifier") or None
    return Raw(fragments=(place,), label=label, quote=text[slice(*place)], key=key, code=code)


def _relations(root: Any, sofa: str) -> Iterator[tuple[str, str, str]]:
    for one in root:
        if one.get("Governor") and one.get("Dependent") and one.get("sofa") == sofa:
            label = next((one.get(name) for name in LABELS if one.get(name)), "")
            yield one.get("Governor"), one.get("Dependent"), label
