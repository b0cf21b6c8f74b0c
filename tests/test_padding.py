"Tests of course_lm.support.padding: a batch as its model can read it."
import pytest
import torch
import transformers as T

from course_lm.classification import predict_proba
from course_lm.data import train_tokenizer
from course_lm.finetuning import train_loop
from course_lm.labels import LMCollator
from course_lm.models import load_lm, new_model
from course_lm.perplexity import evaluate_lm
from course_lm.predictions import generate_text, lm_predictions
from course_lm.support.inputs import is_causal, lm_kind
from course_lm.support.padding import as_read, check_padding, decoder_inputs, heeds_padding, with_tail

from .small_models import asks_for_others, padded

IDS = dict(bos_token_id=0, eos_token_id=0, pad_token_id=1)
SMALL = dict(vocab_size=320, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
             **IDS)
TEXTS = ['a b c d e f', 'a b', 'c d e f a']


def gpt2():
    return new_model(T.GPT2Config(vocab_size=320, n_embd=16, n_layer=1, n_head=2, n_positions=64,
                                  resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., **IDS)).eval()


def fnet():
    config = T.FNetConfig(vocab_size=320, hidden_size=16, num_hidden_layers=1, intermediate_size=16,
                          hidden_dropout_prob=0., pad_token_id=1)
    return new_model(config).eval()


def rwkv():
    config = T.RwkvConfig(vocab_size=320, hidden_size=32, num_hidden_layers=2, context_length=64, **IDS)
    return new_model(config).eval()


def llama():
    return new_model(T.LlamaConfig(**SMALL, max_position_embeddings=64)).eval()


@pytest.mark.parametrize('make, left, right', [(gpt2, False, True), (fnet, False, False), (rwkv, False, True),
                                               (llama, True, True)])
def test_what_a_model_makes_of_padding_is_tried(make, left, right):
    model = make().train()
    state = torch.get_rng_state()
    assert (heeds_padding(model, 'left'), heeds_padding(model, 'right')) == (left, right)
    assert all(part.training for part in model.modules()) and state.equal(torch.get_rng_state())


@pytest.mark.parametrize('make', [gpt2, fnet, rwkv, llama])
@pytest.mark.parametrize('left', [False, True])
def test_a_batch_costs_what_its_rows_cost(make, left):
    model, lengths = make(), [9, 4, 9, 6]
    batch = padded(lengths, left=left)
    if lm_kind(model) == 'masked': batch = asks_for_others(batch)
    alone = [{k: row[None, row_mask] for k, row in zip(batch, rows)}
             for *rows, row_mask in zip(*batch.values(), batch['attention_mask'] != 0)]
    own = sum(evaluate_lm(model, [row]).nats for row in alone)
    assert evaluate_lm(model, [batch]).nats == pytest.approx(own, rel=1e-5)
    first = train_loop(model, [batch], n_steps=1, progress=False).steps[0]
    assert first['nats'] == pytest.approx(own, rel=1e-5)


def test_the_three_ways_to_give_a_batch():
    batch = padded([4, 2], left=True)
    (rows, turned), = as_read(gpt2(), batch)
    assert rows == slice(None) and turned['attention_mask'].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert turned['labels'][1].tolist() == [*batch['labels'][1, 2:].tolist(), -100, -100]
    right = padded([4, 2])
    assert as_read(llama(), right)[0][1] is right # and a pad is never asked for the first token of a text
    assert as_read(llama(), batch)[0][1]['attention_mask'].tolist() == turned['attention_mask'].tolist()
    parts = as_read(fnet(), batch)
    assert [rows for rows, _ in parts] == [[1], [0]]
    assert [p['input_ids'].shape for _, p in parts] == [(1, 2), (1, 4)]
    whole = {'input_ids': batch['input_ids']}
    assert as_read(fnet(), whole)[0][1] is whole and check_padding(fnet(), whole) is whole
    with pytest.raises(ValueError, match='FNetForMaskedLM reads padding as if it were text'):
        check_padding(fnet(), batch)


def test_what_stands_behind_a_text_is_masked_where_it_is_noticed():
    ids = torch.tensor([[7, 8, 8], [7, 8, 9]])
    assert with_tail(gpt2(), ids, [2, 3]).keys() == {'input_ids'}
    assert with_tail(fnet(), ids, [2, 3])['attention_mask'].tolist() == [[1, 1, 0], [1, 1, 1]]


def test_predictions_stand_where_the_tokens_do():
    model = gpt2()
    texts, tokenizer = TEXTS, train_tokenizer(TEXTS * 9, 290)
    found = []
    for side in ('left', 'right'):
        tokenizer.padding_side = side
        rows = [{'input_ids': ids} for ids in tokenizer(texts)['input_ids']]
        found.append(lm_predictions(model, tokenizer, LMCollator(tokenizer)(rows)))
    assert found[0].token.tolist() == found[1].token.tolist()
    assert found[0].p_token.dropna().tolist() == pytest.approx(found[1].p_token.dropna().tolist(), rel=1e-4)


def test_prompts_of_different_lengths_are_written_on_as_each_alone():
    tokenizer, model = train_tokenizer(TEXTS * 9, 290), rwkv()
    alone = [generate_text(model, tokenizer, t, 5, temperature=0) for t in TEXTS]
    assert generate_text(model, tokenizer, TEXTS, 5, temperature=0) == alone


def test_a_model_stops_at_each_of_its_end_tokens():
    tokenizer, model = train_tokenizer(TEXTS * 9, 290), gpt2()
    tokenizer.add_special_tokens({'extra_special_tokens': ['<end>']})
    stop = tokenizer.convert_tokens_to_ids('<end>')
    model.generation_config.eos_token_id = [0, stop]
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[stop] = 1e-9
    at = torch.tensor([stop])
    head = model.lm_head.register_forward_hook(lambda m, args, out: out.index_fill(-1, at, 9.))
    assert generate_text(model, tokenizer, 'a b', 5, temperature=0, full_text=False) == ''
    ids = tokenizer('a b', return_tensors='pt')
    out = model.generate(**ids, max_new_tokens=5, do_sample=False, pad_token_id=1)
    assert out.shape[1] == ids['input_ids'].shape[1] + 1
    head.remove()


@pytest.mark.parametrize('side', ['left', 'right'])
def test_xlnet_answers_at_the_last_place_and_canine_has_no_table(side):
    tokenizer = train_tokenizer(TEXTS * 9, 290, masked=True)
    tokenizer.padding_side = side
    xlnet = T.XLNetConfig(vocab_size=320, d_model=16, n_layer=1, n_head=2, d_inner=16, pad_token_id=2)
    canine = T.CanineConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
                            num_hash_functions=2, num_hash_buckets=50, max_position_embeddings=512)
    both = (xlnet, T.XLNetForSequenceClassification), (canine, T.CanineForSequenceClassification)
    for config, make in both:
        torch.manual_seed(0)
        labels = ['negative', 'positive']
        model, tokenizer = load_lm((make(config), tokenizer), 'sequence-classification', labels)
        alone = [predict_proba(model, tokenizer, [t])[0] for t in TEXTS]
        assert predict_proba(model, tokenizer, TEXTS) == pytest.approx(alone, abs=1e-5)


def test_a_loss_that_does_not_shift_is_no_loss_to_train_on():
    bart = T.BartConfig(vocab_size=320, d_model=16, decoder_layers=1, decoder_attention_heads=2,
                        decoder_ffn_dim=16)
    model = T.BartForCausalLM(bart)
    assert is_causal(model)
    with pytest.raises(ValueError, match='BartForCausalLM cannot be trained here: its own loss compares'):
        train_loop(model, [padded([5])], n_steps=1, progress=False)
    masked = T.BertForMaskedLM(T.BertConfig(**SMALL, is_decoder=True))
    with pytest.raises(ValueError, match='BertForMaskedLM is to guess hidden tokens, and sees only'):
        lm_kind(masked)


def test_a_class_of_ones_own_is_asked_what_it_sees():
    class Tagger(torch.nn.Module):
        def __init__(self, both):
            super().__init__()
            self.emb = torch.nn.Embedding(90, 8)
            self.rnn = torch.nn.LSTM(8, 8, batch_first=True, bidirectional=both)
            self.out = torch.nn.Linear(8 * (1 + both), 90)

        def forward(self, input_ids):
            return self.out(self.rnn(self.emb(input_ids))[0])

    assert lm_kind(Tagger(False)) == 'causal' and lm_kind(Tagger(True)) == 'masked'


def test_labels_one_place_further_on():
    class Model:
        config = T.BartConfig(decoder_start_token_id=2, pad_token_id=1)

    assert decoder_inputs(Model(), torch.tensor([[7, 8, -100]])).tolist() == [[2, 7, 8]]
    assert decoder_inputs(Model(), torch.tensor([[7, -100, -100]])).tolist() == [[2, 7, 1]]


def test_packed_rows_are_refused_where_one_mask_would_switch_windows_off():
    from course_lm.models import load_lm
    from course_lm.support.padding import as_read
    bert, _ = load_lm("tiny-bert", head="masked")
    ids = torch.ones(1, 24, dtype=torch.long)
    packed = dict(input_ids=ids, labels=ids+1, attention_mask=torch.ones(1, 1, 24, 24, dtype=torch.bool))
    with pytest.raises(ValueError, match="layers that see 8 tokens only, and one mask for all layers"):
        as_read(bert, packed)
    short = {k: v[..., :8] for k, v in packed.items()}
    short["attention_mask"] = short["attention_mask"][..., :8, :]
    assert as_read(bert, short)[0][1] is short
    gpt, _ = load_lm("tiny-gpt")
    assert as_read(gpt, packed)[0][1] is packed
