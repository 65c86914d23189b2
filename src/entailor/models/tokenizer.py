"""Text to token ids, once a data set: special tokens added once, longest text truncated first, nothing padded.

Padding belongs to batching, and positions come from lengths: no id is ever compared with the pad id. The ids of the
data sets seen last are kept, since every trial of a comparison asks for the same ones.
"""

from __future__ import annotations

import hashlib
import os
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from threading import Thread
from typing import Any

from entailor.data.example import Example
from entailor.errors import ModelError
from entailor.models.control_tokens import control_ids, suspects, whole_characters, without_control_tokens
from entailor.models.sizes import text_size, unused_positions
from entailor.tasks.foreign import ForeignError, run_bounded

# Positions that must be left for text: special tokens, and a few words.
MIN_ROOM = 8
# Texts the tokenizer is given at once: what it returns is lists of Python numbers, nine times as large as what is kept.
CHUNK = 4096
# Data sets whose ids are kept: train, validation and test, with the room of each method, and for the linear probe
# each text
# of a pair by itself.
KEPT = 12
KEPT_FROM = 64  # examples; answers to single ones shall not push out whole data sets
_kept: OrderedDict[str, tuple[TokenIds, ...]] = OrderedDict()


@dataclass(frozen=True, slots=True)
class TokenIds:
    """One input of a model.

    Attributes:
        example_index: of the example it belongs to; several windows may share one.
        input_ids: token ids of 32 bits, special tokens included, no padding.
        token_type_ids: of 8 bits, 0 for the first text, 1 for the second; None where the model has none.
        truncated: True where text was cut off.
    """

    example_index: int
    input_ids: array[int]
    token_type_ids: array[int] | None
    truncated: bool

    def __len__(self) -> int:
        return len(self.input_ids)


def token_ids(row: int, ids: Sequence[int], types: Sequence[int] | None, *, truncated: bool) -> TokenIds:
    """Return one input, its numbers packed: 400,000 pairs of 50 tokens take 0.2 GB and not the 0.9 GB of lists."""
    return TokenIds(row, array("i", ids), None if types is None else array("b", types), truncated)


class TextEncoder:
    """A checkpoint's tokenizer with its own padding and truncation switched off.

    Args:
        tokenizer: a fast `transformers` tokenizer.
        config: the model's configuration; gives the position limit and the number of token types.
        max_length: most tokens of one input; capped by what the model can take.
        windows: cut a long first text into overlapping windows instead of truncating it.
        stride: tokens shared by neighbouring windows.
    """

    def __init__(
        self, tokenizer: Any, config: Any, max_length: int, *, windows: bool = False, stride: int = 64
    ) -> None:
        # A tokenizer file may switch on padding and truncation of its own; both would change every batch silently.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
        self.tokenizer = tokenizer
        self.control = control_ids(tokenizer)
        self._identity: str | None = None
        self.context = position_limit(config, tokenizer)
        self.max_length = min(max_length, self.context)
        self.windows, self.stride = windows, stride
        self.has_types = (
            "token_type_ids" in tokenizer.model_input_names and (text_size(config, "type_vocab_size") or 0) > 1
        )
        if tokenizer.pad_token_id is None:
            raise ModelError('the tokenizer has no pad token. Set one in tokenizer_config.json ("pad_token")')

    def room_beside(self, reserve: int) -> int:
        """Return how many tokens an input may have beside virtual tokens.

        Raises:
            ModelError: fewer than eight.
        """
        limit = self.max_length - reserve
        if limit < MIN_ROOM:
            more = " or raise model.max_length" if self.context > self.max_length else ""
            raise ModelError(
                f"{reserve} virtual tokens leave {limit} of {self.max_length} positions for text, at least {MIN_ROOM} "
                f"are needed. Lower num_virtual_tokens{more}"
            )
        return limit

    def encode(self, examples: Sequence[Example], reserve: int = 0) -> list[TokenIds]:
        """Tokenise examples in order.

        Args:
            examples: all pairs, or all single texts.
            reserve: positions to leave free for virtual tokens.

        Returns:
            One entry an example, in order; more where windows are on, each carrying its example's row.
        """
        limit = self.room_beside(reserve)
        if not examples:
            return []
        if len(examples) < KEPT_FROM:
            return list(self._encode_chunk(examples, 0, limit))
        key = self._fingerprint(examples, limit)
        if key not in _kept:
            starts = range(0, len(examples), CHUNK)
            pieces = (self._encode_chunk(examples[start : start + CHUNK], start, limit) for start in starts)
            _kept[key] = tuple(chain.from_iterable(pieces))
            if len(_kept) > KEPT:
                _kept.popitem(last=False)
        _kept.move_to_end(key)
        return list(_kept[key])

    def _fingerprint(self, examples: Sequence[Example], limit: int) -> str:
        """Return a hash of all that decides the ids: the tokenizer, the room, and the texts."""
        if self._identity is None:
            said = (self.tokenizer.backend_tokenizer.to_str(), sorted(self.control), self.has_types)
            self._identity = hashlib.blake2b(repr(said).encode("utf-8", "surrogatepass")).hexdigest()
        digest = hashlib.blake2b(repr((self._identity, limit, self.windows, self.stride)).encode(), digest_size=16)
        for row in examples:
            for text in (row.text, row.text_pair):
                data = b"" if text is None else text.encode("utf-8", "surrogatepass")
                digest.update(b"%d " % (-1 if text is None else len(data)) + data)
        return digest.hexdigest()

    def _encode_chunk(self, examples: Sequence[Example], start: int, limit: int) -> Iterator[TokenIds]:
        """Tokenise neighbouring examples; the first one's row is `start`."""
        is_pair = examples[0].text_pair is not None
        texts = [row.text for row in examples]
        pairs = [row.text_pair or "" for row in examples] if is_pair else None
        whole = self._whole(texts, pairs)
        for place, ids in enumerate(whole["input_ids"]):
            if len(ids) <= limit:
                types = whole["token_type_ids"][place] if self.has_types else None
                yield token_ids(start + place, ids, types, truncated=False)
            else:
                yield from self._shorten(start + place, texts[place], pairs[place] if pairs else None, limit)

    def _whole(self, texts: list[str], pairs: list[str] | None) -> Any:
        """Tokenise without truncation; texts that hold half a character or a control token are fixed in place."""
        try:
            whole = self._call(texts, pairs)
        except (TypeError, UnicodeEncodeError):  # the tokenizer takes no half of a surrogate pair
            texts[:] = map(whole_characters, texts)
            if pairs:
                pairs[:] = map(whole_characters, pairs)
            whole = self._call(texts, pairs)
        added = self.tokenizer.num_special_tokens_to_add(pair=pairs is not None)
        for row in suspects(whole["input_ids"], self.control, added):
            text, pair = without_control_tokens(self.tokenizer, self.control, texts[row], pairs[row] if pairs else None)
            texts[row] = text
            if pairs and pair is not None:
                pairs[row] = pair
            again = self._call([text], [pair] if pair is not None else None)
            for name in ("input_ids", *(["token_type_ids"] if self.has_types else [])):
                whole[name][row] = again[name][0]
        return whole

    def _shorten(self, row: int, text: str, pair: str | None, limit: int) -> list[TokenIds]:
        """Return one truncated input, or the windows of a long first text."""
        if self.windows:
            pair_tokens = len(self._call([pair], None)["input_ids"][0]) if pair else 0
            if pair_tokens + self.stride + 8 <= limit:
                return self._cut_windows(row, text, pair, limit)
        cut = self._call([text], [pair] if pair is not None else None, truncation="longest_first", max_length=limit)
        self.tokenizer.backend_tokenizer.no_truncation()
        types = cut["token_type_ids"][0] if self.has_types else None
        return [token_ids(row, cut["input_ids"][0], types, truncated=True)]

    def _cut_windows(self, row: int, text: str, pair: str | None, limit: int) -> list[TokenIds]:
        cut = self._call(
            [text],
            [pair] if pair is not None else None,
            truncation="only_first",
            max_length=limit,
            stride=self.stride,
            return_overflowing_tokens=True,
        )
        self.tokenizer.backend_tokenizer.no_truncation()
        types = cut["token_type_ids"] if self.has_types else [None] * len(cut["input_ids"])
        return [token_ids(row, ids, kind, truncated=False) for ids, kind in zip(cut["input_ids"], types, strict=True)]

    def _call(self, texts: list[str], pairs: list[str] | None, **settings: Any) -> Any:
        settings.setdefault("truncation", False)
        return call_tokenizer(
            self.tokenizer,
            texts,
            pairs,
            add_special_tokens=True,
            padding=False,
            return_attention_mask=False,
            return_token_type_ids=self.has_types,
            verbose=False,
            # Text that looks like a special token ("[SEP]", "<s>") is text. Said in every call: `transformers` sets the
            # backend's own switch back to its default each time.
            split_special_tokens=True,
            **settings,
        )


TOKENIZER_FILE = "tokenizer.json"
SIDE_FILES = (
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.json"),
    *("chat_template.jinja", "vocab.json", "merges.txt", "vocab.txt"),
)
MOST_TOKENIZER = 256 * 2**20
MOST_BESIDE = 32 * 2**20
PATIENCE, SLOWEST = 60.0, 10_000.0
"""Seconds that any call of a tokenizer may take, and characters a second that come on top; usual is a million."""


def check_tokenizer(folder: Path) -> None:
    """Try a folder's tokenizer in a child process before it is read in this one.

    Raises:
        ModelError: a file is too large, cannot be read within bounds, or makes nothing of texts, or far too much.
    """
    for name, most in ((TOKENIZER_FILE, MOST_TOKENIZER), *((name, MOST_BESIDE) for name in SIDE_FILES)):
        file = folder / name
        if not file.exists():
            continue
        if not file.is_file():
            raise ModelError(f"{file}: not a file. {_GET_AGAIN}")
        if (size := file.stat().st_size) > most:
            raise ModelError(f"{file}: {size:,} bytes, at most {most:,} are taken. {_GET_AGAIN}")
    file = folder / TOKENIZER_FILE
    if file.exists() and (problem := _problem_of(file, file.stat().st_size, file.stat().st_mtime_ns)):
        raise ModelError(f"{file}: the tokenizer cannot be used: {problem}. {_GET_AGAIN}")


_GET_AGAIN = "Get the model again from its source, or give another with --model"


@lru_cache(maxsize=64)
def _problem_of(file: Path, size: int, changed_ns: int) -> str:
    """Return what is wrong with a tokenizer file, or an empty text; size and time tell a file that was changed."""
    try:
        return run_bounded("probe_tokenizer", path=str(file.resolve()))
    except ForeignError as error:
        return str(error).split("\n")[0]


def call_tokenizer(tokenizer: Any, texts: list[str], pairs: list[str] | None = None, **settings: Any) -> Any:
    """Call a fast tokenizer, and do not wait for one that does not come to an end.

    A regular expression in its file can take hours over a text, and nothing stops the library; so the call has a thread
    of its own, which is left behind.

    Raises:
        ModelError: it took far longer than any tokenizer, or failed inside the tokenizers library.
    """
    answers: list[Any] = []
    failures: list[BaseException] = []

    def call() -> None:
        try:
            answers.append(tokenizer(texts, pairs, **settings))
        except BaseException as error:  # a panic of the tokenizers library is no Exception
            failures.append(error)

    seconds = PATIENCE + sum(map(len, chain(texts, pairs or ()))) / SLOWEST
    thread = Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if answers:
        return answers[0]
    # the library panics, or raises a plain Exception, over a file that does not hold together
    if failures and type(failures[0]) is not Exception and type(failures[0]).__name__ != "PanicException":
        raise failures[0]
    problem = str(failures[0]).split("\n")[0][:200] if failures else f"it takes longer than {seconds:.0f} seconds"
    where = getattr(tokenizer, "name_or_path", "") or "the tokenizer"
    raise ModelError(f"{where}: its {TOKENIZER_FILE} fails on a text: {problem}. {_GET_AGAIN}")


def fit_tokenizer(name: str, tokenizer: Any, config: Any, *, is_decoder: bool) -> None:
    """Hold the tokenizer against the rows of the embeddings, and give it a pad token that has a row, in place.

    Which token is the pad makes no difference, since positions come from lengths. Tokens without a row do no
    harm where neither a text nor a prompt can give them: some libraries add such tokens by themselves.

    Raises:
        ModelError: some text would be given an id that the embeddings have no row for, its longest length is no
            number, or it fails on a text.
    """
    longest = tokenizer.model_max_length
    if isinstance(longest, bool) or not isinstance(longest, (int, float)):
        raise ModelError(
            f"{name}: tokenizer_config.json: model_max_length: a number was expected, found {str(longest)[:80]!r}. "
            f"{_GET_AGAIN}"
        )
    rows = text_size(config, "vocab_size")
    if rows is None:
        return
    pad = tokenizer.pad_token_id
    words = tokenizer.get_vocab()
    if pad is None or not 0 <= pad < rows:
        special = [index for index in tokenizer.all_special_ids if 0 <= index < rows]
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(special[0] if special else 0)
    unread = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    reached = set(call_tokenizer(tokenizer, ["a"], ["b"])["input_ids"][0])
    reached |= {index for index in words.values() if index not in unread}
    if is_decoder:
        template = str(tokenizer.chat_template)
        in_prompts = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
        reached |= in_prompts | {index for token, index in words.items() if index in unread and token in template}
    beyond = sorted(index for index in reached if index >= rows)
    if beyond:
        first = tokenizer.convert_ids_to_tokens(beyond[0])
        raise ModelError(
            f"{name}: its tokenizer knows {len(beyond)} tokens that its embeddings have no row for: they have {rows:,} "
            f"rows, and {first!r} has the id {beyond[0]}. Tokenizer and weights are of different checkpoints, or "
            "tokens were added and not trained. Save both from one checkpoint; or, with transformers, "
            f"model.resize_token_embeddings({beyond[-1] + 1}) and model.save_pretrained(FOLDER)"
        )


def position_limit(config: Any, tokenizer: Any) -> int:
    """Return how many tokens the model can take: its positions, less those its architecture never uses."""
    positions = text_size(config, "max_position_embeddings")
    stated = getattr(tokenizer, "model_max_length", None) or 10**9
    if stated <= 0:  # taken over from a model whose positions have no end (xlnet)
        stated = 10**9
    return int(min(10**9 if positions is None else positions - unused_positions(config), stated))
