"""Writes what repeats the code: hyperparameter tables, experiment keys, the command line, the schema of every file.

Run ``python docs/generate.py`` after changing a setting or an option. With ``--check`` nothing is written, and the
exit code is 1 where a page is stale.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from entailor.config.experiment import Experiment
from entailor.config.overrides import SECTIONS
from entailor.config.parts import Settings
from entailor.methods import Method, TrainedMethod, registered_methods

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))
import file_schemas  # noqa: E402 - stands beside this file, which is loaded by its path as well

BEGIN = "<!-- written by docs/generate.py from here on -->"
END = "<!-- written by docs/generate.py up to here -->"
COLUMNS = 88
"""Width of the help texts, whatever terminal this runs in."""


def pages() -> dict[Path, str]:
    """Return every page that is written here, wholly or in part, with the text it ought to hold."""
    methods = {DOCS / "methods" / f"{name}.md": kind for name, kind in registered_methods().items()}
    written = {path: with_hyperparameters(path, kind) for path, kind in methods.items()}
    reference, schemas = DOCS / "reference", file_schemas.schemas()
    written |= {reference / "config.md": config_page(), reference / "cli.md": cli_page()}
    written |= {reference / "files.md": files_page(schemas)}
    return written | {
        reference / "schemas" / schema_file(name): json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
        for name, schema in schemas.items()
    }


def stale_pages() -> dict[Path, str]:
    """Return the pages that do not hold what the code says, with what they ought to hold."""
    return {
        path: text for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text
    }


def with_hyperparameters(path: Path, kind: type[Method]) -> str:
    """Return a method's page with its table between the two marker comments.

    Raises:
        SystemExit: the page or a marker is missing.
    """
    if not path.exists():
        raise SystemExit(f"{path}: missing. Write a page for this method, with the lines {BEGIN} and {END}")
    text = path.read_text(encoding="utf-8")
    begin, end = text.find(BEGIN), text.find(END)
    if not 0 <= begin < end:
        raise SystemExit(f"{path}: the lines {BEGIN} and {END} were expected, in this order")
    return f"{text[:begin]}{BEGIN}\n\n{hyperparameters(kind)}\n\n{text[end:]}"


def hyperparameters(kind: type[Method]) -> str:
    """Return a method's keys as a table, its own before those of the training loop, and where they are searched."""
    if not kind.model_fields:
        return "This method has no hyperparameters."
    shared = TrainedMethod.model_fields if issubclass(kind, TrainedMethod) else {}
    own_first = sorted(kind.model_fields, key=lambda key: key in shared)
    ranges = [
        f"`{key}` from {shown(one.low)} to {shown(one.high)}{', on a logarithmic scale' if one.log else ''}"
        for key, one in kind().search_space().items()
    ]
    searched = f"\n\nWhere to search: {'; '.join(ranges)}." if ranges else ""
    return table(kind, own_first) + searched


def table(kind: type[Settings], keys: Iterable[str]) -> str:
    """Return keys, defaults and meanings as a Markdown table."""
    lines = ["| key | default | meaning |", "| --- | --- | --- |"]
    for key in keys:
        default = code(shown(kind.model_fields[key].get_default(call_default_factory=True)))
        lines.append(f"| {code(key)} | {default} | {cell(meaning(kind, key))} |")
    return "\n".join(lines)


def meaning(kind: type[Settings], key: str) -> str:
    """Return a field's docstring, its base class's where it only gives another default, and the values it can take."""
    fields = [
        base.model_fields[key] for base in kind.__mro__ if issubclass(base, Settings) and key in base.model_fields
    ]
    text = next((field.description for field in fields if field.description), "").replace("None:", "`null`:")
    choices = choices_of(fields[0])
    told = all(f"{choice}:" in text for choice in choices)
    return text if told else f"{text} One of {', '.join(map(code, choices))}."


def choices_of(field: FieldInfo) -> tuple[str, ...]:
    """Return the words a field is limited to, or nothing."""
    return get_args(field.annotation) if get_origin(field.annotation) is Literal else ()


def shown(value: Any) -> str:
    """Return a default as it is written in YAML, on one line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return re.sub(r"e([+-])0", r"e\1", f"{value:g}")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, dict):
        return f"[{', '.join(value)}]" if value else "{}"
    return str(value).replace("\n", "\\n")  # a line break would end the table


def code(text: str) -> str:
    """Return text as inline code."""
    return f"`{text}`"


def cell(text: str) -> str:
    """Return text that may stand in a table's cell."""
    return " ".join(text.split()).replace("|", "\\|")


def config_page() -> str:
    """Return the page of all experiment keys."""
    own = [key for key in Experiment.model_fields if key not in SECTIONS]
    parts = [
        "# Experiment keys",
        "Written by `docs/generate.py`; do not edit.",
        "An experiment is a YAML file given with `--config`, flags over it, and `key=value` words over both. A key of "
        "a section is written with a dot on the command line: `data.validation_size=0.2`. A method's key may "
        "stand with the "
        "row's name (`lora.r=8`) or alone (`learning_rate=1e-4`); alone it goes to every chosen method that has it, "
        "else to the section that has it "
        "(`load_in_4bit=true`). An "
        "unknown key is an error that names the nearest known one. `entailor config-schema` prints all of it as a JSON "
        "schema.",
        "## The experiment",
        table(Experiment, own),
    ]
    for name, kind in SECTIONS.items():
        parts += [f"## {code(name)}", " ".join((kind.__doc__ or "").split()), table(kind, kind.model_fields)]
    parts += [
        f"## {code('methods')}",
        "A list of names, or a mapping from row name to keys. The row name is the method; where one method stands in "
        "several rows, each has a name of its own and the key `method`. The keys `models`, `model` and `prompt` "
        "of a row choose among the experiment's models and change those settings for the row alone.",
        "\n".join(method_lines()),
    ]
    return "\n\n".join(parts) + "\n"


def method_lines() -> Iterator[str]:
    """Yield the methods as a table with links to their pages."""
    yield "| method | what it trains or reads |"
    yield "| --- | --- |"
    for name, kind in registered_methods().items():
        yield f"| [{name}](../methods/{name}.md) | {cell(kind.summary)} |"


def schema_file(name: str) -> str:
    """Return what the schema of a file is called."""
    return f"{name.lstrip('.')}.schema.json"


def files_page(schemas: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the page of every file that is written, with its keys and its JSON schema."""
    parts = [
        "# Every file",
        "Written by `docs/generate.py`; do not edit.",
        "What stands in the files of a [run folder](../guides/run-folder.md) and of an [export](../guides/export.md). "
        "Each has a JSON schema (draft 2020-12); of a `.jsonl` file it is that of a line. Where keys may come that "
        "are not listed, the page says so. `checksum` is the SHA-256 of the file with 64 zeros in its place. "
        "`experiment.yaml` holds the [experiment](config.md) with every default written out "
        f"([schema](schemas/{schema_file('experiment.yaml')})).",
    ]
    for name, (_, where) in file_schemas.FILES.items():
        schema = schemas[name]
        said = str(schema.get("description", "")).partition("\n")[0]
        more = "" if schema.get("additionalProperties") is False else " Other keys may come."
        parts += [
            f"## {code(name)}",
            f"{said} In: {where}. [Schema](schemas/{schema_file(name)}).{more}",
            "\n".join(["| key | type | meaning |", "| --- | --- | --- |", *key_lines(schema)]),
        ]
    return "\n\n".join(parts) + "\n"


def key_lines(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line of a table for each key of a schema; what no docstring says of a key stands behind its type."""
    told = dict(re.findall(r"^\s*(\w+): (.*?)(?=^\s*\w+: |\Z)", str(schema.get("description", "")), re.M | re.S))
    for key, value in schema["properties"].items():
        kind = type_of(value, schema.get("$defs", {}))
        inner = schema.get("$defs", {}).get(value.get("$ref", "").rpartition("/")[2], {})
        meaning = value.get("description") or told.get(key) or str(inner.get("description", "")).partition("\n")[0]
        yield f"| {code(key)} | {cell(kind)} | {cell(meaning)} |"


def type_of(value: Mapping[str, Any], known: Mapping[str, Any]) -> str:
    """Return a type of a schema in words."""
    if "$ref" in value:
        return type_of(known[value["$ref"].rpartition("/")[2]], known)
    if "anyOf" in value:
        return " or ".join(dict.fromkeys(type_of(one, known) for one in value["anyOf"]))
    if "const" in value or "enum" in value:
        return ", ".join(code(str(one)) for one in value.get("enum", [value.get("const")]))
    if value.get("type") == "array":
        inner = value.get("items", {})
        return "list of " + (type_of(inner, known) if inner else "values")
    return {"object": "mapping", "string": "text"}.get(str(value.get("type", "value")), str(value.get("type", "value")))


def cli_page() -> str:
    """Return the page of all verbs, each with its help text."""
    parts = [
        "# Command line",
        "Written by `docs/generate.py`; do not edit.",
        "Results go to standard output, remarks and progress to standard error. `--debug`, with any verb, shows a "
        "traceback instead of an error's text. Exit codes: 0 for success, 1 where no trial finished, or where "
        "`verify`, `diff` or `validate` found something, 2 for an error, 130 after Ctrl-C, 143 after SIGTERM, 129 "
        "after the terminal was closed.",
    ]
    for words in verbs():
        parts += [f"## {code(' '.join(words))}", f"```text\n{help_text(words[1:]).strip()}\n```"]
    return "\n\n".join(parts) + "\n"


def verbs() -> Iterator[list[str]]:
    """Yield the words of every command, groups first."""
    from typer.main import get_command

    from entailor.cli.app import app

    def walk(command: Any, words: list[str]) -> Iterator[list[str]]:
        yield words
        for name, inner in getattr(command, "commands", {}).items():
            yield from walk(inner, [*words, name])

    yield from walk(get_command(app), ["entailor"])


def help_text(words: list[str]) -> str:
    """Return what ``entailor WORDS --help`` prints, without colours and at a fixed width."""
    from typer.testing import CliRunner

    from entailor.cli.app import app

    width = {"COLUMNS": str(COLUMNS), "TERMINAL_WIDTH": str(COLUMNS), "NO_COLOR": "1"}
    result = CliRunner().invoke(app, [*words, "--help"], prog_name="entailor", env=width)
    if result.exit_code:
        raise SystemExit(f"entailor {' '.join(words)} --help failed: {result.output}")
    return "\n".join(line.rstrip() for line in result.output.splitlines())


def main(arguments: list[str]) -> int:
    """Write the pages, or with ``--check`` name the stale ones; return the exit code."""
    stale = stale_pages()
    for path, text in stale.items():
        place = os.path.relpath(path)
        if "--check" in arguments:
            sys.stderr.write(f"{place} is stale. Run: python docs/generate.py\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            sys.stdout.write(f"{place} written\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
