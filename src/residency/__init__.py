"""Residency: from rows in a hospital database to a specialist model that answers on the hospital's own machine."""

__version__ = "0.1.0"
