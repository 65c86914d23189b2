"""The commands that run an experiment."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from entailor.cli.arguments import count_or_seeds, data_flags, read_experiment
from entailor.cli.options import (
    Address,
    AsJson,
    Columns,
    Config,
    CpusPerTrial,
    Delimiter,
    Encoding,
    EstimateOnly,
    ExecutorName,
    External,
    Folds,
    GpusPerTrial,
    LearningCurve,
    MaxTest,
    MaxTrain,
    Methods,
    Model,
    Out,
    Overrides,
    Quiet,
    Seeds,
    Splits,
    Test,
    Train,
    Validation,
    Verbose,
)
from entailor.cli.output import print_result, remark
from entailor.errors import ConfigError

if TYPE_CHECKING:
    from entailor.config.experiment import Experiment
    from entailor.study.jobs import Executor
    from entailor.study.results import Comparison


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
    methods: Methods = None,
    seeds: Seeds = None,
    cv: Folds = None,
    splits: Splits = None,
    out: Out = None,
    external: External = None,
    max_train_examples: MaxTrain = None,
    max_test_examples: MaxTest = None,
    learning_curve: LearningCurve = None,
    estimate_only: EstimateOnly = False,
    executor: ExecutorName = "local",
    address: Address = None,
    cpus_per_trial: CpusPerTrial = None,
    gpus_per_trial: GpusPerTrial = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Run several ways of adapting, and tell which wins.

    All are trained and tested on the same split; where the difference may be chance, the table says so. The same
    command goes on where it stopped. With budget.trials=8 (or budget.minutes, budget.examples) every candidate first
    chooses its settings on validation, at equal effort.
    """
    flags = data_flags(train, validation, test, columns, delimiter, encoding) | {
        "data.cv": cv,
        "data.splits": splits,
        "data.external": external or None,
        "data.max_train_examples": max_train_examples,
        "data.max_test_examples": max_test_examples,
        "models": model,
        "seeds": count_or_seeds(seeds),
        "out": out,
        "learning_curve": learning_curve,
    }
    words = [*([f"methods={methods}"] if methods else []), *(overrides or [])]
    experiment = read_experiment(config, flags, words)
    if _does_part_of_another(experiment, executor if not estimate_only else "local", idle=estimate_only):
        return
    if estimate_only:
        _show_estimate(experiment, as_json=as_json, quiet=quiet)
        return
    with _executor(experiment, executor, address, cpus_per_trial, gpus_per_trial) as where:
        result = _run_experiment(experiment, where, quiet=quiet, verbose=verbose)
    _show_comparison(result, as_json=as_json, quiet=quiet, verbose=verbose)
    if all(record.status == "failed" for record in result.records):
        raise typer.Exit(1)


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
    verbose: Verbose = False,
) -> None:
    """Train one classifier one way, and save it."""
    flags = data_flags(train, validation, test, columns, delimiter, encoding) | {
        "data.max_train_examples": max_train_examples,
        "data.max_test_examples": max_test_examples,
        "models": model,
        "seeds": [seed],
        "out": out,
    }
    experiment = read_experiment(config, flags, [f"methods={method}", *(overrides or [])])
    if _does_part_of_another(experiment, "local"):
        return
    with _executor(experiment, "local", None, None, None) as where:
        result = _run_experiment(experiment, where, quiet=quiet, verbose=verbose)
    _show_comparison(result, as_json=as_json, quiet=quiet, verbose=verbose)
    if any(record.status == "failed" for record in result.records):
        raise typer.Exit(1)
    if not quiet:
        record = result.records[0]
        remark(f"saved in {result.folder.trial(record.model, record.name, record.seed)}")


def _does_part_of_another(experiment: Experiment, executor: str, *, idle: bool = False) -> bool:
    """Where a launcher started this process and it is not the first, do its part of all trials, in silence.

    Args:
        experiment: of the command, which all processes were given.
        executor: where trials run.
        idle: the first process trains nothing.

    Returns:
        Whether it did, and nothing is left to do.

    Raises:
        ConfigError: each process would start trials of its own.
    """
    from entailor.runs.launcher import launched_rank

    rank = launched_rank()
    if rank is not None and executor != "local":
        raise ConfigError(f"--executor {executor}: it starts processes itself. Leave torchrun or --executor out")
    if not rank:
        return False
    if not idle:
        from entailor.scale.processes import follow_first

        follow_first(experiment.distributed)
    return True


@contextmanager
def _executor(
    experiment: Experiment, name: str, address: str | None, cpus: float | None, gpus: float | None
) -> Iterator[Executor]:
    """Give where trials run.

    Raises:
        ConfigError: ray is missing, or a flag of Ray's stands without it.
    """
    from entailor.runs.launcher import launched_rank
    from entailor.study.jobs import HERE

    if name == "ray":
        from entailor.scale import RayExecutor

        yield RayExecutor(address, num_cpus=1 if cpus is None else cpus, num_gpus=gpus)
        return
    flags = {"--address": address, "--cpus-per-trial": cpus, "--gpus-per-trial": gpus}
    if given := [flag for flag, value in flags.items() if value is not None]:
        raise ConfigError(f"{given[0]}: does nothing here. Add --executor ray, or leave it out")
    if launched_rank() is None:
        yield HERE
        return
    from entailor.scale.processes import launched

    with launched(experiment.distributed) as executor:
        yield executor


def _run_experiment(experiment: Experiment, executor: Executor, *, quiet: bool, verbose: bool) -> Comparison:
    from entailor.cli.progress import watch
    from entailor.engine.stopping import Stopped, stop_on_signals
    from entailor.study.compare import compare

    try:
        with stop_on_signals() as stop, watch(quiet=quiet, verbose=verbose) as observer:
            return compare(experiment, observer, stop, executor=executor)
    except Stopped as stopped:
        place = f" at {stopped.place}" if stopped.place else ""
        remark(f"interrupted{place}; the same command goes on where it stopped")
        raise typer.Exit(128 + stopped.signum) from None
    except KeyboardInterrupt:
        remark("interrupted; the same command goes on where it stopped")
        raise typer.Exit(130) from None


def _show_estimate(experiment: Experiment, *, as_json: bool, quiet: bool) -> None:
    from entailor.cli.progress import notes
    from entailor.report.effort import estimate_lines
    from entailor.study.compare import estimate

    expected = estimate(experiment, notes(quiet=quiet))
    if as_json:
        print_result(json.dumps(expected, indent=2))
    else:
        print_result("\n".join(estimate_lines(expected)) if expected["candidates"] else "nothing is left to do")


def _show_comparison(result: Comparison, *, as_json: bool, quiet: bool, verbose: bool) -> None:
    from entailor.report.effort import effort_lines
    from entailor.report.tables import comparison_table, plain_table

    if as_json:
        print_result(json.dumps(result.summary, indent=2, ensure_ascii=False))
    elif sys.stdout.isatty():
        from rich.console import Console

        console = Console()
        console.print(comparison_table(result.summary, width=console.width, verbose=verbose))
    else:
        print_result(plain_table(result.summary, verbose=verbose))
    if verbose and not as_json:
        for line in effort_lines(result.summary):
            print_result(line)
    if not quiet:
        remark(f"report: {result.folder.report_file}")
