"""A language model behind an API is asked for the label: no or few solved examples, nothing trained, no weights here.

Brown et al. 2020, section 2, by any server that speaks OpenAI's protocol. The prompts are those of `in_context`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from entailor.classifiers.api_answers import Answer, label_logits, read_chat, read_completion, read_echo
from entailor.classifiers.api_client import ApiClient, Budget, Price, Question, Reply, Rules, Server
from entailor.classifiers.base import PromptedClassifier
from entailor.data.example import Example
from entailor.errors import ApiError, MethodError
from entailor.methods.demonstrations import DemonstratedMethod, Demonstrations
from entailor.runs.cache_place import cache_folder
from entailor.runs.files import read_json, write_json
from entailor.tasks import Task

if TYPE_CHECKING:
    from entailor.models.load import Backbone

STATE_FILE = "llm_api.json"
Way = Literal["words", "logprobs", "constrained", "text"]
TRIED: Mapping[str, tuple[Way, ...]] = {
    "chat": ("logprobs", "constrained", "text"),
    "completions": ("words", "logprobs", "text"),
}
UNKNOWN_SETTING = frozenset({400, 404, 422, 501})  # what servers answer where they do not know a key of a request
LEAST_ROOM = 8  # tokens of an answer beside the label word
ECHOED = 3  # likely first tokens that are tried; some become others behind the prompt
ECHO_TOLERANCE = 0.02  # log-probability of one token, asked in two ways
BATCH_SHARE = 16  # what one example counts in a batch: 64 are asked together


class LlmApi(DemonstratedMethod, name="llm_api"):
    """Ask a model on a server for the label word; demonstrations come from train alone."""

    summary: ClassVar[str] = "nothing: a language model behind an API is asked"
    needs_backbone: ClassVar[bool] = False
    training_free: ClassVar[bool] = True
    train_passes: ClassVar[float] = 0.0
    changes_no_answer: ClassVar[frozenset[str]] = frozenset(
        {"max_requests", "max_cost", "concurrency", "timeout", "max_retries"}
    )

    api_model: str = ""
    """The model, as the server calls it."""
    base_url: str | None = None
    """Address of the server up to /v1. None: that of OPENAI_BASE_URL, else OpenAI. Another one beyond this machine is
    refused. The key is taken from OPENAI_API_KEY."""
    endpoint: Literal["chat", "completions"] = "chat"
    """chat: /chat/completions, with demonstrations as turns. completions: /completions, with the prompt as one text."""
    scoring: Literal["auto", "words", "logprobs", "constrained", "text"] = "auto"
    """words: log-probabilities of whole label words in an echoed prompt (completions; one request a label). logprobs:
    of the tokens an answer may begin with. constrained: the answer is one of the words, by a JSON schema. text: the
    answer is searched for a word. auto: the first of these the server can do."""
    top_logprobs: int = Field(default=20, ge=1, le=1000)
    """How many tokens to ask for under scoring=logprobs. OpenAI takes at most 20 in a chat, and 5 else."""
    extra: dict[str, Any] = Field(default_factory=dict)
    """Further keys of each request, e.g. reasoning_effort; null takes a key out."""
    calibration: Literal["none", "batch"] = "none"
    """Label bias that is subtracted. batch: the mean over the validation split, whose labels are not looked at."""
    max_requests: int | None = Field(default=None, ge=1)
    """Most requests of a trial, repetitions included; None: any number."""
    max_cost: float | None = Field(default=None, gt=0)
    """Most money of a trial, in the currency of the prices; None: any sum."""
    input_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens of prompts."""
    output_price: float = Field(default=0.0, ge=0)
    """Price of a million tokens of answers."""
    concurrency: int = Field(default=8, ge=1, le=256)
    """Requests on their way at a time."""
    timeout: float = Field(default=60.0, gt=0)
    """Seconds for a whole answer."""
    max_retries: int = Field(default=6, ge=0, le=20)
    """How often a request is repeated that failed for a reason that may pass, with a longer wait each time."""

    def check(self, task: Task) -> None:
        """Hold the settings against each other; no server is asked.

        Raises:
            MethodError: no model is named, a limit of money without prices, a way of scoring the endpoint does not
                have, or demonstrations that are asked for in two ways.
            ApiError: the address cannot be used.
        """
        super().check(task)
        if not self.api_model:
            raise MethodError("llm_api: no model is named. Give llm_api.api_model=NAME, as the server calls it")
        if self.max_cost is not None and not (self.input_price or self.output_price):
            raise MethodError(
                "llm_api: max_cost needs prices. Give input_price and output_price, those of a million tokens"
            )
        if self.scoring not in ("auto", *TRIED[self.endpoint]):
            raise MethodError(
                f"llm_api: endpoint={self.endpoint} has no scoring={self.scoring}. Give auto, "
                f"{', '.join(TRIED[self.endpoint])}, or another endpoint"
            )
        Server.named(self.base_url)

    def adapt(self, backbone: Backbone | None, task: Task, seed: int) -> LlmApiClassifier:
        """Return the classifier, still without demonstrations.

        Raises:
            MethodError, ApiError: as for :meth:`check`.
        """
        self.check(task)
        return LlmApiClassifier(self, task, seed, Server.named(self.base_url))

    @property
    def calibrates_on_validation(self) -> bool:
        """Whether the validation split must be scored before test."""
        return self.calibration == "batch"

    @property
    def reads_prompt(self) -> bool:
        """A language model is asked, though none is loaded."""
        return True


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: a text, or the turns of a chat."""

    example_index: int
    turns: tuple[str, ...]
    truncated: bool = False

    def __len__(self) -> int:
        return BATCH_SHARE


class LlmApiClassifier(PromptedClassifier):
    """A server, demonstrations, and what is taken off its label scores.

    Args:
        method: the settings.
        task: labels, input shape and template.
        seed: of a draw of demonstrations.
        server: is asked.

    Attributes:
        way: how answers become scores; None until it is known what the server can do.
        bias_L: label bias that is subtracted.
        silent: prompt to the reason why it has no answer.
    """

    abstains: ClassVar[bool] = True

    def __init__(self, method: LlmApi, task: Task, seed: int, server: Server) -> None:
        self.task, self.method, self.server = task, method, server
        self.demonstrations = Demonstrations(method, task, seed)
        self.words = task.template.words
        price = Price(method.input_price, method.output_price)
        rules = Rules(method.concurrency, method.timeout, method.max_retries, price)
        budget = Budget(method.max_requests, method.max_cost)
        self.client = ApiClient(server, rules, budget, cache_folder() / "api")
        self.way: Way | None = None if method.scoring == "auto" else method.scoring
        self.bias_L = np.zeros(len(task.labels))
        self.silent: dict[tuple[str, ...], str] = {}
        self._replies: dict[tuple[str, ...], list[Reply]] = {}
        self._remembers = True

    # --- what is chosen from train and validation

    @property
    def needs_validation(self) -> bool:
        """Whether the validation split must be scored before `calibrate`."""
        return self.method.calibrates_on_validation

    def demonstrate(self, train: Sequence[Example]) -> tuple[str, ...]:
        """Choose demonstrations from train, and find out on one of its examples what the server can do."""
        chosen = self.demonstrations.choose(train)
        if self.way is None:
            prompt = self.encode(train[:1])[0]
            self.way = next(way for way in TRIED[self.method.endpoint] if self._works(way, prompt))
        return (
            f"texts are sent to {self.server.base_url}, model {self.method.api_model}; scored by {self.way}",
            *chosen,
        )

    def calibrate(self, logprobs_EL: NDArray[np.float64], targets_E: NDArray[np.int64]) -> tuple[str, ...]:
        """Take the labels' mean probabilities on validation off, where there is an answer."""
        answered_EL = logprobs_EL[np.isfinite(logprobs_EL).all(axis=1)]
        if not len(answered_EL):
            return ("nothing is taken off the scores: no example of validation has an answer",)
        self.bias_L = np.log(np.exp(answered_EL).mean(0))
        return ()

    def _works(self, way: Way, prompt: Prompt) -> bool:
        """Tell whether the server can be scored this way; the last one always can."""
        if way == "text":
            return True
        try:
            if way == "words":
                return self._echoes_truly(prompt)
            replies = self.client.ask(self._questions(way, prompt))
        except ApiError as error:
            if error.status in UNKNOWN_SETTING:
                return False
            raise
        if way == "logprobs":
            return bool(self._steps(replies[0]))
        return self._read(way, replies)[0] is not None

    @staticmethod
    def _steps(reply: Reply) -> tuple[Any, ...]:
        return () if reply.declined else Answer.model_validate(reply.value).steps

    def _echoes_truly(self, prompt: Prompt) -> bool:
        """Hold the figure of an echoed token against that of the same token where an answer begins.

        Some servers answer with the figures of the next token.
        """
        steps = self._steps(self.client.ask(self._questions("logprobs", prompt))[0])
        if not steps:
            return False
        likely = sorted(steps[0][2].items(), key=lambda item: -item[1])
        for token, logprob in [one for one in likely if one[0].strip().isalnum()][:ECHOED]:
            echoed = self.client.ask([self._echo(prompt, token)])[0].value["logprob"]
            if echoed is not None and abs(echoed - logprob) < ECHO_TOLERANCE:
                return True
        return False

    # --- asking

    def encode(self, examples: Sequence[Example]) -> list[Prompt]:
        """Render, demonstrations in front; how long a text may be the server decides."""
        shots, template = self.demonstrations.before(examples), self.task.template
        chat = self.method.endpoint == "chat"
        return [
            Prompt(
                row,
                tuple(template.turns(one, shots(row))) if chat else (template.prompt(one, shots(row)).rstrip(),),
            )
            for row, one in enumerate(examples)
        ]

    def collate(self, inputs: Sequence[Prompt]) -> Sequence[Prompt]:
        """Return the prompts."""
        return inputs

    def logits(self, batch: Sequence[Prompt]) -> NDArray[np.float32]:
        """Return logits_BL, less the bias; minus infinity for every label where there is no answer."""
        way = self.way or "text"
        questions = [self._questions(way, prompt) for prompt in batch]
        replies = iter(self.client.ask([one for group in questions for one in group]))
        rows = [
            self._scores(way, prompt, [next(replies) for _ in group])
            for prompt, group in zip(batch, questions, strict=True)
        ]
        return (np.array(rows) - self.bias_L).astype(np.float32)

    def _scores(self, way: Way, prompt: Prompt, replies: Sequence[Reply]) -> list[float]:
        """Return one score a label, and remember what there was to say of the replies."""
        scores, reason = self._read(way, replies)
        if self._remembers:
            self._replies[prompt.turns] = list(replies)
            if scores is None:
                self.silent[prompt.turns] = reason
        return [-math.inf] * len(self.words) if scores is None else scores

    def _read(self, way: Way, replies: Sequence[Reply]) -> tuple[list[float] | None, str]:
        """Return one score a label; None where there is no answer, with the reason."""
        if declined := next((one.declined for one in replies if one.declined), None):
            return None, declined
        if way == "words":
            found = [one.value["logprob"] for one in replies]
            return (None if None in found else found), "no log-probabilities"
        answer = Answer.model_validate(replies[0].value)
        scores = label_logits(answer, self.words, exact=self.method.endpoint == "completions")
        return scores, "refused" if answer.refused else "not understood"

    def _questions(self, way: Way, prompt: Prompt) -> list[Question]:
        """Return what is sent for one prompt: one request, or one a label word."""
        if way == "words":
            return [self._echo(prompt, f" {word}") for word in self.words]
        method, chat = self.method, self.method.endpoint == "chat"
        room = LEAST_ROOM + max(len(word.encode()) for word in self.words)  # a token has a byte at least
        body: dict[str, object] = {}
        if chat:
            roles = ("user", "assistant")
            body["messages"] = [{"role": roles[n % 2], "content": text} for n, text in enumerate(prompt.turns)]
        else:
            body |= {"prompt": prompt.turns[0], "stop": ["\n"]}
        if way == "logprobs":
            body |= (
                {"logprobs": True, "top_logprobs": method.top_logprobs} if chat else {"logprobs": method.top_logprobs}
            )
        elif way == "constrained":
            room += 24  # of the JSON around it
            body["response_format"] = {"type": "json_schema", "json_schema": _one_of(self.words)}
        return [self._question(prompt, body, room, read_chat if chat else read_completion)]

    def _echo(self, prompt: Prompt, word: str) -> Question:
        before = prompt.turns[0]
        body = {"prompt": before + word, "echo": True, "logprobs": 1}
        return self._question(prompt, body, 1, lambda document: read_echo(document, before, word))

    def _question(self, prompt: Prompt, body: Mapping[str, Any], room: int, read: Any) -> Question:
        usual = {"model": self.method.api_model, "temperature": 0, "max_tokens": room, **body}
        whole = {key: value for key, value in {**usual, **self.method.extra}.items() if value is not None}
        # an upper bound: a token has a byte at least, and what a chat template writes around a turn is less than this
        most_read = 64 + sum(len(text.encode("utf-8", "replace")) + 32 for text in prompt.turns) + room
        asked = (whole.get(name) for name in ("max_tokens", "max_completion_tokens"))
        most_written = max([room, *(one for one in asked if isinstance(one, int))])
        path = "/chat/completions" if self.method.endpoint == "chat" else "/completions"
        return Question(path, whole, read, most_read, most_written)

    # --- keeping

    def notes(self) -> tuple[str, ...]:
        """Return how often the server was asked, and which answers could not be used."""
        reasons = sorted(set(self.silent.values()))
        counted = ", ".join(f"{reason}: {list(self.silent.values()).count(reason):,}" for reason in reasons)
        silent = (
            (f"no answer for {len(self.silent):,} of {len(self._replies):,} prompts ({counted})",) if reasons else ()
        )
        return (self.client.summary(), *silent)

    def measured_costs(self) -> dict[str, float]:
        """Return the seconds the server took when it was asked, and money for a thousand answers."""
        groups = [group for group in self._replies.values() if group]
        if not groups:
            return {}
        times = [1000 * sum(one.seconds for one in group) for group in groups]
        costs = {f"latency_p{q}_ms": float(np.percentile(times, q)) for q in (50, 95)}
        price = self.client.rules.price
        if price != Price():
            paid = sum(price.of(one.tokens_read, one.tokens_written) for group in groups for one in group)
            costs["cost_per_thousand"] = 1000 * paid / len(groups)
        return costs

    def save(self, folder: Path) -> None:
        """Write the server, how it is scored, demonstrations and bias; never a key."""
        write_json(
            folder / STATE_FILE,
            {
                "server": self.server.base_url,
                "way": self.way,
                "demonstrations": self.demonstrations.document(),
                "bias": self.bias_L.tolist(),
            },
        )

    def load(self, folder: Path) -> None:
        """Read them back.

        Raises:
            ApiError: the server is not one the environment allows.
            ValueError: it is not what :meth:`save` wrote.
        """
        saved = read_json(folder / STATE_FILE)
        bias_L = np.array(saved["bias"], dtype=np.float64)
        if bias_L.shape != (len(self.task.labels),) or saved["way"] not in TRIED[self.method.endpoint]:
            raise ValueError("one bias a label and a way of scoring were expected")
        self.client.server = self.server = Server.named(str(saved["server"]))
        self.bias_L, self.way = bias_L, saved["way"]
        self.demonstrations.read(saved["demonstrations"])
        self._remembers = False  # in a server it would grow for ever

    def parameter_counts(self) -> tuple[int, int, int]:
        """Nothing is trained, and no weights are here."""
        return 0, 0, 0


def _one_of(words: Sequence[str]) -> Mapping[str, object]:
    """Return a JSON schema whose one value is a label word."""
    return {
        "name": "label",
        "strict": True,
        "schema": {
            "type": "object",
            "properties": {"label": {"type": "string", "enum": list(words)}},
            "required": ["label"],
            "additionalProperties": False,
        },
    }
