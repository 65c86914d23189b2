"""Whether the Hub answers at all: its client waits for ever for a server that takes the connection and stays silent."""

from __future__ import annotations


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
