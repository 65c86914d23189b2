"""Mistakes planted in made-up data: a leak, wrong labels, an artefact. Each is found."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from entailor.data.example import Example, Split
from entailor.diagnostics.base import DoctorFinding, EncoderFeatures

LABELS = ("entailment", "neutral", "contradiction")
FindingsOf = Callable[..., dict[str, DoctorFinding]]


def relabelled(rows: tuple[Example, ...], share: float) -> tuple[tuple[Example, ...], set[str]]:
    rng = random.Random(0)
    wrong = set(rng.sample(range(len(rows)), round(share * len(rows))))
    changed = tuple(
        replace(row, label=rng.choice([label for label in LABELS if label != row.label])) if place in wrong else row
        for place, row in enumerate(rows)
    )
    return changed, {rows[place].id for place in wrong}


def test_an_exact_leak_is_found(corpus: Split, findings_of: FindingsOf):
    leaked = corpus.test[:50]
    split = Split(corpus.train + leaked, corpus.validation, corpus.test)
    found = findings_of("repeated_rows", split)["exact_duplicates"]
    assert found.severity == "warning"
    assert found.message.startswith("50 of 200 examples (25 %) of test also stand in train, word for word")
    assert found.examples[0].text == leaked[0].text
    assert "exact_duplicates" not in findings_of("repeated_rows", corpus)


def test_a_lightly_edited_leak_is_found_with_its_counterparts(
    corpus: Split, with_edited_leak: tuple[Split, set[str]], findings_of: FindingsOf
):
    split, leaked = with_edited_leak
    found = findings_of("near_duplicates", split)["near_duplicates_train_test"]
    assert found.severity == "warning"
    assert len(leaked & set(found.ids)) >= 40
    assert set(found.ids) <= leaked
    assert set(found.figures["train_ids"]) <= {f"leak-{one}" for one in leaked}
    assert "% alike with leak-" in found.examples[0].note
    # without the leak, test shares no content word with train
    assert "near_duplicates_train_test" not in findings_of("near_duplicates", corpus)


def test_a_rewritten_leak_is_found_by_its_words(findings_of: FindingsOf):
    rng = random.Random(0)
    made = [" ".join(f"w{int(rng.paretovariate(0.4)) % 3000}" for _ in range(14)) for _ in range(800)]
    rows = [Example(f"row-{n}", made[2 * n], made[2 * n + 1], LABELS[n % 3]) for n in range(400)]
    train, test = tuple(rows[:300]), tuple(rows[300:])

    def rewritten(text: str) -> str:
        words = ["other" if place % 4 == 3 else word for place, word in enumerate(text.split())]
        return " ".join(words[7:] + words[:7])

    def leaked(row: Example, label: str | None) -> Example:
        return Example(f"leak-{row.id}", rewritten(row.text), rewritten(row.text_pair or ""), label)

    assert not findings_of("reworded", Split(train, (), test))
    split = Split(train + tuple(leaked(row, row.label) for row in test[:20]), (), test)
    assert not findings_of("near_duplicates", split)
    found = findings_of("reworded", split)["reworded_train_test"]
    assert found.severity == "warning"
    assert len(found.ids) >= 15
    assert set(found.ids) <= {row.id for row in test[:20]}
    assert found.figures["train_ids"] == [f"leak-{one}" for one in found.ids]
    assert f"{len(found.ids)} of 100 examples" in found.message
    assert found.examples[0].note == f"has the words of {found.examples[1].id}"
    # under another label they are other examples, and what train is made of is no warning
    opposite = dict(zip(LABELS, LABELS[1:] + LABELS[:1], strict=True))
    others = tuple(leaked(row, opposite[str(row.label)]) for row in test[:20])
    assert not findings_of("reworded", Split(train + others, (), test))
    alike = tuple(leaked(row, row.label) for row in train[:60])
    assert findings_of("reworded", Split(split.train + alike, (), test))["reworded_train_test"].severity == "info"


def test_of_very_many_rows_a_sample_is_looked_at_and_said(
    with_edited_leak: tuple[Split, set[str]], findings_of: FindingsOf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("entailor.diagnostics.near_duplicates.MOST_ROWS", 1000)
    split, leaked = with_edited_leak
    found = findings_of("near_duplicates", split)["near_duplicates_train_test"]
    assert found.message.endswith("(in a sample of 1,000 examples)")
    assert set(found.ids) <= leaked


def test_wrong_labels_are_found_where_words_tell_something(half_told: tuple[Example, ...], findings_of: FindingsOf):
    noisy, wrong = relabelled(half_told, 0.05)
    found = findings_of("label_noise", noisy)["label_noise"]
    first = found.ids[: len(wrong)]
    assert 0.02 < found.figures["share"] < 0.08
    # words are right on 67 % here, and in clean data of such accuracy as much may be found: ranked, not warned of
    assert found.severity == "info"
    assert "are found in clean data too" in found.message
    assert len(wrong & set(first)) / len(wrong) > 0.4  # a random pick has 0.05
    assert found.figures["times_chance"] > 5
    assert "expected" in found.examples[0].note


def test_labels_that_words_give_away_in_part_are_no_wrong_labels(findings_of: FindingsOf):
    """Each word speaks for a label, and their sum decides: none is wrong, however the folds and the mistakes fall."""
    rng = np.random.default_rng(0)
    weight_V, share_V = rng.standard_normal(3000), np.arange(1, 3001) ** -0.8
    words_NW = rng.choice(3000, (1500, 10), p=share_V / share_V.sum())
    sum_N = weight_V[words_NW].sum(axis=1)
    rows = tuple(
        Example(
            str(place), " ".join(f"w{word}" for word in words_NW[place]), label="good" if sum_N[place] > 0 else "bad"
        )
        for place in np.flatnonzero(np.abs(sum_N) > 2)
    )
    for seed in range(4):
        found = findings_of("label_noise", rows, seed=seed).get("label_noise")
        assert found is None or found.severity == "info"


def test_where_wrong_labels_cannot_be_found_it_says_so(corpus: Split, findings_of: FindingsOf):
    """Words know nothing of the labels of the whole corpus, and candidates by words are as good as drawn by lot."""
    noisy, _ = relabelled(corpus.train, 0.05)
    found = findings_of("label_noise", noisy)["label_noise"]
    assert found.severity == "info"
    assert "too little to find wrong labels by" in found.message
    assert "Do not act" in found.remedy
    assert "--model" in found.remedy


def test_features_of_an_encoder_that_knows_more_find_more(corpus: Split, findings_of: FindingsOf):
    noisy, wrong = relabelled(corpus.train, 0.05)
    rng = np.random.default_rng(0)
    told = np.eye(3)[[LABELS.index(row.label or "") for row in corpus.train]]
    values = (np.tile(told, 16) + rng.normal(size=(len(noisy), 48))).astype(np.float32)
    found = findings_of("label_noise", noisy, encoder=EncoderFeatures("knowing", values))["label_noise"]
    assert found.severity == "warning"
    assert "features of knowing" in found.message
    assert len(wrong & set(found.ids[: len(wrong)])) / len(wrong) > 0.5


def test_a_marker_in_the_hypotheses_of_one_label_is_found(corpus: Split, findings_of: FindingsOf):
    rng = random.Random(0)
    marked = tuple(
        replace(row, text_pair=f"{row.text_pair} Indeed.") if row.label == "neutral" and rng.random() < 0.6 else row
        for row in corpus.train
    )
    found = findings_of("artefacts", marked)
    assert found["hypothesis_only"].severity == "warning"
    assert found["hypothesis_only"].figures["telling"][0]["words"] in ("indeed", "indeed .", ". indeed")
    word = found["giveaway_word"]
    assert (word.severity, word.figures["label"]) == ("warning", "neutral")
    assert "indeed" in word.figures["words"]
    assert word.figures["share"] == 1.0
    assert 0.5 < word.figures["coverage"] < 0.7
    sound = findings_of("artefacts", corpus)
    assert "giveaway_word" not in sound
    assert "hypothesis_only" not in sound
    assert all(one.severity == "info" for one in sound.values())
