"""Imported once by the process that forks those of `tests.forked`; it must stay at one thread, or a fork may hang.

Libraries alone: what is forked imports Entailor, or does without it.
"""

import gc
import os

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", MPLBACKEND="agg")
os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"  # of pyarrow

import matplotlib.pyplot  # noqa: F401
import optuna  # noqa: F401
import peft  # noqa: F401
import sklearn.feature_extraction.text
import sklearn.linear_model  # noqa: F401
import torch
import transformers.models.bert.modeling_bert  # noqa: F401

torch.set_num_threads(1)
gc.freeze()  # children collect what they make, not what the libraries are
