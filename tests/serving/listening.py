"""An application that listens on this machine for as long as a block runs."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import uvicorn


@contextlib.contextmanager
def listening(app: Any) -> Iterator[str]:
    """Serve an application from a thread, on a free port of 127.0.0.1, and give its address.

    The socket listens before the thread begins, so that a first request waits in its queue and nobody asks a clock.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None))
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
