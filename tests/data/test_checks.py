"""Checks: leaks, contradictions and empty texts are found, and nothing is found in a sound split."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from entailor.data.checks import check_split, drop_leaks, label_spelling
from entailor.data.example import Example, Split
from entailor.data.text_keys import is_among, normalised, text_keys


def pairs(name: str, *rows: tuple[str, str, str]) -> tuple[Example, ...]:
    return tuple(Example(f"{name}-{n}", text, pair, label) for n, (text, pair, label) in enumerate(rows))


def singles(name: str, *rows: tuple[str, str]) -> tuple[Example, ...]:
    return tuple(Example(f"{name}-{n}", text, None, label) for n, (text, label) in enumerate(rows))


SOUND = Split(
    pairs("train", ("It rains.", "It is wet.", "yes"), ("It rains.", "It is dry.", "no")),
    pairs("validation", ("It snows.", "It is cold.", "yes"), ("It snows.", "It is hot.", "no")),
    pairs("test", ("It blows.", "Hats fly.", "yes"), ("It blows.", "It is calm.", "no")),
)


def test_a_sound_split_has_no_findings():
    assert check_split(SOUND) == ()


def test_duplicates_across_parts_are_told_apart():
    test = pairs(
        "test",
        ("It rains.", "It is wet.", "yes"),
        ("it  rains", "It is DRY!", "no"),
        ("It rains.", "Something else.", "no"),
        ("New.", "New too.", "yes"),
    )
    findings = {finding.kind: finding for finding in check_split(Split(SOUND.train, SOUND.validation, test))}
    assert list(findings) == ["exact_duplicates", "near_duplicates", "shared_premises"]
    assert findings["exact_duplicates"].examples == ("test-0",)
    assert findings["near_duplicates"].examples == ("test-1",)
    assert findings["shared_premises"].examples == ("test-0", "test-1", "test-2")
    assert {finding.severity for finding in findings.values()} == {"warning"}
    assert findings["exact_duplicates"].message.startswith(
        "1 of 4 examples (25 %) of test also stand in train, word for word"
    )
    assert "drop_leaks" in findings["exact_duplicates"].remedy


def test_a_test_file_that_is_the_train_file_is_an_error():
    (finding, *_) = check_split(Split(SOUND.train, SOUND.validation, SOUND.train))
    assert (finding.kind, finding.severity) == ("exact_duplicates", "error")


def test_a_duplicate_between_validation_and_test_is_found():
    kinds = {finding.kind for finding in check_split(Split(SOUND.train, SOUND.validation, SOUND.validation))}
    assert kinds == {"exact_duplicates", "shared_premises"}


def test_few_shared_premises_are_only_worth_a_remark():
    rows = [(f"premise {n}", "hypothesis", "yes") for n in range(200)]
    test = pairs("test", ("premise 7", "another", "no"), *((f"other {n}", "hypothesis", "yes") for n in range(199)))
    (finding,) = check_split(Split(pairs("train", *rows), (), test))
    assert (finding.kind, finding.severity, finding.examples) == ("shared_premises", "info", ("test-0",))


def test_contradicting_and_repeated_rows_of_train():
    train = singles("train", ("Good!", "pos"), ("good", "neg"), ("Fine.", "pos"), ("fine", "pos"), ("Good!", "pos"))
    found = {finding.kind: finding for finding in check_split(Split(train, (), ()))}
    assert list(found) == ["conflicting_labels", "repeated_rows"]
    assert found["conflicting_labels"].examples == ("train-0", "train-1", "train-4")
    assert found["repeated_rows"].examples == ("train-3",)


def test_empty_texts_are_found_and_punctuation_is_not_empty():
    train = pairs("train", ("", "a", "x"), ("b", " \t", "y"), ("...", "c", "x"), ("d", "e", "y"))
    (finding,) = check_split(Split(train, (), ()))
    assert (finding.kind, finding.examples) == ("empty_texts", ("train-0", "train-1"))


def test_labels_that_differ_in_case_only():
    (finding,) = label_spelling(Split(singles("train", ("a", "Yes"), ("b", "yes "), ("c", "no")), (), ()), {})
    assert finding.kind == "label_spelling"
    assert "'Yes', 'yes '" in finding.message


def test_leaks_are_dropped_from_train_only():
    train = pairs("train", ("A b.", "c", "x"), ("a B", "c!", "y"), ("a b", "d", "x"), ("e", "f", "y"))
    validation, test = pairs("validation", ("a b", "C", "x")), pairs("test", ("e", "f", "y"), ("g", "h", "x"))
    split, dropped = drop_leaks(Split(train, validation, test))
    assert dropped == 3
    assert [row.id for row in split.train] == ["train-2"]
    assert (split.validation, split.test) == (validation, test)
    kinds = {finding.kind for finding in check_split(split)}
    assert not kinds & {"exact_duplicates", "near_duplicates"}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Don't go.", "don\u2019t  go", True),
        ("\ufb01ne \u2014 \u00c4rger", "fine ARGER".replace("A", "\u00e4", 1), True),
        ("e\u0301", "\u00c9", True),
        ("a\u00a0b", "a b", True),
        ("می‌روم", "میروم", True),
        ("well-known", "well known", True),
        ("3.5", "35", False),
        ("x < 4", "x > 4", False),
        ("$5", "5", False),
        ("\u0915\u0940", "\u0915\u093e", False),
    ],
)
def test_what_counts_as_the_same_text(one, other, same):
    assert (normalised(one) == normalised(other)) is same


TEXTS = st.text(st.sampled_from("aA b.,'\u2019\u00c4\u00e4\u0301\n\0-<\ufb01"), max_size=8)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.none() | TEXTS), max_size=12))
def test_keys_agree_with_texts_normalised_one_by_one(rows):
    keys = text_keys([Example(str(n), text, pair) for n, (text, pair) in enumerate(rows)])
    plain = [(normalised(text), None if pair is None else normalised(pair)) for text, pair in rows]
    for a in range(len(rows)):
        for b in range(a):
            assert (keys.row[a] == keys.row[b]) == (plain[a] == plain[b])
            assert (keys.premise[a] == keys.premise[b]) == (plain[a][0] == plain[b][0])
            assert (keys.exact[a] == keys.exact[b]) == (rows[a] == rows[b])


@pytest.mark.parametrize("known", [[], [3], [5, -2, 5, 9], [2**63 - 1, -(2**63)]], ids=str)
@pytest.mark.parametrize("keys", [[], [5], [9, 5, 5, -7], [2**63 - 1, 0, -(2**63)]], ids=str)
def test_known_keys_are_those_numpy_finds(keys, known):
    ours = is_among(np.array(keys, np.int64), np.array(known, np.int64))
    assert ours.tolist() == np.isin(np.array(keys, np.int64), np.array(known, np.int64)).tolist()
