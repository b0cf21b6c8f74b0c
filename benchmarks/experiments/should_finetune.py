"""Lesson 5b's rule on seven corpora, its verdicts beside what training does, and how far tiny-gpt's own writing is from real reviews.

    python -m benchmarks.experiments.should_finetune --reviews ../shared/data      # about five minutes on one core

--reviews is the folder that runs/train_tiny.py was given as --corpus: reviews of movies that the model has read nothing
about, and WikiText-2's test text, are taken from it. Settings are fixed below. Prints two tables and keeps them in
benchmarks/results/should_finetune.json with machine, versions and date; no text is kept.
"""
import argparse, random, re, time

from benchmarks.bench import keep, machine, prepare, results

prepare(threads=1)

LONGEST = 800 # characters of a text: about as long as the model's own writing
AMOUNTS = {15_000: 20, 60_000: 48} # characters to learn from: updates
SETTINGS = dict(longest=LONGEST, updates=AMOUNTS, pairs=60, scored_texts=30, seed=42)

def held_out(folder):
    "Reviews of movies kept out of tiny-gpt's training, and WikiText-2's test text in paragraphs."
    from runs.train_tiny import read_folder, split_documents
    parts, _ = split_documents(read_folder(folder))
    return parts['test'], [p.strip() for t in parts['wiki_test'] for p in t.split('\n') if len(p) > 200]

def corpora(reviews, wiki, home, draw):
    from course_lm.data import python_docs, python_docstrings, python_source
    from course_lm.reviews import reviews as made_up
    code = [re.sub(r'(?s)\"\"\".*?\"\"\"|\'\'\'.*?\'\'\'', '', s) for s in draw.sample(python_source(), 150)] # without docstrings
    code = [s[i:i+LONGEST] for s in code for i in range(0, min(len(s), 3*LONGEST), LONGEST)]
    found = {"the model's own writing": home[1::2], 'IMDb reviews, held out': reviews, 'WikiText-2': wiki, 'made-up reviews': made_up(500)['text'],
             'manual': python_docs(), 'docstrings': [t for t in python_docstrings() if len(t) >= 100], 'Python code': code}
    out = {}
    for name,texts in found.items():
        texts = [t[:LONGEST] for t in dict.fromkeys(texts) if len(t.strip()) >= 60]
        out[name] = draw.sample(texts, len(texts))
    return out

def homes_compared(own, real, tok, model):
    "The model's own writing beside held-out reviews cut to its lengths."
    from course_lm.advice import measure_texts
    n = min(len(own), 120)
    m = measure_texts(real[:2*n], model, tok, own, n=n)
    same = measure_texts(real[:n], model, tok, real[n:2*n], n=n)
    keys = [k+at for k in ('bits_per_byte', 'tokens_per_word', 'bytes_per_token', 'style') for at in ('', '_home')] + ['pairs', 'excess', 'excess_low', 'excess_high']
    return {'held-out reviews, home: own writing': {k: round(m[k], 3) for k in keys}, 'held-out reviews, home: other held-out reviews': {k: round(same[k], 3) for k in keys}}

def up_to(texts, n):
    total, out = 0, []
    for t in texts:
        if total >= n: break
        out.append(t)
        total += len(t)
    return out

def row(name, texts, n, updates, homes, tok, model):
    "Verdicts with both homes, and the starts compared."
    from course_lm.advice import compare_starts, should_finetune
    valid, train = texts[:SETTINGS['scored_texts']], up_to(texts[SETTINGS['scored_texts']:], n)
    if sum(map(len, train)) < .9*n: return None
    reports = {k: should_finetune(train, model, tok, h, n=SETTINGS['pairs']) for k,h in homes.items()}
    truth = compare_starts(train, valid, model, tok, n_steps=updates, same_tokenizer=False)
    m = reports['own writing'].measures
    return dict(corpus=name, characters=n, **{k: round(float(v), 3) for k,v in truth.bits_per_byte.items()}, as_good=list(truth.attrs['tied']),
                verdict=reports['own writing'].verdict.answer, verdict_with_real_home=reports['held-out reviews'].verdict.answer,
                excess=[round(m[k], 3) for k in ('excess', 'excess_low', 'excess_high')], excess_with_real_home=round(reports['held-out reviews'].measures['excess'], 3), tokens=m['tokens'],
                own_tokens_times_as_long=round(m['own_bytes_per_token']/m['bytes_per_token'], 2), counter_by_model=round(m['counter']/m['bits_per_byte'], 2))

def main(folder, only=None):
    from course_lm.models import reference_texts, load_lm
    from course_lm.advice import RULES
    began, draw = time.process_time(), random.Random(SETTINGS['seed'])
    reviews, wiki = held_out(folder)
    model, tok = load_lm('tiny')
    home = reference_texts(model)
    texts = corpora(reviews, wiki, home, draw)
    real, texts['IMDb reviews, held out'] = texts['IMDb reviews, held out'][:240], texts['IMDb reviews, held out'][240:]
    out = dict(machine=machine('torch', 'transformers', 'tokenizers', 'datasets'), settings=SETTINGS, rules=dict(RULES), home=homes_compared(home, real, tok, model), rows=[])
    for k,v in out['home'].items(): print(k, v, flush=True)
    homes = {'own writing': home[::2], 'held-out reviews': real}
    for name,ts in texts.items():
        if only and name not in only: continue
        for n,updates in AMOUNTS.items():
            if found := row(name, ts, n, updates, homes, tok, model):
                out['rows'].append(found)
                print({k: v for k,v in found.items()}, round(time.process_time()-began), flush=True)
    return {**out, 'cpu_seconds': round(time.process_time()-began)}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--reviews', required=True, help='folder that runs/train_tiny.py was given as --corpus')
    parser.add_argument('--only', nargs='*', help='these corpora; nothing is kept then')
    parser.add_argument('--out', default=results/'should_finetune.json', help='where the JSON goes')
    args = parser.parse_args()
    found = main(args.reviews, args.only)
    if not args.only: keep(found, args.out)
