"""The commands that look at run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from entailor.cli.options import AsJson, Overwrite, TrustCode
from entailor.cli.output import print_result


def report(run: Annotated[Path, typer.Option("--run", help="A run's folder.")]) -> None:
    """Write report.html again from the records of a run."""
    from entailor.report.html import write_report
    from entailor.runs.layout import RunFolder

    print_result(str(write_report(RunFolder(run))))


def verify(
    run: Annotated[Path, typer.Option("--run", help="A run's folder.")],
    sample: Annotated[int, typer.Option("--sample", min=1, help="Test examples scored again for each trial.")] = 64,
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Check the files of a run, and score again.

    Every file is held against its checksum, and every saved classifier against the recorded probabilities. Exits
    with 1 where something is not as it was written, or a classifier cannot be scored.
    """
    from dataclasses import asdict

    from entailor.study.verification import verify as verify_run

    found = verify_run(run, sample=sample, trust_remote_code=trust_remote_code)
    print_result(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else found.as_text())
    if not found.sound:
        raise typer.Exit(1)


def diff(
    first: Annotated[Path, typer.Argument(metavar="RUN", help="A run's folder.")],
    second: Annotated[Path, typer.Argument(metavar="RUN", help="Another one.")],
    as_json: AsJson = False,
) -> None:
    """Say what differs between two runs.

    That is data, configuration, versions and results; times and peaks of memory do not count. Exits with 1 where
    something differs.
    """
    from dataclasses import asdict

    from entailor.evaluation.difference import diff_runs

    found = diff_runs(first, second)
    print_result(json.dumps(asdict(found), indent=2, ensure_ascii=False) if as_json else found.as_text())
    if not found.same:
        raise typer.Exit(1)


def study(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs, one a data set.")],
    margin: Annotated[
        float | None, typer.Option("--margin", help="Differences up to it count as none. Default: recommend.margin.")
    ] = None,
    output: Annotated[Path | None, typer.Option("--output", help="Write every pair of candidates as JSON.")] = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Compare the same candidates over several data sets.

    Average ranks, paired tests corrected for their number, and for each pair the probability that one is better,
    equivalent or worse on the next data set. Reads what finished runs hold; nothing is trained.
    """
    from entailor.evaluation.across_runs import compare_runs
    from entailor.report.across_runs import across_runs_text
    from entailor.runs.files import write_json
    from entailor.runs.outputs import check_output, output_file

    if output is not None:
        check_output(output, runs, overwrite=overwrite)
    found = compare_runs(runs, margin=margin)
    document = found.document()
    if output is not None:
        with output_file(output, runs, overwrite=overwrite) as temporary:
            write_json(temporary, document)
    print_result(json.dumps(document, indent=2, ensure_ascii=False) if as_json else across_runs_text(found))
