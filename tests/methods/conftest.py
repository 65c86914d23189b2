"""Training in a second, and checks in a process that knows nothing of this one."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.forked import forked
from tests.methods.api_server import ApiServer, made_up, running

from entailor.classifiers.base import PromptedClassifier
from entailor.data.example import Example
from entailor.engine.scorer import collect_features, score
from entailor.engine.trainer import train
from entailor.engine.training import LoopRuntime, TrainingData, TrainingResult
from entailor.methods import Classifier, FittedClassifier, Method, TrainedMethod
from entailor.models.load import quiet_libraries

ALL_AT_ONCE = 10**6


def logprobs(classifier: Classifier, examples: Sequence[Example], max_tokens: int = ALL_AT_ONCE) -> np.ndarray:
    return score(classifier, classifier.encode(examples), max_tokens)


def teach(
    method: Method,
    classifier: Classifier,
    train_rows: Sequence[Example],
    search_candidates: Sequence[Example],
    seed: int = 0,
) -> TrainingResult | None:
    """Train, fit or show examples to a classifier, as a trial does."""
    if isinstance(classifier, PromptedClassifier):
        classifier.demonstrate(train_rows)
        if classifier.needs_validation:
            classifier.calibrate(
                logprobs(classifier, search_candidates), np.array(classifier.task.targets(search_candidates))
            )
        return None
    train_inputs, validation_inputs = classifier.encode(train_rows), classifier.encode(search_candidates)
    train_targets, validation_targets = classifier.task.targets(train_rows), classifier.task.targets(search_candidates)
    if isinstance(classifier, FittedClassifier):
        classifier.fit(
            collect_features(classifier, train_inputs, train_targets, ALL_AT_ONCE),
            collect_features(classifier, validation_inputs, validation_targets, ALL_AT_ONCE),
        )
        return None
    assert isinstance(method, TrainedMethod)
    data = TrainingData(train_inputs, np.array(train_targets), validation_inputs, np.array(validation_targets))
    return train(classifier, method, data, LoopRuntime(seed))


def in_fresh_process(way: str, **request: Any) -> np.ndarray:
    """Return the logits that a function of `tests.methods.fresh_process` gives in a process of its own."""
    done = forked("tests.methods.fresh_process", "tell", way, request)
    assert done.code == 0, done.err
    return np.array(json.loads(done.out.splitlines()[-1]))


def plain_logits(way: str, folder: Path, batch: Any, **more: Any) -> np.ndarray:
    """Return the logits that plain libraries give for a classifier's batch with what was saved in a folder."""
    inputs = {"input_ids": batch.ids_BT.tolist(), "attention_mask": batch.mask_BT.tolist()}
    if batch.types_BT is not None:
        inputs["token_type_ids"] = batch.types_BT.tolist()
    return in_fresh_process(way, folder=str(folder), inputs=inputs, **more)


@pytest.fixture(scope="session")
def tiny_nli(tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a tiny encoder with a random NLI head, made once a session."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    made: dict[str, Path] = {}

    def make(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(f"tiny-nli-{kind}")
            names = dict(enumerate(("CONTRADICTION", "neutral", "entail")))
            with torch.random.fork_rng(), quiet_libraries():
                torch.manual_seed(0)
                model = AutoModelForSequenceClassification.from_pretrained(
                    tiny_model(kind), id2label=names, label2id={name: row for row, name in names.items()}
                )
                for tensor in model.parameters():  # a head near zero would give all texts one score
                    tensor.data += 0.1 * torch.randn_like(tensor)
            model.save_pretrained(made[kind])
            AutoTokenizer.from_pretrained(tiny_model(kind)).save_pretrained(made[kind])
        return made[kind]

    return make


@pytest.fixture(scope="session", autouse=True)
def api_server() -> Iterator[ApiServer]:
    """A server that makes answers up, which the environment names."""
    with running(made_up) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_BASE_URL", server.base_url)
        patch.delenv("OPENAI_API_KEY", raising=False)
        yield server


@pytest.fixture(scope="session", autouse=True)
def _small_token_table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A table of random vectors over the words of the tests, in a wheel that already stands in the cache."""
    import hashlib
    import io
    import zipfile

    from safetensors.numpy import save
    from tests.conftest import make_tokenizer

    from entailor.methods import static_embedding
    from entailor.runs.package_index import ReleaseFile

    tokenizer = make_tokenizer("bert")
    vectors = np.random.default_rng(0).normal(size=(len(tokenizer), 32)).astype(np.float16)
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as wheel:
        wheel.writestr(static_embedding.WEIGHTS, save({"embedding.weight": vectors}))
        wheel.writestr(static_embedding.TOKENIZER, tokenizer.backend_tokenizer.to_str())
    file = ReleaseFile("table", "table.whl", hashlib.sha256(content.getvalue()).hexdigest(), len(content.getvalue()))
    cache = tmp_path_factory.mktemp("table")
    (cache / "files").mkdir()
    (cache / "files" / f"{file.sha256[:16]}-{file.name}").write_bytes(content.getvalue())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(static_embedding, "WORDLLAMA", file)
        patch.setattr(static_embedding, "cache_folder", lambda: cache)
        yield
