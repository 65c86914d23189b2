"""The command line. Each verb reads its words, calls one function of the Python API and prints what came back.

Nothing heavy is imported before a verb needs it, so that ``--help`` answers at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from entailor.cli.arguments import refuse_old_flags, silence_followers
from entailor.cli.compare import compare, train
from entailor.cli.environment import config_schema, env, models_list, models_pull
from entailor.cli.output import print_result, remark
from entailor.cli.predict import evaluate, predict
from entailor.cli.runs import diff, report, study, verify
from entailor.cli.shipping import export, serve
from entailor.cli.validate import validate
from entailor.errors import EntailorError, one_line
from entailor.runs.launcher import launched_rank

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


for command in (compare, train, evaluate, predict, validate, report, export, serve, verify, diff, study, env):
    app.command()(command)
app.command("config-schema")(config_schema)
models_app.command("list")(models_list)
models_app.command("pull")(models_pull)


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


def _open_streams() -> None:
    """Let standard streams that were closed lead nowhere; else the next file that is opened would get their numbers."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 - for good
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and a terminal that is closed end a command as Ctrl-C does, so that half-written files go.

    A launcher's processes wait for each other where no handler of Python runs, and end as the system ends them.
    """

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    asked = [signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)]
    if launched_rank() is not None or threading.current_thread() is not threading.main_thread():
        asked = []
    before = {one: signal.signal(one, end) for one in asked if signal.getsignal(one) is signal.SIG_DFL}  # not nohup
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def main() -> None:
    """Run the command line; an Entailor error is printed as text, a traceback only with ``--debug``."""
    _open_streams()
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # what it warns of is held here, or acted upon
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    try:
        silence_followers(arguments)
        refuse_old_flags(arguments)
        with _ended_by_signals():
            app(args=[word for word in arguments if word != "--debug"])
    except EntailorError as error:
        if debug:
            raise
        remark(f"error: {error}")
        raise SystemExit(2) from None
    except OSError as error:  # a full disk, a folder without permission
        if debug or not error.strerror:
            raise
        from entailor.runs.integrity import disk_trouble

        place = f"{error.filename}: " if error.filename else ""
        remark(f"error: {place}{disk_trouble(error) or error.strerror}")
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        from entailor.engine.memory import is_out_of_memory

        if debug or not is_out_of_memory(error):
            raise
        remark(
            f"error: out of memory ({one_line(error)}). Close other programs, or take a smaller model or fewer texts"
        )
        raise SystemExit(2) from None
