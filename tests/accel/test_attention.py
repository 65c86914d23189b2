"""Attention over packed texts against the reference and against padded attention, outputs and gradients."""

import pytest
import torch

from entailor.accel.attention import Bucket, attention, reference_attention

HEADS, WIDTH = 2, 8
BUCKETS = [Bucket(3, 4, 4), Bucket(1, 7, 7), Bucket(2, 9, 9)]
FIRST_ONLY = [Bucket(3, 4, 1), Bucket(1, 7, 1), Bucket(2, 9, 1)]


def parts(buckets):
    generator = torch.Generator().manual_seed(0)
    tokens, asked = (sum(one.texts * getattr(one, name) for one in buckets) for name in ("tokens", "asked"))
    return [torch.randn(rows, WIDTH, generator=generator).requires_grad_() for rows in (asked, tokens, tokens)]


def run(function, tensors, buckets, p):
    torch.manual_seed(5)
    output = function(*tensors, buckets, HEADS, p)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    return [output, *torch.autograd.grad((output * weights).sum(), tensors)]


@pytest.mark.parametrize("buckets", [BUCKETS, FIRST_ONLY, BUCKETS[:1]], ids=["all", "first", "one"])
def test_outputs_and_gradients_are_those_of_the_reference(buckets):
    tensors = parts(buckets)
    for ours, theirs in zip(
        run(attention, tensors, buckets, 0.0), run(reference_attention, tensors, buckets, 0.0), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("buckets", [BUCKETS[:1], FIRST_ONLY[1:2]], ids=["all", "first"])
def test_dropout_is_that_of_the_reference(buckets):
    tensors = parts(buckets)  # of one bucket: the reference draws for each, the fast version for all at once
    for ours, theirs in zip(
        run(attention, tensors, buckets, 0.3), run(reference_attention, tensors, buckets, 0.3), strict=True
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)


def test_gradients_under_dropout_agree_with_finite_differences():
    tensors = [tensor.detach().double().requires_grad_() for tensor in parts(BUCKETS[:2])]

    def drawn(*rows):
        torch.manual_seed(7)
        return attention(*rows, BUCKETS[:2], HEADS, 0.3)

    assert torch.autograd.gradcheck(drawn, tensors)


def test_texts_do_not_see_each_other():
    query, key, value = (tensor.detach() for tensor in parts(BUCKETS))
    whole = attention(query, key, value, BUCKETS, HEADS, 0.0)
    alone = attention(query[12:19], key[12:19], value[12:19], BUCKETS[1:2], HEADS, 0.0)
    torch.testing.assert_close(whole[12:19], alone)


def test_mixed_precision_goes_by_the_reference():
    tensors = parts(BUCKETS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = run(attention, tensors, BUCKETS, 0.0)
    for half, whole in zip(ours, run(reference_attention, tensors, BUCKETS, 0.0), strict=True):
        torch.testing.assert_close(half.float(), whole, atol=0.05, rtol=0.05)
