"""Where a prompt is rendered: here if its template cannot grow, in a bounded child process if it could.

Jinja's sandbox keeps templates away from the interpreter; it does not keep them from endless time or memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from entailor.tasks.foreign import run_bounded
from entailor.tasks.foreign_worker import environment

MOST_SOURCE = 100_000
MOST_PLAIN = 4_000
"""Characters of a template that is looked at in this process."""
PLAIN_NODES = (
    *("Template", "Output", "TemplateData", "Name", "Const", "Getattr", "Getitem", "If", "CondExpr", "Compare"),
    *("Operand", "Test", "Not", "And", "Or", "Filter", "Slice"),
)
PLAIN_FILTERS = ("capitalize", "default", "d", "first", "last", "length", "count", "lower", "title", "trim", "upper")


def renderer(source: str) -> Callable[..., str]:
    """Return a function that renders a template.

    What only puts texts in their places, or asks for conditions, is as long as its texts and is rendered here. Loops,
    calls and arithmetic go to the child.

    Raises:
        TemplateError: not Jinja.
        ForeignError: not Jinja, too slow or too large.
    """
    if len(source) <= MOST_PLAIN:
        sandbox = environment(strict=True)
        if _is_plain(sandbox.parse(source)):
            compiled: Callable[..., str] = sandbox.from_string(source).render
            return compiled
    return lambda **values: run_bounded("render", source=source, values=values, strict=True)


def _is_plain(tree: Any) -> bool:
    from jinja2 import nodes

    return all(
        type(node).__name__ in PLAIN_NODES and (not isinstance(node, nodes.Filter) or _is_plain_filter(node))
        for node in (tree, *tree.find_all(nodes.Node))
    )


def _is_plain_filter(node: Any) -> bool:
    """Tell a filter whose result is as long as its input; ``join`` is one on labels, and doubles a text elsewhere."""
    if node.name != "join":
        return node.name in PLAIN_FILTERS
    on_labels = getattr(node.node, "name", None) == "labels"
    return on_labels and not node.kwargs and all(type(one).__name__ == "Const" for one in node.args)
