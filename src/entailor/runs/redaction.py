"""Secrets out of texts that are written to a run folder: tokens, passwords in addresses, values of the environment.

Nothing of Entailor's writes a secret on purpose; error texts of other libraries may hold an address or a header.
"""

from __future__ import annotations

import os
import re

HIDDEN = "[hidden]"
SHORTEST_SECRET = 8  # a value like "1" or "true" is none, and would be found in every text
_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_?KEY|CREDENTIAL", re.IGNORECASE)
_SHAPES = (
    # each issuer's own alphabet: names of models and packages begin alike (hf-internal-testing, pypi-NAME-VERSION)
    (re.compile(r"\b(hf|api_org|ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{16,}"), HIDDEN),
    (re.compile(r"\bgithub_pat_\w{16,}"), HIDDEN),
    (re.compile(r"\bpypi-AgE[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\bglpat-[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"\bsk-(?=[A-Za-z0-9_-]{0,200}[A-Z])(?=[A-Za-z0-9_-]{0,200}\d)[A-Za-z0-9_-]{16,}"), HIDDEN),
    (re.compile(r"(?<=://)[^/\s:@]*:[^/\s@]+(?=@)"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/-]{8,}=*"), HIDDEN),
    (re.compile(r"(?i)([?&](?:x-amz-signature|signature|token|key-pair-id|policy)=)[^&\s]+"), rf"\1{HIDDEN}"),
)


def without_secrets(text: str) -> str:
    """Return a text with what looks like a secret, or is one of this process's environment, hidden."""
    for name, value in os.environ.items():
        if len(value) >= SHORTEST_SECRET and _NAMES.search(name):
            text = text.replace(value, HIDDEN)
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    return text
