"""What tests of the server share."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

KEY = "k" * 43
HEADERS = {"Authorization": f"Bearer {KEY}"}
NOTE = "Bệnh nhân nam 62 tuổi, ho khan và sốt 38.5 độ, đau bụng vùng thượng vị."


class Server:
    """An application on a port of this machine, in a thread."""

    def __init__(self, app: Any) -> None:
        import uvicorn

        from residency.serve.app import limited

        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        config = uvicorn.Config(limited(app, app.state.gate.settings), log_config=None, access_log=False, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]})
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)

    def end(self) -> None:
        """Stop it."""
        self.server.should_exit = True
        self.thread.join(10)
        self.socket.close()
