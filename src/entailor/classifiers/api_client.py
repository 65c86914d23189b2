"""Asks a language model's server over HTTP: with retries, a budget that holds, and a cache, so nothing is asked twice.

Knows the protocol that OpenAI, vLLM, llama.cpp, Ollama and others speak, and nothing of labels. The key comes from the
environment, goes into one header, and is written nowhere.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import random
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Condition
from time import perf_counter, sleep, time
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from entailor.errors import ApiError, EntailorError
from entailor.runs.files import read_json, write_json
from entailor.runs.redaction import without_secrets

USUAL_SERVER = "https://api.openai.com/v1"
KEY_VARIABLE, SERVER_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
FIRST_WAIT, LONGEST_WAIT = 0.5, 120.0  # seconds
MOST_BYTES = 16 * 2**20  # of one answer
MOST_SAID = 300  # characters of a server's own message
DECLINED = frozenset({"content_filter", "content_policy_violation", "context_length_exceeded"})
"""Errors that are about one text and not about the server: an answer of their own, which is kept."""
OUT_OF_MONEY = "insufficient_quota"  # the one 429 that waiting does not help


@dataclass(frozen=True)
class Server:
    """Where a model answers.

    Attributes:
        base_url: up to and with /v1, without a slash at its end.
        key: sent to it; None: no key.
    """

    base_url: str
    key: str | None = field(default=None, repr=False)

    @classmethod
    def named(cls, base_url: str | None) -> Server:
        """Return a server by its address, with the key where the environment gives one for it.

        The environment's OPENAI_BASE_URL (else OpenAI) is the only server beyond this machine that is asked, and the
        only one that gets the key: an experiment or a classifier may come from a stranger.

        Raises:
            ApiError: no such address, one with a password in it, or one the environment does not name.
        """
        trusted = (os.environ.get(SERVER_VARIABLE) or USUAL_SERVER).rstrip("/")
        address = (base_url or trusted).rstrip("/")
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ApiError(f"base_url: {address[:200]!r} is no address. Write it like http://127.0.0.1:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ApiError(
                f"base_url: an address without password and query is expected. Put the key in {KEY_VARIABLE}"
            )
        if address != trusted and not _is_this_machine(parts.hostname):
            raise ApiError(
                f"base_url: texts would be sent to {address}, and {SERVER_VARIABLE} does not name this server. If you "
                f"trust it with them, set {SERVER_VARIABLE}={address}"
            )
        return cls(address, os.environ.get(KEY_VARIABLE) or None if address == trusted else None)


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True)
class Price:
    """What a server charges, in any one currency, for a million tokens read and a million written."""

    read: float = 0.0
    written: float = 0.0

    def of(self, tokens_read: float, tokens_written: float) -> float:
        """Return the cost of so many tokens."""
        return (self.read * tokens_read + self.written * tokens_written) / 1e6


class Budget:
    """Money and requests that are never exceeded: what a request may cost at most is set aside before it is sent.

    Args:
        requests: most that are sent, repetitions included; None: any number.
        cost: most that is spent, in the currency of the prices; None: any sum.
    """

    def __init__(self, requests: int | None, cost: float | None) -> None:
        self.most_requests, self.most_cost = requests, cost
        self.requests, self.spent, self._set_aside = 0, 0.0, 0.0
        self._under_way = 0  # what is set aside need not come back to exactly 0
        self._changed = Condition()

    def begin(self, bound: float) -> None:
        """Count a request, and set aside what it may cost; wait where requests on their way decide whether it fits.

        Raises:
            ApiError: it does not fit.
        """
        with self._changed:
            if self.most_requests is not None and self.requests >= self.most_requests:
                raise ApiError(
                    f"the budget of {self.most_requests:,} requests is spent. Raise max_requests (predict "
                    "starts with as many again) and run the same command again: what was answered is not asked again"
                )
            while self.most_cost is not None and self.spent + self._set_aside + bound > self.most_cost:
                if not self._under_way:
                    raise ApiError(
                        f"the budget of {self.most_cost:g} does not suffice: {self.spent:.4g} is spent, and the next "
                        f"request may cost {bound:.2g}. Raise max_cost (predict starts with as much again) and run the "
                        "same command again: what was answered is not asked again"
                    )
                self._changed.wait()
            self.requests += 1
            self._under_way += 1
            self._set_aside += bound

    def end(self, bound: float, cost: float) -> None:
        """Replace what was set aside by what it cost."""
        with self._changed:
            self._under_way -= 1
            self._set_aside = max(0.0, self._set_aside - bound)
            self.spent += cost
            self._changed.notify_all()


@dataclass(frozen=True)
class Question:
    """One request.

    Attributes:
        path: behind the base address.
        body: its JSON.
        read: takes what is needed out of the JSON that comes back, as plain values; ValueError where it is not there.
        most_read: an upper bound of the tokens of the prompt.
        most_written: of those of the answer.
    """

    path: str
    body: Mapping[str, Any]
    read: Callable[[Any], Any]
    most_read: int
    most_written: int


class Reply(BaseModel):
    """What came back, as it stands in the cache.

    Attributes:
        value: what the question's `read` took; None where the text was declined.
        declined: the server's name of the reason, one of DECLINED; None where there is an answer.
        seconds: from sending the last attempt to its last byte.
        tokens_read: of the prompt, as charged.
        tokens_written: of the answer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    value: Any = None
    declined: str | None = None
    seconds: float
    tokens_read: int
    tokens_written: int


@dataclass(frozen=True)
class Rules:
    """How a server is asked.

    Attributes:
        concurrency: requests on their way at a time.
        timeout: seconds for a whole answer.
        max_retries: how often a request is repeated.
        price: of its tokens.
    """

    concurrency: int = 8
    timeout: float = 60.0
    max_retries: int = 6
    price: Price = Price()


class _TransientError(Exception):
    """Another attempt may help; the server may ask to wait for some seconds, and may have charged this one."""

    def __init__(self, problem: str, wait: float | None = None, *, charged: bool = True) -> None:
        super().__init__(problem)
        self.wait, self.charged = wait, charged


class ApiClient:
    """A server, the rules for asking it, and a folder of answers.

    Args:
        server: is asked.
        rules: how.
        budget: what may be spent.
        cache: folder of the answers.

    Attributes:
        answered: questions the server has answered.
        from_cache: those the cache has.
    """

    def __init__(self, server: Server, rules: Rules, budget: Budget, cache: Path) -> None:
        self.server, self.rules, self.budget, self.cache = server, rules, budget, cache
        self.answered = self.from_cache = 0
        self._rng = random.Random(0)
        self._session: Any = None

    def ask(self, questions: Sequence[Question]) -> list[Reply]:
        """Return a reply to each question, from the cache where it was asked before; equal ones are asked once.

        Raises:
            ApiError: the server refuses, stays silent after all repetitions, or the budget is spent. Replies that came
                meanwhile are in the cache.
        """
        files = [self._file(question) for question in questions]
        known = {file: reply for file in set(files) if (reply := _cached(file)) is not None}
        left = {file: one for file, one in zip(files, questions, strict=True) if file not in known}
        self.from_cache += len(known)
        if left:
            self._connect()
            with ThreadPoolExecutor(min(self.rules.concurrency, len(left))) as pool:
                waiting = {file: pool.submit(self._answered, file, one) for file, one in left.items()}
                try:
                    known |= {file: future.result() for file, future in waiting.items()}
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
            self.answered += len(left)
        return [known[file] for file in files]

    def summary(self) -> str:
        """Return what was done so far, in words."""
        again = self.budget.requests - self.answered
        return (
            f"{self.budget.requests:,} requests sent ({again:,} of them repetitions), {self.from_cache:,} answers from "
            "the cache"
        )

    def _file(self, question: Question) -> Path:
        what = json.dumps([self.server.base_url, question.path, question.body], sort_keys=True)
        digest = hashlib.sha256(what.encode("utf-8", "surrogatepass")).hexdigest()
        return self.cache / digest[:2] / f"{digest}.json"

    def _answered(self, file: Path, question: Question) -> Reply:
        """Ask until there is an answer, and keep it."""
        bound = self.rules.price.of(question.most_read, question.most_written)
        for attempt in range(self.rules.max_retries + 1):
            self.budget.begin(bound)
            cost = bound  # unless the server says otherwise
            try:
                reply = self._attempt(question)
                cost = self.rules.price.of(reply.tokens_read, reply.tokens_written)
                break
            except _TransientError as error:
                cost, problem, asked_for = bound if error.charged else 0.0, str(error), error.wait
            except ApiError as error:
                cost = 0.0
                if error.code not in DECLINED:
                    raise
                reply = Reply(declined=error.code, seconds=0.0, tokens_read=0, tokens_written=0)
                break
            finally:
                self.budget.end(bound, cost)
            if attempt < self.rules.max_retries:
                self._wait(attempt, asked_for, problem)
        else:
            raise ApiError(
                f"{self.server.base_url}: no answer after {self.rules.max_retries + 1} attempts ({problem}). Check "
                "that the server runs, and run the same command again: what was answered is not asked again"
            )
        try:
            write_json(file, reply.model_dump())
        except (OSError, EntailorError) as error:
            raise ApiError(
                f"{file}: cannot be written ({error}). Set ENTAILOR_CACHE to a folder you may write to"
            ) from None
        return reply

    def _wait(self, attempt: int, asked_for: float | None, problem: str) -> None:
        if asked_for is not None and asked_for > LONGEST_WAIT:
            raise ApiError(
                f"{self.server.base_url}: asks to wait {asked_for:,.0f} seconds ({problem}). Run the same command "
                "again then: what was answered is not asked again"
            )
        usual = min(LONGEST_WAIT, FIRST_WAIT * 2**attempt) * self._rng.uniform(1, 1.5)
        sleep(max(usual, asked_for or 0.0))

    def _connect(self) -> None:
        if self._session is not None:
            return
        import requests
        from requests.adapters import HTTPAdapter

        self._session = requests.Session()
        if _is_this_machine(urlsplit(self.server.base_url).hostname or ""):
            self._session.trust_env = False  # no proxy of the environment stands between
        adapter = HTTPAdapter(pool_maxsize=self.rules.concurrency, max_retries=0)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)

    def _authorize(self, request: Any) -> Any:
        """Set the header; given as a function, since requests would else take a password from ~/.netrc."""
        if self.server.key is not None:
            request.headers["Authorization"] = f"Bearer {self.server.key}"
        return request

    def _attempt(self, question: Question) -> Reply:
        """Send one request.

        Raises:
            _TransientError: another attempt may help.
            ApiError: none will.
        """
        import requests
        from urllib3.exceptions import HTTPError

        began = perf_counter()
        try:
            with self._session.post(
                f"{self.server.base_url}{question.path}",
                data=json.dumps(question.body).encode("utf-8"),
                headers={"Content-Type": "application/json"},
                auth=self._authorize,
                timeout=self.rules.timeout,
                stream=True,
                allow_redirects=False,  # the key is for this server
            ) as answer:
                content = self._content(answer, began)
        except (requests.RequestException, HTTPError) as error:
            raise _TransientError(without_secrets(f"{type(error).__name__}: {error}")[:MOST_SAID]) from None
        if answer.status_code != 200:
            self._refused(answer.status_code, answer.headers, content)
        try:
            document = json.loads(content)
            value, usage = question.read(document), dict(document.get("usage") or {})
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise _TransientError(f"an answer that is not of this protocol: {type(error).__name__}: {error}") from None
        return Reply(
            value=value,
            seconds=perf_counter() - began,
            tokens_read=_count(usage.get("prompt_tokens"), question.most_read),
            tokens_written=_count(usage.get("completion_tokens"), question.most_written),
        )

    def _content(self, answer: Any, began: float) -> bytes:
        """Read an answer within the time, however slowly it drips."""
        content = bytearray()
        while part := answer.raw.read1(2**16, decode_content=True):  # what is there, unlike iter_content
            content += part
            if perf_counter() - began > self.rules.timeout:
                raise _TransientError(f"the answer took longer than {self.rules.timeout:g} seconds")
            if len(content) > MOST_BYTES:
                raise _TransientError(f"an answer of more than {MOST_BYTES:,} bytes")
        return bytes(content)

    def _refused(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
        """Raise what an error of the server means."""
        code, said = _complaint(content)
        problem = f"HTTP {status}{f': {said}' if said else ''}"
        if status in AGAIN and code != OUT_OF_MONEY:
            raise _TransientError(problem, _seconds_asked_for(headers.get("Retry-After")), charged=False)
        remedy = "Check base_url, api_model and the other settings of llm_api"
        if status in (401, 403):
            remedy = f"Check {KEY_VARIABLE}, which is sent to the server that {SERVER_VARIABLE} names (else to OpenAI)"
        raise ApiError(f"{self.server.base_url}: {problem}. {remedy}", status=status, code=code)


def _cached(file: Path) -> Reply | None:
    """Return a reply of before; what is damaged is asked again."""
    try:
        return Reply.model_validate(read_json(file))
    except (EntailorError, ValidationError):
        return None


def _count(found: object, bound: int) -> int:
    return found if isinstance(found, int) and found >= 0 else bound


def _complaint(content: bytes) -> tuple[str, str]:
    """Return code and message of an error, as far as the server says them."""
    try:
        document = json.loads(content)
    except ValueError:
        return "", without_secrets(content[:MOST_SAID].decode("utf-8", "replace").strip())
    error = document.get("error", document) if isinstance(document, dict) else document
    if not isinstance(error, dict):
        return "", without_secrets(str(error)[:MOST_SAID])
    said = error.get("message") or error.get("detail") or error
    return str(error.get("code") or error.get("type") or ""), without_secrets(str(said)[:MOST_SAID])


def _seconds_asked_for(value: str | None) -> float | None:
    """Return what Retry-After says, seconds or a date (RFC 9110, section 10.2.3); None where it says nothing."""
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time())
    except (ValueError, TypeError):
        return None
