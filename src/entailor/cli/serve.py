"""The command that serves finished classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.options import TrustCode
from entailor.errors import ConfigError


def serve(
    classifiers: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER...", help="A run (its recommended candidate), a trial or an export."),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to bind; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes any free one.")] = 8000,
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", help="Holds the bearer token. Default: the variable ENTAILOR_SERVE_TOKEN."),
    ] = None,
    wait_ms: Annotated[float, typer.Option("--wait-ms", help="How long an input waits for others to join it.")] = 2.0,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", help="Gather inputs up to about so many.")] = 2048,
    max_queue: Annotated[int, typer.Option("--max-queue", help="Inputs that may wait; then requests get 429.")] = 1024,
    max_inputs: Annotated[int, typer.Option("--max-inputs", help="Inputs of a request.")] = 256,
    max_characters: Annotated[int, typer.Option("--max-characters", help="Of one text.")] = 20_000,
    max_body_bytes: Annotated[int, typer.Option("--max-body-bytes", help="Of a request.")] = 4 << 20,
    models_folder: Annotated[
        Path | None,
        typer.Option("--models-folder", help="Requests may load classifiers below it. Needs a token."),
    ] = None,
    trust_remote_code: TrustCode = False,
) -> None:
    """Serve finished classifiers over HTTP.

    Several at once, each under its folder's name or NAME. The page at / tries texts, /docs shows the interface. Needs
    pip install 'entailor[serve]'.
    """
    try:
        from entailor.serving.server import serve as run_server
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("fastapi", "starlette", "uvicorn", "prometheus_client"):
            raise
        raise ConfigError(f"{error.name} is not installed. Run: pip install 'entailor[serve]'") from None
    from entailor.serving.registry import name_and_path
    from entailor.serving.settings import ServerSettings, read_token

    named = [name_and_path(word) for word in classifiers]
    for name, _ in named:
        if sum(name == other for other, _ in named) > 1:
            raise ConfigError(f"two classifiers would be called {name!r}. Give names: NAME=FOLDER")
    settings = ServerSettings(
        host=host,
        port=port,
        token=read_token(token_file),
        wait_ms=wait_ms,
        batch_tokens=batch_tokens,
        max_queue=max_queue,
        max_inputs=max_inputs,
        max_characters=max_characters,
        max_body_bytes=max_body_bytes,
        models_folder=models_folder,
    )
    if settings.token is None and not settings.is_local:
        typer.echo(f"anybody who reaches {host} can ask: there is no token. Give one with --token-file", err=True)
    run_server(dict(named), settings, trust_remote_code=trust_remote_code)
