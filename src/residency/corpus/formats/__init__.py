"""The formats that data sets may have: one file each, named as the recipe names the format.

A file holds one subclass of ``residency.corpus.reader.Source``: its settings, ``format`` with the
file's name as its only value, and ``rows``, which reads a file. A new file is a new format; there
is no list to extend.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from residency.corpus.reader import Source


def sources() -> tuple[type[Source], ...]:
    """The settings of every format, by name."""
    names = sorted(module.name for module in iter_modules(__path__, f"{__name__}."))
    return tuple(
        found
        for name in names
        for found in vars(import_module(name)).values()
        if isinstance(found, type) and issubclass(found, Source) and found.__module__ == name
    )
