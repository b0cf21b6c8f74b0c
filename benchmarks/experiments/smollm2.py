"""SmolLM2, a real model of 135 million parameters, asked what the lessons ask small ones.

    alias run='python -m benchmarks.experiments.smollm2'
    run mistakes                       # lesson 30: what each mistake with labels reports
    run manual                         # 10, 11: bits per byte beside tiny-gpt, n-grams and xz
    run windows --text TEST_TXT        # 40, 41: WikiText-2's test text, by strides and by length of context
    run reviews --imdb PATH            # 20 to 22: by place in a chunk; with and without EOS; packed
    run prompts --imdb PATH            # 53: asked for a verdict, with and without examples

TEST_TXT is WikiText-2's test.txt, PATH what load_imdb takes. A row is written to
course_lm/records/smollm2.json when it is done, and one that stands there is not done again. One thread;
about 60,000 tokens for windows, 40,000 for reviews, 70,000 for prompts, few for the rest. The model is what
load_lm('smollm2') finds; the record says whether its weights came from the hub or, rounded, from a wheel.
"""
import argparse, copy, lzma, math, time
from pathlib import Path

from benchmarks import bench

bench.prepare(threads=1)
import numpy as np, torch
from tqdm.auto import tqdm

RESULTS = bench.results/'smollm2.json'
WINDOWS = dict(tokens=3072, window=1024, strides=(1024, 512, 256, 128), contexts=(8, 32, 128))
REVIEWS = dict(reviews=40, least=100, most=250, chunk=128, row=512)
PROMPTS = dict(reviews=200, tokens=160, examples=4, example_tokens=80, seed=0)
END = '<|endoftext|>' # stood between documents when the model was trained; its eos_token ends a chat's turn


def load():
    from course_lm.models import load_lm
    return load_lm('smollm2')


def source():
    from course_lm.support.machine import cache_path, kept_model
    from course_lm.support.real import wheels
    kept = kept_model('smollm2')
    return wheels['smollm2'].asked if kept and kept.is_relative_to(cache_path()) else 'hub'


class Rows:
    "The rows of one part of the record; each is written when it is done."
    def __init__(self, part, settings, out):
        self.part, self.out = part, out
        old = bench.kept(out).get(part, {})
        same = old.get('settings') == bench.rounded(settings)
        self.rows, self.settings = old['rows'] if same else [], settings

    def add(self, name, make):
        if any(r['name'] == name for r in self.rows): return
        start = time.process_time()
        row = dict(name=name, **make())
        self.rows.append(bench.rounded({**row, 'cpu_seconds': round(time.process_time()-start, 1)}))
        where = bench.machine('torch', 'transformers', 'numpy')
        new = dict(settings=bench.rounded(self.settings), weights=source(), rows=self.rows, machine=where)
        bench.keep(bench.kept(self.out) | {self.part: new}, self.out)

    def all(self, makes):
        for name, make in tqdm(makes.items(), desc=self.part): self.add(name, make)
        told = [{k: v for k,v in r.items() if not isinstance(v, (list, dict))} for r in self.rows]
        bench.show(self.part, [r for r in told if len(r) == len(told[0])])


@torch.no_grad()
def nats_of(model, ids, **also):
    "(tokens-1,) what each token but the first costs, from those before it."
    x = torch.tensor([ids])
    logits = model(input_ids=x, use_cache=False, **also).logits[0, :-1]
    return -logits.log_softmax(-1).gather(1, x[0, 1:, None])[:, 0].double().numpy()


# ---- 40, 41


def windows(args):
    from course_lm.perplexity import token_bytes
    from course_lm.scoring import sliding_perplexity
    model, tokenizer = load()
    s = WINDOWS
    ids = tokenizer(Path(args.text).read_text(encoding='utf-8'), verbose=False)['input_ids'][:s['tokens']]
    words, n_bytes = len(tokenizer.decode(ids[1:]).split()), int(token_bytes(tokenizer)[ids[1:]].sum())

    def row(window, stride):
        def make():
            score = sliding_perplexity(model, ids, window, stride, batch_size=max(1, 1024//window))
            per_byte, all_nats = score.nats/math.log(2)/n_bytes, score.cross_entropy*(len(ids)-1)
            return dict(window=window, stride=stride, tokens=score.tokens, nats=score.cross_entropy,
                        perplexity=score.perplexity, word_perplexity=math.exp(all_nats/words),
                        bits_per_byte=per_byte*(len(ids)-1)/score.tokens)
        return make
    makes = {f'stride {n}': row(s['window'], n) for n in s['strides'][:2]}
    makes['all at once'] = row(len(ids), len(ids))
    makes |= {f'context {n} to {2*n-1}': row(2*n, n) for n in s['contexts']}
    makes |= {f'stride {n}': row(s['window'], n) for n in s['strides'][2:]}
    Rows('windows', s | dict(words=words, bytes=n_bytes), args.out).all(makes)


# ---- 10, 11


def manual(args):
    from course_lm.data import python_docs, train_tokenizer
    from course_lm.models import load_lm
    from course_lm.ngram import NGramLM
    docs = python_docs()
    train, valid = docs[:1000], docs[1000:]
    sizes = [len(d.encode()) for d in valid]

    def scored(model, tokenizer, end):
        e = tokenizer.convert_tokens_to_ids(end)
        found = [nats_of(model, [e, *ids, e]) for ids in tokenizer(valid)['input_ids']]
        return found

    def row(found):
        nats, tokens = sum(f.sum() for f in found), sum(len(f) for f in found)
        per_byte = nats/math.log(2)/sum(sizes)
        return dict(tokens=tokens, perplexity=math.exp(nats/tokens), bits_per_byte=per_byte,
                    by_paragraph=[f.sum()/math.log(2) for f in found])

    def recited():
        "Of the ten tokens after the first 24, how many come out right, greedily, before the first wrong one."
        model, tokenizer = load()
        n = []
        for ids in [x for x in tokenizer(valid)['input_ids'] if len(x) >= 34][:30]:
            said = model.generate(torch.tensor([ids[:24]]), max_new_tokens=10, do_sample=False,
                                  attention_mask=torch.ones(1, 24), pad_token_id=0)[0, 24:].tolist()
            n.append(int(np.cumprod([a == b for a,b in zip(said, ids[24:34])]).sum()))
        return dict(paragraphs=len(n), right=sum(n)/len(n), all_ten=sum(k == 10 for k in n))

    def xz(before):
        text = '\n'.join(valid).encode()
        n = len(lzma.compress(before+text, preset=9))
        if before: n -= len(lzma.compress(before, preset=9))
        return dict(bits_per_byte=8*n/len(text))

    def trigram():
        t = train_tokenizer(train, vocab_size=1000)
        a, b = ([[0, *ids, 0] for ids in t(d)['input_ids']] for d in (train, valid))
        logs = NGramLM(3, vocab_size=1000).fit(a).logprobs(b)
        ends = np.cumsum([len(d) for d in b])
        return row([-x[1:] for x in np.split(logs, ends[:-1])])
    Rows('manual', dict(paragraphs=len(valid), bytes=sum(sizes)), args.out).all({
        'SmolLM2': lambda: row(scored(*load(), END)), 'tiny-gpt': lambda: row(tiny(scored, load_lm)),
        'trigram': trigram, 'xz': lambda: xz(b''),
        'xz that has seen the training text': lambda: xz('\n'.join(train).encode()), 'recited': recited})


def tiny(scored, load_lm):
    model, tokenizer = load_lm('tiny-gpt')
    return scored(model, tokenizer, tokenizer.eos_token)


# ---- 30


def mistakes(args):
    from course_lm.data import python_docs
    from course_lm.perplexity import token_nll
    model, tokenizer = load()
    docs = sorted(python_docs()[1000:], key=len)[40:72]
    batch = tokenizer(docs, padding=True, padding_side='right', return_tensors='pt')
    ids, real = batch['input_ids'], batch['attention_mask'].bool()
    end = tokenizer.convert_tokens_to_ids(END)
    with torch.no_grad():
        logits = torch.cat([model(input_ids=x, attention_mask=m, use_cache=False).logits
                            for x,m in zip(ids.split(4), real.long().split(4))])
    as_pad = ids.masked_fill(~real, end)
    right = ids.masked_fill(~real, -100)
    later = torch.cat([right[:, 1:], torch.full_like(right[:, :1], -100)], 1)

    def mean(labels, shift=True): return lambda: _loss(token_nll(logits, labels, shift))
    def of_rows():
        each = [token_nll(logits[i:i+1], right[i:i+1]).mean().item() for i in range(len(docs))]
        loss = sum(each)/len(each)
        return dict(tokens=int(real[:, 1:].sum()), loss=loss, perplexity=math.exp(loss))
    settings = dict(paragraphs=len(docs), longest=ids.shape[1], padding=int((~real).sum()))
    Rows('mistakes', settings, args.out).all({
        'right': mean(right), 'shifted twice': mean(later), 'not shifted': mean(right, False),
        'padding counts': mean(ids), 'padding is END and counts': mean(as_pad),
        'mean of means of each paragraph': of_rows})


def _loss(nll): return dict(tokens=len(nll), loss=nll.mean().item(), perplexity=math.exp(nll.mean().item()))


# ---- 20 to 22


def by_place(values, places, edges=(1, 8, 32, 64, 128, 256)):
    "Mean of the values by place: 1 to 7, 8 to 31, ..."
    values, places = np.concatenate(values), np.concatenate(places)
    inside = {f'{a} to {b-1}': (places >= a) & (places < b) for a,b in zip(edges, edges[1:])}
    return {k: dict(tokens=int(m.sum()), nats=float(values[m].mean())) for k,m in inside.items() if m.any()}


def reviews(args):
    from course_lm.data import load_imdb
    from course_lm.packing import segment_mask
    model, tokenizer = load()
    s, end = REVIEWS, tokenizer.convert_tokens_to_ids(END)
    texts = load_imdb(args.imdb)['train'].shuffle(seed=0)['text'][:2000]
    docs = [ids for ids in tokenizer(list(texts), verbose=False)['input_ids']
            if s['least'] <= len(ids) <= s['most']][:s['reviews']]
    own = [np.arange(1, len(d)+1) for d in docs] # the place of each token behind END
    alone = [nats_of(model, [end, *d]) for d in docs] # every token of a review, END in front

    def row(values, places, **more):
        return dict(tokens=sum(map(len, values)), nats=float(np.concatenate(values).mean()),
                    by_place=by_place(values, places), **more)
    def without():
        values = [nats_of(model, d) for d in docs]
        return row(values, [p[:-1] for p in own], same_tokens_with_end=float(np.concatenate(
            [a[1:] for a in alone]).mean()))
    def chunks(between):
        """The reviews in a row, cut into chunks: what a token costs by its place in the chunk, and what the
        same tokens cost where the whole review stands before them."""
        def make():
            flat, twin = [], []
            for d,a in zip(docs, alone):
                flat += [*between, *d]
                twin += [*[math.nan]*len(between), *a]
            n, values, same, places = s['chunk'], [], [], []
            for i in range(0, len(flat)-n+1, n):
                v, t = nats_of(model, flat[i:i+n]), np.array(twin[i+1:i+n])
                ok = ~np.isnan(t)
                values, same = [*values, v[ok]], [*same, t[ok]]
                places.append(np.arange(1, n)[ok])
            return row(values, places, whole_review=by_place(same, places),
                       whole_review_nats=float(np.concatenate(same).mean()))
        return make
    def packed(masks):
        def make():
            values, places, same, later = [], [], [], []
            rows, room = [[]], s['row']
            for k,d in enumerate(docs):
                if sum(len(docs[j])+1 for j in rows[-1]) + len(d)+1 > room: rows.append([])
                rows[-1].append(k)
            for members in rows:
                flat = [t for k in members for t in (end, *docs[k])]
                lengths = [len(docs[k])+1 for k in members]
                also = {}
                if masks:
                    segments = torch.tensor([np.repeat(np.arange(len(members)), lengths)])
                    also = dict(attention_mask=segment_mask(segments),
                                position_ids=torch.cat([torch.arange(n) for n in lengths])[None])
                found = np.concatenate([[math.nan], nats_of(model, flat, **also)])
                for k,v in zip(members, np.split(found, np.cumsum(lengths)[:-1])):
                    values, places, same = [*values, v[1:]], [*places, own[k]], [*same, alone[k]]
                    later.append(k != members[0])
            gap = [v-a for v,a in zip(values, same)]
            return row(values, places, whole_review_nats=float(np.concatenate(same).mean()),
                       not_first=by_place(*zip(*[(g, p) for g,p,x in zip(gap, places, later) if x])),
                       largest_difference=float(max(np.abs(g).max() for g in gap)))
        return make
    Rows('reviews', s, args.out).all({
        'alone, END in front': lambda: row(alone, own), 'alone, nothing in front': without,
        'chunks, END between': chunks([end]), 'chunks, nothing between': chunks([]),
        'packed, with masks': packed(True), 'packed, without masks': packed(False)})


# ---- 53


def cut(tokenizer, text, n): return tokenizer.decode(tokenizer(text, verbose=False)['input_ids'][-n:])


def question(text): return f'Review: {text}\nSentiment (positive or negative):'


def prompts(args):
    from course_lm.baselines import imdb_splits, wilson_interval
    from course_lm.data import load_imdb
    model, tokenizer = load()
    model.to(torch.bfloat16)
    s = PROMPTS
    data = imdb_splits(load_imdb(args.imdb), by='movie', shares=(.8, .1, .1), seed=42)
    asked = data['test'].select(range(s['reviews']))
    truth = np.array(asked['label'])
    yes, no = (tokenizer(w)['input_ids'] for w in (' positive', ' negative'))
    assert len(yes) == len(no) == 1

    def examples():
        rng, out = np.random.default_rng(s['seed']), []
        for label in (0, 1)*(s['examples']//2):
            rows = np.flatnonzero(np.array(data['train']['label']) == label)
            text = data['train'][int(rng.choice(rows))]['text']
            asked = question(cut(tokenizer, text, s['example_tokens']))
            out.append(asked + (' negative', ' positive')[label])
        return '\n\n'.join(out) + '\n\n'
    @torch.no_grad()
    def odds(before, texts):
        "log p(positive)/p(negative) behind each question; what stands before all of them is read once."
        prefix = tokenizer(before, return_tensors='pt')['input_ids'] if before else None
        past = model(prefix, use_cache=True).past_key_values if before else None
        found = []
        for text in tqdm(texts, leave=False):
            x = torch.tensor([tokenizer(text, verbose=False)['input_ids']])
            said = model(x, past_key_values=copy.deepcopy(past), use_cache=before != '')
            logits = said.logits[0, -1].float()
            found.append((logits[yes[0]] - logits[no[0]]).item())
        return np.array(found)
    def row(before, form):
        def make():
            texts = [cut(tokenizer, t, s['tokens']) for t in asked['text']]
            x, empty = odds(before, [form(t) for t in texts]), odds(before, [form('N/A')])[0]
            def share(said): return float((said == truth).mean())
            n = int(((x > 0) == truth).sum())
            return dict(reviews=len(truth), right=n/len(truth), interval=list(wilson_interval(n, len(truth))),
                        says_positive=float((x > 0).mean()), odds_of_nothing=float(empty),
                        right_less_nothing=share(x > empty), right_by_median=share(x > np.median(x)))
        return make
    def chat(text):
        words = f'{question(text)} Answer with one word.'
        said = tokenizer.apply_chat_template([dict(role='user', content=words)], tokenize=False,
                                             add_generation_prompt=True)
        return said + 'The review is'
    Rows('prompts', s | dict(precision='bfloat16'), args.out).all({
        'zero examples': row('', question), 'as a chat': row('', chat),
        f'{s["examples"]} examples': row(examples(), question)})


def command(about, results, **parts):
    "The command line: a part, the folders that it reads, and where the record goes."
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('part', choices=parts)
    parser.add_argument('--text', type=Path)
    parser.add_argument('--imdb', type=Path)
    parser.add_argument('--out', type=Path, default=results)
    args = parser.parse_args()
    parts[args.part](args)


if __name__ == '__main__':
    command(__doc__, RESULTS, mistakes=mistakes, manual=manual, windows=windows, reviews=reviews,
            prompts=prompts)
