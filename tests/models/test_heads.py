import json

import pytest
import torch
from tests.conftest import ENCODERS, make_examples
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from entailor.classifiers.transformer import TransformerClassifier
from entailor.errors import HeadMismatchError, ModelError
from entailor.methods import build_method
from entailor.tasks import Task

OTHER_ORDER = ("contradiction", "entailment", "neutral")
ROWS = make_examples(8, seed=3)


@pytest.fixture
def with_head(tiny_model, tmp_path):
    """Return a function: an architecture and label names to the folder of a checkpoint with a head for them."""

    def make(kind="bert", labels=OTHER_ORDER):
        folder = tmp_path / f"{kind}-{len(labels)}"
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = AutoModelForSequenceClassification.from_pretrained(tiny_model(kind), num_labels=len(labels))
        for tensor in model.parameters():  # far from zero, so that every label wins somewhere
            tensor.data += 0.2 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(tensor.numel()))
        model.config.id2label = dict(enumerate(labels))
        model.config.label2id = {label: index for index, label in enumerate(labels)}
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(tiny_model(kind)).save_pretrained(folder)
        return folder

    return make


def plain_logits(folder, classifier):
    """Return what plain transformers gives, each column with its label's name."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    batch = classifier.collate(classifier.encode(ROWS))
    types = {} if batch.types_BT is None else {"token_type_ids": batch.types_BT}
    with torch.no_grad():
        logits_BL = model(input_ids=batch.ids_BT, attention_mask=batch.mask_BT, **types).logits
    return {model.config.id2label[index]: logits_BL[:, index] for index in range(logits_BL.shape[1])}


def our_logits(classifier):
    with torch.no_grad():
        logits_BL = classifier.logits(classifier.collate(classifier.encode(ROWS)))
    return dict(zip(classifier.task.labels, logits_BL.T, strict=True))


@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize("kind", ENCODERS)
def test_a_head_in_another_order_gives_the_same_scores_by_name(kind, with_head, load_tiny, nli_task):
    # by position this costs nearly everything: 4 % instead of 90 % (huggingface/transformers#10401)
    folder = with_head(kind)
    backbone = load_tiny(folder)
    ours = our_logits(TransformerClassifier(backbone, nli_task))
    expected = plain_logits(folder, TransformerClassifier(load_tiny(folder), nli_task))
    assert list(ours) != list(expected)
    for label, logits_B in ours.items():
        torch.testing.assert_close(logits_B, expected[label])
    assert backbone.new_modules == ()
    assert backbone.events == ("the checkpoint's own head is kept, matched by label name: rows [1, 2, 0]",)
    assert backbone.model.config.id2label == dict(enumerate(nli_task.labels))


@pytest.mark.parametrize(
    "names",
    [
        ("CONTRADICTION", "ENTAILMENT", "NEUTRAL"),
        ("contradict", "entail", "neutral"),
        (" Contradiction ", "Entailment", "Neutral"),
    ],
)
def test_spelling_of_the_same_label_may_differ(names, with_head, load_tiny):
    assert "rows [1, 2, 0]" in load_tiny(with_head(labels=names)).events[0]


def test_labels_that_differ_by_case_alone_stay_apart(with_head, load_tiny):
    labels = ("us", "US", "Us")
    task = Task(("US", "us", "Us"), is_pair=True)
    assert "rows [1, 0, 2]" in load_tiny(with_head(labels=labels), task).events[0]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("LABEL_0", "LABEL_1", "LABEL_2"), r"names LABEL_0, LABEL_1, LABEL_2; the data has entailment, neutral"),
        (("positive", "neutral", "negative"), r"names positive, neutral, negative"),
        (("entailment", "not_entailment"), r"names entailment, not_entailment; the data has"),
        (("entailment", "neutral", "contradiction", "other"), r"contradiction, other"),
        (("entailment", "Entailment", "neutral"), r"entailment, Entailment, neutral"),
    ],
)
def test_a_head_for_other_labels_is_refused_with_both_remedies(names, message, with_head, load_tiny):
    with pytest.raises(HeadMismatchError, match=message) as caught:
        load_tiny(with_head(labels=names))
    assert "Set model.head=new to train a new head, or rename the labels with data.label_names" in str(caught.value)


def test_the_tasks_own_labels_may_be_called_anything(with_head, load_tiny):
    labels = ("LABEL_0", "LABEL_1")
    assert "rows [0, 1]" in load_tiny(with_head(labels=labels), Task(labels, is_pair=True)).events[0]


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("names", [OTHER_ORDER, ("yes", "no")], ids=["same-labels", "other-labels"])
def test_a_new_head_keeps_nothing_of_the_old(kind, names, with_head, load_tiny):
    folder = with_head(kind, names)
    backbone, again, other = (load_tiny(folder, seed=seed, head="new") for seed in (0, 0, 1))
    old = AutoModelForSequenceClassification.from_pretrained(folder).state_dict()
    body = f"{backbone.model.base_model_prefix}."
    for name, tensor in backbone.model.state_dict().items():
        same = name in old and old[name].shape == tensor.shape and torch.equal(old[name], tensor)
        is_linear = name.endswith("weight") and tensor.ndim == 2
        if name.startswith(body):
            assert same, name
        elif is_linear:
            assert not same, name
            assert torch.equal(tensor, again.model.state_dict()[name])
            assert not torch.equal(tensor, other.model.state_dict()[name])
            assert tensor.std() < 0.1
    heads = {name.split(".")[0] for name in backbone.model.state_dict() if not name.startswith(body)}
    poolers = {"bert.pooler.dense"} if kind == "bert" else set()  # what a new head reads through
    assert heads | poolers == set(backbone.new_modules)  # so they are trained and saved
    assert backbone.events == ("the checkpoint's own head is replaced by a new one (model.head=new)",)


def test_asking_for_a_head_that_is_not_there_is_an_error(tiny_model, load_tiny):
    with pytest.raises(ModelError, match=r"model\.head=checkpoint, but it has no classification head.*model\.head=new"):
        load_tiny("bert", head="checkpoint")


def silent_about_its_head(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "architectures": None, **values}))
    return folder


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_a_head_the_configuration_does_not_speak_of_is_matched_all_the_same(kind, with_head, load_tiny, nli_task):
    folder = silent_about_its_head(with_head(kind))
    ours = our_logits(TransformerClassifier(load_tiny(folder), nli_task))
    for label, logits_B in plain_logits(folder, TransformerClassifier(load_tiny(folder), nli_task)).items():
        torch.testing.assert_close(logits_B, ours[label])
    assert load_tiny(folder, head="checkpoint").events[0].endswith("rows [1, 2, 0]")
    assert "classifier" in load_tiny(folder, head="new").new_modules


def test_such_a_head_without_label_names_is_refused(with_head, load_tiny):
    folder = silent_about_its_head(with_head(), id2label=None, label2id=None)
    with pytest.raises(HeadMismatchError, match=r"names LABEL_0, LABEL_1"):
        load_tiny(folder)


@pytest.mark.parametrize(
    ("name", "settings", "used"),
    [
        ("lora", {}, True),
        ("full_finetuning", {}, True),
        ("p_tuning", {"pooling": "head"}, True),
        ("p_tuning", {"layout": "peft"}, True),
        ("p_tuning", {"pooling": "mean"}, False),
        ("prefix_tuning", {"pooling": "mean"}, False),
        ("linear_probe", {}, False),
    ],
)
def test_a_method_that_does_without_the_own_head_says_so(name, settings, used, with_head, load_tiny, nli_task):
    backbone = load_tiny(with_head())
    build_method(name, settings).adapt(backbone, nli_task, 0)
    assert any("but it is not used" in event for event in backbone.events) != used
    fresh = load_tiny("bert")
    build_method(name, settings).adapt(fresh, nli_task, 0)
    assert fresh.events == ()
