"""XML files of annotators, read without entities and without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from residency.core.errors import DataError, UserError
from residency.core.files import reason


def xml_root(path: Path, wanted: str) -> Any:
    """The root element of a file; ``DataError`` where it is no XML, or another one than ``wanted``
    (names parted by bars)."""
    try:
        from lxml import etree
    except ModuleNotFoundError:
        raise UserError(
            "lxml is not installed; install it with pip install 'residency[ingest]'."
        ) from None
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True
    )
    try:
        root = etree.fromstring(path.read_bytes(), parser)
    except OSError as error:
        raise DataError(f"{path}: {reason(error)}") from None
    except (etree.XMLSyntaxError, ValueError):
        raise DataError(f"{path}: is not whole XML; export it again.") from None
    if root.tag not in wanted.split("|"):
        raise DataError(
            f"{path}: its root element is not {wanted.replace('|', ' or ')}; check format."
        )
    return root
