"Tests of course_lm.support.inputs: what a model takes."

import copy

import numpy as np
import pytest
import torch
import transformers as T

from course_lm.chunking import chunk_dataset
from course_lm.data import train_tokenizer
from course_lm.labels import BertMasking
from course_lm.models import load_lm, new_model
from course_lm.support.inputs import (
    SomeIds,
    StrategyClass,
    ceil_div,
    check_chunk_size,
    check_cut,
    check_vocab,
    flat_ids,
    is_causal,
    lm_kind,
    max_length_of,
    special_table,
)
from course_lm.support.padding import real_tokens

SMALL = dict(vocab_size=90, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
ROBERTA = dict(**SMALL, max_position_embeddings=66, pad_token_id=1)
GPT2 = dict(vocab_size=90, n_embd=16, n_layer=1, n_head=2, n_positions=64)


def test_the_longest_input_is_the_least_of_what_is_known():
    assert max_length_of() is None and max_length_of(None) is None and max_length_of(7) == 7
    assert max_length_of(T.GPT2Config(), None, np.int64(80), 200) == 80
    assert max_length_of(T.BertConfig(), 600) == 512
    unset = train_tokenizer(['a b c'] * 20, vocab_size=270)
    unset.model_max_length = int(1e30)
    assert max_length_of(unset) is None and max_length_of(unset, T.BertConfig()) == 512
    assert max_length_of(lambda ids: ids) is None
    with pytest.raises(TypeError, match='that of Linear takes input'):
        max_length_of(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(
    'model, longest',
    [
        (T.GPT2LMHeadModel(T.GPT2Config(**GPT2)), 64),
        (T.RobertaForCausalLM(T.RobertaConfig(**ROBERTA)), 64),
        (T.RobertaForSequenceClassification(T.RobertaConfig(**ROBERTA)), 64),
        (T.MPNetModel(T.MPNetConfig(**ROBERTA)), 64),
        (
            T.OPTForCausalLM(
                T.OPTConfig(
                    vocab_size=90,
                    hidden_size=16,
                    ffn_dim=16,
                    num_hidden_layers=1,
                    num_attention_heads=2,
                    max_position_embeddings=64,
                    word_embed_proj_dim=16,
                )
            ),
            64,
        ),
        (T.LlamaForCausalLM(T.LlamaConfig(**SMALL, max_position_embeddings=64)), 64),
    ],
    ids=lambda m: type(m).__name__,
)
def test_the_longest_input_runs_and_one_more_does_not(model, longest):
    "The model itself says whether the number is right; rotary positions take any length."
    assert max_length_of(model) == longest == max_length_of(model.config)
    ids = torch.full((1, longest), 5)
    with torch.no_grad():
        model(input_ids=ids)
        if type(model).__name__.startswith('Llama'):
            return
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, longest + 1), 5))


def test_the_table_wins_over_the_configuration():
    model = T.GPT2LMHeadModel(T.GPT2Config(**GPT2))
    model.config.n_positions = 1000
    assert max_length_of(model) == 64 and max_length_of(model.config) == 1000

    class Parallel(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.module = model

    assert max_length_of(Parallel()) == 64


def test_a_name_is_no_model():
    with pytest.raises(TypeError, match="of='gpt2' must be a model.*load it first"):
        max_length_of(T.BertConfig(), 'gpt2')
    with pytest.raises(TypeError, match="model='gpt2' must be a model"):
        chunk_dataset([[1, 2, 3]], 2, model='gpt2')
    for bad, error in ((0, ValueError), (2.5, TypeError), (True, TypeError), ([64], TypeError)):
        with pytest.raises(error, match='of='):
            max_length_of(bad)


def test_is_causal_asks_for_the_head():
    gpt2, roberta = T.GPT2Config(**GPT2), T.RobertaConfig(**ROBERTA)
    causal = [
        T.GPT2LMHeadModel(gpt2),
        T.RobertaForCausalLM(T.RobertaConfig(**ROBERTA, is_decoder=True)),
        torch.nn.Linear(2, 2),
        T.GPT2Model(gpt2),
    ]
    others = [
        T.GPT2ForSequenceClassification(gpt2),
        T.GPT2ForTokenClassification(gpt2),
        T.GPT2ForQuestionAnswering(gpt2),
        T.RobertaForMaskedLM(roberta),
        T.RobertaForSequenceClassification(roberta),
    ]
    assert all(map(is_causal, causal)) and not any(map(is_causal, others))
    body = T.GPT2ForSequenceClassification(gpt2)
    body.config.architectures = ['GPT2LMHeadModel']  # what a checkpoint says that it was made from
    assert not is_causal(body)

    class LSTMClassifier(torch.nn.Module):
        pass

    assert not is_causal(LSTMClassifier())

    class Around(torch.nn.Module):  # torch.compile and DataParallel
        def __init__(self, model, name):
            super().__init__()
            setattr(self, name, model)

    assert not is_causal(Around(others[0], 'module')) and not is_causal(Around(others[3], '_orig_mod'))
    assert is_causal(Around(causal[0], '_orig_mod'))

    class Mine(torch.nn.Module):
        config = T.BertConfig(architectures=['BertForMaskedLM'])

    assert not is_causal(Mine())


@pytest.mark.parametrize('name', ['Flaubert', 'XLM'])
def test_a_masked_model_named_as_a_causal_one(name):
    config = getattr(T, f'{name}Config')(vocab_size=90, emb_dim=32, n_layers=1, n_heads=2)
    model = getattr(T, f'{name}WithLMHeadModel')(config).train()
    state = torch.get_rng_state()
    assert lm_kind(model) == 'masked' and not is_causal(model)
    assert all(part.training for part in model.modules()) and state.equal(torch.get_rng_state())


def test_xlnet_sees_both_sides():
    config = T.XLNetConfig(vocab_size=90, d_model=16, n_layer=1, n_head=2, d_inner=16)
    assert lm_kind(T.XLNetLMHeadModel(config)) == 'masked'


FAMILIES = ['Bert', 'Roberta', 'Camembert', 'Electra', 'XLMRoberta', 'RoFormer', 'MegatronBert', 'RemBert',
            'Ernie', 'RobertaPreLayerNorm']


@pytest.mark.parametrize('name', FAMILIES)
def test_an_encoder_built_as_a_causal_model_is_refused(name):
    make = getattr(T, f'{name}Config')
    assert lm_kind(new_model(make(**SMALL))) == 'masked'
    auto = T.AutoModelForCausalLM
    with pytest.raises(ValueError, match='model: .* next token, and its positions see it'):
        is_causal(auto.from_config(make(**SMALL)))
    assert is_causal(auto.from_config(make(**SMALL, is_decoder=True)))


def test_encoder_decoders_are_neither():
    bart = T.BartConfig(vocab_size=90, d_model=16, encoder_layers=1, decoder_layers=1)
    assert lm_kind(T.BartForConditionalGeneration(bart)) == 'encoder-decoder'


def test_chunk_sizes():
    assert check_chunk_size(np.int64(128), T.GPT2Config()) == 128
    for size, text in [
        (1, 'chunk_size=1 must be'),
        (int(1e30), 'max_length=1e30'),
        (1e30, 'max_length=1e30'),
    ]:
        with pytest.raises(ValueError, match=text):
            check_chunk_size(size)
    for size in (2.5, '8', True, None):
        with pytest.raises(TypeError, match='chunk_size'):
            check_chunk_size(size)
    with pytest.raises(ValueError, match='longer than the 1024 tokens'):
        check_chunk_size(2048, T.GPT2Config())
    assert check_cut(8) == 8 and check_cut(8, 3, 'pad', 0) == 3
    for bad, text in [((8, 9), 'stride=9'), ((8, None, 'pad'), 'pad_id')]:
        with pytest.raises(ValueError, match=text):
            check_cut(*bad)


def test_vocabulary_beyond_the_embeddings():
    model, tokenizer = load_lm('tiny')
    check_vocab(model, tokenizer)
    more = copy.deepcopy(tokenizer)
    more.add_tokens(['<new>'])
    top = len(more) - 1
    with pytest.raises(ValueError, match=f"loading: the tokenizer has a token number {top} .'<new>'"):
        check_vocab(model, more, 'loading')
    with pytest.raises(TypeError, match='the order is .model, tokenizer.'):
        check_vocab(tokenizer, model)
    check_vocab(model, more, but='<new>')


def test_tables_are_kept_and_made_anew():
    tokenizer = train_tokenizer(['a b c'] * 20, vocab_size=270)
    table = special_table(tokenizer)
    assert special_table(tokenizer) is table and np.flatnonzero(table).tolist() == sorted(
        tokenizer.all_special_ids
    )
    tokenizer.add_special_tokens({'extra_special_tokens': ['<x>']})
    assert special_table(tokenizer)[-1] and len(special_table(tokenizer)) == len(table) + 1


def test_real_tokens():
    ids = torch.tensor([[5, 6, 0]])
    assert real_tokens({'input_ids': ids}).tolist() == [[True] * 3]
    assert real_tokens({'input_ids': ids, 'attention_mask': torch.tensor([[1, 1, 0]])}).tolist() == [
        [True, True, False]
    ]
    assert real_tokens({'input_ids': ids, 'attention_mask': torch.zeros(1, 1, 3, 3)}).tolist() == [[True] * 3]


def test_documents_in_a_row():
    flat, place = flat_ids([[7, 8, 9], [], np.array([5], np.uint16)])
    assert flat.tolist() == [7, 8, 9, 5] and place.tolist() == [0, 1, 2, 0] and flat.dtype == np.int64
    assert flat_ids(np.arange(3))[1].tolist() == [0, 1, 2]
    for bad in ('the cat', [1.5], [[1.5]], np.zeros((2, 2, 2), int)):
        with pytest.raises(TypeError, match='tokenize first'):
            flat_ids(bad)
    assert [ceil_div(n, 3) for n in (0, 1, 3, 4)] == [0, 1, 1, 2]


def test_one_document_or_several():
    for good in ([1, 2], (), range(3), [[1], []], [range(2)], np.zeros((2, 3), int), [[]]):
        assert SomeIds(good) is good
    for bad in ('the cat', ['the', 'cat'], [1.5], np.zeros((2, 2, 2), int), [[1], ['a']], {'a': 1}, 5):
        with pytest.raises((TypeError, ValueError), match='^value.* must be '): SomeIds(bad)
    with pytest.raises(ValueError, match='it holds -1'): SomeIds([[2], [-1]])


def test_a_strategy_is_asked_for_as_a_class_where_it_is_made_later():
    assert StrategyClass(BertMasking) is BertMasking
    with pytest.raises(TypeError, match='write it without brackets'): StrategyClass(BertMasking())
    for bad in (dict, 'BertMasking', None):
        with pytest.raises(TypeError, match='must be the class of a label strategy'): StrategyClass(bad)
