"""What runs in the child process of :mod:`entailor.tasks.foreign`: other people's templates, tokenizers and patterns.

Started by its path, so that it imports the standard library, jinja2 and tokenizers, and nothing else of Entailor.
"""

from __future__ import annotations

import faulthandler
import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any

MOST_RENDERED = 10_000_000
"""Characters of one rendered prompt; a text has at most two million."""
MOST_MEMORY = 4 * 2**30
WAITS = 6
"""How many times as long as it may work a request may take where other work keeps the processor."""
MOST_IDS_A_CHARACTER = 64
"""Byte-level tokenizers give up to four ids a character, Unicode normalisation makes up to 18 characters of one."""


def environment(*, strict: bool) -> Any:
    """Return a sandbox as `transformers` makes it for chat templates, without what gives other text each time.

    Args:
        strict: a name that is not known is an error.
    """
    from jinja2 import StrictUndefined, TemplateError, Undefined, nodes
    from jinja2.exceptions import SecurityError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """``{% generation %}`` marks what the model wrote; here it is text like any other."""

        tags = {"generation"}  # noqa: RUF012 - jinja2's own way

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.Scope(body, lineno=line)

    class PlainNamespace(Namespace):
        """A namespace that cannot be given attributes of Python's own."""

        def __init__(*args: Any, **kwargs: Any) -> None:
            given = dict(*args[1:], **kwargs)
            for name in given:
                PlainNamespace._refuse(name)
            Namespace.__init__(args[0], given)

        def __setitem__(self, name: str, value: Any) -> None:
            PlainNamespace._refuse(name)  # on an instance every name is one of the template's
            super().__setitem__(name, value)

        @staticmethod
        def _refuse(name: object) -> None:
            if str(name).startswith("_"):
                raise SecurityError(f"a namespace takes no name such as {name!r}")

    def raise_exception(message: object) -> None:
        raise TemplateError(str(message))

    def plain_dict(*args: Any, **named: Any) -> dict[Any, Any]:  # the class itself would be a way to Python
        return dict(*args, **named)

    def tojson(value: Any, ensure_ascii: bool = False, **settings: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, **settings)

    made = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined if strict else Undefined,
        trim_blocks=not strict,
        lstrip_blocks=not strict,
        extensions=[Generation, loopcontrols],
    )
    del made.globals["lipsum"], made.filters["random"]
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": raise_exception, "dict": plain_dict}
    made.globals["namespace"] = PlainNamespace
    return made


@lru_cache(maxsize=32)
def compiled(source: str, *, strict: bool) -> Any:
    """Compile a template."""
    return environment(strict=strict).from_string(source)


def render(source: str, values: dict[str, object], strict: bool, date: str | None = None) -> str:
    """Render a template, and stop where the text grows beyond what any prompt is."""
    template = compiled(source, strict=strict)
    if date is not None:
        day = datetime.fromisoformat(date)
        values["strftime_now"] = day.strftime
    kept: list[str] = []
    length = 0
    for piece in template.generate(**values):
        length += len(piece)
        if length > MOST_RENDERED:
            raise ValueError(f"the prompt is longer than {MOST_RENDERED:,} characters")
        kept.append(piece)
    return "".join(kept)


def probe_tokenizer(path: str) -> str:
    """Read a tokenizer file and tokenise samples with it; return what is wrong with it, or an empty text."""
    from tokenizers import Tokenizer

    said = json.loads(Path(path).read_bytes())
    tokenizer = Tokenizer.from_file(path)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = sorted(tokenizer.get_vocab(with_added_tokens=False))
    if not vocabulary:
        return "its vocabulary is empty"
    step = max(1, len(vocabulary) // 64)
    rules = [rule for part in ("normalizer", "pre_tokenizer") for rule in _texts_in(said.get(part)) if len(rule) <= 64]
    printable = "".join(map(chr, range(32, 127)))
    samples = ["a", "ab cd", printable, "é ß Ω ж 中 😀", *vocabulary[::step], *(rule * 16 for rule in rules[:64])]
    found = set()
    for sample in [*samples, "word " * 2000, "a" * 2000]:
        ids = tokenizer.encode(sample, add_special_tokens=False).ids
        if len(ids) > MOST_IDS_A_CHARACTER * (len(sample) + 1):
            return f"it makes {len(ids):,} tokens of {len(sample)} characters"
        found.add(tuple(ids))
    return "it gives the same tokens to every text" if len(found) == 1 else ""


def match_names(pattern: str, names: list[str]) -> str:
    """Match a pattern against names of layers in each way that `peft` does, and return nothing."""
    forms = (f"(?:{pattern})\\Z", f"(.*\\.)?({pattern})$", f".*\\.{pattern}\\.(\\d+)\\.")
    for compiled_form in map(re.compile, forms):
        for name in names:
            compiled_form.match(name)
    return ""


def _texts_in(said: Any) -> Iterator[str]:
    """Yield what the rules of a tokenizer look for and write: the texts a rule that grows would grow on."""
    if isinstance(said, str) and said:
        yield said
    elif isinstance(said, Mapping | Sequence) and not isinstance(said, str):
        for part in said.values() if isinstance(said, Mapping) else said:
            yield from _texts_in(part)


TASKS: dict[str, Callable[..., str]] = {
    "render": render,
    "probe_tokenizer": probe_tokenizer,
    "match_names": match_names,
}


def limit_memory() -> None:
    """Cap the address space, where the system can; the clock and the length of the text are watched everywhere."""
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, ValueError, OSError):
        return


def answer(line: str) -> dict[str, str]:
    """Do what one line asks for."""
    request = json.loads(line)
    try:
        return {"answer": TASKS[request["task"]](**request["values"])}
    except MemoryError:
        return {"kind": "MemoryError", "error": f"it takes more than {MOST_MEMORY // 2**30} GiB of memory"}
    except BaseException as error:  # a panic of a Rust library is no Exception; all of it is reported
        return {"kind": type(error).__name__, "error": f"{error}".strip()[:400] or type(error).__name__}


def main() -> None:
    """Answer one line of JSON with another until the input ends."""
    sys.path[:] = json.loads(sys.stdin.readline())
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for library in ("jinja2.sandbox", "tokenizers"):  # before the clock starts
        import_module(library)

    limit_memory()
    silence = os.open(os.devnull, os.O_WRONLY)
    for line in sys.stdin:
        seconds = float(json.loads(line)["seconds"])
        # a signal or a thread in C: they end the process also where a regular expression never gives the lock back
        if counts := hasattr(signal, "setitimer"):  # time of the processor: a busy machine refuses nothing
            signal.setitimer(signal.ITIMER_PROF, seconds)
        faulthandler.dump_traceback_later(WAITS * seconds if counts else seconds, exit=True, file=silence)
        said = json.dumps(answer(line))
        faulthandler.cancel_dump_traceback_later()
        if counts:
            signal.setitimer(signal.ITIMER_PROF, 0)
        sys.stdout.write(f"{said}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
