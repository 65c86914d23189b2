"""The bundled data: balance, determinism, hold-out, absence of artefacts, and labels checked a second way."""

import os
import re
import subprocess
import sys
from collections import Counter
from dataclasses import fields
from itertools import permutations

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from entailor.data.corpus import generate_pairs, generate_split, normalised
from entailor.data.corpus_grid import LABELS, Claim, Draw, Grid, Premise, phenomena, phenomenon
from entailor.data.corpus_lexicon import TEST, TRAIN
from entailor.data.corpus_relations import number_word
from entailor.data.example import Example, content_id
from entailor.errors import ConfigError

CHANCE = 1 / 3

# Every word that training and test pairs may both use: function words, and the words that carry a phenomenon.
SHARED_TEXT = """
    a an the all some none no not nothing anything each every one two several many most few least only another three
    and or but neither nor both either if while after before earlier later than as at by for from in of on to that even
    is was has had did does will more fewer exactly perhaps took place lies north south east west stood found saw
    put searched asked see sees know knows knew
    manage managed remember remembered went dare dared fail failed forget forgot neglect neglected refused declined
    unable hoped wanted planned promise promised intended offered
    realise realised glad surprised proved pretended wrongly believed falsely claimed wrong think thought said feared
    suspected say sure give gave receive received sell sold buy bought lend lent borrow borrowed
"""
SHARED = {*SHARED_TEXT.split()} | {
    part for number in range(70) for part in (str(number), *number_word(number).split("-"))
}


@pytest.fixture(scope="module")
def train_pool() -> list[Example]:
    return generate_pairs(5000, seed=11)


@pytest.fixture(scope="module")
def test_rows() -> list[Example]:
    return generate_pairs(1800, seed=11, part="test")


def words(rows: list[Example]) -> set[str]:
    return {word for row in rows for word in re.findall(r"\w+", f"{row.text} {row.text_pair}".lower())}


def label_counts(rows) -> list[int]:
    counts = Counter(row.label for row in rows)
    return [counts[label] for label in LABELS]


# --- labels follow from construction, and one side alone tells nothing


@pytest.mark.parametrize("lexicon", [TRAIN, TEST], ids=["train", "test"])
@pytest.mark.parametrize("name", list(phenomena()))
def test_every_grid_is_balanced(name, lexicon):
    draw = Draw(name)
    for _ in range(150):
        grid = phenomena()[name](draw, lexicon)
        assert grid.is_balanced(), grid
        texts = [claim.text for claim in grid.claims]
        assert len(set(texts)) == len(texts), f"two claims of one text: {texts}"


def test_a_grid_whose_premise_tells_the_label_is_not_balanced():
    sure, unsure = Premise("it rained", {("rain",): True}), Premise("it may have rained", {})
    claims = [Claim("it rained", ("rain",), True), Claim("it did not rain", ("rain",), False)]
    assert not Grid([sure, unsure], claims).is_balanced()


def test_every_phenomenon_says_what_it_is_about():
    assert len(phenomena()) >= 14
    assert all(build.__doc__ and build.__name__ == name for name, build in phenomena().items())


def test_two_phenomena_of_one_name_are_an_error():
    with pytest.raises(ValueError, match="'negation' is registered already"):
        phenomenon(phenomena()["negation"])


def test_a_fact_marked_none_is_never_asked():
    grid = Grid([Premise("p", {("x",): None})], [Claim("c", ("x",), True)])
    assert not any(grid.cells(label) for label in LABELS)


def test_numbers_agree_with_counting():
    """Read the sentences back, and try every pair of amounts."""
    values = {str(n): n for n in range(70)} | {number_word(n): n for n in range(70)}
    bounds = {
        "more than": lambda n, k: n > k,
        "fewer than": lambda n, k: n < k,
        "at least": lambda n, k: n >= k,
        "at most": lambda n, k: n <= k,
        "exactly": lambda n, k: n == k,
    }
    pattern = rf"([A-Z]\w+) \w+ ({'|'.join(bounds)}) ([\w-]+) (\w+)"
    rows = [row for row in generate_pairs(3600, seed=5) if row.group == "numbers"]
    assert len(rows) == 200
    for row in rows:
        (who, bound, limit, what) = re.search(pattern, row.text_pair).groups()
        outcomes = set()
        clauses = [found for found in re.findall(pattern, row.text) if (found[0], found[3]) == (who, what)]
        assert len(clauses) <= 1
        for amount in range(120):
            if all(bounds[said](amount, values[number]) for _, said, number, _ in clauses):
                outcomes.add(bounds[bound](amount, values[limit]))
        assert row.label == verdict(outcomes), row


def verdict(outcomes: set[bool]) -> str:
    return "neutral" if len(outcomes) == 2 else "entailment" if outcomes.pop() else "contradiction"


@pytest.mark.parametrize("group", ["comparatives", "temporal_order"])
def test_orders_agree_with_trying_every_arrangement(group):
    """Read the comparisons back, and try every order of those they speak of."""
    high = {scale.high.more for scale in TRAIN.scales} | {"later than", "after"}
    plain_high = {scale.high.plain for scale in TRAIN.scales}

    def read(text: str) -> list[tuple[str, str]]:
        """Return (higher, lower) pairs."""
        pairs = []
        for clause in re.split(r"[.;] ?|, and ", text.lower()):
            side = r"((?:the )?\w+)"
            if found := re.fullmatch(rf"{side} is not as (\w+) as {side}", clause):
                x, adjective, y = found.groups()
                pairs.append((y, x) if adjective in plain_high else (x, y))
            elif found := re.fullmatch(rf"{side} is (\w+) than {side}", clause):
                x, adjective, y = found.groups()
                pairs.append((x, y) if adjective in high else (y, x))
            elif found := re.fullmatch(rf"{side} [\w ]*?(before|after|earlier than|later than) {side}( did)?", clause):
                x, order, y = found.groups()[:3]
                pairs.append((x, y) if order in high else (y, x))
        return pairs

    rows = [row for row in generate_pairs(3600, seed=6) if row.group == group]
    for row in rows:
        given, ((upper, lower),) = read(row.text), read(row.text_pair)
        assert len(given) in (2, 3), row.text
        members = sorted({member for pair in [*given, (upper, lower)] for member in pair})
        outcomes = {
            order.index(upper) > order.index(lower)
            for order in permutations(members)
            if all(order.index(above) > order.index(below) for above, below in given)
        }
        assert row.label == verdict(outcomes), row


# --- the lists


@pytest.mark.parametrize("size", [1, 2, 17, 54, 100, 1000])
@pytest.mark.parametrize("part", ["train", "test"])
def test_labels_and_phenomena_are_balanced_within_one(size, part):
    rows = generate_pairs(size, seed=1, part=part)
    assert len(rows) == size
    assert max(label_counts(rows)) - min(label_counts(rows)) <= 1
    groups = {name: [row for row in rows if row.group == name] for name in phenomena()}
    sizes = [len(members) for members in groups.values()]
    assert sum(sizes) == size
    assert max(sizes) - min(sizes) <= 1
    for members in groups.values():
        assert max(label_counts(members)) - min(label_counts(members)) <= 1


@pytest.mark.parametrize("part", ["train", "test"])
def test_twenty_thousand_distinct_premises(part):
    rows = generate_pairs(20_000, seed=2, part=part)
    assert len({normalised(row.text) for row in rows}) == 20_000
    assert len({row.id for row in rows}) == 20_000


def test_more_than_the_vocabulary_can_give_is_an_error(monkeypatch):
    monkeypatch.setattr("entailor.data.corpus.PATIENCE", 0)
    with pytest.raises(ConfigError, match=r"no more new pairs of 'antonyms'.*Ask for fewer"):
        generate_pairs(1)


def test_rows_carry_content_id_and_phenomenon(train_pool):
    for row in train_pool[:200]:
        assert row.id == content_id(row.text, row.text_pair)
        assert row.group in phenomena()
        assert row.label in LABELS


def test_same_seed_same_list_and_other_seed_another(train_pool):
    assert generate_pairs(300, seed=4) == generate_pairs(300, seed=4)
    other = {normalised(row.text) for row in generate_pairs(300, seed=5)}
    assert len(other & {normalised(row.text) for row in generate_pairs(300, seed=4)}) < 30


def test_same_list_in_another_process_whatever_the_hash_seed():
    code = (
        "from entailor.data.corpus import generate_split;"
        "print(generate_split(360, seed=3, validation_share=0.1, test_share=0.2).fingerprint())"
    )
    expected = generate_split(360, seed=3, validation_share=0.1, test_share=0.2).fingerprint()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": os.pathsep.join(sys.path)}
        run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert run.stdout.strip() == expected


def test_draws_are_fixed_for_good():
    """`random.Random.random` is the one method Python promises to keep; these choices must never change."""
    draw = Draw("entailor")
    assert [draw.number(0, 99) for _ in range(5)] == [34, 83, 87, 39, 37]
    assert draw.several("abcdef", 6) == list("debcaf")


def test_sentences_are_well_formed(train_pool, test_rows):
    for text in [text for row in train_pool + test_rows for text in (row.text, row.text_pair)]:
        assert re.fullmatch(r"[A-Z][A-Za-z0-9 ,;:.-]*\.", text), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |\b(\w+) \1\b|[{}]| [,.;]|\.\.|\. [a-z]", text), text


# --- hold-out


def test_the_two_vocabularies_share_no_word():
    def vocabulary(lexicon) -> set[str]:
        text = " ".join(str([getattr(lexicon, field.name) for field in fields(lexicon)]).split()).lower()
        quoted = re.findall(r"['\"]([^'\"]*)['\"]", text)
        return {word for phrase in quoted for word in re.findall(r"\w+", phrase)}

    assert len(vocabulary(TRAIN)) > 300
    assert len(vocabulary(TEST)) > 250
    assert vocabulary(TRAIN) & vocabulary(TEST) <= SHARED


def test_test_pairs_use_no_content_word_of_training(train_pool, test_rows):
    train, test = words(train_pool), words(test_rows)
    assert sorted((train & test) - SHARED) == []
    assert len(train - SHARED) > 300
    assert len(test - SHARED) > 250


@pytest.mark.parametrize(("validation", "test", "sizes"), [(0.1, 0.2, (420, 60, 120)), (91, 152, (357, 91, 152))])
def test_split_sizes_balance_and_disjoint_premises(validation, test, sizes):
    split = generate_split(600, seed=7, validation_share=validation, test_share=test)
    assert (len(split.train), len(split.validation), len(split.test)) == sizes
    premises = [{normalised(row.text) for row in rows} for _, rows in split.parts()]
    assert len(set.union(*premises)) == 600
    for _, rows in split.parts():
        assert max(label_counts(rows)) - min(label_counts(rows)) <= 1
    seen = words([*split.train, *split.validation])
    assert not (seen & words(list(split.test))) - SHARED


@pytest.mark.parametrize(("validation", "test"), [(0.5, 0.5), (300, 300), (0, 0.2), (0.1, -1), (1.5, 0.1)])
def test_a_split_that_cannot_be_made_is_an_error(validation, test):
    with pytest.raises(ConfigError, match="size"):
        generate_split(600, seed=0, validation_share=validation, test_share=test)


def test_no_pairs_and_an_unknown_part_are_errors():
    with pytest.raises(ConfigError, match="at least 1"):
        generate_pairs(0)
    with pytest.raises(ConfigError, match="'validation' found, 'train' or 'test' expected"):
        generate_pairs(10, part="validation")


# --- artefacts: what is not reasoning must not pay


def labels(rows) -> list[str]:
    return [row.label for row in rows]


@pytest.mark.parametrize("side", ["text", "text_pair"])
def test_one_side_alone_stays_at_chance(side, train_pool, test_rows):
    train, held_out = train_pool[:3500], train_pool[3500:]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=2000))
    model.fit([getattr(row, side) for row in train], labels(train))
    for rows in (held_out, test_rows):
        assert abs(model.score([getattr(row, side) for row in rows], labels(rows)) - CHANCE) <= 0.05


def overlap(row: Example) -> list[float]:
    premise, hypothesis = (normalised(text).split() for text in (row.text, row.text_pair))
    both = len(set(premise) & set(hypothesis))
    return [
        both / len({*premise, *hypothesis}),
        both / len(set(hypothesis)),
        len(premise) - len(hypothesis),
        len(premise),
        len(hypothesis),
    ]


@pytest.mark.parametrize(
    ("model", "margin"),
    [
        (make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)), 0.08),
        (HistGradientBoostingClassifier(max_iter=50, random_state=0), 0.12),
    ],
    ids=["linear", "trees"],
)
def test_word_overlap_and_length_do_not_give_the_label_away(model, margin, train_pool, test_rows):
    train, held_out = train_pool[:3500], train_pool[3500:]
    model.fit(np.array([overlap(row) for row in train]), labels(train))
    for rows in (held_out, test_rows):
        assert abs(model.score(np.array([overlap(row) for row in rows]), labels(rows)) - CHANCE) <= margin


def test_the_artefact_tests_can_fail(train_pool):
    """The same classifier finds a word that goes with a label in a third of the hypotheses."""
    marked = [f"{row.text_pair} Never." if row.label == "contradiction" else row.text_pair for row in train_pool[:3000]]
    model = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(max_iter=2000))
    model.fit(marked[:2000], labels(train_pool[:2000]))
    assert model.score(marked[2000:], labels(train_pool[2000:3000])) > CHANCE + 0.05
