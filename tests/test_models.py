"""Lesson 02 beyond its notebook: every head, folders, what the hub says, odd pad tokens."""

import copy, json, math, os, re, subprocess, sys
from pathlib import Path
from unittest.mock import patch

import pytest, torch

import course_lm
from course_lm.data import python_docs, train_tokenizer
from course_lm.labels import BertMasking, LMCollator
from course_lm.models import (
    add_tokens,
    fix_pad,
    load_lm,
    new_model,
    reference_texts,
    save_lm,
    tiny_bert_config,
    tiny_gpt_config,
)
from course_lm.perplexity import evaluate_lm
from course_lm.predictions import fill_mask
from course_lm.support.inputs import max_length_of
from .hub_folders import distilbert_folder
from .toys import same, texts

LABELS = ['negative', 'positive']


@pytest.fixture
def lm(tok):
    return new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))


@pytest.fixture(scope='module')
def distilbert(tmp_path_factory):
    return distilbert_folder(tmp_path_factory.mktemp('hub') / 'distilbert-base-uncased', texts)


def logits(model):
    return model.eval()(torch.arange(5, 15)[None]).logits.detach()


def fresh_copy(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path / 'tok')
    return AutoTokenizer.from_pretrained(tmp_path / 'tok')


# The models that the package ships


@pytest.mark.parametrize('objective', ['causal', 'masked'])
def test_the_shipped_models_load_alike_and_leave_the_random_stream(objective):
    state = torch.get_rng_state()
    lm, tok = load_lm('tiny', objective)
    assert torch.equal(torch.get_rng_state(), state)
    assert not lm.training and next(lm.parameters()).dtype == torch.float32
    assert len(tok) == lm.get_input_embeddings().weight.shape[0]
    assert tok.pad_token_id not in (None, tok.eos_token_id)
    same(logits(lm), logits(load_lm('tiny', objective)[0]))


@pytest.mark.parametrize('objective', ['causal', 'masked'])
def test_the_shipped_models_are_of_one_size_and_kept_in_16_bits(objective):
    import json
    from safetensors import safe_open

    lm, tok = load_lm('tiny', objective)
    folder = Path(lm.name_or_path)
    assert len(tok) == 4096 and max_length_of(lm) == 256 and 2e6 < lm.num_parameters() < 3e6
    with safe_open(folder / 'model.safetensors', 'pt') as f:
        assert {f.get_tensor(k).dtype for k in f.keys()} == {torch.bfloat16}
    assert (folder / 'README.md').stat().st_size
    assert len(json.loads((folder / 'home.json').read_text(encoding='utf-8'))) >= 40


@pytest.mark.parametrize('objective', ['causal', 'masked'])
def test_home_text_comes_with_the_model(objective):
    model, tok = load_lm('tiny', objective)
    home = reference_texts(model)
    assert home == reference_texts() and len(set(home)) == len(home) >= 40 and min(map(len, home)) >= 20
    assert all(t == t.strip() and tok.all_special_tokens[0] not in t for t in home)


# Folders, whole or not at all


def test_a_model_whose_generation_config_is_invalid_is_saved(tok, lm, tmp_path):
    from transformers import GenerationConfig

    lm.generation_config.temperature = 0.6
    kept = lm.generation_config
    saved = GenerationConfig.from_pretrained(save_lm(lm, tok, tmp_path / 'lm'))
    assert saved.temperature == 0.6 and saved.do_sample
    assert lm.generation_config is kept and not kept.do_sample
    lm.generation_config.num_return_sequences = 3
    lm.generation_config.num_beams = 2
    with pytest.raises(ValueError, match='model.generation_config cannot be saved'):
        save_lm(lm, tok, tmp_path / 'other')
    assert not (tmp_path / 'other').exists()


@pytest.mark.parametrize('what', ['model', 'tokenizer', 'rename'])
def test_an_interrupted_save_leaves_the_old_one(tok, lm, tmp_path, what):
    folder = save_lm(lm, tok, tmp_path / 'lm')
    old = {p.name: p.read_bytes() for p in folder.iterdir()}
    target = {
        'model': patch.object(type(lm), 'save_pretrained', side_effect=KeyboardInterrupt),
        'tokenizer': patch.object(type(tok), 'save_pretrained', side_effect=KeyboardInterrupt),
        'rename': patch.object(Path, 'rename', side_effect=KeyboardInterrupt),
    }[what]
    with target, pytest.raises(KeyboardInterrupt):
        save_lm(new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32), seed=1), tok, folder)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == old
    assert [p.name for p in tmp_path.iterdir()] == ['lm']


def test_save_replaces_and_refuses(tok, lm, tmp_path):
    other = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32), seed=1)
    save_lm(lm, tok, tmp_path / 'a' / 'lm')
    folder = save_lm(other, tok, tmp_path / 'a' / 'lm')
    same(logits(load_lm(folder)[0]), logits(other))
    assert not [p for p in folder.rglob('*') if p.suffix in ('.bin', '.pt', '.pth', '.pkl')]
    (tmp_path / 'file').write_text('x')
    with pytest.raises(ValueError, match='is a file'):
        save_lm(lm, tok, tmp_path / 'file')
    with pytest.raises(ValueError, match='embeddings for 300 tokens'):
        save_lm(lm, train_tokenizer(texts * 3 + [str(i) for i in range(999)], 400), tmp_path / 'b')
    assert not (tmp_path / 'b').exists()


def bert_folder(folder, mtok, cls='BertForMaskedLM'):
    import transformers

    config = transformers.BertConfig(
        vocab_size=len(mtok),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    getattr(transformers, cls)(config).save_pretrained(folder)
    mtok.save_pretrained(folder)
    return folder


def test_bert(mtok, tmp_path):
    folder = bert_folder(tmp_path, mtok)
    model, tok = load_lm(folder, 'masked')
    assert type(model).__name__ == 'BertForMaskedLM' and model.config.pad_token_id == tok.pad_token_id == 0
    assert len(fill_mask(model, tok, 'the [MASK] of the [MASK]', top_k=3)) == 6
    with pytest.raises(ValueError, match="is a masked model.*head='masked'"):
        load_lm(folder)


def test_a_model_without_its_head_is_reported(mtok, tmp_path):
    with pytest.warns(UserWarning, match='made up at random'):
        load_lm(bert_folder(tmp_path, mtok, 'BertModel'), 'masked')


def test_encoder_decoder_is_refused(tok, tmp_path):
    from transformers import T5Config

    T5Config(vocab_size=300).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='encoder-decoder'):
        load_lm(tmp_path)


def test_folders_that_do_not_fit(tok, lm, tmp_path):
    lm.save_pretrained(tmp_path)
    with pytest.raises(FileNotFoundError, match='holds no tokenizer'):
        load_lm(tmp_path)
    train_tokenizer(texts + [str(i) for i in range(999)], 320).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match='embeddings for 300 tokens'):
        load_lm(tmp_path)
    with pytest.raises(FileNotFoundError, match='there is no folder'):
        load_lm(tmp_path / 'missing')


@pytest.mark.parametrize('pad', [None, '<|endoftext|>', '[PAD]'])
def test_every_bad_pad_token_is_mended(lm, tok, tmp_path, pad):
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    bad = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tok.backend_tokenizer.to_str().replace('<|pad|>', '<|x|>')),
        bos_token='<|endoftext|>',
        eos_token='<|endoftext|>',
        unk_token='<|endoftext|>',
    )
    if pad:
        bad.pad_token = pad
    lm.save_pretrained(tmp_path / 'm')
    bad.save_pretrained(tmp_path / 'm')
    before = logits(lm)
    model, good = load_lm(tmp_path / 'm')
    assert (
        good.pad_token_id not in (None, good.eos_token_id)
        and good.get_vocab()[good.pad_token] == good.pad_token_id == model.config.pad_token_id
    )
    assert good.pad_token_id < model.get_input_embeddings().weight.shape[0]
    torch.testing.assert_close(logits(model)[..., :300], before)
    labels = LMCollator(good)([{'input_ids': [5, 6, 0]}, {'input_ids': [5, 0]}])['labels']
    assert (labels == 0).sum() == 2
    assert fix_pad(model, good) == good.pad_token_id
    assert model.get_input_embeddings().weight.shape[0] == len(good)


def hub_error(name):
    from huggingface_hub import errors

    cls = getattr(errors, name)
    e = OSError('cannot load')
    e.__cause__ = cls.__new__(cls)
    return e


@pytest.mark.parametrize('part', ['AutoConfig', 'AutoTokenizer', 'AutoModelForCausalLM'])
@pytest.mark.parametrize(
    'name, kind, said',
    [
        ('GatedRepoError', PermissionError, 'is gated: accept its licence'),
        ('RepositoryNotFoundError', FileNotFoundError, 'neither a folder here nor a model'),
        ('LocalEntryNotFoundError', ConnectionError, r"load_lm\('some/model'\) to keep a copy"),
        ('OfflineModeIsEnabled', ConnectionError, 'HF_HUB_OFFLINE'),
    ],
)
def test_what_the_hub_says(part, name, kind, said, lm, tok):
    "Whichever file it is that cannot be had: the config, the tokenizer or the weights."
    parts = {
        'AutoConfig': lm.config,
        'AutoTokenizer': tok,
        'AutoModelForCausalLM': (lm, dict(missing_keys=[], mismatched_keys=[], unexpected_keys=[])),
    }
    from contextlib import ExitStack

    with ExitStack() as stack:
        for p, value in parts.items():
            stack.enter_context(
                patch(
                    f'transformers.{p}.from_pretrained',
                    **(dict(side_effect=hub_error(name)) if p == part else dict(return_value=value)),
                )
            )
        with pytest.raises(kind, match=said):
            load_lm('some/model')


def test_offline_without_a_simulation(tmp_path):
    code = """from course_lm.models import load_lm
try: load_lm('nobody/no-such-model')
except ConnectionError as e: print('said:', e)"""
    out = subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        cwd=Path(course_lm.__file__).parents[1],
        env={**os.environ, 'HF_HUB_OFFLINE': '1', 'HF_HOME': str(tmp_path)},
    )
    assert out.stdout.startswith('said: ') and 'switched off by HF_HUB_OFFLINE' in out.stdout, out.stderr


def test_an_error_in_a_folder_is_no_matter_of_the_network(lm, tok, tmp_path):
    save_lm(lm, tok, tmp_path / 'm')
    (tmp_path / 'm' / 'model.safetensors').unlink()
    with pytest.raises(OSError, match='model.safetensors') as e:
        load_lm(tmp_path / 'm')
    assert not isinstance(e.value, ConnectionError)


def fresh_pair(lm, tok):
    import copy

    return copy.deepcopy(tok), copy.deepcopy(lm)


def test_padding_is_never_the_end_of_text_in_the_labels(tok, lm):
    good, model = fresh_pair(lm, tok)
    good.pad_token = good.eos_token
    fix_pad(model, good)
    labels = LMCollator(good)([{'input_ids': [5, 6, good.eos_token_id]}, {'input_ids': [good.eos_token_id]}])[
        'labels'
    ]
    assert (labels == good.eos_token_id).sum() == 2 and (labels == -100).sum() == 2


def test_new_rows_in_a_model_whose_logits_are_far_below_zero(tok):
    def low():
        m = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))
        m.lm_head.weight = torch.nn.Parameter(m.lm_head.weight.detach().clone())  # untied
        m.config.tie_word_embeddings = False
        with torch.no_grad():
            m.transformer.ln_f.weight[0], m.transformer.ln_f.bias[0] = 0, 1
            m.lm_head.weight[:, 0] -= 40
        return m

    batch = [LMCollator(tok)([{'input_ids': list(range(5, 35))}])]
    before = evaluate_lm(low(), batch).cross_entropy
    at_random = low()
    at_random.resize_token_embeddings(301, mean_resizing=False)
    assert evaluate_lm(at_random, batch).cross_entropy > before + 10
    mean = low()
    add_tokens(mean, copy.deepcopy(tok), ['metaclass'])
    assert 0 <= evaluate_lm(mean, batch).cross_entropy - before <= math.log(1 + 1 / 300) + 1e-5


def test_new_tokens_for_a_masked_model(mtok, tmp_path):
    tok = fresh_copy(mtok, tmp_path)
    model = new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32))
    batch = [LMCollator(tok, BertMasking(0.5), seed=1)([{'input_ids': list(range(5, 35))}])]
    before = evaluate_lm(model, batch).cross_entropy
    assert add_tokens(model, tok, ['metaclass', 'coroutine', 'name']) >= 2
    assert 0 <= evaluate_lm(model, batch).cross_entropy - before <= math.log(1 + 3 / 300) + 1e-5
    assert model.config.vocab_size == len(tok)


def test_from_scratch_has_the_shape_of_the_model():
    tiny, tok = load_lm('tiny')
    own = train_tokenizer(python_docs()[:40], 500)
    a, b = (new_model(tiny.config, s, own) for s in (1, 1))
    tables = ('transformer.wte.weight', 'lm_head.weight')

    def shapes(m):
        return {k: tuple(v.shape) for k, v in m.state_dict().items() if k not in tables}

    assert shapes(a) == shapes(tiny)
    assert a.get_input_embeddings().weight.shape == (500, tiny.config.n_embd)
    assert a.config.eos_token_id == own.eos_token_id
    assert all(torch.equal(v, b.state_dict()[k]) for k, v in a.state_dict().items())
    assert not torch.equal(a.transformer.wpe.weight, tiny.transformer.wpe.weight)


def test_reference_texts_are_kept_with_the_model(tmp_path, tok, lm):
    model = lm
    folder = save_lm(model, tok, tmp_path / 'm', reference_texts=['ein Text', 'ein änderer'])
    m, t = load_lm(folder)
    assert reference_texts(m) == reference_texts(folder) == ['ein Text', 'ein änderer']
    assert not list(folder.glob('*.new'))
    with pytest.raises(TypeError, match=r'reference_texts\[0\]=3 must be a str'):
        save_lm(model, tok, folder, reference_texts=[3])
    assert len(reference_texts(folder)) == 2
    save_lm(model, tok, folder)
    with pytest.raises(ValueError, match='no home text is known'):
        reference_texts(folder)


def test_half_the_bytes_a_card_and_texts(tok, lm, tmp_path):
    how = dict(dtype=torch.bfloat16, card='# A model\n', reference_texts=['ein Text', 'ein änderer'])
    for _ in range(2):
        folder = save_lm(lm, tok, tmp_path / 'm', **how)
    assert (folder / 'README.md').read_text() == '# A model\n' and reference_texts(folder) == [
        'ein Text',
        'ein änderer',
    ]
    assert (folder / 'model.safetensors').stat().st_size < 2.2 * lm.num_parameters() + 20_000
    back, _ = load_lm(folder)
    for a, b in zip(lm.parameters(), back.parameters()):
        torch.testing.assert_close(a, b, rtol=1 / 128, atol=1e-6)
    assert {p.dtype for p in (*lm.parameters(), *back.parameters())} == {torch.float32}
    assert json.loads((folder / 'config.json').read_text())['dtype'] == 'float32'
    save_lm(lm, tok, folder)  # what is not passed again is gone
    assert not (folder / 'README.md').exists()
    with pytest.raises(ValueError, match='no home text is known'):
        reference_texts(folder)


@pytest.mark.parametrize(
    'name', ['thesis.tex', 'notes.txt', 'data.json', 'README.md', 'old/model.safetensors']
)
def test_nobody_elses_file_is_touched(tok, lm, tmp_path, name):
    mine = tmp_path / 'mine' / name
    mine.parent.mkdir(parents=True)
    mine.write_text('years of work')
    with pytest.raises(ValueError, match=f"holds {name.split('/')[0]}, which course_lm did not write"):
        save_lm(lm, tok, tmp_path / 'mine', card='x')
    assert mine.read_text() == 'years of work' and [p.name for p in (tmp_path / 'mine').iterdir()] == [
        name.split('/')[0]
    ]
    folder = save_lm(lm, tok, tmp_path / 'lm')
    (folder / 'thesis.tex').write_text('years of work')
    with pytest.raises(ValueError, match='thesis.tex'):
        save_lm(lm, tok, folder)
    assert load_lm(folder)[1].get_vocab() == tok.get_vocab()


def test_checks_come_before_any_file(tok, lm, tmp_path):
    for kw, error, says in (
        (dict(card=3), TypeError, 'card=3 must be'),
        (dict(reference_texts=[]), ValueError, r'reference_texts=\[\]'),
        (dict(reference_texts='one'), TypeError, 'put it in a list'),
    ):
        with pytest.raises(error, match=says):
            save_lm(lm, tok, tmp_path / 'm', **kw)
    with pytest.raises(TypeError, match='the order is .model, tokenizer.'):
        save_lm(tok, lm, tmp_path / 'm')
    assert not (tmp_path / 'm').exists()


# Heads


def test_distilbert_from_memory_is_as_from_its_folder(distilbert):
    folder, lm = distilbert
    a, tokenizer = load_lm(folder, 'sequence-classification', LABELS)
    b, _ = load_lm((lm, tokenizer), 'sequence-classification', LABELS)
    assert a.load_report.new == b.load_report.new
    for k, v in a.state_dict().items():
        if k not in a.load_report.new:
            assert torch.equal(v, b.state_dict()[k]), k


def test_base_model_without_head(distilbert):
    folder, lm = distilbert
    _, tokenizer = load_lm(folder, 'sequence-classification', LABELS)
    model, _ = load_lm((lm.distilbert, tokenizer), 'sequence-classification', LABELS)
    for k, v in lm.distilbert.state_dict().items():
        assert torch.equal(model.distilbert.state_dict()[k], v), k
    assert len(model.load_report.new) == 4


def test_logging_level_is_left_alone(distilbert):
    from transformers.utils import logging

    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    load_lm(distilbert[0], 'sequence-classification', LABELS)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


def test_head_depends_on_seed_alone(mtok):
    lm = new_model(tiny_bert_config(mtok, n_layer=1, n_head=2, n_embd=16))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    a, b, c = (
        load_lm((lm, mtok), 'sequence-classification', LABELS, seed=s)[0].classifier.weight for s in (5, 5, 6)
    )
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert torch.equal(torch.random.get_rng_state(), state), "the caller's random state is his own"


def test_head_of_another_size_is_new(mtok, tmp_path):
    from transformers import ModernBertForSequenceClassification

    config = new_model(tiny_bert_config(mtok, n_layer=1, n_head=2, n_embd=16)).config
    config.num_labels = 5
    save_lm(ModernBertForSequenceClassification(config), mtok, tmp_path / 'five')
    model, _ = load_lm(tmp_path / 'five', 'sequence-classification', LABELS)
    assert model.classifier.out_features == 2 and 'classifier.weight' in model.load_report.new


def test_nothing_to_load(tmp_path):
    with pytest.raises(OSError, match='there is no folder'):
        load_lm(tmp_path / 'no', 'sequence-classification', LABELS)
    tmp_path.joinpath('empty').mkdir()
    with pytest.raises(OSError, match='has no config.json'):
        load_lm(tmp_path / 'empty', 'sequence-classification', LABELS)


def test_weights_of_another_body(distilbert, tmp_path):
    import shutil

    folder, lm = distilbert
    from safetensors.torch import save_file

    shutil.copytree(folder, tmp_path / 'd')
    save_file(
        {'something.else': torch.zeros(2)}, tmp_path / 'd' / 'model.safetensors', metadata={'format': 'pt'}
    )
    with pytest.raises(ValueError, match='the model would be random noise with a name'):
        load_lm(tmp_path / 'd', 'sequence-classification', LABELS)


# Reports, pairs, labels


@pytest.mark.parametrize(
    'name, head',
    [('tiny-gpt', 'causal'), ('tiny-bert', 'masked'), ('tiny-gpt', 'sequence-classification'),
     ('tiny-bert', 'token-classification'), ('tiny-bert', 'question-answering')],
)
def test_a_report_names_every_weight_once(name, head):
    model, _ = load_lm(name, head)
    report, state = model.load_report, model.state_dict()
    assert {*report.kept, *report.new} == set(state) and not {*report.kept} & {*report.new}
    assert report.frame().numbers.sum() == sum(v.numel() for v in state.values())
    assert not report.left_out or not {*report.left_out} & set(state)
    assert repr(report).count('\n') == 5 and 'left out' in report._repr_html_()
    assert bool(report.new) == (head not in ('causal', 'masked'))


def test_a_pair_is_copied_and_stays_as_it_was():
    tiny, tok = load_lm('tiny')
    tiny.train()
    for body in (tiny, tiny.base_model):  # tied: the head is found in a body without one
        copied, same_tok = load_lm((body, tok))
        assert copied is not tiny and copied.load_report.new == {} and same_tok is tok and not copied.training
        same(logits(copied), logits(load_lm('tiny')[0]))
    assert tiny.training
    half, _ = load_lm('tiny')
    assert load_lm((half.to(torch.bfloat16), tok), 'token-classification')[0].dtype == torch.float32
    with pytest.raises(ValueError, match='GPT2LMHeadModel that was passed.* is no masked model'):
        load_lm((tiny, tok), 'masked')


def test_labels(tok, lm, tmp_path):
    three = ['bad', 'so-so', 'good']
    model, _ = load_lm((lm, tok), 'sequence-classification', three)
    assert model.config.id2label == dict(enumerate(three)) and model.score.out_features == 3
    again, _ = load_lm(save_lm(model, tok, tmp_path / 'c'), 'sequence-classification')
    assert again.config.label2id == {x: i for i, x in enumerate(three)} and again.load_report.new == {}
    assert load_lm(tmp_path / 'c', 'question-answering')[0].config.num_labels == 2
    assert load_lm((lm, tok), 'token-classification')[0].config.num_labels == 2
    for labels, error, says in (
        (['a', 'a'], ValueError, r"labels=\['a', 'a'\] must be a list of names.*: one is there twice"),
        ([1, 2], TypeError, r'labels\[0\]=1 must be a str'),
        ('ab', TypeError, 'put it in a list'),
        (2, TypeError, 'labels=2 must be'),
    ):
        with pytest.raises(error, match=says):
            load_lm((lm, tok), 'sequence-classification', labels)
    with pytest.raises(ValueError, match="labels=.* with head='causal': only classifiers have labels"):
        load_lm((lm, tok), labels=['a', 'b'])


def test_labels_never_turn_a_trained_head_round(tok, lm, tmp_path):
    "A folder whose head answers POSITIVE in column 0 (fairseq#1082, FinBERT#17)."
    head, mine = 'sequence-classification', ['negative', 'positive']
    clf, _ = load_lm((lm, tok), head, ['POSITIVE', 'NEGATIVE'])
    folder = save_lm(clf, tok, tmp_path / 'c')
    for name in (folder, (clf, tok)):
        with pytest.raises(ValueError, match='was trained with id2label=.*POSITIVE.*leave labels out'):
            load_lm(name, head, mine)
        assert load_lm(name, head)[0].config.id2label == {0: 'POSITIVE', 1: 'NEGATIVE'}
        again = load_lm(name, head, ['positive', 'negative'])[0]  # the same names: nothing is turned round
        assert again.load_report.new == {} and torch.equal(again.score.weight, clf.score.weight)
        three = load_lm(name, head, ['a', 'b', 'c'])[0]  # another number of classes has a new head
        assert [*three.load_report.new] == ['score.weight']
    new = load_lm((clf.base_model, tok), head, mine)[0]
    assert [*new.load_report.new] == ['score.weight'] and new.config.id2label == dict(enumerate(mine))
    clf.config.id2label, clf.config.label2id = {0: 'LABEL_0', 1: 'LABEL_1'}, {'LABEL_0': 0, 'LABEL_1': 1}
    assert load_lm((clf, tok), head, mine)[0].config.id2label == dict(enumerate(mine))


def test_another_tokenizer_in_place(lm, tok, tmp_path):
    folder = save_lm(lm, tok, tmp_path / 'm')
    other = train_tokenizer(texts[::2], 300)
    assert load_lm(folder, tokenizer=other)[1] is other and load_lm((lm, tok), tokenizer=other)[1] is other
    with pytest.raises(ValueError, match='embeddings for 300 tokens'):
        load_lm(folder, tokenizer=train_tokenizer(texts + [str(i) for i in range(999)], 320))


@pytest.mark.parametrize(
    'name, error, says',
    [('', ValueError, "name='' must be"), (3, TypeError, 'name=3 must be'),
     (None, TypeError, 'name=None must be'),
     (('tiny', 'tiny'), TypeError, 'name=.* must be')],
)
def test_names_that_are_none(name, error, says):
    with pytest.raises(error, match=says):
        load_lm(name)


def test_a_model_without_its_tokenizer_is_refused(lm):
    with pytest.raises(TypeError, match='pass its tokenizer too'):
        load_lm(lm)
    with pytest.raises(ValueError, match="did you mean 'causal'"):
        load_lm('tiny', head='casual')


# Random weights


def test_shapes_that_cannot_be(tok):
    for make in (tiny_gpt_config, tiny_bert_config):
        for kw, error, says in (
            (dict(n_layer=0), ValueError, 'n_layer=0 must be'),
            (dict(n_head=2.5), TypeError, 'n_head=2.5 must be'),
            (dict(max_length=1), ValueError, 'max_length=1 must be'),
            (dict(dropout=1.0), ValueError, 'dropout=1.0 must be'),
            (dict(n_embd=36), ValueError, 'n_embd=36 must be a multiple of twice n_head=4'),
        ):
            with pytest.raises(error, match=says):
                make(tok, **kw)
        assert make(300).vocab_size == make(tok).vocab_size == 300
    with pytest.raises(TypeError, match='config=.* must be a config of transformers: pass model.config'):
        new_model(new_model(tiny_gpt_config(9, n_layer=1, n_embd=16)))


def test_a_twin_has_the_head_of_its_kind(tok):
    from transformers import BertConfig

    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    config = BertConfig(vocab_size=300, max_position_embeddings=64, **small)
    state = torch.get_rng_state()
    assert type(new_model(config)).__name__ == 'BertForMaskedLM'
    config.is_decoder = True
    assert type(new_model(config)).__name__ == 'BertLMHeadModel'
    assert torch.equal(torch.get_rng_state(), state)
    before = config.to_dict()
    assert new_model(config, tokenizer=train_tokenizer(texts, 280)).config.vocab_size == 280
    assert config.to_dict() == before


# Folders of strangers


def edited(folder, name='config.json', **changes):
    "The folder, with some fields of a JSON file changed."
    held = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    (folder / name).write_text(json.dumps(held | changes))
    return folder


def cut(folder):
    path = folder / 'model.safetensors'
    path.write_bytes(path.read_bytes()[:-100])


def pickled(folder):
    torch.save({'a': torch.ones(1)}, folder / 'pytorch_model.bin')
    (folder / 'model.safetensors').unlink()


def linked(folder):
    (folder / 'model.safetensors').rename(folder.parent / 'outside.safetensors')
    (folder / 'model.safetensors').symlink_to('../outside.safetensors')


def indexed(folder):
    (folder / 'model.safetensors').rename(folder.parent / 'outside.safetensors')
    edited(folder, 'model.safetensors.index.json', weight_map={'a': '../outside.safetensors'})


def piped(folder):
    (folder / 'tokenizer.json').unlink()
    os.mkfifo(folder / 'tokenizer.json')


WRONG = {
    'config.json is no JSON': lambda d: (d / 'config.json').write_text('{'),
    'config.json is a list': lambda d: (d / 'config.json').write_text('[]'),
    'config.json too long': lambda d: (d / 'config.json').write_text(' ' * 10_000_001),
    'model_type 5': lambda d: edited(d, model_type=5),
    'a number as a word': lambda d: edited(d, n_layer='two'),
    'another shape': lambda d: edited(d, n_embd=64),
    'a huge vocabulary': lambda d: edited(d, vocab_size=10**11),
    'a million layers': lambda d: edited(d, n_layer=10**6),
    'weights cut short': cut,
    'weights empty': lambda d: (d / 'model.safetensors').write_bytes(b''),
    'weights whose header is no end': lambda d: (d / 'model.safetensors').write_bytes(b'\xff' * 99),
    'tokenizer.json {}': lambda d: (d / 'tokenizer.json').write_text('{}'),
    'tokenizer.json no JSON': lambda d: (d / 'tokenizer.json').write_text('{'),
    'an index that is a list': lambda d: (d / 'model.safetensors.index.json').write_text('[]'),
    'a pickle': pickled,
    'a link out': linked,
    'an index out': indexed,
    'a pipe': piped,
}


@pytest.mark.skipif(os.name != 'posix', reason='links and pipes')
@pytest.mark.parametrize('what', WRONG)
def test_what_is_wrong_in_a_folder_is_said_in_a_line_that_names_it(tok, lm, tmp_path, what):
    folder = save_lm(lm, tok, tmp_path / 'm')
    WRONG[what](folder)
    for head in ('causal', 'sequence-classification'):
        with pytest.raises(ValueError, match=re.escape(str(folder))) as e:
            load_lm(folder, head)
        assert '\n' not in str(e.value)


def test_a_pickle_is_refused_by_name_and_read_beside_weights_by_nobody(tok, lm, tmp_path):
    folder = save_lm(lm, tok, tmp_path / 'm')
    (folder / 'pytorch_model.bin').write_bytes(b'no pickle')
    same(logits(load_lm(folder)[0]), logits(lm))
    (folder / 'model.safetensors').unlink()
    with pytest.raises(ValueError, match=r'pytorch_model\.bin, which may run any code'):
        load_lm(folder)


CODE = """
open({flag!r}, 'w').write('x')
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
class C(GPT2Config): model_type = 'evil'
class M(GPT2LMHeadModel): config_class = C
class T(PreTrainedTokenizerFast): pass
"""


@pytest.mark.parametrize('kind', ['evil', 'gpt2'])
@pytest.mark.parametrize('head', ['causal', 'sequence-classification'])
def test_code_in_a_folder_is_never_run_nor_asked_about(tok, lm, tmp_path, kind, head, monkeypatch):
    folder, flag = save_lm(lm, tok, tmp_path / 'm'), tmp_path / 'was run'
    heads = ['CausalLM', 'MaskedLM', 'SequenceClassification']
    names = {'AutoConfig': 'evil.C'} | {f'AutoModelFor{h}': 'evil.M' for h in heads}
    edited(folder, model_type=kind, auto_map=names)
    edited(folder, 'tokenizer_config.json', auto_map={'AutoTokenizer': [None, 'evil.T']})
    (folder / 'evil.py').write_text(CODE.format(flag=str(flag)))

    def asked(*question):
        raise AssertionError(f'asked: {question}')

    monkeypatch.setattr('builtins.input', asked)
    if kind == 'gpt2':
        assert type(load_lm(folder, head)[0]).__module__.startswith('transformers.')
    else:
        with pytest.raises(ValueError, match='brings code of its own, which is never run'):
            load_lm(folder, head)
    assert not flag.exists()


def test_the_cache_of_the_hub_links_to_files_beside_its_folder(tok, lm, tmp_path):
    saved = save_lm(lm, tok, tmp_path / 'm')
    folder, blobs = tmp_path / 'repo' / 'snapshots' / 'a1', tmp_path / 'repo' / 'blobs'
    for p in (folder, blobs):
        p.mkdir(parents=True)
    for p in saved.iterdir():
        p.rename(blobs / p.name)
        (folder / p.name).symlink_to(f'../../blobs/{p.name}')
    same(logits(load_lm(folder)[0]), logits(lm))
