"""Lesson 31 measured: what four pretraining objectives teach one small transformer on one corpus.

    python -m benchmarks.experiments.objectives    # about six minutes on one core

Causal, masked, span corruption, and deletion with permutation, on made-up reviews (lesson 1): the same
tokenizer, rows, updates and learning rate, the width and number of blocks equal (encoder-decoders have two
and two). Three seeds each. During training: the objective's own loss on held-out rows, and how often the
model finds one held-out token from the left, and from both sides. After it: a linear classifier of the
sentiment on the frozen model, beside random weights and a bag of words. Kept run by run in
course_lm/records/objectives.json with machine, versions and date; a stopped run goes on with what is
missing.
"""
import argparse, time
from dataclasses import asdict, dataclass

from benchmarks.bench import keep, kept, machine, prepare, results, rounded

prepare(threads=1)

import numpy as np
import torch

from course_lm.denoising import Denoising, SentencePermutation, SpanCorruption, TokenDeletion, sentinel_ids
from course_lm.finetuning import lm_optimizer, lr_factor, n_scored
from course_lm.labels import BertMasking, CausalLabels, LMCollator, pad_examples
from course_lm.support.inputs import special_table

PACKAGES = 'torch', 'transformers', 'tokenizers', 'numpy', 'scikit-learn'


@dataclass(frozen=True)
class Settings:
    "The same for all objectives."
    reviews: int = 2500  # to learn from
    held_out: int = 400  # reviews that are only scored
    vocab_size: int = 1000
    chunk_size: int = 64
    batch_size: int = 16
    n_steps: int = 300
    eval_every: int = 60
    lr: float = 3e-3
    n_layer: int = 4
    n_embd: int = 96
    places: int = 400  # held-out tokens to find
    probes: int = 1000  # short reviews to train the classifier, and as many to test it
    seeds: tuple = (0, 1, 2)


# ---- the objectives, and the models that they are for


class DeleteAndPermute(Denoising):
    "BART's deletion, then its permutation; the decoder writes the whole row."
    def corrupt(self, ids, spared, tokenizer, rng):
        left = TokenDeletion().corrupt(ids, spared, tokenizer, rng)[0]
        return SentencePermutation().corrupt(left, special_table(tokenizer)[left], tokenizer, rng)[0], ids


OBJECTIVES = {'causal': CausalLabels, 'masked': BertMasking, 'span': SpanCorruption,
              'denoising': DeleteAndPermute}


def new(objective, tokenizer, settings, seed):
    "A model for it, with random weights."
    from transformers import BartConfig, BartForConditionalGeneration
    from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config
    s = settings
    shape = dict(n_layer=s.n_layer, n_head=4, n_embd=s.n_embd, max_length=2*s.chunk_size)
    if objective == 'causal': return new_model(tiny_gpt_config(tokenizer, **shape), seed)
    if objective == 'masked': return new_model(tiny_bert_config(tokenizer, **shape), seed)
    half = dict(layers=s.n_layer//2, attention_heads=4, ffn_dim=4*s.n_embd)
    sizes = {f'{side}_{name}': value for side in ('encoder', 'decoder') for name, value in half.items()}
    torch.manual_seed(seed)
    return BartForConditionalGeneration(BartConfig(
        vocab_size=len(tokenizer), d_model=s.n_embd, max_position_embeddings=2*s.chunk_size, dropout=0.,
        init_std=.5/s.n_embd**.5, pad_token_id=tokenizer.pad_token_id, bos_token_id=None, eos_token_id=None,
        decoder_start_token_id=tokenizer.cls_token_id, forced_eos_token_id=None, **sizes))


# ---- one corpus


def corpus(settings):
    "Tokenizer, rows to learn from, held-out rows, short labelled reviews."
    from course_lm.chunking import chunk_dataset, tokenize_dataset
    from course_lm.data import train_tokenizer
    from course_lm.reviews import reviews
    texts = reviews(settings.reviews + settings.held_out, seed=0)['text']
    texts, held_out = texts[:settings.reviews], texts[settings.reviews:]
    tokenizer = train_tokenizer(texts[:2000], settings.vocab_size, masked=True)
    tokenizer.add_special_tokens({'extra_special_tokens': [f'<extra_id_{i}>' for i in range(40)]})
    def cut(texts):
        rows = chunk_dataset(tokenize_dataset(texts, tokenizer), settings.chunk_size)
        return np.array(rows['input_ids'])
    return tokenizer, cut(texts), cut(held_out), reviews(2*settings.probes, seed=1, length='short')


def places(rows, n, tokenizer, seed=0):
    "(row, position) of held-out tokens to find: ordinary ones, from the middle of a row, one a row."
    rng, length = np.random.default_rng(seed), rows.shape[1]
    found = []
    for i in rng.permutation(len(rows))[:n]:
        middle = np.arange(3*length//8, 5*length//8)
        ordinary = middle[~special_table(tokenizer)[rows[i, middle]]]
        found.append((int(i), int(rng.choice(ordinary))))
    return found


# ---- the same question to every model


def question(objective, row, at, tokenizer, both):
    """What the encoder (or the only stack) reads, what the decoder reads, and where the answer is predicted.
    The token `row[at]` is in neither; with `both` what follows it is read, where the model can read it."""
    left, right = list(row[:at]), list(row[at+1:]) if both else []
    if objective == 'causal': return left, None, at-1
    if objective == 'masked': return [*left, tokenizer.mask_token_id, *right], None, at
    if objective == 'denoising': return left + right, [tokenizer.cls_token_id, *left], at
    mark = int(sentinel_ids(tokenizer)[0])
    return [*left, mark, *right], [tokenizer.cls_token_id, mark], 1


@torch.no_grad()
def find(objective, model, rows, places, tokenizer, both):
    "Nats of each held-out token, and whether it was the model's first choice: two arrays."
    asked = [question(objective, rows[i], at, tokenizer, both) for i, at in places]
    truth = torch.tensor([int(rows[i, at]) for i, at in places])
    nats, right = [], []
    for begin in range(0, len(asked), 100):
        some = asked[begin:begin+100]
        batch = as_tensors(pad_examples([read for read, _, _ in some], tokenizer))
        if some[0][1] is not None:
            decoder = pad_examples([written for _, written, _ in some], tokenizer)
            batch['decoder_input_ids'] = torch.from_numpy(decoder['input_ids'])
        logits = model(**batch).logits[range(len(some)), [at for _, _, at in some]]
        answers = truth[begin:begin+100]
        nats.append(-logits.log_softmax(-1)[range(len(some)), answers])
        right.append(logits.argmax(-1) == answers)
    return torch.cat(nats).numpy(), torch.cat(right).numpy()


def as_tensors(batch): return {name: torch.from_numpy(column) for name, column in batch.items()}


@torch.no_grad()
def own_loss(objective, model, rows, collate):
    "Nats per scored token of its own task, on held-out rows with frozen damage."
    nats, tokens = 0., 0
    for begin in range(0, len(rows), 64):
        batch = collate(list(rows[begin:begin+64]))
        n = n_scored(batch['labels'], objective == 'causal')
        nats, tokens = nats + model(**batch).loss.item()*n, tokens + n
    return nats/tokens


# ---- the classifier


@torch.no_grad()
def features(model, texts, tokenizer):
    "The mean of each text's last hidden states, (texts, width)."
    body = getattr(model, model.base_model_prefix)
    body, found = body.encoder if hasattr(body, 'encoder') else body, []
    for begin in range(0, len(texts), 100):
        ids = tokenizer(texts[begin:begin+100], add_special_tokens=False).input_ids
        batch = as_tensors(pad_examples(ids, tokenizer))
        real = batch['attention_mask'][..., None]
        hidden = body(**batch).last_hidden_state
        found.append((hidden*real).sum(1)/real.sum(1))
    return torch.cat(found).numpy()


def probe(x, labels, n):
    "Accuracy of logistic regression, trained on the first n and tested on the others."
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    scaled = make_pipeline(StandardScaler(with_mean=isinstance(x, np.ndarray)),
                           LogisticRegression(C=.1, max_iter=2000))
    return float(scaled.fit(x[:n], labels[:n]).score(x[n:], labels[n:]))


def bag_of_words(texts, labels, n):
    from sklearn.feature_extraction.text import CountVectorizer
    words = CountVectorizer(min_df=2).fit(texts[:n])
    return probe(words.transform(texts), labels, n)


# ---- a run


def measured(objective, model, data, frozen, settings):
    "The tasks on held-out rows; the model's mode stays."
    tokenizer, _, valid, _ = data
    where = places(valid, settings.places, tokenizer)
    model.eval()
    found = dict(own_loss=own_loss(objective, model, valid[:128], frozen))
    for name, both in (('left', False), ('both', True)):
        nats, right = find(objective, model, valid, where, tokenizer, both)
        found |= {f'{name}_nats': float(nats.mean()), f'{name}_right': float(right.mean())}
    model.train()
    return found


def run(objective, seed, data, settings, progress):
    "One training: curve, tokens with a gradient, the classifier."
    tokenizer, rows, _, labelled = data
    model, rng = new(objective, tokenizer, settings, seed).train(), np.random.default_rng(seed)
    strategy = OBJECTIVES[objective]()
    fresh = LMCollator(tokenizer, strategy, generator=rng)
    frozen = LMCollator(tokenizer, strategy, seed=0)
    def score(): return measured(objective, model, data, frozen, settings)
    def classify(): return probe(features(model.eval(), labelled['text'], tokenizer), labels, settings.probes)
    labels = np.array(labelled['label'])
    before, optimizer = classify(), lm_optimizer(model.train(), settings.lr)
    curve, scored, read, seconds = [dict(step=0, **score())], 0, 0, 0.
    order = rng.permutation(len(rows))[:settings.n_steps*settings.batch_size]
    for step, chosen in enumerate(order.reshape(settings.n_steps, -1)):
        began = time.process_time()
        batch = fresh(list(rows[chosen]))
        for group in optimizer.param_groups: group['lr'] = settings.lr*lr_factor(step, settings.n_steps)
        model(**batch).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.)
        optimizer.step()
        optimizer.zero_grad()
        seconds += time.process_time()-began
        scored += n_scored(batch['labels'], objective == 'causal')
        read += rows[chosen].size
        if (step+1) % settings.eval_every == 0: curve.append(dict(step=step+1, **score()))
        progress.update()
    return dict(objective=objective, seed=seed, parameters=sum(p.numel() for p in model.parameters()),
                tokens_read_per_step=read/settings.n_steps, tokens_scored_per_step=scored/settings.n_steps,
                cpu_seconds_per_step=seconds/settings.n_steps, curve=curve, probe_random_weights=before,
                probe=classify())


def main(path, settings=Settings()):
    "All runs that `path` does not hold yet."
    from tqdm import tqdm
    told = dict(settings=rounded(asdict(settings)), versions={p: machine(p)[p] for p in PACKAGES})
    before = kept(path)
    runs = before['runs'] if {k: before.get(k) for k in told} == told else []
    done = {(r['objective'], r['seed']) for r in runs}
    todo = [(o, seed) for seed in settings.seeds for o in OBJECTIVES if (o, seed) not in done]
    data = corpus(settings)
    if len(data[1]) < settings.n_steps*settings.batch_size:
        raise SystemExit(f'{len(data[1])} rows are too few for {settings.n_steps} updates without repeating')
    labelled = data[3]
    words = bag_of_words(labelled['text'], np.array(labelled['label']), settings.probes)
    with tqdm(total=len(todo)*settings.n_steps, unit='update') as progress:
        for objective, seed in todo:
            progress.set_description(f'{objective}, seed {seed}')
            runs = [*runs, rounded(run(objective, seed, data, settings, progress))]
            keep(dict(machine=machine(*PACKAGES), **told, rows=len(data[1]), probe_bag_of_words=words,
                      runs=runs), path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--out', default=results/'objectives.json', help='where the JSON goes')
    main(parser.parse_args().out)
