"""What somebody passes by mistake, kind by kind: refused by name, and before weights have changed."""
import json, warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset, DatasetDict

from course_lm.adapters import add_lora
from course_lm.advice import tokenizer_fit
from course_lm.baselines import RunResult, linear_baseline
from course_lm.checkpoints import Checkpoints
from course_lm.chunking import chunk_dataset, chunk_ids, tokenize_dataset
from course_lm.classification import LSTMClassifier, lstm_baseline
from course_lm.comparing import accuracy_by, compare_seeds, plot_calibration
from course_lm.data import train_tokenizer
from course_lm.engines import train_accelerate, train_fastai, train_trainer
from course_lm.finetuning import Recipe, TrainingRun, train_loop
from course_lm.labels import BertMasking, CausalLabels, LMCollator, label_report
from course_lm.learner import lm_dataloaders, lm_learner
from course_lm.models import (
    add_tokens, fix_pad, load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config)
from course_lm.ngram import NGramLM, NextWordGame, guess_bits
from course_lm.packing import pack_dataset
from course_lm.perplexity import LMScore, Perplexity, evaluate_lm
from course_lm.predictions import generate_text
from course_lm.pretraining import PretrainHistory, batch_indices, pretrain
from course_lm.releasing import memorization, model_card
from course_lm.scoring import score_texts, sliding_perplexity
from course_lm.scratch import deduplicate, fertility
from course_lm.streaming import chunk_stream
from course_lm.support.arrow import ChunkMatrix, document_lengths, pad_rows
from course_lm.support.files import fingerprint
from course_lm.support.html import Piece, show_text
from course_lm.support.inputs import check_vocab, max_length_of
from course_lm.support.kinds import check_texts
from tests.conftest import SENTENCES

SMALL = dict(n_layer=1, n_head=2, n_embd=16)
frame, table = pd.DataFrame({"text": ["a b"]}), Dataset.from_dict({"text": ["a b", "c"]})


def refused(*words, error=(ValueError, TypeError)):
    "A line of ours that has one of these words in it."
    return pytest.raises(error, match="|".join(words))


def a_model(tok, **shape):
    config = tiny_gpt_config if tok.mask_token_id is None else tiny_bert_config
    return new_model(config(tok, **SMALL | dict(max_length=32) | shape), seed=1)


def weights(model): return torch.cat([p.detach().flatten() for p in model.parameters()])


# ---- a table where texts are meant

@pytest.mark.parametrize("wrong", [frame, table, {"text": "a"}, "a"], ids=["frame", "set", "dict", "str"])
def test_a_table_is_no_list_of_texts(tok, wrong):
    takes = [lambda x: train_tokenizer(x, 400), lambda x: train_tokenizer(x, 400, kind="word"), deduplicate,
             lambda x: fertility(tok, x), lambda x: tokenizer_fit(x, tok),
             lambda x: score_texts(a_model(tok), tok, x)]
    for take in takes:
        with refused("texts"): take(wrong)


# ---- ids that a model has no place for

def rows(n, *shape): return [dict(input_ids=torch.full(shape, n), labels=torch.full(shape, n))]


@pytest.mark.parametrize("engine", [train_loop, train_accelerate, train_trainer, train_fastai])
@pytest.mark.parametrize("batch, said", [
    (rows(999, 2, 4), "embeddings for"), (rows(-5, 2, 4), "embeddings for"),
    (rows(1, 1, 99), "reads at most 32")])
def test_training_on_ids_beyond_the_model(tok, engine, batch, said):
    model = a_model(tok)
    before = weights(model)
    with refused(f"input_ids.*{said}"): engine(model, batch, n_steps=1, progress=False)
    assert torch.equal(before, weights(model))


def test_scores_and_texts_of_ids_beyond_the_model(tok):
    model, larger = a_model(tok), train_tokenizer([*SENTENCES, *map(str, range(1000))], 700)
    for batch in (rows(999, 1, 2), rows(1, 1, 99)):
        with refused("input_ids"): evaluate_lm(model, batch)
    with refused("input_ids hold 1 to 999"): sliding_perplexity(model, [999, 1, 2])
    text = larger.decode([690, 695, 699])
    for act in (lambda: generate_text(model, larger, text, 3), lambda: score_texts(model, larger, [text])):
        with refused("model and tokenizer do not belong together"): act()


@pytest.mark.parametrize("change, said", [(1000, "examples.*knows"), (-1000, "examples.*knows")])
def test_pretraining_on_ids_beyond_the_tokenizer(tok, change, said):
    chunks, model = np.arange(64).reshape(4, 16), a_model(tok)
    before = weights(model)
    for both in ((chunks + change, None), (chunks, chunks + change)):
        with refused(said): pretrain(model, tok, *both, n_steps=1, batch_size=2, progress=False)
    with refused("chunk_size=16 is longer than the 8 tokens"):
        pretrain(a_model(tok, max_length=8), tok, chunks, n_steps=1, batch_size=2, progress=False)
    assert torch.equal(before, weights(model))


def test_a_collator_knows_its_vocabulary(tok, mtok):
    huge = [np.array([2**63 + 5, 1], np.uint64)]
    for collate in (LMCollator(tok), LMCollator(mtok), LMCollator(mtok, CausalLabels())):
        for wrong in (huge, [[-5, 3]], [[-100, 3]], [[99_999, 3]]):
            with refused("input_ids hold"): collate(wrong)
        assert collate([[5, 6, 7]])["input_ids"].shape == (1, 3)


@pytest.mark.parametrize("model", [torch.nn.Linear(2, 2), torch.nn.LSTM(2, 2)])
def test_a_module_that_reads_no_ids(tok, model):
    batch = rows(1, 2, 4)
    acts = [lambda: evaluate_lm(model, batch), lambda: train_loop(model, batch, n_steps=1, progress=False),
            lambda: score_texts(model, tok, ["a"]), lambda: generate_text(model, tok, "a"),
            lambda: save_lm(model, tok, "nowhere"), lambda: fix_pad(model, tok)]
    for act in acts:
        with refused("model=<L", error=TypeError): act()


# ---- labels that a masked model can read

def test_a_masked_model_is_not_asked_what_it_reads(mtok):
    model, ids = a_model(mtok), torch.arange(5, 29)[None]
    readable, shown = dict(input_ids=ids, labels=ids), dict(input_ids=ids[:, :9], labels=ids[:, :9])
    with refused("labels: .* can read the tokens"): evaluate_lm(model, [readable])
    with refused("labels: .* can read the tokens"): train_loop(model, [readable], n_steps=1, progress=False)
    hidden = LMCollator(mtok, BertMasking(.5), seed=1)([ids[0].tolist()])
    assert evaluate_lm(model, [hidden]).tokens > 5
    assert evaluate_lm(model, [shown]).tokens == 9 # too few to say so: masks keep one in ten


# ---- ids that are none, and numbers that mean nothing

@pytest.mark.parametrize("wrong", [2.9, "9", np.float32("nan"), [8, 9], -3, True])
def test_what_is_no_token_id(wrong):
    cuts = [lambda: chunk_dataset([[5, 6], [7]], 2, tail="keep", eos_id=wrong),
            lambda: chunk_ids([5, 6, 7], 2, "pad", pad_id=wrong),
            lambda: chunk_dataset([[5, 6, 7]], 2, "pad", pad_id=wrong),
            lambda: pack_dataset([[5]], 2, pad_id=wrong),
            lambda: chunk_stream([[5, 6]], 2, eos_id=wrong),
            lambda: chunk_stream([[5]], 2, "pad", pad_id=wrong)]
    for cut in cuts:
        with refused("eos_id", "pad_id"): cut()


def test_an_id_that_the_numbers_of_a_corpus_cannot_hold():
    small = np.arange(6, dtype=np.uint8)
    cuts = [lambda i: chunk_ids(small, 4, "pad", pad_id=i),
            lambda i: chunk_dataset([small], 4, "pad", pad_id=i),
            lambda i: chunk_dataset([small], 4, "keep", eos_id=i)[:],
            lambda i: pack_dataset([small], 8, pad_id=i),
            lambda i: list(chunk_stream([small], 4, "pad", pad_id=i)),
            lambda i: list(chunk_stream([small], 4, eos_id=i)),
            lambda i: chunk_dataset([small], 4, specials=([i], [1]))[:]]
    for cut in cuts:
        with refused("=300 is more than the uint8"): cut(300)
        cut(255)


def test_numbers_that_mean_nothing():
    ids = np.full(3, 1/3)
    acts = {"tokens=-3": lambda: LMScore(5., -3), "nats=-1": lambda: LMScore(-1., 3),
            "bytes=-1": lambda: LMScore(1., 3, -1), "rest": lambda: guess_bits(0, [], 0, np.array([9., 9.])),
            "answer=3 is outside rest": lambda: guess_bits(3, [], 0, ids),
            "i=-1": lambda: batch_indices(-1, 10, 3), "k=1e": lambda: NGramLM(2, "add-k", 1e308),
            "side='Left'": lambda: pad_rows([[1, 2], [3]], 0, side="Left"),
            "multiple=0": lambda: pad_rows([[1]], 0, 0),
            "by=None": lambda: accuracy_by(RunResult("x", [.1, .9], [0, 1]), None),
            "ds=": lambda: ChunkMatrix([1, 2]),
            "state": lambda: chunk_stream([[1, 2]], 2).load_state_dict({})}
    for said, act in acts.items():
        with refused(said): act()
    assert NGramLM(2, "add-k", 1e9).fit([0, 1, 2]).score([0, 1])[0] == pytest.approx(2*np.log(3), rel=1e-6)
    assert guess_bits(0, [], 0, ids) == pytest.approx(np.log2(3)) and not LMScore(0., 0).tokens


@pytest.mark.parametrize("wrong", [frame, np.ones((2, 3)), object()], ids=["frame", "array", "object"])
def test_what_takes_no_chunks(wrong):
    for cut in (chunk_dataset, pack_dataset):
        with refused("model=", error=TypeError): cut([[1, 2, 3]], 2, model=wrong)


def test_a_game_fits_its_text():
    lm = NGramLM(1).fit([0, 1])
    mistakes = {"vocab": ([0, 1, 5, 1, 0, 1], ["a", "b"], {"m": lm}), "models": ([0]*6, ["a"], {"m": 3}),
                "positions": ([0]*6, ["a"], {"m": lm}, [9])}
    for said, wrong in mistakes.items():
        with refused(said): NextWordGame(*wrong)


# ---- methods are asked as functions are

def test_methods_name_their_arguments(tok, mtok):
    ids, spared = torch.ones(2, 4, dtype=torch.long), torch.zeros(2, 4, dtype=torch.bool)
    batch = dict(input_ids=ids, labels=ids)
    acts = {"special_tokens_mask": lambda: BertMasking()(ids, spared.long(), mtok),
            "tokenizer": lambda: BertMasking().check(None), "logits": lambda: Perplexity().update(ids, ids),
            "input_ids": lambda: CausalLabels()(ids[0], spared[0]),
            "one for each": lambda: CausalLabels()(ids, spared[:1]),
            "tokenizer: it has no mask token": lambda: label_report(batch, tok)}
    for said, act in acts.items():
        with refused(said): act()


# ---- data sets

def test_a_hole_in_a_data_set_is_named_with_its_split(tok):
    from datasets import DatasetDict
    holes = Dataset.from_dict({"text": ["a", None]})
    with refused(r"\['text'\]\[1\]=None"): tokenize_dataset(holes, tok)
    with refused(r"valid: .*\[1\]=None"): tokenize_dataset(DatasetDict(train=table, valid=holes), tok)
    long, short = (Dataset.from_dict({"input_ids": [[1]*n]}) for n in (9, 1))
    with refused("valid: ds holds"): chunk_dataset(DatasetDict(train=long, valid=short), 4)
    with refused("keep: 'label' is no column"): tokenize_dataset(table, tok, keep=["label"])


@pytest.mark.parametrize("tail", ["keep", "pad", "drop"])
@pytest.mark.parametrize("make", [list, lambda docs: Dataset.from_dict({"input_ids": docs})])
def test_a_stream_goes_on_from_its_end(tail, make):
    def stream(): return chunk_stream(make([[2, 3, 4], [5, 6, 7, 8]]), 4, tail=tail, pad_id=0)
    first = stream()
    n = len(list(first))
    state, again = json.loads(json.dumps(first.state_dict())), stream()
    again.load_state_dict(state)
    assert len(list(again)) == 0 and len(list(again)) == n


# ---- a folder

def test_layers_that_a_config_does_not_name(tok, tmp_path):
    folder = save_lm(a_model(tok, n_layer=2), tok, tmp_path/"two")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_lm(folder)
        load_lm(folder, "sequence-classification")
    config = json.loads((folder/"config.json").read_text())
    (folder/"config.json").write_text(json.dumps(config | {"n_layer": 1}))
    for head in ("causal", "sequence-classification"):
        with pytest.warns(UserWarning, match="no place in the model .*fewer layers"): load_lm(folder, head)


# ---- accepted once, without a word

def odd_calls(tok):
    model, two = a_model(tok), torch.nn.Linear(2, 2)
    a = RunResult("a", np.array([.2, .8]), np.array([0, 1]))
    yield "context", lambda: NGramLM(2, vocab_size=9).fit([1, 2, 3]).probs(np.array([[1, 2], [3, 4]]))
    yield "prompt", lambda: NGramLM(2, vocab_size=9).fit([1, 2, 3]).sample(3, prompt=[[1, 2], [3]])
    yield "runs", lambda: plot_calibration([])
    yield "runs", lambda: compare_seeds([])
    yield "model", lambda: check_vocab(two, tok)
    yield "of", lambda: max_length_of(two)
    yield "model", lambda: chunk_dataset([[1, 2, 3]], 2, model=two)
    yield "model", lambda: add_lora(two)
    yield "labels", lambda: LSTMClassifier(9, labels=["one"])
    yield "labels", lambda: load_lm((model, tok), "sequence-classification", ["one"])
    yield "ds", lambda: document_lengths("")
    yield "ds", lambda: document_lengths(0)
    yield "ds", lambda: ChunkMatrix(pd.DataFrame({"a": [1, 2]}))
    yield "name", lambda: Checkpoints("ck").read("../elsewhere")
    yield "name", lambda: Checkpoints("ck").read("")
    yield "weight_decay", lambda: Recipe(weight_decay=2**40)
    yield "train", lambda: TrainingRun(model, [])
    yield "train", lambda: TrainingRun(model, 5)
    yield "model", lambda: TrainingRun(two, [{}])
    yield "pieces", lambda: show_text(["a", None])
    yield "colour", lambda: Piece("a", colour="5")
    yield "tokens", lambda: add_tokens(model, tok, [""])
    yield "scores", lambda: model_card("m", model.config, PretrainHistory(), "c", {"a": "b"}, "make")
    yield "corpus", lambda: memorization(model, np.ones((1, 4), int), np.ones(3, int), 20)
    yield "settings", lambda: PretrainHistory(settings=DatasetDict())
    yield "below", lambda: Piece("a", below="x\ud800y")
    yield "Linear", lambda: fingerprint(two)
    yield "name", lambda: check_texts(["a"], 0)
    yield "axes", lambda: plot_calibration([a], ax="axes")


@pytest.mark.parametrize("i", range(29))
def test_what_was_accepted_once_is_refused_by_name(tok, i, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    calls = [*odd_calls(tok)]
    assert len(calls) == 29
    name, call = calls[i]
    with refused(rf"\b{name}\b"): call()
    assert not any(tmp_path.iterdir())


def test_a_split_that_there_is_not(tok):
    data = Dataset.from_dict({"text": ["a good film", "a bad film"], "label": [1, 0]})
    splits = dict(train=data, test=data)
    for name, wrong in [("chosen_on", "5"), ("chosen_on", ""), ("score_on", "5")]:
        with refused(f"{name}='{wrong}' is none of"): linear_baseline(splits, **{name: wrong})
    for name, value in dict(labels=["a", "b"], seed=3).items():
        with refused(f"{name}= comes from splits or recipe"): lstm_baseline(splits, **{name: value})


def test_fastai_gets_metrics_and_a_loss(tok, tmp_path):
    rows = chunk_dataset(tokenize_dataset(SENTENCES, tok), 8)
    learn = partial(lm_learner, lm_dataloaders((rows, rows), tok, batch_size=2), a_model(tok), path=tmp_path)
    with refused(r"metrics\[0\]=\[1, 2\] must be a metric"): learn(metrics=[[1, 2], [3]])
    with refused("loss=<Linear> must be 'model', 'fastai' or a function of logits and labels"):
        learn(loss=torch.nn.Linear(2, 2))
    with refused("loss=.* must be"): learn(loss=tok)
    with refused("fname='' must be a folder"): learn(loss=torch.nn.CrossEntropyLoss()).export("")
