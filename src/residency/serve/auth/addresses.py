"""Which addresses a secret may travel to, or keys come from."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from residency.core.errors import UserError


def loopback(host: str) -> bool:
    """Whether a host is this machine, by its name or number alone (no look-up)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def safe(address: str, where: str) -> str:
    """An address with TLS, or of this machine; raises ``UserError`` otherwise."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
        parts = urlsplit("")
    if (
        host
        and port != 0
        and (parts.scheme == "https" or (parts.scheme == "http" and loopback(host)))
    ):
        return address
    raise UserError(
        f"{where}: not a safe address; allowed: https://HOST/..., or http:// on this machine "
        "(127.0.0.1, ::1, localhost)."
    )
