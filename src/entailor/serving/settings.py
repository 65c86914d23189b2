"""What a server is told: where it listens, how it batches, and what it refuses."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass
from pathlib import Path

from entailor.errors import ConfigError

TOKEN_VARIABLE = "ENTAILOR_SERVE_TOKEN"  # noqa: S105 - the name of a variable


@dataclass(frozen=True)
class ServerSettings:
    """Settings of a server.

    Attributes:
        host: address to bind.
        port: 0 takes any free one.
        token: what a client must send as ``Authorization: Bearer``; None: nothing.
        wait_ms: how long an input waits for others to share a batch with, in milliseconds.
        batch_tokens: inputs are gathered until they have about so many tokens.
        max_queue: most inputs that wait; further requests get 429.
        max_inputs: most inputs of a request.
        max_characters: most characters of one text.
        max_body_bytes: most bytes of a request's body.
        models_folder: classifiers below it may be loaded by a request; None: by nobody.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    wait_ms: float = 2.0
    batch_tokens: int = 2048
    max_queue: int = 1024
    max_inputs: int = 256
    max_characters: int = 20_000
    max_body_bytes: int = 4 << 20
    models_folder: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"--port: {self.port} found, expected a number from 0 to 65535")
        if not 0 <= self.wait_ms <= 3_600_000:
            raise ConfigError(f"--wait-ms: {self.wait_ms:.15g} found, expected milliseconds from 0 to 3600000")
        for name in ("batch_tokens", "max_queue", "max_inputs", "max_characters", "max_body_bytes"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')}: {getattr(self, name)} found, expected 1 or more")
        if self.max_inputs > self.max_queue:
            raise ConfigError(
                f"--max-inputs: {self.max_inputs} found, but the queue holds {self.max_queue}: such a request would "
                "never be taken. Raise --max-queue or lower --max-inputs"
            )
        if self.models_folder is not None and self.token is None:
            raise ConfigError(
                "--models-folder lets a client load classifiers, and there is no token. Give one with --token-file "
                f"or {TOKEN_VARIABLE}"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def read_token(file: Path | None) -> str | None:
    """Return the bearer token: from a file, else from ENTAILOR_SERVE_TOKEN; None where there is neither.

    Raises:
        ConfigError: the token is empty, or holds what a header cannot.
    """
    source = str(file) if file is not None else TOKEN_VARIABLE
    try:
        text = file.read_text(encoding="ascii") if file is not None else os.environ.get(TOKEN_VARIABLE)
    except UnicodeDecodeError:
        text = "\0"
    if text is None:
        return None
    token = text.strip()
    if len(token) < 8 or not all("!" <= letter <= "~" for letter in token):
        raise ConfigError(
            f"{source}: a token of at least 8 printable ASCII characters without spaces was expected. "
            "Make one with: openssl rand -hex 32"
        )
    return token
