"""XML that comes from elsewhere, without entities, document types and a network."""

from __future__ import annotations

from typing import Any

from residency.ingest.decode import Unreadable

BROKEN = "the document cannot be read"
ENTITIES = "the document declares a document type or entities"
V3 = "{urn:hl7-org:v3}"


def root_of(data: bytes, wanted: str = f"{V3}ClinicalDocument") -> Any:
    """The root of a document, which has to be the one that is wanted, if one is; raises
    ``Unreadable``."""
    from lxml import etree

    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(data, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise Unreadable(BROKEN) from None
    if root.getroottree().docinfo.doctype:
        raise Unreadable(ENTITIES)
    if wanted and root.tag != wanted:
        raise Unreadable(BROKEN)
    return root
