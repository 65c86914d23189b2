"""The checks that count: labels, lengths, scripts, label names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from tests.observers import listener

from entailor.data.example import Example, Split
from entailor.data.words import TextFeatures, words_of
from entailor.diagnostics.base import CheckInput, DoctorFinding, examine, registered_checks, shortened
from entailor.diagnostics.scripts import main_script, mixed_word

FindingsOf = Callable[..., dict[str, DoctorFinding]]


def singles(*rows: tuple[str, str], part: str = "train") -> tuple[Example, ...]:
    return tuple(Example(f"{part}-{n}", text, None, label) for n, (text, label) in enumerate(rows))


def test_a_check_is_one_file_that_registers_itself():
    names = "artefacts exchanged_columns imbalance label_names label_noise lengths misaligned near_duplicates "
    names += "placeholders repeated_rows reworded scripts"
    assert list(registered_checks()) == names.split()


def test_few_rows_are_looked_at_as_far_as_they_go():
    told: list[str] = []
    split = Split(singles(("good text", "a"), ("bad text", "b")), (), ())
    results = {
        one.name: one for one in examine(CheckInput(split, ("a", "b"), is_pair=False), listener(note=told.append))
    }
    assert len(told) == len(results) == 12
    assert "at least 60" in (results["label_noise"].outcome.skipped or "")
    assert "at least 60" in (results["artefacts"].outcome.skipped or "")
    assert results["near_duplicates"].outcome.skipped is None


def test_many_labels_are_fitted_to_fewer_examples_and_too_many_to_none():
    def looked_at(num_labels: int, num_rows: int) -> CheckInput:
        rows = singles(*((f"text {n}", f"label {n % num_labels}") for n in range(num_rows)))
        return CheckInput(Split(rows, (), ()), tuple(f"label {n}" for n in range(num_labels)), is_pair=False)

    assert len(looked_at(3, 20_000).fitted_rows) == 12_000
    many = looked_at(500, 20_000)
    assert (len(many.fitted_rows), many.too_few()) == (3_000, None)
    results = {name: registered_checks()[name][1](looked_at(1000, 20_000)) for name in ("artefacts", "label_noise")}
    for one in results.values():
        assert one.skipped == "1,000 labels are too many to learn from the 1,500 examples that would be looked at"


def test_imbalance_rare_labels_and_shift(findings_of: FindingsOf):
    train = singles(*((f"text {n}", "a") for n in range(300)), *((f"other {n}", "b") for n in range(10)))
    test = singles(*((f"new {n}", "b") for n in range(60)), part="test")
    found = findings_of("imbalance", Split(train, (), test))
    assert "'a' has 30.0 times the examples of 'b' in train (300 and 10)" in found["imbalance"].message
    assert found["imbalance"].severity == "warning"
    assert "'b'" in found["rare_labels"].message
    assert "'a' is 97 % of train and 0 % of test" in found["label_shift"].message


def test_balanced_labels_in_equal_proportions_are_no_finding(findings_of: FindingsOf, corpus: Split):
    assert findings_of("imbalance", corpus) == {}


def test_a_text_far_longer_than_the_rest_and_parts_of_other_length(findings_of: FindingsOf):
    train = singles(("word " * 3000, "a"), *(("one two three", "ab"[n % 2]) for n in range(40)))
    test = singles(*(("one two three four five six", "a") for _ in range(10)), part="test")
    found = findings_of("lengths", Split(train, (), test))
    assert found["long_texts"].ids == ("train-0",)
    assert found["long_texts"].examples[0].note == "3,000 words"
    assert found["length_shift"].message == "half of the first texts of test have at most 6 words, of train 3"


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Hello", "Latin"),
        ("Größe", "Latin"),
        ("привет мир", "Cyrillic"),
        ("سلام دنیا", "Arabic"),
        ("日本語のテキスト", "Japanese or Chinese"),
        ("हिन्दी पाठ", "Devanagari"),
        ("12 :-)", ""),
    ],
)
def test_the_script_of_a_text(text: str, script: str):
    assert main_script(text) == script


def test_look_alike_letters_in_one_word_are_found():
    assert mixed_word("pаypal") is not None  # the first a is Cyrillic
    assert mixed_word("paypal и банк") is None


def test_rows_in_another_script_broken_characters_and_markup(findings_of: FindingsOf):
    rows = [(f"a plain sentence {n}", "ab"[n % 2]) for n in range(200)]
    rows += [("совсем другой язык", "a"), ("cafÃ© it is â€œniceâ€\x9d", "b"), ("bread &amp; butter<br/>", "a")]
    found = findings_of("scripts", singles(*rows))
    assert found["other_script"].ids == ("train-200",)
    assert found["other_script"].examples[0].note == "Cyrillic"
    assert found["broken_characters"].ids == ("train-201",)
    assert found["markup"].ids == ("train-202",)
    assert {one.severity for one in found.values()} == {"info"}


def test_texts_in_another_language_of_the_same_script_are_found(findings_of: FindingsOf):
    rows = [(f"the cat was in house {n} with a dog", "ab"[n % 2]) for n in range(200)]
    rows += [("de hond en de kat zijn niet in het huis", "a"), ("le chat est dans la maison avec des amis", "b")]
    rows += [("San Juan de la Cruz is one of the towns", "a"), ("Los Angeles", "b"), ("pizza margherita", "a")]
    found = findings_of("scripts", singles(*rows))["other_language"]
    assert found.ids == ("train-200", "train-201")
    assert [one.note for one in found.examples] == ["Dutch", "French"]
    assert "than the usual English" in found.message
    assert found.severity == "info"
    mixed = [("de hond en de kat zijn niet in het huis", "a")] * 100 + rows[:110]
    assert findings_of("scripts", singles(*mixed))["other_language"].severity == "warning"
    unknown = singles(*((f"txakurra etxean dago {n}", "ab"[n % 2]) for n in range(40)), *rows[200:202])
    assert "other_language" not in findings_of("scripts", unknown)


def test_pairs_in_two_scripts(findings_of: FindingsOf):
    rows = [Example(str(n), "a plain sentence", "обычное предложение", "ab"[n % 2]) for n in range(4)]
    found = findings_of("scripts", tuple(rows))
    assert found["pair_scripts"].severity == "warning"
    assert len(found["pair_scripts"].ids) == 4


def test_label_names_that_begin_alike_or_stand_in_the_texts(findings_of: FindingsOf):
    rows = [(f"this is spam number {n}", "spam") if n % 2 else (f"a letter {n}", "spam not") for n in range(40)]
    found = findings_of("label_names", singles(*rows))
    assert "spam / spam not" in found["prefix_names"].message
    assert (
        "'spam' stands in 20 of 40 examples (50 %) of train, 20 of them labelled so" in found["label_in_text"].message
    )


def test_shown_texts_are_short_and_on_one_line():
    assert shortened("a\n b") == "a b"
    assert len(shortened("word " * 200)) <= 160


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't go, 3.5!", ["don", "'", "t", "go", ",", "3", ".", "5", "!"]),
        ("می\u200cروم", ["میروم"]),
        ("हिन्दी पाठ", ["हिन्दी", "पाठ"]),
        ("caf\u0065\u0301 Größe", ["cafe\u0301", "größe"]),
    ],
)
def test_words_keep_their_vowel_signs_and_lose_what_is_not_seen(text: str, words: list[str]):
    assert words_of(text) == words


def test_a_word_that_tells_the_label_is_no_warning_where_labels_are_about_words(findings_of: FindingsOf):
    asked = {"who came": "human", "somebody ran": "human", "name them": "human"}
    placed = {"where now": "place", "some town": "place", "which way": "place"}
    rows = [(f"{words} {n}", label) for n in range(40) for words, label in {**asked, **placed}.items()]
    findings = [
        one
        for one in registered_checks()["artefacts"][1](
            CheckInput(Split(singles(*rows), (), ()), ("human", "place"), False)
        ).findings
        if one.kind == "giveaway_word"
    ]
    assert findings
    assert {one.severity for one in findings} == {"info"}
    assert all("Fine where the word is what the label is about" in one.remedy for one in findings)


def test_control_characters_are_found_and_shown_by_their_codes(findings_of: FindingsOf):
    rows = [(f"a plain sentence {n}", "ab"[n % 2]) for n in range(20)]
    found = findings_of("scripts", singles(*rows, ("ten \x80 today", "a"), ("\x1b[31mred", "b")))["control_characters"]
    assert found.ids == ("train-20", "train-21")
    assert "\x1b" not in found.examples[1].text
    assert "--encoding cp1252" in found.remedy


def test_test_examples_that_stand_there_five_times_are_a_finding(findings_of: FindingsOf):
    train = singles(*((f"text {n}", "ab"[n % 2]) for n in range(20)))
    test = singles(*((f"new {n // 5}", "ab"[n // 5 % 2]) for n in range(50)), part="test")
    found = findings_of("repeated_rows", Split(train, (), test))["repeated_rows"]
    assert (found.severity, len(found.ids)) == ("warning", 40)
    assert found.message == "40 of 50 examples (80 %) of test repeat an earlier example, label included"


def test_contradictions_within_test_are_found(findings_of: FindingsOf):
    train = singles(*((f"text {n}", "ab"[n % 2]) for n in range(20)))
    test = singles(("one", "a"), ("One!", "b"), ("two", "a"), part="test")
    found = findings_of("repeated_rows", Split(train, (), test))["conflicting_labels"]
    assert found.message.startswith("2 of 3 examples (67 %) of test repeat a text under another label")
    assert found.ids == ("test-0", "test-1")


def test_words_for_nothing_are_found_in_both_texts(findings_of: FindingsOf):
    rows = tuple(Example(str(n), f"text {n}", "nan" if n == 3 else f"other {n}", "ab"[n % 2]) for n in range(30))
    found = findings_of("placeholders", rows)["placeholder_text"]
    assert (found.severity, found.ids) == ("warning", ("3",))
    assert "the second text of 1 of 30 examples (3.3 %) of train is nothing but 'nan'" in found.message
    assert findings_of("placeholders", singles(("nan bread", "a"), ("none of it", "b"))) == {}


def test_texts_that_end_at_one_length_are_cut(findings_of: FindingsOf):
    cut = singles(*(((f"{n} " + "word " * (20 + n))[:120], "ab"[n % 2]) for n in range(40)))
    found = findings_of("lengths", cut)["cut_texts"]
    assert found.severity == "warning"
    assert "is exactly 120 characters long, and none is longer" in found.message
    words = singles(*((" ".join("w" * (1 + n * k % 7) for k in range(10 + n)[:30]), "ab"[n % 2]) for n in range(40)))
    found = findings_of("lengths", words)["cut_texts"]
    assert "of 20 of 40 examples (50 %) of train is exactly 30 words long, and none is longer" in found.message
    assert len(found.ids) == 20
    whole = singles(*((f"{n} " + "word " * (20 + n), "ab"[n % 2]) for n in range(40)))
    assert "cut_texts" not in findings_of("lengths", whole)


def test_exchanged_columns_of_test_are_found(findings_of: FindingsOf, corpus: Split):
    def exchanged(rows):
        return tuple(Example(row.id, row.text_pair or "", row.text, row.label) for row in rows)

    long = tuple(Example(row.id, f"{row.text} It was on a Tuesday.", row.text_pair, row.label) for row in corpus.train)
    tests = tuple(Example(row.id, f"{row.text} It was on a Tuesday.", row.text_pair, row.label) for row in corpus.test)
    found = findings_of("exchanged_columns", Split(long, (), exchanged(tests)))["exchanged_columns"]
    assert "of the pairs of test the first text looks like a second text of train" in found.message
    assert findings_of("exchanged_columns", Split(long, (), tests)) == {}
    alike = tuple(Example(f"{n}", f"word {n % 7}", f"word {n % 11}", "ab"[n % 2]) for n in range(80))
    assert findings_of("exchanged_columns", Split(alike, (), exchanged(alike))) == {}  # nothing to tell them by


def test_two_hundred_labels_take_as_many_fits_as_two(monkeypatch: pytest.MonkeyPatch):
    """Fits are counted, and the examples whose words are read: neither grows with labels, checks or examples."""
    fits: list[int] = []
    read: list[str] = []

    def counted(fit: Callable[..., object]) -> Callable[..., object]:
        def fitted(self: object, features: Any, *args: object, **kwargs: object) -> object:
            fits.append(features.shape[0])
            return fit(self, features, *args, **kwargs)

        return fitted

    monkeypatch.setattr("entailor.diagnostics.base.MOST_FITS", 240_000)
    for classifier in (LinearDiscriminantAnalysis, LogisticRegression, MultinomialNB):
        monkeypatch.setattr(classifier, "fit", counted(classifier.fit))
    monkeypatch.setattr("entailor.data.words.words_of", lambda text: read.append(text) or words_of(text))
    rows = tuple(Example(str(n), f"a{n % 200} b{n % 7}", f"c{n % 11}", f"label {n % 200}") for n in range(6_000))
    evidence = CheckInput(Split(rows, (), ()), tuple(f"label {n}" for n in range(200)), is_pair=True)
    for name in ("artefacts", "label_noise"):
        assert registered_checks()[name][1](evidence).skipped is None
    assert len(read) == 2 * 1_200
    assert len(fits) == 5 * (3 + 4)  # three shortcuts; labels as they are, and made wrong three times: five folds each
    assert max(fits) <= 1_200


def test_names_of_thousands_of_labels_are_looked_for_in_one_pass(findings_of: FindingsOf):
    rows = [(f"the kind {n // 20} of {n}", f"kind {n // 20}") for n in range(400)]
    found = findings_of("label_names", singles(*rows))["label_in_text"]
    assert "; 15 more labels stand in their texts" in found.message
    assert len(found.ids) == 20


def test_texts_that_lost_their_spaces_are_found(findings_of: FindingsOf):
    rows = [(f"a plain sentence of several short words {n}", "ab"[n % 2]) for n in range(60)]
    rows[7] = (rows[7][0].replace(" ", ""), "b")
    found = findings_of("lengths", singles(*rows))["no_spaces"]
    assert (found.severity, found.ids) == ("warning", ("train-7",))
    without = [(text.replace(" ", ""), label) for text, label in rows]
    assert "no_spaces" not in findings_of("lengths", singles(*without))  # as in scripts that have none


def test_two_spaces_that_give_a_label_away_are_found(findings_of: FindingsOf):
    rows = [(f"plain  words {n % 17}" if n % 2 and n % 3 else f"plain words {n % 17}", "ab"[n % 2]) for n in range(120)]
    found = findings_of("artefacts", singles(*rows))["giveaway_word"]
    assert "'<two spaces in a row>' gives the label away" in found.message
    assert found.ids == tuple(f"train-{n}" for n in range(120) if n % 2 and n % 3)


@pytest.mark.parametrize(
    ("change", "mark"),
    [
        (str.capitalize, "<capital letter at the beginning>"),
        (str.upper, "<capital letters alone>"),
        (lambda text: f"A{text[1:]}", "<small letter at the beginning>"),
    ],
)
def test_capital_letters_that_give_a_label_away_are_found(findings_of: FindingsOf, change, mark: str):
    """Words are counted without case, and models have it."""
    marked = "b" if mark.startswith("<small") else "a"
    rows = [(f"another words {n % 17}", "ab"[n % 2]) for n in range(120)]
    rows = [(change(text) if label == "a" else text, label) for text, label in rows]
    given = [one for one in examine_artefacts(singles(*rows)) if mark in one.message]
    assert [one.severity for one in given] == ["warning"]
    assert f"are {marked!r}" in given[0].message


def examine_artefacts(rows: Sequence[Example]) -> Sequence[DoctorFinding]:
    return registered_checks()["artefacts"][1](CheckInput(Split(tuple(rows), (), ()), ("a", "b"), False)).findings


LIKED, DISLIKED, ASKED = ("good fine", "fine great"), ("bad poor", "poor dull"), ("who why", "why when")


@pytest.fixture(scope="module")
def aligned() -> Split:
    """Texts whose words tell one of three labels, in no order."""
    kinds = {"liked": LIKED, "disliked": DISLIKED, "asked": ASKED}
    rng = np.random.default_rng(0)
    drawn = rng.choice(list(kinds), 400)
    rows = [(f"{kinds[label][n % 2]} {n}", str(label)) for n, label in enumerate(drawn)]
    return Split(singles(*rows[:300]), (), singles(*rows[300:], part="test"))


def test_labels_in_place_are_no_finding(findings_of: FindingsOf, aligned: Split, corpus: Split):
    assert findings_of("misaligned", aligned) == {}
    assert findings_of("misaligned", corpus) == {}


def test_labels_exchanged_in_test_are_found(findings_of: FindingsOf, aligned: Split):
    other = {"liked": "disliked", "disliked": "liked", "asked": "asked"}
    test = tuple(replace(row, label=other[row.label or ""]) for row in aligned.test)
    found = findings_of("misaligned", Split(aligned.train, (), test))["exchanged_labels"]
    assert found.severity == "warning"
    assert "'liked is disliked'" in found.message
    assert "asked is" not in found.message


@pytest.mark.parametrize("part", ["train", "test"])
def test_a_column_that_slipped_by_a_row_is_found(findings_of: FindingsOf, aligned: Split, corpus: Split, part: str):
    rows = getattr(aligned, part)
    slipped = tuple(replace(row, label=rows[at - 1].label) for at, row in enumerate(rows))
    found = findings_of("misaligned", replace(aligned, **{part: slipped}))["slipped_labels"]
    assert f"of {part}" in found.message
    assert "the row after" in found.message
    rows = getattr(corpus, part)
    slipped = tuple(replace(row, text_pair=rows[at - 1].text_pair) for at, row in enumerate(rows))
    found = findings_of("misaligned", replace(corpus, **{part: slipped}))["slipped_texts"]
    assert f"second texts of {part} share" in found.message
    assert "the first text of the row before" in found.message


@pytest.mark.parametrize("share", [0.3, 0.55, 0.75])
def test_a_column_that_slipped_from_the_middle_on_is_found(findings_of: FindingsOf, aligned: Split, share: float):
    """A row was lost there: what stands before it is in its place, and hid the rest."""
    rows = (*aligned.test, *aligned.train)[:300]
    lost = int(share * len(rows))
    test = tuple(replace(row, label=rows[at - 1].label) if at >= lost else row for at, row in enumerate(rows))
    found = findings_of("misaligned", Split(aligned.train, (), test))["slipped_labels"]
    assert "the row after" in found.message
    if share > 0.5:
        assert "of test from example " in found.message


@pytest.mark.parametrize("seed", [3, 6, 11])  # those of the first forty by which rows had slipped either way
def test_rows_sorted_by_label_have_not_slipped(findings_of: FindingsOf, seed: int):
    """Neighbours have one label, so theirs is told as well as the own one: now and then a little better, by chance."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(240):
        word = "good" if (n < 120) == (rng.random() < 0.74) else "bad"
        rows.append((f"{word} {' '.join(rng.choice(list('abcdefghijklmnopqrstuvwxyz'), 6))} {n}", "ab"[n < 120]))
    assert findings_of("misaligned", singles(*rows)) == {}


def test_words_are_counted_as_scikit_learn_counts_them(monkeypatch: pytest.MonkeyPatch):
    texts = ["the cat sat on the mat", "", "the cat  the cat", "Élan vital", "élan, vital!", "mat the cat", "one"]
    counter = CountVectorizer(tokenizer=words_of, token_pattern=None, lowercase=False, ngram_range=(1, 2), min_df=2)
    expected = counter.fit_transform(texts).toarray()
    found = TextFeatures(singles(*((text, "a") for text in texts))).ngrams["text"]
    assert found.names.tolist() == counter.get_feature_names_out().tolist()
    np.testing.assert_array_equal(found.counts.toarray(), expected)
    monkeypatch.setattr("entailor.data.words.MOST_NGRAMS", 2)
    fewer = TextFeatures(singles(*((text, "a") for text in texts))).ngrams["text"]
    assert fewer.names.tolist() == ["cat", "the"]  # the most frequent ones
    alone = TextFeatures(singles(("one", "a"), ("", "b"))).ngrams["text"]
    assert (alone.counts.shape, len(alone.names)) == ((2, 0), 0)


@pytest.mark.parametrize("num_labels", [2, 30])
def test_texts_without_a_word_in_common_are_looked_at(num_labels: int):
    rows = singles(*((f"{10_000 + 37 * n}", f"label {n % num_labels}") for n in range(200)))
    looked_at = CheckInput(Split(rows, (), ()), tuple(f"label {n}" for n in range(num_labels)), is_pair=False)
    results = {one.name: one.outcome for one in examine(looked_at)}
    assert results["label_noise"].skipped is None
    assert not [one for one in results["label_noise"].findings if one.severity == "warning"]
