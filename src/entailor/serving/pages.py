"""The pages of a server: one to try texts on, one that shows the OpenAPI document. Both are whole in themselves."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any


@cache
def try_page() -> str:
    """Return the page to try texts on."""
    return files(__package__).joinpath("try.html").read_text(encoding="utf-8")


def docs_page(openapi: Mapping[str, Any]) -> str:
    """Return the OpenAPI document as a page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    engine = Environment(
        loader=PackageLoader("entailor", "serving"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    operations = [
        {"method": method.upper(), "path": path, "summary": one.get("description") or one["summary"], **_parts(one)}
        for path, methods in openapi["paths"].items()
        for method, one in methods.items()
    ]
    schemas = [(name, _fields(schema)) for name, schema in openapi["components"]["schemas"].items()]
    return engine.get_template("docs.html.j2").render(operations=operations, schemas=schemas)


def _parts(operation: Mapping[str, Any]) -> Mapping[str, Any]:
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema", {})
    responses = [
        (
            status,
            one["description"],
            ", ".join(_type(kind.get("schema", {})) for kind in one.get("content", {}).values()),
        )
        for status, one in operation["responses"].items()
    ]
    return {"body": _type(body), "responses": responses}


def _fields(schema: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    required = schema.get("required", ())
    return [
        {
            "name": name,
            "type": _type(field),
            "required": name in required,
            "default": json.dumps(field["default"]) if "default" in field else None,
            "description": field.get("description", ""),
        }
        for name, field in schema.get("properties", {}).items()
    ]


def _type(schema: Mapping[str, Any]) -> str:
    """Return a schema's type in a few words."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(map(_type, schema["anyOf"]))
    if schema.get("type") == "array":
        most = f" of at most {schema['maxItems']}" if "maxItems" in schema else ""
        return f"list{most} of ({_type(schema['items'])})" if "items" in schema else "list"
    limits = [f"{words} {schema[key]}" for key, words in _LIMITS.items() if key in schema]
    return " ".join([str(schema.get("type", "")), *limits]).strip()


_LIMITS = {"minimum": "from", "maximum": "to", "maxLength": "of at most"}


def page_headers(page: str) -> dict[str, str]:
    """Return headers that let a page run its own script and call its own server, and nothing else."""
    scripts = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer", "X-Content-Type-Options": "nosniff"}
