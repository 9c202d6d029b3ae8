"""Files sealed as a stream: AES-256-GCM in chunks that can be neither changed, moved nor cut off.

The STREAM construction (Hoang, Reyhanitabar, Rogaway, Vizár: Online Authenticated-Encryption and
its Nonce-Reuse Misuse-Resistance, 2015): each chunk's nonce is its number and whether it is the
last, the key is of this one file (an HMAC of the given key over random salt). What was read is
authentic; what was read to its end is whole.
"""

from __future__ import annotations

import hmac
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

from residency.core.errors import GateRefused, UserError

MAGIC = b"residency sealed 1\n"
SALT = 16
CHUNK = 2**20
"""Bytes of a chunk before it is sealed; the last is always shorter, and may be empty."""
TAG = 16


@contextmanager
def sealing(file: IO[bytes], key: bytes) -> Iterator[IO[bytes]]:
    """What is written to the stream goes sealed into ``file``; only at the end of the block is it
    whole."""
    salt = os.urandom(SALT)
    file.write(MAGIC + salt)
    stream = _Sealing(file, _cipher(key, salt))
    yield stream  # type: ignore[misc]
    stream.finish()


@contextmanager
def opening(file: IO[bytes], key: bytes, name: object) -> Iterator[IO[bytes]]:
    """A stream of what was sealed into ``file``; what the block leaves unread is checked at its
    end.

    Raises ``UserError`` for a file that is not sealed, ``GateRefused`` where the key is another, or
    the file was changed or cut; ``name`` begins the message.
    """
    if file.read(len(MAGIC)) != MAGIC:
        raise UserError(
            f"{name}: is no archive of residency backup; give a file that it has written."
        )
    stream = io.BufferedReader(_Opening(file, _cipher(key, file.read(SALT)), name), CHUNK)
    yield stream
    while stream.read(CHUNK):
        pass


def _cipher(key: bytes, salt: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(hmac.digest(key, MAGIC + salt, "sha256"))


def _nonce(number: int, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


class _Sealing(io.RawIOBase):
    """Chunks of what is written."""

    def __init__(self, file: IO[bytes], cipher: Any) -> None:
        self.file, self.cipher, self.number, self.held = file, cipher, 0, bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.held += data
        while len(self.held) >= CHUNK:
            self._put(bytes(self.held[:CHUNK]), last=False)
            del self.held[:CHUNK]
        return len(data)

    def finish(self) -> None:
        """The last chunk: the file is whole."""
        self._put(bytes(self.held), last=True)

    def _put(self, chunk: bytes, last: bool) -> None:
        self.file.write(self.cipher.encrypt(_nonce(self.number, last), chunk, None))
        self.number += 1


class _Opening(io.RawIOBase):
    """What was sealed, chunk by chunk."""

    def __init__(self, file: IO[bytes], cipher: Any, name: object) -> None:
        self.file, self.cipher, self.name, self.number = file, cipher, name, 0
        self.held, self.ended = memoryview(b""), False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self.held and not self.ended:
            self._next()
        taken = min(len(buffer), len(self.held))
        buffer[:taken], self.held = self.held[:taken], self.held[taken:]
        return taken

    def _next(self) -> None:
        from cryptography.exceptions import InvalidTag

        sealed = self.file.read(CHUNK + TAG)
        self.ended = len(sealed) < CHUNK + TAG
        try:
            chunk = self.cipher.decrypt(_nonce(self.number, self.ended), sealed, None)
        except (InvalidTag, ValueError):
            raise GateRefused(
                f"{self.name}: cannot be opened with this key, or was changed or cut; check the "
                "key's variable, or take another copy."
            ) from None
        self.held, self.number = memoryview(chunk), self.number + 1
