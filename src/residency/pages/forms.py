"""What a browser posts: fields and files, of at most a size, with the token of this start."""

from __future__ import annotations

import re
from secrets import compare_digest
from urllib.parse import parse_qsl

from fastapi import Request

from residency.core.errors import GateRefused, UserError
from residency.core.types import Value
from residency.pages.desk import token_of
from residency.pages.folders import safe

MOST = 256 * 2**20
"""Bytes of a form, its files included."""


class Form(Value, frozen=True):
    """What was posted."""

    fields: tuple[tuple[str, str], ...] = ()
    """(name, value), line ends as ``\\n``: a browser sends all as ``\\r\\n``."""
    files: tuple[tuple[str, bytes], ...] = ()
    """(name as a file may have it, content)"""

    def one(self, name: str) -> str:
        """The value of a field; empty where there is none."""
        return next((value for key, value in self.fields if key == name), "")

    def all(self, name: str) -> list[str]:
        """The values of a field."""
        return [value for key, value in self.fields if key == name]

    def under(self, prefix: str) -> dict[str, str]:
        """The fields whose names begin so, by the rest of the name; empty ones are left out."""
        return {
            key.removeprefix(prefix): value.strip()
            for key, value in self.fields
            if key.startswith(prefix) and value.strip()
        }


async def posted(request: Request) -> Form:
    """The form of a request. Raises ``GateRefused`` without the token of this start, ``UserError``
    for a form that is too large or none."""
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MOST:
            raise UserError(
                f"The files are larger than {MOST // 2**20} MB together; copy them to this machine "
                "and begin with residency init DIR --data FILE."
            )
    kind = request.headers.get("content-type", "")
    form = _multipart(bytes(body), kind) if "multipart/" in kind else _plain(bytes(body))
    if not compare_digest(form.one("token").encode(), token_of(request.state.secret).encode()):
        raise GateRefused("This form is not of this start of residency ui; open the page again.")
    return form


def _plain(body: bytes) -> Form:
    try:
        found = parse_qsl(body.decode("ascii"), keep_blank_values=True, errors="strict")
    except ValueError:
        raise UserError("This form cannot be read.") from None
    return Form(fields=tuple((name, _lines(value)) for name, value in found))


def _lines(value: str) -> str:
    return value.replace("\r\n", "\n")


def _multipart(body: bytes, kind: str) -> Form:
    """A form with files (RFC 7578), as the HTML standard has browsers write it. A file is kept byte
    by byte."""
    found = re.search(r'boundary="?([^";,]+)"?', kind)
    fields: list[tuple[str, str]] = []
    files: list[tuple[str, bytes]] = []
    for part in (b"\r\n" + body).split(b"\r\n--" + found[1].encode())[1:] if found else ():
        head, parted, content = part.partition(b"\r\n\r\n")
        if not parted:  # the end
            continue
        said = head.decode("utf-8", "replace")
        name, file = (re.search(rf'; {key}="([^"]*)"', said) for key in ("name", "filename"))
        if name and file is None:
            fields.append((name[1], _lines(content.decode("utf-8", "replace"))))
        elif name and file and file[1]:
            files.append((safe(re.split(r"[/\\]", file[1])[-1]) or "file", content))
    return Form(fields=tuple(fields), files=tuple(files))
