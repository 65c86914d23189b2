"""The command that looks for mistakes in data."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.arguments import data_flags, read_experiment
from entailor.cli.options import AsJson, Columns, Config, Delimiter, Encoding, Overrides, Overwrite, Quiet, Train
from entailor.cli.output import print_result
from entailor.errors import ConfigError


def validate(
    overrides: Overrides = None,
    config: Config = None,
    train: Train = None,
    validation: Annotated[
        str | None, typer.Option("--validation", help="Looked at as well, and for examples of train.")
    ] = None,
    test: Annotated[
        str | None, typer.Option("--test", help="Looked at as well, and for examples of the others.")
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    model: Annotated[
        str | None, typer.Option("--model", help="Count its tokens, and find wrong labels by its features as well.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write all findings with all ids as JSON.")] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", help="Exit with 1 on a finding this grave: error, warning or never.")
    ] = "error",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Look for mistakes in labelled data.

    Repeated examples and leaks between files, wrong and contradicting labels, labels given away by one text or a word,
    imbalance, lengths, scripts. Nothing is changed.
    """
    from entailor.cli.progress import notes
    from entailor.diagnostics.doctor import validate as validate_data
    from entailor.report.doctor import doctor_text
    from entailor.runs.outputs import check_output

    failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}
    if fail_on not in failing:
        raise ConfigError(f"--fail-on: {fail_on!r} found, expected one of {', '.join(failing)}")
    flags = data_flags(train, validation, test, columns, delimiter, encoding)
    experiment = read_experiment(config, flags, overrides or [])
    read = (config, *experiment.sources(), model)
    if output is not None:
        check_output(output, read, overwrite=overwrite)
    found = validate_data(
        experiment.data,
        model=model,
        model_settings=experiment.model,
        prompt=experiment.prompt,
        observer=notes(quiet=quiet),
    )
    document = found.document()
    if output is not None:
        found.write(output, inputs=read, overwrite=overwrite)
    print_result(json.dumps(document, indent=2, ensure_ascii=False) if as_json else doctor_text(document))
    if any(one.severity in failing[fail_on] for one in found.findings):
        raise typer.Exit(1)
