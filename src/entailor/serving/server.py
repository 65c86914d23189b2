"""The server process: loads, listens, and on SIGTERM finishes what it accepted."""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Mapping
from types import FrameType
from typing import Any

import uvicorn

from entailor.serving.app import create_app
from entailor.serving.middleware import log_line
from entailor.serving.registry import Registry
from entailor.serving.settings import ServerSettings


def serve(classifiers: Mapping[str, str], settings: ServerSettings, *, trust_remote_code: bool = False) -> None:
    """Serve until SIGTERM, Ctrl-C or a terminal that is closed; returns once everything accepted is answered.

    Args:
        classifiers: folders by the name under which they are served.
        settings: of the server.
        trust_remote_code: run code that comes with base models, where they were trained so.

    Raises:
        EntailorError: a classifier cannot be loaded; then nothing is served.
        OSError: the address cannot be bound.
    """
    registry = Registry(trust_remote_code=trust_remote_code)
    for name, path in classifiers.items():
        registry.load(name, path)
        _write(log_line("loaded", model=name))
    app = create_app(registry, settings, _write)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, lifespan="on")
    with socket.create_server(
        (settings.host, settings.port), family=_family(settings), backlog=config.backlog
    ) as listening:
        _write(log_line("listening", url=f"http://{_address(listening)}", token=settings.token is not None))
        server = _Server(config, app.state.batcher.hurry)
        # uvicorn raises the signal again once it has stopped: that is no failure
        handlers: dict[int, Any] = dict.fromkeys((signal.SIGTERM, signal.SIGINT), lambda number, frame: None)
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:  # nohup
            handlers[hangup] = server.handle_exit  # of which uvicorn knows nothing
        before = {one: signal.signal(one, handler) for one, handler in handlers.items()}
        try:
            server.run(sockets=[listening])
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
    _write(log_line("stopped"))


class _Server(uvicorn.Server):
    """Tells the batcher not to wait for company once the server stops."""

    def __init__(self, config: uvicorn.Config, on_exit: Any) -> None:
        super().__init__(config)
        self._on_exit = on_exit

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Take note of a signal."""
        self._on_exit()
        super().handle_exit(sig, frame)


def _family(settings: ServerSettings) -> socket.AddressFamily:
    found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return found[0][0]


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _write(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
