"""Pitfall 6: P-tuning looks hopeless because it is run at 2e-5 (peft#627, #2642)."""

import torch
from peft import PromptEncoderConfig
from tests.conftest import make_examples
from tests.methods.conftest import teach
from tests.pitfalls.conftest import usual_peft

from entailor.methods import build_method, registered_methods

STEPS = 12


def test_usual_peft_at_the_rate_of_fine_tuning_stays_where_it_began(plain_encoder):
    config = PromptEncoderConfig(task_type="SEQ_CLS", num_virtual_tokens=4, encoder_hidden_size=16)
    model = usual_peft(plain_encoder(), config)
    start = model.get_prompt(1).detach().clone()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=2e-5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        ids = torch.randint(5, 60, (8, 6), generator=generator)
        labels = torch.randint(0, 3, (8,), generator=generator)
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (model.get_prompt(1) - start).norm() < 0.02 * start.norm()


def test_ours_moves_at_its_own_default(load_tiny, nli_task):
    method = build_method("p_tuning", {"num_virtual_tokens": 4, "num_train_epochs": 2})
    classifier = method.adapt(load_tiny("bert"), nli_task, 0)
    start = classifier.prompt().detach().clone()
    teach(method, classifier, make_examples(48, seed=1), make_examples(9, seed=2))
    assert (classifier.prompt() - start).norm() > start.norm()


def test_each_method_is_searched_where_it_works():
    low = {name: kind().search_space()["learning_rate"].low for name, kind in registered_methods().items()
           if "learning_rate" in kind().search_space()}  # fmt: skip
    assert low["p_tuning"] >= 1e-3
    assert low["full_finetuning"] <= 1e-5 * 1.01
    assert low["full_finetuning"] < low["lora"] < low["p_tuning"]
