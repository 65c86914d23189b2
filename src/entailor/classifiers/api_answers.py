"""From what a language model's server answers to one score a label; knows the shapes of answers, and sends nothing.

Where the server tells log-probabilities, the label words are scored by them; else the answer's words decide.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

SURE = 0.95  # of an answer in words, which says nothing of how sure it is; a temperature is fitted on validation
LEAST_MASS = 1e-12
FILTERED = "content_filter"
DENIED = "".join(  # in front of a word: "not spam" names no spam, and "non-toxic" nothing toxic
    rf"(?<!{before})"
    for before in (
        *(rf"{no} {a}" for no in (r"\bnot", "n't", "n’t") for a in ("", "a ", "an ")),
        r"\bno ",
        r"\bnon ",
        r"\bnever ",
        r"\w-",
    )
)
TAIL = 12  # characters in front of a word by which it is found in an echoed prompt

TopLogprobs = dict[str, float]


class Answer(BaseModel):
    """The part of a server's answer that is kept.

    Attributes:
        text: what was written.
        refused: whether the server or the model declined.
        steps: for each token written the token, its log-probability and those of the most probable ones in its place;
            empty where the server does not tell.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: str
    refused: bool = False
    steps: tuple[tuple[str, float, TopLogprobs], ...] = ()


def read_chat(document: Any) -> Mapping[str, Any]:
    """Take an :class:`Answer` out of what /chat/completions gives.

    Raises:
        LookupError, TypeError, ValueError: it is not of that shape.
    """
    choice = document["choices"][0]
    message, told = choice["message"], (choice.get("logprobs") or {}).get("content") or ()
    steps = [
        (one["token"], one["logprob"], {top["token"]: top["logprob"] for top in one.get("top_logprobs") or ()})
        for one in told
    ]
    refused = bool(message.get("refusal")) or choice.get("finish_reason") == FILTERED
    return Answer(text=message.get("content") or "", refused=refused, steps=_finite(steps)).model_dump(mode="json")


def read_completion(document: Any) -> Mapping[str, Any]:
    """Take an :class:`Answer` out of what /completions gives.

    Raises:
        LookupError, TypeError, ValueError: it is not of that shape.
    """
    choice = document["choices"][0]
    told = choice.get("logprobs") or {}
    if "content" in told:  # llama.cpp's own server tells it as in a chat
        return read_chat({"choices": [{**choice, "message": {"content": choice["text"]}}]})
    tops = told.get("top_logprobs") or [{}] * len(told.get("tokens") or ())
    steps = zip(told.get("tokens") or (), told.get("token_logprobs") or (), tops, strict=False)
    refused = choice.get("finish_reason") == FILTERED
    return Answer(text=choice["text"], refused=refused, steps=_finite(steps)).model_dump(mode="json")


def _finite(steps: Any) -> tuple[tuple[str, float, TopLogprobs], ...]:
    """Return the steps up to the first without a figure; servers write minus infinity as -9999 or null."""
    kept = []
    for token, logprob, tops in steps:
        if logprob is None or not math.isfinite(logprob):
            break
        known = {key: float(value) for key, value in (tops or {}).items() if value is not None and math.isfinite(value)}
        kept.append((str(token), float(logprob), known))
    return tuple(kept)


def read_echo(document: Any, before: str, word: str) -> Mapping[str, Any]:
    """Take the summed log-probability of a word at the end of an echoed prompt; None where the server does not tell it.

    Args:
        document: what /completions gives with `echo`, `logprobs` and one new token.
        before: the prompt up to the word.
        word: with the space in front of it.

    Raises:
        LookupError, TypeError, ValueError: it is not of that shape.
    """
    told = document["choices"][0].get("logprobs") or {}
    tokens, logprobs = told.get("tokens") or (), told.get("token_logprobs") or ()
    ends = np.cumsum([0, *map(len, tokens)])
    tail = before[-TAIL:] + word  # a start-of-text token in front, or half a character in it, must not count
    place = "".join(tokens).rfind(tail)
    first, last = place + len(tail) - len(word), place + len(tail)
    counted = [
        logprob
        for logprob, start, end in zip(logprobs, ends[:-1], ends[1:], strict=False)
        if place >= 0 and start < last and end > first
    ]
    if not counted or any(one is None or not math.isfinite(one) for one in counted):
        return {"logprob": None}
    return {"logprob": float(sum(counted))}


def label_logits(answer: Answer, words: Sequence[str], *, exact: bool) -> list[float] | None:
    """Return one score a label; None where the answer is refused or names no label.

    Args:
        answer: of the server.
        words: the label words, all different.
        exact: tokens must spell the word as the prompt goes on, its space in front included; else space in front and
            case are taken alike.
    """
    if answer.refused:
        return None
    scores = _scores_of_steps(answer.steps, [f" {word}" for word in words] if exact else list(words), exact=exact)
    if scores is not None:
        return scores
    found = named_label(answer.text, words)
    if found is None:
        return None
    rest = math.log((1 - SURE) / max(1, len(words) - 1))
    return [math.log(SURE) if label == found else rest for label in range(len(words))]


def _scores_of_steps(
    steps: Sequence[tuple[str, float, TopLogprobs]], words: Sequence[str], *, exact: bool
) -> list[float] | None:
    """Return log-probabilities of the label words by the tokens that begin them; None where none is among them.

    Words that share their first tokens are distinguished where what was written leaves what they share. A token that
    begins one word only counts for it whole. Where tokens must spell the word, the longest of them alone counts, which
    is how a tokenizer writes it: what goes on from a shorter one need not be the word. What is not listed is at most as
    probable as the least that is.
    """
    spelled = [word if exact else word.lstrip().casefold() for word in words]
    alive, done, path = list(range(len(words))), "", 0.0
    mass_L = np.full(len(words), -np.inf)
    least = 0.0
    for token, logprob, tops in steps:
        begun: dict[int, dict[str, float]] = {}
        for candidate, its_logprob in {token: logprob, **tops}.items():
            least = min(least, path + its_logprob)
            # some servers write the token that ends an answer as nothing
            fits = _fitting(done + candidate, spelled, alive, exact=exact, ended=not candidate)
            if len(fits) == 1:
                begun.setdefault(fits[0], {})[done + candidate] = path + its_logprob
        for label, masses in begun.items():
            longest = max(masses, key=lambda text: (spelled[label].startswith(text), len(text)))
            counted = [masses[longest]] if exact else list(masses.values())
            mass_L[label] = np.logaddexp.reduce([mass_L[label], *counted])
        fits = _fitting(done + token, spelled, alive, exact=exact, ended=not token)
        if len(fits) < 2:
            break
        alive, done, path = fits, done + token, path + logprob
    else:  # written to the end: a word that another one goes on from
        if (last := _spelled(done, exact=exact)) in spelled:
            mass_L[spelled.index(last)] = np.logaddexp(mass_L[spelled.index(last)], path)
    known_L = np.isfinite(mass_L)
    if not known_L.any():
        return None
    rest = max(LEAST_MASS, 1 - float(np.exp(mass_L[known_L]).sum()))
    mass_L[~known_L] = min(least, math.log(rest / max(1, int((~known_L).sum()))))
    return [float(one) for one in mass_L]


def _spelled(text: str, *, exact: bool) -> str:
    return text if exact else text.lstrip().casefold()


def _fitting(text: str, spelled: Sequence[str], alive: Sequence[int], *, exact: bool, ended: bool = False) -> list[int]:
    """Return the words a text begins; else the longest one it begins with and then leaves."""
    text = _spelled(text, exact=exact)
    if ended and text in spelled:
        return [spelled.index(text)]
    begun = [label for label in alive if spelled[label].startswith(text)]
    if begun:
        return begun
    over = [
        label for label in alive if text.startswith(spelled[label]) and not re.match(r"\w", text[len(spelled[label]) :])
    ]
    return [max(over, key=lambda label: len(spelled[label]))] if over else []


def named_label(text: str, words: Sequence[str]) -> int | None:
    """Return the label an answer in words names: it is the word, or holds it and no other label's; None otherwise.

    A word that is denied right in front of it (in English) is not named.

    JSON with one value, as a constrained answer has it, stands for that value.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if isinstance(found, dict) and len(found) == 1:
        text = str(next(iter(found.values())))
    said = text.strip().strip(".,:;!?\"'`*()[]").casefold()
    folded = [word.casefold() for word in words]
    for label, word in enumerate(words):
        if word in (text.strip(), said):  # words may differ by case alone
            return label
    if said in folded:
        return folded.index(said)
    left, named = text.casefold(), []
    for label in sorted(range(len(words)), key=lambda label: -len(words[label])):  # longest first
        pattern = rf"(?<!\w){DENIED}{re.escape(folded[label])}(?!\w)"
        if re.search(pattern, left):
            named.append(label)
            left = re.sub(pattern, " ", left)
    return named[0] if len(named) == 1 else None
