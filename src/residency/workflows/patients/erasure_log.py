"""The erasure log: what was removed when and from where, each line chained to the one before, and
no line says of whom."""

from __future__ import annotations

import hmac
import os
from hashlib import sha256
from pathlib import Path

import msgspec

from residency.core.errors import GateRefused
from residency.core.files import canonical, disk_errors
from residency.core.run_folder import now
from residency.core.types import Value

LOG = "erasures.jsonl"


class ErasureLine(Value, frozen=True):
    """One thing that an erasure did."""

    at: str
    event: str
    """``begun``, ``rewrote``, ``removed``, ``marked``, ``finished``"""
    patient: tuple[str, ...]
    """Keyed hashes of the patient's id and codes."""
    path: str = ""
    rows: int = 0
    before: str = ""
    """SHA-256 of the file before, and after."""
    after: str = ""
    chain: str = ""
    """SHA-256 of the line before."""


class ErasureLog:
    """An append-only file of lines."""

    def __init__(self, path: Path, key: bytes) -> None:
        self.path = path
        self._key = hmac.new(key, b"erasures", sha256).digest()
        self._last = ""
        self.lines = self._read()

    def hash_id(self, text: str) -> str:
        """What stands for an id in the log; nobody without the key can tell whose it is."""
        return hmac.new(self._key, text.encode(), sha256).hexdigest()[:32]

    def add(
        self,
        event: str,
        patient: tuple[str, ...],
        path: str = "",
        rows: int = 0,
        before: str = "",
        after: str = "",
    ) -> None:
        """Append a line; it is on disk when this returns."""
        line = ErasureLine(
            at=now(),
            event=event,
            patient=patient,
            path=path,
            rows=rows,
            before=before,
            after=after,
            chain=self._last,
        )
        written = canonical(line) + b"\n"
        with disk_errors(self.path):
            handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            with os.fdopen(handle, "ab") as file:
                file.write(written)
                file.flush()
                os.fsync(file.fileno())
        self.lines.append(line)
        self._last = sha256(written).hexdigest()

    def state(self, hashes: tuple[str, ...]) -> str:
        """``begun`` or ``finished``, of a patient's last erasure; empty where there was none."""
        about = [
            line.event
            for line in self.lines
            if set(line.patient) & set(hashes) and line.event in ("begun", "finished")
        ]
        return about[-1] if about else ""

    def finished_at(self, hashes: tuple[str, ...]) -> str:
        """When the last erasure of a patient ended."""
        return next(
            (
                line.at
                for line in reversed(self.lines)
                if set(line.patient) & set(hashes) and line.event == "finished"
            ),
            "",
        )

    def current_digest(self, digest: str) -> str:
        """What a file with a hash has become through erasures."""
        for line in self.lines:
            if line.event == "rewrote" and line.before == digest:
                digest = line.after
        return digest

    def _read(self) -> list[ErasureLine]:
        """All lines; the rest of one that was cut off is dropped. Raises ``GateRefused`` where one
        was changed or removed."""
        if not self.path.is_file():
            return []
        found, whole = [], 0
        with self.path.open("rb") as file:
            for number, raw in enumerate(file, start=1):
                if not raw.endswith(b"\n"):
                    break
                try:
                    line = msgspec.json.decode(raw, type=ErasureLine)
                except msgspec.DecodeError:
                    line = None
                if line is None or line.chain != self._last:
                    raise GateRefused(
                        f"{self.path}:{number}: was changed, or a line before it is missing; "
                        "restore it from a backup."
                    )
                self._last = sha256(raw).hexdigest()
                found.append(line)
                whole += len(raw)
        if whole < self.path.stat().st_size:
            os.truncate(self.path, whole)
        return found
