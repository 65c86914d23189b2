"""The commands by which a finished classifier leaves its run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.options import AsJson, Quiet, Run, TrustCode
from entailor.cli.output import print_result
from entailor.errors import ConfigError


def export(
    run: Run,
    formats: Annotated[
        str,
        typer.Option("--format", help="Some of transformers, adapter, sklearn, onnx, onnx-int8, gguf, gguf-f16."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder; with several formats one folder each in it.")],
    margin: Annotated[
        float, typer.Option("--margin", help="Accuracy a format that rounds weights may lose, as a share.")
    ] = 0.01,
    external: Annotated[
        list[str] | None,
        typer.Option("--external", help="Labelled file for the proof; may be given again. Default: those of the run."),
    ] = None,
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished classifier, and prove the export.

    Every recorded test example is scored again by the exported folder alone, in a process without Entailor. What
    answers otherwise is kept in a folder that ends in .rejected, with the reason, and the command exits with 1.
    """
    from dataclasses import asdict

    from entailor.cli.progress import notes
    from entailor.shipping.export import export as export_run

    names = [name.strip() for name in formats.split(",") if name.strip()]
    reports = export_run(
        run,
        names,
        out,
        margin=margin,
        external=external or None,
        trust_remote_code=trust_remote_code,
        observer=notes(quiet=quiet),
    )
    if as_json:
        print_result(json.dumps([asdict(one) for one in reports], indent=2, default=str))
    else:
        for one in reports:
            print_result(str(one))
    if not all(one.proof.passed for one in reports):
        raise typer.Exit(1)


def serve(
    classifiers: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FOLDER...", help="A run (its recommended candidate), a trial or an export."),
    ],
    host: Annotated[str, typer.Option("--host", help="Address to bind; 0.0.0.0 is every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="Where to listen; 0 takes any free one.")] = 8000,
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
