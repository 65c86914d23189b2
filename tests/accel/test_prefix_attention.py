import pytest
import torch

from entailor.accel.prefix_attention import naive_prefix_attention, prefix_attention


@pytest.mark.parametrize("key_heads", [1, 2, 6])
@pytest.mark.parametrize("masked", [False, True])
def test_both_give_the_same(masked, key_heads):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    query = draw(3, 6, 5, 8)
    own, shared = (
        (draw(3, key_heads, 5, 8), draw(3, key_heads, 5, 8)),
        (draw(1, key_heads, 9, 8), draw(1, key_heads, 9, 8)),
    )
    mask = None
    if masked:  # right padding: the last keys of a row are no keys
        lengths = torch.tensor([5, 3, 1])
        hidden = (torch.arange(5) >= lengths[:, None])[:, None, None, :] | torch.ones(5, 5, dtype=torch.bool).triu(1)
        mask = torch.zeros(3, 1, 5, 5).masked_fill(hidden, float("-inf"))
    expected = naive_prefix_attention(query, own, shared, mask, 0.3)
    torch.testing.assert_close(prefix_attention(query, own, shared, mask, 0.3), expected, atol=1e-5, rtol=1e-5)


def test_large_scores_do_not_overflow():
    query = torch.full((1, 1, 2, 4), 40.0)
    own, shared = (torch.ones(1, 1, 2, 4),) * 2, (torch.full((1, 1, 3, 4), 2.0),) * 2
    expected = naive_prefix_attention(query, own, shared, None, 1.0)
    torch.testing.assert_close(prefix_attention(query, own, shared, None, 1.0), expected)
