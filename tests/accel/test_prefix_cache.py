import numpy as np
import pytest
import torch
from tests.conftest import DECODERS

from entailor.accel.prefix_cache import SharedPrefix, can_share


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", DECODERS)
def test_tokens_behind_a_prefix_see_what_they_would_see_in_one_pass(kind, attention, load_tiny):
    model = load_tiny(kind, objective="language_model").model
    model.set_attn_implementation(attention)
    generator = torch.Generator().manual_seed(0)
    prefix = torch.randint(2, 60, (11,), generator=generator)
    ids_BT = torch.randint(2, 60, (3, 7), generator=generator)
    lengths_B = torch.tensor([7, 4, 1])
    mask_BT = (torch.arange(7) < lengths_B[:, None]).long()
    with torch.no_grad():
        shared = SharedPrefix(model, prefix.tolist())
        with shared.attending():
            behind_BTV = model(**shared.inputs_behind(ids_BT, mask_BT)).logits
            again_BTV = model(**shared.inputs_behind(ids_BT, mask_BT)).logits
        assert model.config._attn_implementation == attention
        for row, length in enumerate(lengths_B):
            whole_1T = torch.cat([prefix, ids_BT[row, :length]])[None]
            whole_TV = model(input_ids=whole_1T).logits[0, 11:]
            np.testing.assert_allclose(behind_BTV[row, :length], whole_TV, atol=1e-5)
    assert torch.equal(behind_BTV, again_BTV)  # a batch leaves no trace


def test_a_window_that_is_too_short_is_not_shared(load_tiny):
    config = load_tiny("mistral", objective="language_model").model.config
    assert config.sliding_window == 4096
    assert can_share(config, longest=4096)
    assert not can_share(config, longest=4097)
    assert can_share(load_tiny("llama", objective="language_model").model.config, longest=10**6)
