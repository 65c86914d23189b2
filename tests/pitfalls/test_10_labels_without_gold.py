"""Pitfall 10: labels out of range, SNLI's -1 (transformers#10449)."""

import pytest
import torch

from entailor import DataSettings, validate
from entailor.data.splits import load_data
from entailor.errors import LabelError

ROWS = ["premise,hypothesis,gold_label", "a,b,entailment", "c,d,neutral", "e,f,-", "g,h,contradiction", "i,j,-"]


def test_usual_a_minus_one_breaks_the_loss_and_a_dash_becomes_a_class():
    with pytest.raises(IndexError, match="out of bounds"):
        torch.nn.functional.cross_entropy(torch.zeros(1, 3), torch.tensor([-1]))
    labels = sorted({line.rsplit(",", 1)[1] for line in ROWS[1:]})
    assert labels == ["-", "contradiction", "entailment", "neutral"]


@pytest.mark.parametrize("dash", ["-", "-1", ""])
def test_ours_drops_and_counts_rows_without_gold(dash, tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\n".join(ROWS).replace(",-", f",{dash}"))
    with pytest.raises(LabelError, match="may be a class or mean that there is no gold label"):
        load_data(DataSettings(train=str(path)), whole=True)
    settings = DataSettings(train=str(path), no_gold=(dash,))
    data = load_data(settings, whole=True)
    assert data.labels == ("entailment", "neutral", "contradiction")
    assert len(data.split.train) == 3
    assert "2 of 5 examples (40 %) of train" in data.findings[0].message
    assert data.findings[0].message in [one["message"] for one in validate(settings).document()["findings"]]


def test_ours_names_the_row_of_a_label_that_train_does_not_have(tmp_path):
    train, test = tmp_path / "train.csv", tmp_path / "test.csv"
    train.write_text("\n".join(ROWS))
    test.write_text("\n".join([*ROWS, "k,l,maybe"]))
    with pytest.raises(LabelError, match=r"test\.csv, row 7, column 'gold_label': label 'maybe'"):
        load_data(DataSettings(train=str(train), test=str(test), no_gold=("-",)), whole=True)
