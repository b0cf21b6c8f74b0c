"""Lesson 54 beyond its notebook: bodies under other heads, and bodies that are not all there."""

import pytest, torch

from course_lm.data import python_docs, train_tokenizer
from course_lm.heads import assert_same_backbone
from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config


@pytest.fixture(scope='module')
def small():
    tok = train_tokenizer(python_docs()[:100], 400)
    tok.model_max_length = 64
    return tok, new_model(tiny_gpt_config(tok, n_layer=2, n_embd=32, max_length=64)).eval()


def _others():
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        DistilBertConfig,
        DistilBertForMaskedLM,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    tok = train_tokenizer(python_docs()[:50], 400, masked=True)
    s = dict(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        vocab_size=400,
        max_position_embeddings=64,
        pad_token_id=0,
    )
    return tok, dict(
        bert=BertForMaskedLM(BertConfig(**s)),
        roberta=RobertaForMaskedLM(RobertaConfig(**s)),
        modernbert=new_model(tiny_bert_config(tok, n_layer=2, n_embd=32)),
        distilbert=DistilBertForMaskedLM(
            DistilBertConfig(
                dim=32,
                n_layers=2,
                n_heads=2,
                hidden_dim=48,
                vocab_size=400,
                max_position_embeddings=64,
                pad_token_id=0,
            )
        ),
    )


@pytest.mark.parametrize('task', ['sequence-classification', 'token-classification', 'question-answering'])
def test_bodies_under_heads(tmp_path, small, task):
    tok, models = _others()
    for name, (t, m) in {'gpt2': small, **{k: (tok, m) for k, m in models.items()}}.items():
        folder = save_lm(m, t, tmp_path / name)
        model, got = load_lm(folder, task, labels=None if task == 'question-answering' else [*'abcde'])
        assert_same_backbone(m, model)
        body = [k for k in m.base_model.state_dict() if not k.startswith('pooler.')]
        report = model.load_report.frame()
        assert (
            report.loc[('kept', 'body'), 'tensors'] == len(body)
            and report.loc[('new', 'head'), 'tensors'] >= 1
        )
        assert model.config.pad_token_id == got.pad_token_id and not model.training
        ids = got(python_docs()[:3], return_tensors='pt', padding=True, truncation=True, max_length=32)
        out = model(**{k: v for k, v in ids.items() if k in ('input_ids', 'attention_mask')})
        shape = (out.start_logits if task == 'question-answering' else out.logits).shape
        assert shape[0] == 3 and (task != 'sequence-classification' or shape == (3, 5))
        a, b = (load_lm(folder, task, seed=s)[0].state_dict() for s in (1, 1))
        assert all(torch.equal(v, b[k]) for k, v in a.items())
        other = load_lm(folder, task, seed=2)[0]
        assert any(not torch.equal(a[k], other.state_dict()[k]) for k in other.load_report.new)


def test_a_body_that_is_not_there(tmp_path, small):
    from safetensors.torch import load_file, save_file

    tok, model = small
    folder = save_lm(model, tok, tmp_path / 'm')
    weights = load_file(folder / 'model.safetensors')
    for change, says in (
        (lambda w: {f'lm.{k}': v for k, v in w.items()}, '28 of the 28'),
        (lambda w: {k: v for k, v in w.items() if '.h.1.mlp' not in k}, '4 of the 28'),
        (lambda w: {k: v[:, :16].clone() if 'wpe' in k else v for k, v in w.items()}, '1 of the 28'),
    ):
        save_file(change(weights), folder / 'model.safetensors', metadata={'format': 'pt'})
        with pytest.raises(ValueError, match=says):
            load_lm(folder, 'sequence-classification')
    for kw, says in (
        (dict(head='x'), "head='x'"),
        (dict(head='token-classification', labels=[]), r'labels=\[\]'),
        (dict(head='question-answering', labels=['a', 'b']), 'only classifiers'),
    ):
        with pytest.raises(ValueError, match=says):
            load_lm(folder, **kw)


def test_the_global_stream_is_left_alone(tmp_path, small):
    tok, model = small
    folder = save_lm(model, tok, tmp_path / 'm')
    torch.manual_seed(3)
    before = torch.random.get_rng_state()
    load_lm(folder, 'sequence-classification')
    assert torch.equal(before, torch.random.get_rng_state())


def test_bodies_that_differ(small):
    tok, model = small
    with pytest.raises(AssertionError, match='differs'):
        assert_same_backbone(model, new_model(model.config, 7))
    deeper = new_model(tiny_gpt_config(tok, n_layer=3, n_embd=32, max_length=64))
    deeper.load_state_dict(model.state_dict(), strict=False)
    with pytest.raises(AssertionError, match='h.2.* is in one body only'):
        assert_same_backbone(model, deeper)
    with pytest.raises(TypeError, match='b=.* must be a transformers model'):
        assert_same_backbone(model, tok)
