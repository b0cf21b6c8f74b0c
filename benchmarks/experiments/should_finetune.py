"""Lesson 53's rule beside what training does: the truth that its verdicts guess at.

    python -m benchmarks.experiments.should_finetune --reviews CORPUS    # ten minutes on one core
    python -m benchmarks.experiments.should_finetune --lesson            # six, needs no reviews

--reviews is the folder that runs/train_tiny.py was given as --corpus: reviews of movies that the model has
read nothing about, and WikiText-2's test text, are taken from it. Seven corpora, and how far tiny-gpt's own
writing is from real reviews; kept in course_lm/records/should_finetune.json. --lesson compares the starts on
the collections of the lesson and on four that the rule has never seen; kept beside it, as
should_finetune_lesson.json. Settings are fixed below. Prints what it finds; keeps it with machine, versions
and date; of a text 40 characters at most.
"""
import argparse, copy, os, random, re, time, unicodedata
from dataclasses import asdict, dataclass

os.environ.setdefault('HF_HUB_OFFLINE', '1')
os.environ.setdefault('OMP_NUM_THREADS', '1')
os.environ.setdefault('HF_DATASETS_DISABLE_PROGRESS_BARS', '1')
from benchmarks.bench import keep, machine, results

LONGEST = 800 # characters of a text: about as long as the model's own writing
AMOUNTS = {15_000: 20, 60_000: 48} # characters to learn from: updates
RATES = dict(rates=(1e-3, 3e-3), rates_scratch=(1e-3, 3e-3, 1e-2)) # for the seven corpora
SETTINGS = dict(longest=LONGEST, updates=AMOUNTS, pairs=60, scored_texts=30, seed=42, **RATES)


# ---- the truth: four starts with the same training texts


@dataclass(frozen=True)
class Training:
    "How the three trainings of `compare_starts` are done."
    n_steps: int = 100  # updates of each
    rates: tuple = 1e-3, 2e-3, 3e-3, 5e-3  # of fine-tuning
    rates_scratch: tuple = 1e-3, 2e-3, 3e-3, 5e-3, 1e-2  # from random weights
    vocab_size: int = None  # of the own tokenizer; None: `own_vocab_size(train)`, the model's at most
    chunk_size: int = 64  # tokens in an example
    batch_size: int = 8  # examples in a batch
    seed: int = 42  # of weights and order


@dataclass(frozen=True)
class Starts:
    "What each start came to, and the answers that training could not tell from the best."
    scores: dict  # start -> bits_per_byte, low, high, bytes_per_token
    as_good: tuple  # some of ANSWERS
    rates: dict  # start -> the rate that was chosen
    by_rate: dict  # start -> bits per byte of every rate that was tried

    @property
    def best(self): return self.as_good[0] if len(self.as_good) == 1 else 'tie'


def compare_starts(train, valid, model, tokenizer, training=Training(), tie=.02, same_tokenizer=True):
    """The model untouched, fine-tuned, from scratch, and from scratch with a tokenizer of its own.

    Every tenth text of `train` only chooses the rate, and when to stop; `valid` is scored, never trained on;
    the model is not changed. A start whose bits are within `tie` of the fewest is as good. `same_tokenizer`:
    try random weights with the model's tokenizer too, to compare with; it is never the answer.
    """
    from course_lm.advice import ANSWERS
    from course_lm.scoring import bootstrap_interval, score_texts
    _check(train, valid, model)
    starts = _starts(train, model, tokenizer, training, same_tokenizer)
    scores, rates, by_rate = {}, {}, {}
    for name, (m, t) in starts.items():
        tried = {rate: _train(m, t, train, training, rate) for rate in _rates(name, training)}
        # later positions of a model from scratch are still random: all are scored as they were trained
        each = {rate: score_texts(one, t, valid, max_length=training.chunk_size)
                for rate, (_, one) in tried.items()}
        rates[name] = min(tried, key=lambda rate: tried[rate][0])
        scores[name] = each[rates[name]]
        by_rate[name] = {rate: sum(some).bits_per_byte for rate, some in each.items()}
    found = {}
    for name, each in scores.items():
        (low, high), total = bootstrap_interval(each, 'bits_per_byte', seed=training.seed), sum(each)
        found[name] = dict(bits_per_byte=total.bits_per_byte, low=low, high=high,
                           bytes_per_token=total.bytes/total.tokens)
    answers = dict(zip(ANSWERS, (each for name, each in scores.items() if name != 'from scratch')))
    del rates['untouched'], by_rate['untouched']
    return Starts(found, _as_good(answers, valid, tie), rates, by_rate)


def _rates(start, training):
    if start == 'untouched': return [0]
    return training.rates if start == 'fine-tuned' else training.rates_scratch


def _check(train, valid, model):
    from course_lm.support.inputs import is_causal
    if not is_causal(model):
        raise ValueError(f'{type(model).__name__} is a masked model: it has no bits per byte to compare')
    both = set(train) & set(valid)
    if both:
        raise ValueError(f'{len(both)} texts are in train and in valid: what was learnt would be scored')
    if len(train) < 10:
        raise ValueError(f'train has {len(train)} texts, and at least 10 are needed: '
                         'every tenth only chooses when to stop')


def _starts(train, model, tokenizer, training, same_tokenizer):
    from course_lm.advice import own_vocab_size
    from course_lm.data import train_tokenizer
    from course_lm.models import new_model
    size = training.vocab_size or own_vocab_size(train, most=max(300, len(tokenizer)))
    own = train_tokenizer(train, size)
    own.model_max_length = tokenizer.model_max_length
    starts = {'untouched': (model, tokenizer), 'fine-tuned': (model, tokenizer)}
    if same_tokenizer: starts['from scratch'] = new_model(model.config, training.seed, tokenizer), tokenizer
    starts['from scratch, own tokenizer'] = new_model(model.config, training.seed, own), own
    return starts


def _train(model, tokenizer, train, training, lr):
    "(the loss on what chooses, a trained copy); at a rate of 0 the model itself."
    if not lr: return 0, model
    from course_lm.chunking import chunk_dataset, tokenize_dataset
    from course_lm.finetuning import lm_loaders, train_loop
    from course_lm.support.machine import quiet
    parts = [text for i, text in enumerate(train) if i % 10], up_to(train[::10], 4000)
    def cut(texts): return chunk_dataset(tokenize_dataset(texts, tokenizer), training.chunk_size)
    with quiet(): chunks = [cut(texts) for texts in parts]
    loaders = lm_loaders(chunks, tokenizer, batch_size=training.batch_size, seed=training.seed)
    model = copy.deepcopy(model)
    run = train_loop(model, *loaders, n_steps=training.n_steps, eval_every=max(1, training.n_steps//3), lr=lr,
                     keep_best=True, progress=False)
    return run.best['valid_loss'], model


def _as_good(scores, valid, tie):
    "The answers whose bits per byte are the fewest, or within `tie` of them, or not different beyond chance."
    from course_lm.scoring import compare_lms
    bits = {k: sum(s).bits_per_byte for k, s in scores.items()}
    best = min(bits, key=bits.get)
    def good(k):
        near = k == best or bits[k] <= (1+tie)*bits[best]
        return near or compare_lms(scores[best], scores[k], valid).low <= 0
    return tuple(k for k in scores if good(k))


def up_to(texts, n):
    total, out = 0, []
    for t in texts:
        if total >= n: break
        out.append(t)
        total += len(t)
    return out


# ---- the collections of the lesson, and four that the rule has never seen


def collections():
    "The lesson's four: name -> (train, valid)."
    from course_lm.data import python_docs
    from course_lm.entropy import MarkovSource
    from course_lm.models import load_lm, reference_texts
    from course_lm.reviews import reviews
    docs, home, films = python_docs(), reference_texts(load_lm('tiny')[0]), list(reviews(130)['text'])
    source = MarkovSource(n_states=4, order=3, seed=7, concentration=.5)
    strand = ''.join('ACGT'[i] for i in source.sample(65*300, generator=1))
    dna = [strand[i:i+300] for i in range(0, len(strand), 300)]
    return {'own writing': (home[1::2][:60], home[::2][:20]), 'manual': (docs[:-250:7], docs[-250::6][:30]),
            'made-up reviews': (films[:100], films[100:]), 'DNA': (dna[:50], dna[50:])}


def unseen():
    "Comments, names of characters, sums and imports: what this machine's Python has, 150 texts each at most."
    from course_lm.data import python_source
    draw, sources = random.Random(42), python_source()
    blocks = [b for s in draw.sample(sources, 150) for b in re.findall(r'(?m)(?:^[ \t]*#.*\n){2,}', s)]
    blocks = [re.sub(r'(?m)^[ \t]*# ?', '', b).strip() for b in blocks]
    def letters(t): return sum(c.isascii() and (c.isalpha() or c.isspace()) for c in t)/len(t)
    comments = [b for b in dict.fromkeys(blocks) if 100 <= len(b) <= 1000 and letters(b) > .85]
    names = [n for n in (unicodedata.name(chr(i), '') for i in range(0x20, 0x3000)) if n]
    names = draw.sample(names, 1600)
    numbers = [(draw.randrange(100), draw.randrange(100)) for _ in range(2400)]
    sums = [f'{a} + {b} = {a+b}' for a, b in numbers]
    imports = ['\n'.join(re.findall(r'(?m)^(?:import|from) [^\n(\\]+$', s)) for s in sources]
    found = {'comments': comments, 'character names': ['\n'.join(names[i:i+8]) for i in range(0, 1600, 8)],
             'sums': ['\n'.join(sums[i:i+12]) for i in range(0, 2400, 12)],
             'imports': [t for t in dict.fromkeys(imports) if t.count('\n') >= 4]}
    return {k: draw.sample(v, min(len(v), 150)) for k, v in found.items()}


def as_record(starts):
    scores = {name: {k: round(v, 4) for k, v in s.items()} for name, s in starts.scores.items()}
    by_rate = {name: {str(r): round(bits, 4) for r, bits in tried.items()}
               for name, tried in starts.by_rate.items()}
    return dict(starts=scores, as_good=list(starts.as_good), best=starts.best, rates=starts.rates,
                by_rate=by_rate)


def lesson():
    "Training's answers for the lesson; its last twenty texts of each unseen collection are only scored."
    from course_lm.advice import should_finetune
    from course_lm.models import load_lm
    began, (model, tok), training = time.process_time(), load_lm('tiny'), Training(n_steps=16)
    out = dict(machine=machine('torch', 'transformers', 'tokenizers', 'datasets'), training=asdict(training),
               collections={}, unseen={})
    for name, (train, valid) in collections().items():
        same = name in ('manual', 'DNA')
        found = as_record(compare_starts(train, valid, model, tok, training, same_tokenizer=same))
        out['collections'][name] = found
        print(name, found, flush=True)
    for name, texts in unseen().items():
        train, valid = texts[:-20], texts[-20:]
        found = as_record(compare_starts(train, valid, model, tok, training, same_tokenizer=False))
        report = should_finetune(train, model, tok, n=60)
        m = report.measures
        out['unseen'][name] = found | dict(
            texts=len(texts), characters=sum(map(len, texts)), begins=texts[0][:40],
            verdict=report.verdict.answer, excess=round(m.excess.value, 3),
            counter_by_model=round(m.counter_by_model, 3),
            own_tokens_times_as_long=round(m.times_as_long, 3))
        print(name, out['unseen'][name], flush=True)
    return {**out, 'cpu_seconds': round(time.process_time()-began)}


# ---- seven corpora


def held_out(folder):
    "Reviews of movies kept out of tiny-gpt's training, and WikiText-2's test text in paragraphs."
    from course_lm.releasing import read_folder, split_documents
    parts, _ = split_documents(read_folder(folder))
    return parts['test'], [p.strip() for t in parts['wiki_test'] for p in t.split('\n') if len(p) > 200]

def corpora(reviews, wiki, home, draw):
    from course_lm.data import python_docs, python_docstrings, python_source
    from course_lm.reviews import reviews as made_up
    sources = draw.sample(python_source(), 150)
    code = [re.sub(r'(?s)\"\"\".*?\"\"\"|\'\'\'.*?\'\'\'', '', s) for s in sources] # without docstrings
    code = [s[i:i+LONGEST] for s in code for i in range(0, min(len(s), 3*LONGEST), LONGEST)]
    found = {"the model's own writing": home[1::2], 'IMDb reviews, held out': reviews, 'WikiText-2': wiki,
             'made-up reviews': made_up(500)['text'], 'manual': python_docs(),
             'docstrings': [t for t in python_docstrings() if len(t) >= 100], 'Python code': code}
    out = {}
    for name,texts in found.items():
        texts = [t[:LONGEST] for t in dict.fromkeys(texts) if len(t.strip()) >= 60]
        out[name] = draw.sample(texts, len(texts))
    return out

def homes_compared(own, real, tok, model):
    "The model's own writing beside held-out reviews cut to its lengths."
    from course_lm.advice import measure_texts
    n = min(len(own), 120)
    pairs = {'own writing': (real[:2*n], own), 'other held-out reviews': (real[:n], real[n:2*n])}
    out = {}
    for name, (texts, home) in pairs.items():
        m = measure_texts(texts, model, tok, home, n=n)
        found = dict(pairs=m.pairs, excess=m.excess.value, excess_low=m.excess.low, excess_high=m.excess.high)
        for at, side in (('', m.yours), ('_home', m.home)):
            found |= {f'bits_per_byte{at}': side.bits.value, f'tokens_per_word{at}': side.fit.tokens_per_word,
                      f'bytes_per_token{at}': side.fit.bytes_per_token}
        out[f'held-out reviews, home: {name}'] = {k: round(v, 3) for k, v in found.items()}
    return out

def row(name, texts, n, updates, homes, tok, model):
    "Verdicts with both homes, and the starts compared."
    from course_lm.advice import should_finetune
    valid, train = texts[:SETTINGS['scored_texts']], up_to(texts[SETTINGS['scored_texts']:], n)
    if sum(map(len, train)) < .9*n: return None
    reports = {k: should_finetune(train, model, tok, h, n=SETTINGS['pairs']) for k, h in homes.items()}
    truth = compare_starts(train, valid, model, tok, Training(n_steps=updates, **RATES), same_tokenizer=False)
    ours, other = reports['own writing'], reports['held-out reviews']
    m, bits = ours.measures, {k: round(v['bits_per_byte'], 3) for k, v in truth.scores.items()}
    return dict(corpus=name, characters=n, **bits, rates=truth.rates, as_good=list(truth.as_good),
                verdict=ours.verdict.answer, verdict_with_real_home=other.verdict.answer,
                excess=[round(v, 3) for v in (m.excess.value, m.excess.low, m.excess.high)],
                excess_with_real_home=round(other.measures.excess.value, 3), tokens=m.tokens,
                own_tokens_times_as_long=round(m.times_as_long, 2),
                counter_by_model=round(m.counter_by_model, 2))

def main(folder, only=None):
    from course_lm.models import reference_texts, load_lm
    from course_lm.advice import Rules
    began, draw = time.process_time(), random.Random(SETTINGS['seed'])
    reviews, wiki = held_out(folder)
    model, tok = load_lm('tiny')
    home = reference_texts(model)
    texts = corpora(reviews, wiki, home, draw)
    held = texts['IMDb reviews, held out']
    real, texts['IMDb reviews, held out'] = held[:240], held[240:]
    out = dict(machine=machine('torch', 'transformers', 'tokenizers', 'datasets'), settings=SETTINGS,
               rules=asdict(Rules()), home=homes_compared(home, real, tok, model), rows=[])
    for k,v in out['home'].items(): print(k, v, flush=True)
    homes = {'own writing': home[::2], 'held-out reviews': real}
    for name,ts in texts.items():
        if only and name not in only: continue
        for n,updates in AMOUNTS.items():
            found = row(name, ts, n, updates, homes, tok, model)
            if found is None: continue
            out['rows'].append(found)
            print(found, round(time.process_time()-began), flush=True)
    return {**out, 'cpu_seconds': round(time.process_time()-began)}

if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--reviews', help='folder that runs/train_tiny.py was given as --corpus')
    parser.add_argument('--lesson', action='store_true', help="the lesson's collections; needs no reviews")
    parser.add_argument('--only', nargs='*', help='these corpora; nothing is kept then')
    parser.add_argument('--out', help='where the JSON goes')
    args = parser.parse_args()
    if args.lesson == bool(args.reviews): parser.error('give either --reviews FOLDER or --lesson')
    found = lesson() if args.lesson else main(args.reviews, args.only)
    where = results/'should_finetune_lesson.json' if args.lesson else results/'should_finetune.json'
    if not args.only: keep(found, args.out or where)
