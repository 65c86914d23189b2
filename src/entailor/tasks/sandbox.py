"""The sandbox prompts are rendered in: no way to Python, and none to endless time or memory either.

Jinja's own sandbox keeps templates away from the interpreter; it lets ``'a' * 10**10`` and ``center(10**10)`` through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from entailor.errors import ConfigError

MOST_RENDERED = 10_000_000
"""Characters of one rendered prompt, and of one repetition in it; a text has at most two million."""
MOST_SOURCE = 100_000
MOST_LOOPS = 1
FILTERS = (
    *("capitalize", "default", "d", "first", "join", "last", "length", "count", "list", "lower", "replace", "reverse"),
    *("sort", "title", "trim", "unique", "upper", "wordcount"),
)
METHODS = (
    *("capitalize", "endswith", "get", "items", "join", "keys", "lower", "lstrip", "replace", "rstrip", "split"),
    *("splitlines", "startswith", "strip", "title", "upper", "values"),
)
_LOOP = re.compile(r"\bfor\b")
_REFUSED = re.compile(r"\{%[-+]?\s*(macro|call|include|import|from|extends|set|with|filter|block)\b|\brecursive\b")
_CODE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}", re.DOTALL)


def refuse_endless(source: str) -> None:
    """Refuse a template that could double its text again and again, or loop within loops.

    Raises:
        ConfigError: it is too long, or holds what no prompt needs.
    """
    if len(source) > MOST_SOURCE:
        raise ConfigError(f"prompt.template: {len(source):,} characters, at most {MOST_SOURCE:,} are taken")
    code = " ".join(_CODE.findall(source))
    if len(_LOOP.findall(code)) > MOST_LOOPS:
        raise ConfigError("prompt.template: more than one loop. A prompt needs none, or one over the labels")
    if found := _REFUSED.search(code):
        raise ConfigError(
            f"prompt.template: {found[0].strip('{%-+ ')!r} is not taken, only slots, filters, conditions and one loop"
        )


def bounded_sandbox() -> Any:
    """Return the Jinja environment."""
    from jinja2 import StrictUndefined
    from jinja2.exceptions import SecurityError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset({"*", "**", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            texts = [one for one in (left, right) if isinstance(one, Sequence)]
            if operator == "**" or (operator == "%" and texts):
                raise SecurityError(f"{operator} is not known in prompts")
            if operator == "*" and texts:
                sizes = [len(one) if isinstance(one, Sequence) else abs(one) for one in (left, right)]
                if sizes[0] * sizes[1] > MOST_RENDERED:
                    raise SecurityError("a repetition is too long")
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, called: Any, *args: Any, **kwargs: Any) -> Any:
            if getattr(called, "__name__", "") not in METHODS:
                raise SecurityError("a prompt can call methods of texts only")
            return super().call(context, called, *args, **kwargs)

    environment = Bounded(undefined=StrictUndefined, autoescape=False)
    environment.globals.clear()
    environment.filters = {name: environment.filters[name] for name in FILTERS}
    return environment


def bounded_text(pieces: Iterable[str]) -> str:
    """Put a rendered text together, and stop where it grows beyond what any prompt is.

    Raises:
        ValueError: it is longer than ten million characters.
    """
    kept: list[str] = []
    length = 0
    for piece in pieces:
        length += len(piece)
        if length > MOST_RENDERED:
            raise ValueError(f"the prompt is longer than {MOST_RENDERED:,} characters")
        kept.append(piece)
    return "".join(kept)
