"""Choices that a patient's random secret decides (keyed BLAKE2b, RFC 7693): the same in every
process, and nothing without the secret."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from typing import TypeVar

Item = TypeVar("Item")
ENOUGH = 1 << 96
RANDOM = 24
"""Random bytes of a secret; the rest says by which way names are drawn."""


class Draw:
    """Choices that a secret and a text decide."""

    def __init__(self, secret: bytes, what: str) -> None:
        self.secret, self.what, self.block, self.left = secret, what.encode(), 0, 0

    def below(self, limit: int) -> int:
        """A whole number from 0, less than ``limit``: the digits of a random number of 512 bits,
        drawn anew before it runs out."""
        if self.left < ENOUGH:
            block = blake2b(self.what + b"/%d" % self.block, key=self.secret, digest_size=64)
            self.left, self.block = int.from_bytes(block.digest(), "big"), self.block + 1
        self.left, number = divmod(self.left, limit)
        return number

    def choice(self, items: Sequence[Item]) -> Item:
        """One of several."""
        return items[self.below(len(items))]


def new_secret() -> bytes:
    """32 bytes for a new patient, whose persons are drawn as one (``persons``). The last 8 tell
    that; those of patients of earlier vaults do not, and their surrogates stay what they were."""
    drawn = os.urandom(RANDOM)
    return drawn + _mark(drawn)


def by_persons(secret: bytes) -> bool:
    """Whether the names of a secret are drawn person by person."""
    return secret[RANDOM:] == _mark(secret[:RANDOM])


def _mark(drawn: bytes) -> bytes:
    return blake2b(b"persons", key=drawn, digest_size=8).digest()
