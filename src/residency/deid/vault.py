"""The vault: one random secret per patient, drawn once, encrypted at rest; whoever has it can tell
who is who.

One SQLite file in the identified zone. Patients stand in it under a keyed hash, their secrets
encrypted with AES-256-GCM; the key is never stored. Workers derive everything of a patient from the
patient's secret.
"""

from __future__ import annotations

import hmac
import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from residency.core.errors import GateRefused, UserError
from residency.core.files import write_json
from residency.core.types import Value
from residency.deid.draws import new_secret

NAME = "vault.sqlite"
CHECK = b"residency vault 1"


class Destroyed(Value, frozen=True):
    """The record that is left of a vault."""

    destroyed_at: datetime
    patients: int
    fingerprint: str
    """SHA-256 of the vault file that was overwritten and removed."""


class Vault:
    """The secrets of patients; use ``open``."""

    def __init__(self, path: Path, key: bytes, database: sqlite3.Connection) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        self.path, self.database = path, database
        self._index = hmac.new(key, b"index", sha256).digest()
        self._cipher = AESGCM(hmac.new(key, b"secrets", sha256).digest())
        self._known: dict[str, bytes] = {}

    @classmethod
    def open(cls, folder: Path, key: bytes) -> Self:
        """The vault of a zone's folder; a new one where there is none.

        Raises ``GateRefused`` for a wrong key, a vault that was damaged or tampered with or is of
        another version, and a file that is none.
        """
        path = folder / NAME
        before = os.umask(0o077)
        try:
            database = sqlite3.connect(path, timeout=30, isolation_level=None)
            vault = cls(path, key, database)
            vault._prepare()
        except sqlite3.Error:
            database.close()
            raise _damaged(path) from None
        except GateRefused:
            database.close()
            raise
        finally:
            os.umask(before)
        return vault

    def _prepare(self) -> None:
        """Make the table where there is none; raises ``GateRefused`` where the key does not fit."""
        execute = self.database.execute
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute(
            "CREATE TABLE IF NOT EXISTS secrets (patient BLOB PRIMARY KEY, secret BLOB NOT NULL) "
            "WITHOUT ROWID"
        )
        sealed = self._sealed_of(b"check")
        if sealed is None:
            if execute("SELECT count(*) FROM secrets").fetchone()[0]:
                raise GateRefused(f"{self.path}: was tampered with; restore it from a backup.")
            self._insert(b"check", CHECK)
        elif self._opened(sealed, b"check") != CHECK:
            raise GateRefused(
                f"{self.path}: was written by another residency version; open it with that one."
            )

    def _sealed_of(self, name: bytes) -> bytes | None:
        query = "SELECT secret FROM secrets WHERE patient = ?"
        row = self.database.execute(query, (name,)).fetchone()
        return None if row is None else bytes(row[0])

    def _insert(self, name: bytes, value: bytes) -> None:
        """Keep a value under a name, unless another process did so before."""
        query = "INSERT OR IGNORE INTO secrets VALUES (?, ?)"
        self.database.execute(query, (name, self._sealed(value, name)))

    def secret(self, patient: str) -> bytes:
        """The patient's 32 random bytes: drawn the first time, the same ever after, in every
        process."""
        if (known := self._known.get(patient)) is not None:
            return known
        name = self.entry(patient)
        try:
            sealed = self._sealed_of(name)
            if sealed is None:
                self._insert(name, new_secret())
                sealed = self._sealed_of(name)
                assert sealed is not None
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError):
                raise
            raise _damaged(self.path) from None
        found = self._opened(sealed, name)
        if len(self._known) > 100_000:
            self._known.clear()
        self._known[patient] = found
        return found

    def knows(self, patient: str) -> bool:
        """Whether a patient has a secret here."""
        return self._sealed_of(self.entry(patient)) is not None

    def entry(self, patient: str) -> bytes:
        """Under what a patient stands here, known or not: a keyed hash."""
        return hmac.new(self._index, patient.encode(), sha256).digest()

    def entry_of(self, matches: Callable[[bytes], bool]) -> bytes | None:
        """The entry of the patient whose secret matches; opens one secret after another."""
        rows = self.database.execute(
            "SELECT patient, secret FROM secrets WHERE patient != ?", (b"check",)
        )
        return next((name for name, sealed in rows if matches(self._opened(sealed, name))), None)

    def erase(self, entry: bytes) -> None:
        """Overwrite and remove a patient's secret: nobody can link the patient's surrogates or
        codes any more."""
        self.commit()
        self.database.execute("PRAGMA secure_delete=ON")
        self.database.execute("DELETE FROM secrets WHERE patient = ?", (entry,))
        self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        self._known.clear()

    def __len__(self) -> int:
        return int(self.database.execute("SELECT count(*) - 1 FROM secrets").fetchone()[0])

    def begin(self) -> None:
        """Write the secrets of what follows together, until ``commit``: a disk write per batch
        instead of per patient."""
        self.database.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """What was begun is on disk."""
        if self.database.in_transaction:
            self.database.execute("COMMIT")

    def close(self) -> None:
        """Let go of the file."""
        self.commit()
        self._known.clear()
        self.database.close()

    def destroy(self) -> Destroyed:
        """Overwrite and remove the vault, and leave a record beside it: nobody can tell any more
        who is who."""
        self.commit()
        count = len(self)
        with closing(self.database):
            self.database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self.database.execute("PRAGMA journal_mode=DELETE")
        fingerprint = sha256(self.path.read_bytes()).hexdigest()
        with self.path.open("r+b") as file:
            file.write(os.urandom(self.path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        self.path.unlink()
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        record = Destroyed(destroyed_at=datetime.now(UTC), patients=count, fingerprint=fingerprint)
        write_json(self.path.with_name("vault.destroyed.json"), record)
        return record

    def _sealed(self, value: bytes, name: bytes) -> bytes:
        nonce = os.urandom(12)
        return nonce + self._cipher.encrypt(nonce, value, name)

    def _opened(self, value: bytes, name: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag

        try:
            return self._cipher.decrypt(value[:12], value[12:], name)
        except (InvalidTag, ValueError):
            raise GateRefused(
                f"{self.path}: cannot be opened with this key, or was tampered with; check the "
                "key's variable."
            ) from None


def _damaged(path: Path) -> GateRefused:
    return GateRefused(
        f"{path}: is not a vault, or is damaged; restore it from a backup, or choose another zone."
    )


def key_from(variable: str) -> bytes:
    """The key in an environment variable; raises ``UserError`` where it is missing or no key (its
    value is never shown)."""
    value = os.environ.get(variable, "")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", value):
        state = "is not set" if not value else "does not hold a key"
        raise UserError(
            f"{variable}: the environment variable {state}; it must hold 64 hexadecimal digits, "
            "e.g. from openssl rand -hex 32."
        )
    return bytes.fromhex(value)
