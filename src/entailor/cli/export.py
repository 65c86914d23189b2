"""The command that exports a finished classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.options import AsJson, Quiet, Run, TrustCode
from entailor.cli.output import print_result, remark


def export(
    run: Run,
    formats: Annotated[
        str,
        typer.Option("--format", help="transformers, adapter, sklearn, onnx, onnx-int8; several with commas."),
    ],
    out: Annotated[Path, typer.Option("--out", help="A new folder; with several formats one folder each in it.")],
    margin: Annotated[
        float, typer.Option("--margin", help="Accuracy a format that rounds weights may lose, as a share.")
    ] = 0.01,
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Export a finished classifier, and prove the export.

    Every recorded test example is scored again by the exported folder alone, in a process without Entailor. What
    answers otherwise is kept in a folder that ends in .rejected, with the reason, and the command exits with 1.
    """
    from dataclasses import asdict

    from entailor.shipping.export import export as export_run

    names = [name.strip() for name in formats.split(",") if name.strip()]
    reports = export_run(
        run,
        names,
        out,
        margin=margin,
        trust_remote_code=trust_remote_code,
        note=lambda text: None if quiet else remark(text),
    )
    if as_json:
        print_result(json.dumps([asdict(one) for one in reports], indent=2, default=str))
    else:
        for one in reports:
            print_result(str(one))
    if not all(one.proof.passed for one in reports):
        raise typer.Exit(1)
