"""An archive under a password cannot be looked into: trace and erase name it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from residency.workflows.patients.holdings import sealed


def test_an_archive_under_a_password_is_named_and_an_open_one_is_not(tmp_path: Path) -> None:
    for name in ("open.zip", "locked.docx"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("note.txt", "BN ho")
    data = bytearray((tmp_path / "locked.docx").read_bytes())
    for header, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # APPNOTE 4.3.7, 4.3.12
        data[data.index(header) + flags] |= 1
    (tmp_path / "locked.docx").write_bytes(data)
    assert sealed([tmp_path]) == [tmp_path / "locked.docx"]
