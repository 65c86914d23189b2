from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from entailor.engine.batching import BatchLimit, parts_of, scoring_batches, training_batches

LENGTHS = st.lists(st.integers(1, 60), max_size=200)
LIMITS = st.one_of(
    st.builds(BatchLimit, examples=st.integers(1, 20)),
    st.builds(BatchLimit, tokens=st.integers(1, 300)),
    st.builds(BatchLimit, examples=st.integers(1, 20), tokens=st.integers(1, 300)),
)


def both_kinds(lengths, limit, seed=0):
    yield scoring_batches(lengths, limit)
    yield training_batches(lengths, limit, np.random.default_rng(seed))
    yield training_batches(lengths, limit, np.random.default_rng(seed), by_length=False)


def padded_tokens(batches, lengths):
    return sum(len(batch) * max(lengths[index] for index in batch) for batch in batches)


@given(LENGTHS, LIMITS)
def test_every_input_stands_in_exactly_one_batch(lengths, limit):
    for batches in both_kinds(lengths, limit):
        assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
        assert all(batches)


@given(LENGTHS, LIMITS)
def test_limits_hold_but_for_one_input_that_is_too_long_alone(lengths, limit):
    for batches in both_kinds(lengths, limit):
        for batch in batches:
            assert limit.examples is None or len(batch) <= limit.examples
            longest = max(lengths[index] for index in batch)
            assert limit.tokens is None or len(batch) == 1 or len(batch) * longest <= limit.tokens


@given(LENGTHS, st.integers(1, 20))
def test_a_fixed_number_of_examples_wastes_no_batch(lengths, examples):
    for batches in both_kinds(lengths, BatchLimit(examples=examples)):
        assert len(batches) == -(-len(lengths) // examples)


@given(LENGTHS, LIMITS)
def test_a_batch_ends_only_where_the_next_input_does_not_fit(lengths, limit):
    for batch, following in pairwise(scoring_batches(lengths, limit)):
        longest = max(lengths[index] for index in (*batch, following[0]))
        assert not limit.admits(len(batch) + 1, longest)


@given(LENGTHS, LIMITS, st.integers(0, 5))
def test_the_same_state_gives_the_same_batches(lengths, limit, seed):
    for first, second in zip(both_kinds(lengths, limit, seed), both_kinds(lengths, limit, seed), strict=True):
        assert first == second


def test_another_seed_and_the_next_epoch_give_another_order():
    lengths = list(range(1, 101))
    limit, rng = BatchLimit(examples=8), np.random.default_rng(0)
    first, second = training_batches(lengths, limit, rng), training_batches(lengths, limit, rng)
    other = training_batches(lengths, limit, np.random.default_rng(1))
    assert first != second
    assert first != other


@given(LENGTHS, LIMITS)
def test_scoring_begins_with_the_longest(lengths, limit):
    order = [lengths[index] for batch in scoring_batches(lengths, limit) for index in batch]
    assert order == sorted(lengths, reverse=True)


@pytest.mark.parametrize("limit", [BatchLimit(examples=16), BatchLimit(tokens=1000)], ids=["examples", "tokens"])
def test_batches_of_similar_lengths_hold_far_less_padding(limit):
    lengths = np.random.default_rng(0).integers(5, 200, size=2000).tolist()
    bucketed = training_batches(lengths, limit, np.random.default_rng(0))
    mixed = training_batches(lengths, limit, np.random.default_rng(0), by_length=False)
    waste, mixed_waste = (padded_tokens(batches, lengths) / sum(lengths) - 1 for batches in (bucketed, mixed))
    assert waste < 0.05 < 0.5 < mixed_waste
    assert padded_tokens(scoring_batches(lengths, limit), lengths) / sum(lengths) - 1 < 0.05


def test_similar_lengths_are_not_always_the_same_company():
    lengths = np.random.default_rng(0).integers(5, 200, size=2000).tolist()
    rng = np.random.default_rng(0)
    company = [
        next(set(batch) for batch in training_batches(lengths, BatchLimit(examples=16), rng) if 0 in batch)
        for _ in range(2)
    ]
    assert len(company[0] & company[1]) < 8


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), LIMITS, st.booleans())
def test_parts_of_a_batch_keep_its_order_and_the_limit(lengths, limit, padded):
    batch = list(range(len(lengths)))
    parts = parts_of(batch, lengths, limit, padded=padded)
    assert [index for part in parts for index in part] == batch
    for part in (part for part in parts if len(part) > 1):
        members = [lengths[index] for index in part]
        assert limit.examples is None or len(part) <= limit.examples
        assert limit.tokens is None or (len(part) * max(members) if padded else sum(members)) <= limit.tokens


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), LIMITS)
def test_parts_are_alike_where_padding_counts(lengths, limit):
    parts = parts_of(range(len(lengths)), lengths, limit)
    assert len({len(part) for part in parts[:-1]}) <= 1
    assert len(parts) == 1 or not limit.admits(-(-len(lengths) // (len(parts) - 1)), max(lengths))


def test_where_padding_is_left_out_only_tokens_count():
    batch, lengths = [0, 1, 2, 3], [10, 10, 10, 90]
    assert parts_of(batch, lengths, BatchLimit(tokens=180)) == [[0, 1], [2, 3]]
    assert parts_of(batch, lengths, BatchLimit(tokens=180), padded=False) == [[0, 1, 2, 3]]
    assert parts_of(batch, lengths, BatchLimit(tokens=100), padded=False) == [[0, 1, 2], [3]]
