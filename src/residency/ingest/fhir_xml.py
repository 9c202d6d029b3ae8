"""FHIR R4 in XML as the JSON that the standard gives the same resource (HL7 FHIR R4, 2.6.1): a
value is an attribute, an element that may recur is a list, a narrative is XHTML."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from residency.ingest.decode import Unreadable
from residency.ingest.fhir_people import Head, Resource
from residency.ingest.safe_xml import BROKEN, root_of

FHIR = "{http://hl7.org/fhir}"


def as_json(data: bytes) -> bytes:
    """A bundle or a resource as JSON: what is read of resources, nothing else. Raises
    ``Unreadable``."""
    return msgspec.json.encode(_resource(root_of(data, "")))


def _resource(node: Any) -> dict[str, Any]:
    if not node.tag.startswith(FHIR):
        raise Unreadable(BROKEN)
    kind = node.tag.removeprefix(FHIR)
    fields = _fields(Head) if kind == "Bundle" else _fields(Head) | _fields(Resource)
    return {"resourceType": kind} | _element(node, fields)


def _element(node: Any, fields: dict[str, _Field]) -> dict[str, Any]:
    """The children of an element by their names; those that are not read are passed over."""
    found: dict[str, Any] = {}
    for child in node:
        name = child.tag.rpartition("}")[2]
        if name not in fields:
            continue
        recurs, single, many = fields[name]
        shape = single or many
        if single and many:  # by what stands inside where one name is of both
            inside = {one.tag.rpartition("}")[2] for one in child}
            recurs = not inside & _fields(single).keys()
            shape = many if recurs else single
        value = _value(child, name, shape)
        if value is None:
            continue
        if recurs:
            found.setdefault(name, []).append(value)
        elif many and name in found:
            before = found[name]
            found[name] = [*(before if isinstance(before, list) else [before]), value]
        else:
            found[name] = value
    return found


def _value(node: Any, name: str, shape: type | None) -> Any:
    if name in ("resource", "contained"):
        return _resource(node[0]) if len(node) else None
    if name == "div":
        from lxml import etree

        return etree.tostring(node, encoding="unicode", with_tail=False)
    return _element(node, _fields(shape)) if shape else node.get("value")


_Field = tuple[bool, type | None, type | None]
"""Whether an element is a list, and the classes of a single one and of an item."""


@cache
def _fields(shape: type) -> dict[str, _Field]:
    """Name of an element -> how it is written."""
    info = inspect.type_info(shape)
    assert isinstance(info, inspect.StructType)
    found = {}
    for one in info.fields:
        kinds = one.type.types if isinstance(one.type, inspect.UnionType) else (one.type,)
        lists = [kind.item_type for kind in kinds if isinstance(kind, inspect.ListType)]
        singles = [kind.cls for kind in kinds if isinstance(kind, inspect.StructType)]
        items = [kind.cls for kind in lists if isinstance(kind, inspect.StructType)]
        single, item = next(iter(singles), None), next(iter(items), None)
        found[one.encode_name] = (bool(lists), single, item)
    return found
