"""What each cell of the table of model families asks: is the library's answer that of the model itself?"""
import copy
import shutil
import tempfile
import traceback
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers.processors import TemplateProcessing

from course_lm.data import train_tokenizer
from course_lm.support.machine import quiet

from .configs import small_config

TEXTS = ['The value of the name is bound to the scope.', 'Names refer to objects.',
         'A function is a frame, and the class of it is an object of its own.']
AUTO = {'causal': 'AutoModelForCausalLM', 'masked': 'AutoModelForMaskedLM',
        'seq2seq': 'AutoModelForSeq2SeqLM'}
MAPS = {'causal': 'CAUSAL_LM', 'masked': 'MASKED_LM', 'seq2seq': 'SEQ_TO_SEQ_CAUSAL_LM',
        'classifier': 'SEQUENCE_CLASSIFICATION'}
LABELS = ['negative', 'positive']
SIDES = 'right', 'left'
COLUMNS = ['load', 'save', *(f'{name} {side}' for name in ('evaluate', 'train', 'score', 'write', 'classify')
                             for side in SIDES)]
SEE_BOTH = 'xlnet', 'cpmant'  # stand among the causal ones, and see what comes after
_tokenizers = {}


def named(head):
    "The model types that transformers has this head for."
    from transformers.models.auto import modeling_auto

    return list(getattr(modeling_auto, f'MODEL_FOR_{MAPS[head]}_MAPPING_NAMES'))


def families():
    "[(model type, head)]: every family of the three mappings; those that only classify come last."
    rows = [(name, head) for head in AUTO for name in named(head)]
    known = {name for name, _ in rows}
    return rows + [(name, 'classifier') for name in named('classifier') if name not in known]


def tokenizer_for(head, side):
    "300 tokens; BERT's special ones for masked models, an end of text behind the text for encoder-decoders."
    if head not in _tokenizers:
        _tokenizers[head] = made = train_tokenizer(TEXTS * 5, 300, masked=head in ('masked', 'classifier'))
        if head == 'seq2seq':
            made.add_special_tokens({'extra_special_tokens': [f'<extra_id_{i}>' for i in range(15)]})
            end = made.eos_token
            made.backend_tokenizer.post_processor = TemplateProcessing(
                single=f'$A {end}', special_tokens=[(end, made.eos_token_id)])
    made = copy.deepcopy(_tokenizers[head])
    made.padding_side = side
    return made


class Wrong(Exception):
    "An answer that is not the model's own."


class CannotItself(Exception):
    "The model's own method fails in the same words."


def attempt(function, *args):
    "What it gives, or the error that it raises."
    try:
        return function(*args)
    except Exception as error:
        return error


@contextmanager
def same_failure(own):
    "Inside, an error that the model alone gives too is transformers' own."
    try:
        yield
    except Exception as error:
        if type(error) is type(own) and str(error)[:24] == str(own)[:24]:
            raise CannotItself(str(error).split('\n')[0]) from error
        raise


def equal(name, found, own, tolerance=2e-4):
    found, own = (np.asarray(x.detach() if torch.is_tensor(x) else x, dtype=float) for x in (found, own))
    if found.shape != own.shape:
        raise Wrong(f'{name}: shape {found.shape}, and {own.shape} of the model')
    if not np.isfinite(own).all() or not np.isfinite(found).all():
        raise Wrong(f'{name}: not finite')
    most = np.abs(found - own).max(initial=0)
    if most > tolerance * max(1, np.abs(own).max(initial=0)):
        raise Wrong(f'{name}: {most:.2g} off, {found.ravel()[:2]} for {own.ravel()[:2]}')


class Family:
    "One model type with one head, small, with random weights that are sure of something."

    def __init__(self, model_type, head):
        self.model_type, self.head = model_type, head
        self.folder = Path(tempfile.mkdtemp(prefix='family-'))

    def close(self):
        shutil.rmtree(self.folder)

    @cached_property
    def config(self):
        tokenizer, extra = self.tokenizer('right'), {}
        cls = tokenizer.cls_token_id
        ids = dict(bos_token_id=cls if tokenizer.bos_token_id is None else tokenizer.bos_token_id,
                   eos_token_id=tokenizer.sep_token_id if cls is not None else tokenizer.eos_token_id,
                   pad_token_id=tokenizer.pad_token_id)
        if self.head == 'seq2seq':
            extra = dict(decoder_start_token_id=ids['bos_token_id'])
        decodes = self.model_type in named('masked') or self.model_type == 'bert-generation'
        if self.head == 'causal' and decodes or self.model_type == 'reformer':
            extra = dict(is_decoder=self.head == 'causal')
        if self.model_type == 'xlm':
            extra = dict(causal=self.head == 'causal')
        return small_config(self.model_type, ids, **extra)

    @cached_property
    def task(self):
        "What it is asked: 'masked', 'causal', 'seq2seq' or 'classifier'; of a model, not of a mapping."
        from transformers import CONFIG_MAPPING

        if self.head in ('classifier', 'causal'):
            return self.head
        if CONFIG_MAPPING[self.model_type]().is_encoder_decoder:
            return 'seq2seq'
        return 'masked' if self.head == 'masked' else 'causal'

    @cached_property
    def loss_is_cross_entropy(self):
        "Whether the model's own loss is the cross-entropy of its logits, one token ahead where it is causal."
        ids = torch.arange(200, 216)[None]
        with torch.no_grad():
            out = self.model(input_ids=ids, labels=ids)
        return abs(out.loss.item() - self.cross_entropy(out.logits, ids) / (16 - self.ahead)) < 1e-4

    @property
    def ahead(self):
        return int(self.task == 'causal' and self.model_type not in SEE_BOTH)

    def cross_entropy(self, logits, labels):
        logits = logits[0, : logits.shape[1] - self.ahead].float()
        return F.cross_entropy(logits, labels[0, self.ahead:], reduction='sum').item()

    @cached_property
    def model(self):
        import transformers

        torch.manual_seed(0)
        with quiet():
            auto = AUTO.get(self.head, 'AutoModelForSequenceClassification')
            model = getattr(transformers, auto).from_config(self.config).float().eval()
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for name, p in model.named_parameters():
            if p.dim() == 2 and p.requires_grad:
                p.data.mul_(2)
        return model

    def tokenizer(self, side):
        return tokenizer_for(self.task, side)

    def batch(self, side):
        "Three documents of different lengths with labels, as the collator makes them."
        from course_lm.denoising import SpanCorruption
        from course_lm.labels import LMCollator, pad_examples

        tokenizer = self.tokenizer(side)
        rows = [{'input_ids': ids, 'label': k % 2} for k, ids in enumerate(tokenizer(TEXTS)['input_ids'])]
        if self.task == 'classifier':
            return {k: torch.as_tensor(v) for k, v in pad_examples(rows, tokenizer).items()}
        rows = [{'input_ids': row['input_ids']} for row in rows]
        strategy = SpanCorruption() if self.task == 'seq2seq' else None
        return LMCollator(tokenizer, strategy, seed=1, pad_to_multiple_of=8)(rows)

    def alone(self, batch):
        "Each row of a batch by itself, without padding: (ids, labels, what counts)."
        for ids, mask, labels in zip(batch['input_ids'], batch['attention_mask'], batch['labels']):
            ids = ids[mask != 0][None]
            if self.task == 'classifier':
                yield ids, labels[None], 1
                continue
            labels = labels[labels != -100] if self.task == 'seq2seq' else labels[mask != 0]
            yield ids, labels[None], int((labels[self.ahead:] != -100).sum())

    def own_loss(self, batch, model=None, by_logits=False):
        "Nats and tokens of the batch by the model's own loss, row by row; or by its logits."
        model, nats, tokens = model or self.model, 0.0, 0
        with torch.no_grad():
            for ids, labels, n in self.alone(batch):
                if n:
                    out = model(input_ids=ids, labels=labels)
                    nats += self.cross_entropy(out.logits, labels) if by_logits else out.loss.item() * n
                    tokens += n
        return nats, tokens


def logits_on(model, text=TEXTS[0], head='causal'):
    ids = tokenizer_for(head, 'right')(text, return_tensors='pt')['input_ids']
    more = dict(decoder_input_ids=ids) if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model.eval()(input_ids=ids, **more).logits


def load(family):
    from course_lm.models import load_lm

    own = family.folder / 'own'
    with quiet():
        family.model.save_pretrained(own)
        family.tokenizer('right').save_pretrained(own)
    head = 'sequence-classification' if family.head == 'classifier' else family.head
    model, _ = load_lm(own, 'causal' if head == 'seq2seq' else head)
    if type(model) is not type(family.model):
        raise Wrong(f'a {type(model).__name__}')
    equal('logits', logits_on(model, head=family.task), logits_on(family.model, head=family.task), 1e-5)


def save(family):
    from course_lm.models import load_lm, save_lm

    kept = family.folder / 'kept'
    save_lm(family.model, family.tokenizer('right'), kept)
    head = 'sequence-classification' if family.head == 'classifier' else family.head
    try:
        model, _ = load_lm(kept, 'causal' if head == 'seq2seq' else head)
    except ValueError:  # what load_lm refuses is in the first column
        with quiet():
            model = type(family.model).from_pretrained(kept)
    own, found = family.model.state_dict(), model.state_dict()
    if own.keys() != found.keys():
        raise Wrong(f'{sorted(own.keys() ^ found.keys())[:2]}')
    for k in own:
        torch.testing.assert_close(found[k], own[k], rtol=0, atol=0, equal_nan=True)


def evaluate(family, side):
    from course_lm.perplexity import evaluate_lm

    batch = family.batch(side)
    score = evaluate_lm(family.model, [batch])
    nats, tokens = family.own_loss(batch, by_logits=not family.loss_is_cross_entropy)
    equal('tokens', score.tokens, tokens, 0)
    equal('loss', score.nats / score.tokens, nats / tokens)


def train(family, side):
    from course_lm.finetuning import train_loop

    batch, model = family.batch(side), copy.deepcopy(family.model)
    before = {k: v.clone() for k, v in model.named_parameters()}
    own = attempt(family.own_loss, batch, copy.deepcopy(family.model).train())
    with same_failure(own):
        history = train_loop(model, [batch] * 3, n_steps=3, lr=1e-3, progress=False)
    nats, tokens = own
    equal('loss', history.losses[0], nats / tokens)
    equal('later losses', history.losses[1:], history.losses[1:])
    if not any((p != before[k]).any() for k, p in model.named_parameters()):
        raise Wrong('no parameter moved')


def score(family, side):
    from course_lm.scoring import pseudo_perplexity, score_texts, sliding_perplexity

    tokenizer = family.tokenizer(side)
    found = score_texts(family.model, tokenizer, TEXTS, max_length=48)
    own = [own_score(family, tokenizer, text) for text in TEXTS]
    equal('texts', [s.nats for s in found], own)
    if family.task == 'masked':
        return equal('all', pseudo_perplexity(family.model, tokenizer, TEXTS, max_length=48).nats, sum(own))
    ids = tokenizer(TEXTS[0], add_special_tokens=False)['input_ids']
    one = sliding_perplexity(family.model, ids, max_length=48, bos_id=tokenizer.bos_token_id)
    equal('window', one.nats, own[0])


def own_score(family, tokenizer, text):
    "Nats of a text by the model's own logits, the slow way."
    with torch.no_grad():
        if family.task != 'masked':
            ids = tokenizer(text, add_special_tokens=False)['input_ids']
            ids = torch.tensor([[tokenizer.bos_token_id, *ids]])
            logits = family.model(input_ids=ids).logits[0, :-1].float()
            return F.cross_entropy(logits, ids[0, 1:], reduction='sum').item()
        nats, ids = 0.0, torch.tensor(tokenizer(text)['input_ids'])
        for at in range(1, len(ids) - 1):
            hidden = ids.clone()
            hidden[at] = tokenizer.mask_token_id
            logits = family.model(input_ids=hidden[None]).logits[0, at].float()
            nats += F.cross_entropy(logits, ids[at]).item()
        return nats


def write(family, side):
    from course_lm.predictions import fill_mask, generate_text

    tokenizer = family.tokenizer(side)
    if family.task == 'masked':
        text = f'The value of the {tokenizer.mask_token} is'
        ids = tokenizer(text, return_tensors='pt')['input_ids']
        at = ids[0].tolist().index(tokenizer.mask_token_id)
        with torch.no_grad():
            own = family.model(input_ids=ids).logits[0, at].float().softmax(-1)
        found = fill_mask(family.model, tokenizer, text, top_k=3)
        equal('prob', found.prob, own.topk(3).values, 1e-4)
        if found.token[0] != tokenizer.decode([own.argmax()]):
            raise Wrong(f'{found.token[0]!r} for {tokenizer.decode([own.argmax()])!r}')
        return
    own = attempt(lambda: list(own_writing(family, tokenizer)))
    with same_failure(own):
        found = generate_text(family.model, tokenizer, TEXTS[:2], 6, full_text=False, temperature=0)
    if found != own:
        raise Wrong(f'{found} for {own}')


def own_writing(family, tokenizer):
    for prompt in TEXTS[:2]:
        ids = tokenizer(prompt, return_tensors='pt')['input_ids']
        with quiet():
            out = family.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=6, do_sample=False,
                eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
        yield tokenizer.decode(out[0, ids.shape[1]:], skip_special_tokens=True)


def classify(family, side):
    from course_lm.classification import predict_proba
    from course_lm.models import load_lm

    model, tokenizer = load_lm((family.model, family.tokenizer(side)), 'sequence-classification', LABELS)
    together = predict_proba(model, tokenizer, TEXTS, max_length=48)
    equal('alone', together, [predict_proba(model, tokenizer, [t], max_length=48)[0] for t in TEXTS])
    with torch.no_grad():
        rows = [tokenizer(t, return_tensors='pt')['input_ids'] for t in TEXTS]
        own = [model(input_ids=ids).logits.float().softmax(-1)[0, 1].item() for ids in rows]
    equal('own', together, own)


def ours(error):
    "A refusal by the library in one line."
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return '/course_lm/' in frame.filename and 'raise ' in frame.line and '\n' not in str(error)


def cell(family, column):
    "'right', 'refused: why', or 'wrong: what'."
    name, *side = column.split()
    torch.manual_seed(1)
    try:
        globals()[name](family, *side)
    except Wrong as error:
        return f'wrong: {error}'
    except CannotItself as error:
        return f'transformers fails: {error}'
    except (ValueError, TypeError) as error:
        kind = 'refused' if ours(error) else f'wrong: {type(error).__name__}'
        return f'{kind}: {error}'.replace(str(family.folder), 'FOLDER')
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f'wrong: {type(error).__name__}: {error} ({Path(frame.filename).name}:{frame.lineno})'
    return 'right'


def row(model_type, head, columns=COLUMNS):
    "{column: what its cell says}; {'built': the error} where transformers cannot build or call it."
    family = Family(model_type, head)
    try:
        try:
            logits_on(family.model, head=family.task)
            family.own_loss(family.batch('right'))
        except Exception as error:
            return {'built': ' '.join(f'{type(error).__name__}: {error}'.split())[:160]}
        return {column: cell(family, column) for column in columns}
    finally:
        family.close()
