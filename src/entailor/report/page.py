"""The templates of this folder, filled in: every text is escaped, and what a template misses is an error."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

from entailor.evaluation import wording
from entailor.evaluation.recommendation import peak_memory
from entailor.report.examples import shortened

if TYPE_CHECKING:
    from jinja2 import Environment

WORDING = ("percent", "interval", "points", "decimal", "duration", "milliseconds", "size", "count", "rate", "p_value")
"""Functions of `wording` that templates have as filters."""


def filled(template: str, /, figure: str = "accuracy", **values: Any) -> Any:
    """Return a template as safe HTML.

    Args:
        template: its file.
        figure: the metric that the filter `lead` shows differences of.
        values: what stands in it, by name.
    """
    return safe(_engine(figure).get_template(template).render(**values))


@lru_cache(maxsize=8)
def _engine(metric: str) -> Environment:
    """Return what fills the templates, kept, since compiling them takes longer than filling them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    engine = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=PackageLoader("entailor", "report/templates"),
    )
    engine.filters.update({name: getattr(wording, name) for name in WORDING})
    engine.filters.update(memory=peak_memory, shortened=shortened, lead=partial(wording.lead, metric))
    return engine


def safe(html: str | None) -> Any:
    """Mark as safe what is: what `filled` made, our own files, and SVG, in which matplotlib and plots.py escape."""
    from markupsafe import Markup

    return None if html is None else Markup(html)  # noqa: S704
