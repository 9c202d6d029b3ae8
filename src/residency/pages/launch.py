"""The pages on a port of this machine."""

from __future__ import annotations

import socket
from contextlib import suppress
from pathlib import Path

from residency.core.errors import UserError

HOST = "127.0.0.1"


def listen(port: int) -> socket.socket:
    """A socket of this machine alone; 0 is any free port. Raises ``UserError`` where the port is
    taken."""
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((HOST, port))
        found.listen()  # who opens the address at once waits until it is answered
    except OSError:
        found.close()
        raise UserError(f"--port: {port} is taken; name another one, or 0 for any.") from None
    return found


def serve(folder: Path, secret: str, listening: socket.socket, home: str = "/") -> None:
    """Answer until SIGINT or SIGTERM. Requests are not logged: their addresses name projects.
    ``home``: the first page of the owner."""
    import uvicorn

    from residency.pages.app import create_app

    config = uvicorn.Config(
        create_app(folder, secret, home),
        access_log=False,
        log_level="critical",
        server_header=False,
    )
    with suppress(KeyboardInterrupt):  # the ordinary end, which uvicorn passes on when it is done
        uvicorn.Server(config).run(sockets=[listening])
