"""XML of the i2b2 and n2c2 challenges: a text and tags with offsets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from residency.core.xml_files import xml_root
from residency.corpus.reader import Row, Source
from residency.corpus.span_repair import Raw


class I2b2Xml(Source):
    """``<TEXT>`` and ``<TAGS>``, each tag with ``start``, ``end``, ``text`` and ``TYPE``: a file is
    a note and a group. A tag's label is its TYPE, or its name where it has none. Links between tags
    are counted and not taken.
    """

    format: Literal["i2b2_xml"]
    label: Literal["type", "name"] = "type"
    """Whether a label is a tag's TYPE (``PATIENT``) or its name (``NAME``)."""

    def suffixes(self) -> tuple[str, ...]:
        return (".xml",)

    def rows(self, path: Path) -> Iterator[Row]:
        root = xml_root(path, "deIdi2b2|ROOT|ClinicalNarrativeTemporalAnnotation")
        text, tags = root.find("TEXT"), root.find("TAGS")
        if text is None or tags is None:
            yield Row(line=0, fault="has no TEXT or no TAGS")
            return
        found = [raw for tag in tags if isinstance(tag.tag, str) and (raw := self._raw(tag))]
        links = sum(isinstance(tag.tag, str) for tag in tags) - len(found)
        yield Row(
            line=0,
            text="".join(text.itertext()),
            spans=tuple(found),
            not_taken={"link not taken": links} if links else {},
        )

    def _raw(self, tag: Any) -> Raw | None:
        """The span of a tag; None for a link, which has no place."""
        if tag.get("start") is None and tag.get("fromID") is not None:
            return None
        label = (tag.get("TYPE") or tag.get("type") or tag.tag) if self.label == "type" else tag.tag
        start, end = tag.get("start", ""), tag.get("end", "")
        if not (start.isdecimal() and end.isdecimal()):
            fault = "offset of a span is not a whole number"
            return Raw(fragments=(), label=label, line=tag.sourceline, fault=fault)
        return Raw(
            fragments=((int(start), int(end)),),
            label=label,
            quote=tag.get("text", ""),
            key=tag.get("id", ""),
            line=tag.sourceline,
        )
