import numpy as np
import pytest
import torch
from tests.conftest import DECODERS

from entailor.accel.token_tree import LEAST_SHARED, MOST_TOKENS, PromptTree, can_branch, grow_trees
from entailor.models.prompts import PromptIds

START = list(range(2, 2 + LEAST_SHARED))


def prompt(row, ids, words=((50,), (51,)), behind=0):
    return PromptIds(row, list(ids), words, truncated=False, behind=behind)


def test_what_is_shared_stands_in_a_tree_once():
    (tree,) = grow_trees([prompt(0, [*START, 20, 21]), prompt(1, [*START, 30]), prompt(2, [*START, 20, 22])])
    assert tree.token_ids == [*START, 20, 21, 22, 30]
    assert tree.rows == [0, 2, 1]
    assert tree.depths[-4:] == [LEAST_SHARED, LEAST_SHARED + 1, LEAST_SHARED + 1, LEAST_SHARED]
    seen = [np.flatnonzero(row).tolist() for row in tree.seen()]
    start = list(range(LEAST_SHARED))
    assert seen[-4:] == [[*start, 8], [*start, 8, 9], [*start, 8, 10], [*start, 11]]


def test_label_words_of_several_tokens_are_branches():
    (tree,) = grow_trees([prompt(0, START, words=((50,), (51, 52), (51, 53, 54)))])
    assert tree.token_ids == [*START, 51, 53]
    end = LEAST_SHARED - 1
    assert tree.places == [[[end], [end, end + 1], [end, end + 1, end + 2]]]


def test_equal_prompts_cost_one():
    (tree,) = grow_trees([prompt(0, START), prompt(1, START)])
    assert tree.rows == [0, 1]
    assert len(tree) == LEAST_SHARED


def test_prompts_of_little_in_common_stay_apart():
    assert len(grow_trees([prompt(0, START), prompt(1, [*START[:-1], 40])])) == 2
    assert len(grow_trees([prompt(0, START, behind=3), prompt(1, START)])) == 2
    tails = [prompt(row, [*START, *([row + 20] * 100)]) for row in range(4)]
    trees = grow_trees(tails)
    assert [len(tree.rows) for tree in trees] == [2, 2]
    assert max(map(len, trees)) <= MOST_TOKENS


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DECODERS)
def test_every_token_of_a_tree_sees_its_own_beginning_alone(kind, attention, load_tiny):
    model = load_tiny(kind, objective="language_model").model
    model.set_attn_implementation(attention)
    assert can_branch(model, longest=20)
    rows = [[*START, 20, 21], [*START, 30], [*START, 20, 22, 23]]
    tree = PromptTree(0)
    for number, ids in enumerate(rows):
        tree.add(prompt(number, ids))
    mask = torch.zeros(1, 1, len(tree), len(tree)).masked_fill(~torch.from_numpy(tree.seen()), float("-inf"))
    with torch.no_grad():
        ids, depths = torch.tensor([tree.token_ids]), torch.tensor([tree.depths])
        at_once = model(input_ids=ids, attention_mask=mask, position_ids=depths).logits[0]
        for ids, places in zip(rows, tree.places, strict=True):
            alone = model(input_ids=torch.tensor([ids])).logits[0, -1]
            np.testing.assert_allclose(at_once[places[0][0]], alone, atol=1e-5)


def test_a_model_that_cannot_be_told_is_not_asked_in_trees(load_tiny):
    model = load_tiny("mistral", objective="language_model").model
    assert not can_branch(model, longest=4097)  # beyond its window
    model.config._attn_implementation = "flash_attention_2"
    assert not can_branch(model, longest=20)
