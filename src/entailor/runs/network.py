"""What comes over the network unasked: code from the Hub is shut out, and a Hub that stays silent is noticed.

Imported before any other library, by the package itself.
"""

from __future__ import annotations

import os
import sys

from entailor.errors import ModelError

KERNELS = "kernels"
"""The package with which transformers and bitsandbytes fetch compiled code from the Hub and run it."""


def shut_out_hub_kernels() -> None:
    """Make the package `kernels` look as if it were not installed, here and in child processes.

    Where it is installed, importing peft imports bitsandbytes, which fetches compiled code on some processors;
    transformers does so for some architectures. A package that was imported before stays: see `check_no_hub_kernels`.
    """
    os.environ["USE_HUB_KERNELS"] = "NO"
    if sys.modules.get(KERNELS) is None:
        sys.modules[KERNELS] = None  # type: ignore[assignment]  # Python's own mark: importing it fails


def check_no_hub_kernels() -> None:
    """Refuse to load a model where the door stood open before Entailor was imported.

    Raises:
        ModelError: the package `kernels` was imported earlier in this process.
    """
    if hub_kernels_loaded():
        raise ModelError(
            "the package kernels, which fetches compiled code from the Hub and runs it, was imported before entailor. "
            "Import entailor first, before transformers and peft"
        )


def hub_kernels_loaded() -> bool:
    """Tell whether code from the Hub can be fetched in this process."""
    return sys.modules.get(KERNELS) is not None


def hub_is_silent() -> bool:
    """Tell whether the Hub takes a connection and then says nothing for HF_HUB_ETAG_TIMEOUT seconds (10 by default).

    A server that cannot be reached is not silent: the client's own error says so at once.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx or httpx2, by the version

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HTTPError as error:
        return "Timeout" in type(error).__name__ and "Connect" not in type(error).__name__
    except OSError:
        return False
    return False
