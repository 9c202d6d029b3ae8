"""The pages on a port of this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from residency.core.errors import UserError

if TYPE_CHECKING:
    from residency.pages.gate import Gate

HOST = "127.0.0.1"


def listen(port: int, host: str = HOST) -> socket.socket:
    """A socket, of this machine alone unless another ``host`` is named; 0 is any free port. Raises
    ``UserError`` where the port is taken."""
    found = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # who opens the address at once waits until it is answered
    except OSError:
        found.close()
        raise UserError(f"--port: {port} is taken; name another one, or 0 for any.") from None
    return found


def serve(
    folder: Path,
    secret: str,
    listening: socket.socket,
    home: str = "/",
    gate: Gate | None = None,
) -> None:
    """Answer until SIGINT or SIGTERM. Requests are not logged: their addresses name projects.
    ``home``: the first page of the owner; ``gate``: of the server that the pages stand behind."""
    import uvicorn

    from residency.pages.app import create_app

    config = uvicorn.Config(
        create_app(folder, secret, home, gate=gate),
        access_log=False,
        log_level="critical",
        server_header=False,
    )
    with suppress(KeyboardInterrupt):  # the ordinary end, which uvicorn passes on when it is done
        uvicorn.Server(config).run(sockets=[listening])
