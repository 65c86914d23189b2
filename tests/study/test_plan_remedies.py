"""What an error about a planned comparison tells the user to do is done, to the letter, and then its trials begin."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.config.building import experiment
from tests.conftest import make_examples, write_csv

import entailor.study.compare
from entailor.errors import ConfigError
from entailor.study.compare import compare


class BegunError(Exception):
    """Everything was looked at, and the first trial would begin."""


@pytest.fixture(autouse=True)
def no_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(*taken: object) -> None:
        raise BegunError

    monkeypatch.setattr(entailor.study.compare, "_log_access", begin)
    monkeypatch.setattr(entailor.study.compare, "search_candidates", begin)


@pytest.fixture(scope="module")
def places(tiny_model, nli_files, tmp_path_factory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("single")
    texts = write_csv(folder / "train.csv", make_examples(40, seed=5, pair=False, labels=("good", "bad")))
    pairs = " ".join(f"data.{name}={getattr(nli_files, name)}" for name in ("train", "validation", "test"))
    return {"pairs": pairs, "texts": f"data.train={texts}"} | {
        kind: str(tiny_model(kind)) for kind in ("bert", "llama")
    }


def begin(words: str, places: dict[str, str], out: Path) -> None:
    given = shlex.split(words.format(**places))
    with pytest.raises(BegunError):
        compare(experiment(*given, f"out={out}", "estimate=false", "doctor=false", "model.precision=fp32"))


ASK = "{texts} models={llama} methods=in_context"
COST = "{pairs} methods=majority,bag_of_words recommend.metric=cost"


@pytest.mark.parametrize(
    ("wrong", "remedy", "told"),
    [
        ("{texts} methods=hypothesis_only", "Choose others with --methods", "{texts} methods=majority"),
        ("{texts} models={bert} methods=in_context", "Choose others with --methods or --model", ASK),
        ("{texts} models={bert} methods=in_context", "Choose others with --methods or", "{texts} methods=majority"),
        (
            "{texts} models={bert} methods=linear_probe,lora model.long_texts=windows",
            "methods.linear_probe.model.long_texts=truncate sets it for linear_probe alone",
            "{texts} models={bert} methods=linear_probe,lora model.long_texts=windows "
            "methods.linear_probe.model.long_texts=truncate",
        ),
        (
            "{texts} models={bert} methods=linear_probe,lora model.long_texts=windows",
            "Take linear_probe out of methods",
            "{texts} models={bert} methods=lora model.long_texts=windows",
        ),
        (
            "{texts} models={llama} methods=lora model.long_texts=windows",
            "methods.lora.model.long_texts=truncate sets it",
            "{texts} models={llama} methods=lora model.long_texts=windows methods.lora.model.long_texts=truncate",
        ),
        ("{texts} models=none methods=lora", "Write a folder of this name as ./none", None),
        (
            "{texts} models={bert} methods=lora methods.lora.models={llama}",
            "is none of the experiment's models ({bert})",
            "{texts} models={bert} methods=lora methods.lora.models={bert}",
        ),
        (
            "{texts} models={bert} methods=lora lora.metric_for_best_model=weighted_kappa",
            "Set data.ordinal=true, and data.labels=[...] in their order, lowest first, where they are no numbers",
            "{texts} models={bert} methods=lora lora.metric_for_best_model=weighted_kappa data.ordinal=true "
            "data.labels=[bad,good]",
        ),
        (
            "{texts} methods=majority data.ordinal=true",
            "Give their order, lowest first: data.labels=[...]",
            "{texts} methods=majority data.ordinal=true data.labels=[bad,good]",
        ),
        (
            "{texts} models={bert} methods=lora lora.metric_for_best_model=cost",
            "Give recommend.costs, gold label to predicted label to cost",
            "{texts} models={bert} methods=lora lora.metric_for_best_model=cost "
            "recommend.costs='{{good: {{bad: 1}}, bad: {{good: 5}}}}'",
        ),
        (
            f"{COST} recommend.costs='{{{{neutrall: {{{{entailment: 1}}}}}}}}'",
            "Did you mean 'neutral'? Costs stand under gold label, then predicted label",
            None,
        ),
        (
            "{texts} methods=majority recommend.costs='{{good: {{bad: 0}}, bad: {{good: 0}}}}'",
            "Give what mistakes cost",
            "{texts} methods=majority recommend.costs='{{good: {{bad: 0}}, bad: {{good: 1}}}}'",
        ),
        (f"{ASK} prompt.search.templates=[label]", "for example budget.trials=8",
         f"{ASK} prompt.search.templates=[label] budget.trials=8"),
        ("{texts} models={bert} methods=lora prompt.search.templates=[label] budget.trials=8",
         "Add in_context or llm_api, or leave it out",
         "{texts} models=[{bert},{llama}] methods=lora,in_context prompt.search.templates=[label] budget.trials=8"),
        ("{texts} models={bert} methods=lora prompt.search.templates=[label] budget.trials=8", "or leave it out",
         "{texts} models={bert} methods=lora budget.trials=8"),
    ],
)  # fmt: skip
def test_what_a_message_proposes_is_planned(tmp_path, places, wrong, remedy, told):
    given = shlex.split(wrong.format(**places))
    with pytest.raises(ConfigError, match=re.escape(remedy.format(**places))):
        compare(experiment(*given, f"out={tmp_path / 'a'}", "estimate=false", "doctor=false", "model.precision=fp32"))
    if told is not None:
        begin(told, places, tmp_path / "b")


def test_every_missing_cost_is_named_at_once(tmp_path, places):
    given = shlex.split(f"{COST} recommend.costs='{{{{neutral: {{{{entailment: 3}}}}}}}}'".format(**places))
    settings = ("estimate=false", "doctor=false")
    with pytest.raises(ConfigError, match="5 of 6 mistakes have no cost") as caught:
        compare(experiment(*given, f"out={tmp_path / 'a'}", *settings))
    (word,) = re.findall(r"for example '(recommend\.costs=.*)'$", str(caught.value))
    assert '"neutral": {"entailment": 3.0, "contradiction": 1}' in word
    with pytest.raises(BegunError):
        compare(experiment(*given, word, f"out={tmp_path / 'b'}", *settings))


@pytest.mark.parametrize("metric", ["mcc", "auroc", "average_precision"])
def test_a_metric_that_test_cannot_have_is_refused_before_anything_is_trained(tmp_path: Path, metric: str):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("text,label\n" + "".join(f"text number {n},{'ab'[n % 2]}\n" for n in range(60)))
    test.write_text("text,label\n" + "".join(f"another text {n},a\n" for n in range(12)))
    words = (f"data.train={train}", f"data.test={test}", "methods=majority,bag_of_words", f"out={tmp_path / 'run'}")
    with pytest.raises(ConfigError, match=rf"recommend\.metric={metric}: .* one label. Set ") as refused:
        compare(experiment(*words, f"recommend.metric={metric}"))
    word = re.findall(r"Set (\S+?),", str(refused.value))[0]
    with pytest.raises(BegunError):
        compare(experiment(*words, word))
