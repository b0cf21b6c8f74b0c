"""Toys that the tests of lesson 5 share: two tokenizers, small models, their batches."""
import datasets

from course_lm.chunking import lm_datasets
from course_lm.data import train_tokenizer
from course_lm.finetuning import lm_loaders
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
from tests.conftest import SENTENCES, same  # noqa: F401

datasets.disable_progress_bars()
texts = SENTENCES
toks = {masked: train_tokenizer(texts, 300, masked=masked) for masked in (False, True)}


def a_model(masked=False, dropout=.1, seed=42, n_embd=32):
    config = tiny_bert_config if masked else tiny_gpt_config
    return new_model(config(toks[masked], n_layer=2, n_embd=n_embd, dropout=dropout), seed=seed)


def chunks(masked=False, start=0):
    return lm_datasets(texts[start:start+40], texts[start+40:], toks[masked], 16)
def loaders(masked=False, batch_size=8):
    return lm_loaders(chunks(masked), toks[masked], batch_size=batch_size)
