"""The commands that ask a finished classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.arguments import label_settings, mapping
from entailor.cli.options import (
    AsJson,
    Columns,
    ConfigName,
    Delimiter,
    Encoding,
    LabelNames,
    MaxBytes,
    MaxRows,
    NoGold,
    Overwrite,
    Quiet,
    Run,
    SplitName,
    TrustCode,
)
from entailor.cli.output import print_result, remark
from entailor.data.files import MAX_BYTES, MAX_ROWS


def evaluate(
    run: Run,
    test: Annotated[str, typer.Option("--test", help="A labelled file or data set.")],
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    max_bytes: MaxBytes = MAX_BYTES,
    max_rows: MaxRows = MAX_ROWS,
    label_names: LabelNames = None,
    no_gold: NoGold = None,
    config_name: ConfigName = None,
    split: SplitName = None,
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Score a labelled file with a finished classifier.

    Prints accuracy with its interval, the figures of each label, and the confusion matrix.
    """
    from dataclasses import asdict

    from entailor.cli.progress import counting
    from entailor.data.readers import ReadOptions
    from entailor.evaluation.metrics import evaluate_record
    from entailor.report.tables import classification_report_text
    from entailor.shipping.inference import evaluate as evaluate_run

    names, none = label_settings(label_names, no_gold)
    options = ReadOptions(
        columns=mapping(columns, "--columns") or {},
        label_names=names,
        no_gold=none,
        config_name=config_name,
        split=split,
        delimiter=delimiter,
        encoding=encoding,
        max_bytes=max_bytes,
        max_rows=max_rows,
    )
    with counting(quiet=quiet) as observer:
        record = evaluate_run(run, test, options, observer, trust_remote_code=trust_remote_code)
    metrics = evaluate_record(record)
    print_result(
        json.dumps(asdict(metrics), indent=2, ensure_ascii=False) if as_json else classification_report_text(metrics)
    )


def predict(
    run: Run,
    source: Annotated[str, typer.Option("--input", help="CSV, TSV, JSONL (.gz) or Parquet; labels are not needed.")],
    output: Annotated[Path, typer.Option("--output", help="A .csv, .tsv or .jsonl file.")],
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    max_bytes: MaxBytes = MAX_BYTES,
    max_rows: MaxRows = MAX_ROWS,
    config_name: ConfigName = None,
    split: SplitName = None,
    trust_remote_code: TrustCode = False,
    min_confidence: Annotated[
        float,
        typer.Option("--min-confidence", help="Leave the label empty where its probability is below this."),
    ] = 0.0,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="State probabilities at the temperature fitted on validation.")
    ] = False,
    overwrite: Overwrite = False,
    quiet: Quiet = False,
) -> None:
    """Write label probabilities for every example of a file."""
    from entailor.cli.progress import counting
    from entailor.data.readers import ReadOptions
    from entailor.shipping.inference import Confidence
    from entailor.shipping.inference import predict as predict_rows

    mapped = mapping(columns, "--columns") or {}
    options = ReadOptions(
        columns=mapped,
        config_name=config_name,
        split=split,
        require_labels=False,
        delimiter=delimiter,
        encoding=encoding,
        max_bytes=max_bytes,
        max_rows=max_rows,
    )
    with counting(quiet=quiet) as observer:
        confidence = Confidence(calibrated, min_confidence)
        count = predict_rows(
            run,
            source,
            output,
            options,
            observer,
            confidence=confidence,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
        )
    if not quiet:
        unsure = f"; the label is empty where its probability is below {min_confidence:g}" if min_confidence else ""
        remark(f"{count:,} {'example' if count == 1 else 'examples'} written to {output}{unsure}")
