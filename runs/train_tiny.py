"""Train one of the course's small language models from scratch on folders of text. Lesson 7 explains every part.

    python -m runs.train_tiny --objective causal --corpus FOLDER FOLDER --minutes 120 --work WORK --out course_lm/pretrained/tiny-gpt

A corpus folder holds .parquet files (a column text, perhaps movie; labels are not looked at) and .txt files (WikiText's form).
Files named test* are never read for training. Text of held-out movies neither: see `split_documents`.
WORK gets tokens and checkpoints (never commit it); a run that was stopped goes on when the same command is given again.
A corpus of your own needs a WORK of its own, a model of another shape a --run of its own.
Two cores are used best by two processes, each with half of every batch:  torchrun --nproc-per-node 2 -m runs.train_tiny ...
"""
import argparse, hashlib, json, os, re, shlex, sys, time
from pathlib import Path

import numpy as np


def read_folder(folder):
    "Documents of a folder: dicts with text, file, movie ('' where there is none), labelled."
    folder, docs = Path(folder).expanduser(), []
    files = sorted(p for p in folder.rglob('*') if p.suffix in ('.parquet', '.txt'))
    if not files: raise ValueError(f'--corpus {folder} holds no .parquet and no .txt file')
    for path in files:
        if path.suffix == '.txt':
            docs += [dict(text=t, file=path.name, movie='', labelled=False) for t in articles(path.read_text(encoding='utf-8'))]
            continue
        import pyarrow.parquet as pq
        table = pq.read_table(path)
        if 'text' not in table.column_names: raise ValueError(f"{path.name} has no column 'text', only {table.column_names}")
        texts, n = table['text'].to_pylist(), table.num_rows
        movies = table['movie'].to_pylist() if 'movie' in table.column_names else ['']*n
        labelled = [x in (0, 1) for x in table['label'].to_pylist()] if 'label' in table.column_names else [False]*n
        docs += [dict(text=t, file=path.name, movie=str(m or ''), labelled=l) for t,m,l in zip(texts, movies, labelled)]
    return docs


def articles(text):
    "WikiText's articles: each begins with a line ' = Title = '."
    parts = re.split(r'(?m)^(?= = [^=\n]+ = \n)', text)
    return [p.strip('\n') for p in parts if p.strip()]


def bucket(key, n=40):
    "A number below n for a name: the same on every machine and in every order."
    return int(hashlib.sha256(key.encode()).hexdigest()[:12], 16) % n


def classification_movies(docs):
    "The movies of the valid and test part of lesson 6's split by movie, with its default seed and shares: 30 % of the labelled reviews."
    rows = [d for d in docs if d['labelled'] and d['movie']]
    if len(rows) < 100: return set()
    from datasets import Dataset
    from course_lm.baselines import imdb_splits
    ds = Dataset.from_dict({'text': ['']*len(rows), 'label': [i % 2 for i in range(len(rows))], 'movie': [d['movie'] for d in rows]})
    parts = imdb_splits(ds, by='movie')
    return set(parts['valid']['movie']) | set(parts['test']['movie'])


def split_documents(docs, seed=42):
    """train, valid and test: lists of text, and a report.

    valid and test are the reviews of one movie in 40 each, drawn by a hash of the movie's id; of a corpus without movies, one text
    in 40 each, by a hash of the text. Raises `ValueError` where a part gets none.
    Those movies' reviews are not trained on, nor any review of a movie that lesson 6 keeps for its valid and test, nor files named
    test*; a text that stands in valid or test is not trained on either, and no text twice."""
    from course_lm.scratch import deduplicate
    kept, by_movie = classification_movies(docs), any(d['movie'] for d in docs)
    parts = dict(train=[], valid=[], test=[], left_out=[], wiki_test=[])
    for d in docs:
        b = bucket(d['movie'] or d['text'])
        held = bool(d['movie']) or not by_movie
        part = ('wiki_test' if d['file'].startswith('test') else 'valid' if b == 0 and held else 'test' if b == 1 and held
                else 'left_out' if d['movie'] in kept else 'train')
        parts[part].append(d['text'])
    before = {k: len(v) for k,v in parts.items()}
    valid, test, wiki = (deduplicate(parts[k]) for k in ('valid', 'test', 'wiki_test'))
    held = set(valid) | set(test) | set(wiki) | set(parts['left_out'])
    train = [t for t in deduplicate(parts['train']) if t not in held]
    for name,part in dict(train=train, valid=valid, test=test).items():
        if not part: raise ValueError(f'--corpus leaves no text for {name}: of its {len(docs)} texts, one movie (or text) in 40 is held out for valid, and one for test')
    order = np.random.default_rng(seed).permutation(len(train))
    train = [train[i] for i in order]
    report = dict(documents=before, after_deduplication=dict(train=len(train), valid=len(valid), test=len(test), wiki_test=len(wiki)),
                  train_bytes=sum(len(t.encode()) for t in train), movies_kept_for_lesson_6=len(kept))
    return dict(train=train, valid=valid, test=test, wiki_test=wiki), report


def prepare(a, theirs=None):
    "Tokenizer (`theirs`, or a new one), tokens of train, valid and test, and the report; made once and kept in --work."
    from transformers import AutoTokenizer
    from course_lm.data import train_tokenizer
    folder = Path(a.work)/f'{a.objective}-{len(theirs) if theirs else a.vocab}'
    if theirs and (folder/'report.json').exists() and AutoTokenizer.from_pretrained(folder/'tokenizer').get_vocab() != theirs.get_vocab():
        raise SystemExit(f'{folder} holds tokens of another tokenizer than that of --start {a.start}: take another --work')
    files = sorted([p.name, p.stat().st_size] for f in a.corpus for p in Path(f).expanduser().rglob('*') if p.suffix in ('.parquet', '.txt'))
    if (folder/'report.json').exists() and (was := json.loads((folder/'report.json').read_text())['files']) != files:
        raise SystemExit(f'{folder} holds the tokens of another corpus ({len(was)} files, {sum(n for _,n in was):,} bytes; --corpus has {len(files)}, {sum(n for _,n in files):,} bytes): take another --work')
    if not (folder/'report.json').exists():
        folder.mkdir(parents=True, exist_ok=True)
        parts, report = split_documents([d for f in a.corpus for d in read_folder(f)])
        report['files'] = files
        start = time.time()
        tokenizer = theirs or train_tokenizer(parts['train'][::a.tokenizer_every], a.vocab, masked=a.objective == 'masked')
        tokenizer.save_pretrained(folder/'tokenizer')
        print(f'tokenizer made in {time.time()-start:.0f} s', flush=True)
        for name in ('train', 'valid', 'test'):
            tokens = encode(parts[name], tokenizer)
            np.save(folder/f'{name}.npy', tokens.astype(np.uint16 if len(tokenizer) < 2**16 else np.int32))
            report[f'{name}_tokens'] = len(tokens)
        report['seconds'] = round(time.time()-start)
        (folder/'report.json').write_text(json.dumps(report, indent=1))
    tokenizer = AutoTokenizer.from_pretrained(folder/'tokenizer')
    report = json.loads((folder/'report.json').read_text())
    tokens = {name: np.load(folder/f'{name}.npy', mmap_mode='r') for name in ('train', 'valid', 'test')}
    return tokenizer, tokens, report


def encode(texts, tokenizer, at_once=2000):
    "One row of ids: every document, then the token that ends a document."
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    rows = []
    for i in range(0, len(texts), at_once):
        for ids in tokenizer(texts[i:i+at_once], add_special_tokens=False, verbose=False)['input_ids']: rows.append(np.array([*ids, end], np.int32))
    return np.concatenate(rows)


def cut(tokens, length, tokenizer):
    "(n, length) chunks; for a masked model each between [CLS] and [SEP]."
    from course_lm.chunking import chunk_ids
    if tokenizer.mask_token_id is None: return chunk_ids(tokens, length)
    inside = chunk_ids(tokens, length-2)
    edge = np.ones((len(inside), 1), inside.dtype)
    return np.hstack([edge*tokenizer.cls_token_id, inside, edge*tokenizer.sep_token_id])


def documents_of(tokens, tokenizer):
    "The rows of ids that `encode` put one after the other."
    end = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    return [d[:-1].astype(np.int64) for d in np.split(tokens, np.flatnonzero(np.asarray(tokens) == end) + 1) if len(d) > 1]


def own_writing(model, tokenizer, train, n=240, at_least=20, seed=0):
    """What a causal model writes when nothing is asked of it, and how many of `n` texts were left out.

    It stands for text like that which the model has read, where that text itself must not be given away: so a text with
    `at_least` tokens in a row that stand in the training text is left out."""
    from course_lm.predictions import generate_text
    from course_lm.releasing import _runs, _stand_in
    new, known, kept, recited = min(200, tokenizer.model_max_length-1), np.unique(_runs(train, at_least)), [], 0
    for i in range(0, n, 60):
        for text in generate_text(model, tokenizer, ['']*min(60, n-i), max_new_tokens=new, seed=seed+i):
            ids = tokenizer(text, add_special_tokens=False)['input_ids']
            if _stand_in(known, _runs(ids, at_least)).any(): recited += 1
            elif len(text.strip()) >= 20: kept.append(text.strip())
    return kept, recited


def measure(model, tokenizer, train, test, n_documents=500, n_openings=200, seed=0, home=()):
    "Scores on held-out documents, rivals on the same ones, and how often the model recites: a dict."
    import math, torch
    from course_lm.labels import BertMasking, LMCollator
    from course_lm.ngram import NGramLM
    from course_lm.perplexity import TokenAccuracy, evaluate_lm
    from course_lm.scoring import score_texts
    from course_lm.pretraining import compression_baseline
    from course_lm.releasing import memorization
    docs = documents_of(test, tokenizer)[:n_documents]
    texts = [tokenizer.decode(d) for d in docs]
    n_bytes, out = sum(len(t.encode()) for t in texts), {}
    length = tokenizer.model_max_length
    if tokenizer.mask_token_id is None:
        out['bits per byte, held-out reviews'] = sum(score_texts(model, tokenizer, texts)).bits_per_byte
        end = np.array([tokenizer.eos_token_id])
        trigram = NGramLM(3, vocab_size=len(tokenizer)).fit(np.asarray(train).astype(np.int64))
        out['Kneser-Ney trigram on the same training text, bits per byte'] = -sum(trigram.logprobs(np.append(end, d))[1:].sum() for d in docs)/math.log(2)/n_bytes
        out['xz, bits per byte'] = compression_baseline(''.join(texts))
        starts = np.flatnonzero(np.asarray(train) == tokenizer.eos_token_id)[:-1] + 1
        starts = np.random.default_rng(seed).choice(starts, min(n_openings, len(starts)), replace=False)
        new = min(64, length//2)
        openings = np.stack([np.asarray(train[s:s+min(32, length-new)]) for s in starts if s + 32 <= len(train)])
        found = memorization(model, openings, np.asarray(train), max_new_tokens=new, at_least=min(20, new))
        out[f'of {len(openings)} openings of training texts, continued with 20 or more tokens that stand in the corpus'] = sum(n > 0 for n in found)
        if home: out[f'bits per byte of its own writing ({len(home)} texts in home.json)'] = sum(score_texts(model, tokenizer, list(home))).bits_per_byte
    else:
        chunks = cut(np.asarray(test).astype(np.int64), length, tokenizer)[:n_documents]
        collate, hits = LMCollator(tokenizer, BertMasking(), seed=seed), TokenAccuracy(shift=False)
        batches = [collate(list(chunks[i:i+32])) for i in range(0, len(chunks), 32)]
        for b in batches:
            with torch.no_grad(): hits.update(model.eval()(**{k: v for k,v in b.items() if k != 'labels'}).logits, b['labels'])
        out['masked tokens guessed right, held-out reviews, 15 % masks'] = hits.value
        out['nats per masked token'] = evaluate_lm(model, batches).cross_entropy
        counts = np.bincount(np.asarray(train), minlength=len(tokenizer))
        labels = torch.cat([b['labels'][b['labels'] >= 0] for b in batches]).numpy()
        out['always guessing the most frequent token'] = float((labels == counts.argmax()).mean())
    if tokenizer.mask_token_id is not None: return {**out, f'measured on held-out chunks of {length} tokens': len(chunks)}
    return {**out, 'measured on held-out documents': len(docs), 'their bytes': n_bytes}


def check_start(a, config):
    "The model of --start must have the shape that is asked for."
    for k,asked in dict(num_hidden_layers=a.layers, num_attention_heads=a.heads, hidden_size=a.width, max_position_embeddings=a.length).items():
        if (has := getattr(config, k)) != asked: raise SystemExit(f'--start {a.start} has {k} {has}, asked for is {asked}: give its --layers, --heads, --width and --length')


def check_beginning(a, first):
    "A run goes on only with what it began with: new weights, or those of --start."
    from course_lm.checkpoints import Checkpoints
    where = Path(a.work)/a.run
    began = hashlib.sha256((Path(a.start).expanduser()/'model.safetensors').read_bytes()).hexdigest() if a.start else 'new'
    if Checkpoints(where).last() is None:
        where.mkdir(parents=True, exist_ok=True)
        if first: (where/'began.txt').write_text(began)
    elif ((where/'began.txt').read_text() if (where/'began.txt').exists() else 'new') != began: raise SystemExit(f'{where} holds a run that began with other weights: take another --run')


def earlier_runs(folder):
    "What the weights in a folder have behind them: the runs that their training.json tells of, the oldest first."
    if not (path := Path(folder).expanduser()/'training.json').exists(): return []
    last = json.loads(path.read_text())
    return [*last.pop('before', []), last]


def arguments(argv=None):
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--objective', choices=['causal', 'masked'], default='causal')
    p.add_argument('--corpus', nargs='+', required=True, metavar='FOLDER')
    p.add_argument('--minutes', type=float, help='training time over all sittings; a larger number extends a run that is done')
    p.add_argument('--steps', type=int, help='updates, in place of --minutes')
    p.add_argument('--work', required=True, help='folder for tokens and checkpoints; outside the repository')
    p.add_argument('--run', default='run', help='name of the run inside --work')
    p.add_argument('--start', metavar='FOLDER', help='a model whose tokenizer and weights the run begins with, in place of new ones; take a --run of its own, and another --seed for another order')
    p.add_argument('--out', help='folder for the finished model, with its card')
    p.add_argument('--home', help='folder of a causal model whose home.json is put beside a masked one')
    p.add_argument('--measure', action='store_true', help='train nothing: compute the numbers of the card of the model in --out again')
    p.add_argument('--about', help='corpus and licence, for the card; without it the card names the files')
    p.add_argument('--note', help='a sentence for the card')
    p.add_argument('--threads', type=int, default=1, help='of each process')
    p.add_argument('--seed', type=int, default=42, help='of weights, order and masks')
    p.add_argument('--vocab', type=int, default=4096, help='tokens of the tokenizer')
    p.add_argument('--tokenizer-every', type=int, default=3, help='the tokenizer is trained on every so many-th document')
    p.add_argument('--layers', type=int, default=4, help='blocks')
    p.add_argument('--heads', type=int, default=6, help='attention heads in a block; they divide the width')
    p.add_argument('--width', type=int, default=192, help='numbers for each token')
    p.add_argument('--length', type=int, default=256, help='tokens in a chunk: the context')
    p.add_argument('--bs', type=int, default=24, help='chunks in a batch, of all processes together')
    p.add_argument('--accumulate', type=int, default=1, help='batches in an update')
    p.add_argument('--lr', type=float, default=3e-3, help='highest learning rate')
    p.add_argument('--warmup', type=int, default=100, help='updates in which it grows')
    p.add_argument('--decay', type=float, default=.2, help='share of the run in which it falls')
    p.add_argument('--optimizer', choices=['adamw', 'muon'], default='muon')
    p.add_argument('--mask', type=float, default=.3, help='share of tokens hidden from a masked model')
    p.add_argument('--eval-chunks', type=int, default=192, help='chunks of valid to evaluate on')
    p.add_argument('--eval-every', type=int, default=200, help='updates between evaluations')
    p.add_argument('--checkpoint-every', type=float, default=300, help='seconds')
    p.add_argument('--compile', action='store_true', help='torch.compile: needs a C++ compiler')
    p.add_argument('--bf16', choices=['no', 'yes', 'auto'], default='no', help='16-bit arithmetic; auto: tried out, taken where it is faster')
    p.add_argument('--stop-after', type=int, help='updates after which this sitting ends; the same command goes on')
    p.add_argument('--device', default=None, help='cpu, or cuda')
    a = p.parse_args(argv)
    if (a.minutes is None) == (a.steps is None) and not a.measure: p.error('give --minutes or --steps')
    if a.measure and not a.out: p.error('--measure needs --out')
    if a.start and a.out and Path(a.start).expanduser().resolve() == Path(a.out).expanduser().resolve(): p.error('--start and --out are one folder: what the run began with would be lost')
    if a.out and not a.measure: # before hours of training, not after them
        from course_lm.support.files import check_folder
        try: check_folder(a.out, '--out')
        except ValueError as e: p.error(str(e))
    if a.start and not (Path(a.start).expanduser()/'config.json').exists(): p.error(f'--start {a.start} is no folder of a model: it has no config.json')
    return a


def main(argv=None):
    a = arguments(argv)
    import torch
    torch.set_num_threads(a.threads)
    n_processes = int(os.environ.get('WORLD_SIZE', 1)) # what torchrun sets
    shared, first = n_processes > 1, os.environ.get('RANK', '0') == '0'
    if shared and a.device == 'cuda': torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) # a GPU for each
    if shared: torch.distributed.init_process_group('nccl' if a.device == 'cuda' else 'gloo')
    from course_lm.labels import BertMasking
    from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config
    from course_lm.scratch import plan_run, training_speed
    from course_lm.checkpoints import Checkpoints
    from course_lm.pretraining import pretrain
    from course_lm.releasing import model_card
    from course_lm.support.files import whole_folder
    start, theirs = load_lm(a.start, a.objective) if a.start else (None, None)
    if start: check_start(a, start.config)
    if first: prepared = prepare(a, theirs)
    if shared: torch.distributed.barrier() # the others read what the first has made
    tokenizer, tokens, report = prepared if first else prepare(a, theirs)
    tokenizer.model_max_length = a.length
    if first: print(json.dumps(report), flush=True)
    if a.measure:
        model, tokenizer = load_lm(a.out, a.objective)
        home = json.loads((Path(a.out)/'home.json').read_text(encoding='utf-8')) if (Path(a.out)/'home.json').exists() else ()
        print(json.dumps(measure(model, tokenizer, tokens['train'], tokens['test'], home=home), indent=1))
        return
    chunks = {k: cut(tokens[k], a.length, tokenizer) for k in ('train', 'valid')}
    config = start.config if start else (tiny_gpt_config if a.objective == 'causal' else tiny_bert_config)(tokenizer, n_layer=a.layers, n_head=a.heads, n_embd=a.width, max_length=a.length)
    model = start.train() if start else new_model(config, a.seed)
    if a.device: model.to(a.device)
    check_beginning(a, first)
    seconds = dict(seconds=a.checkpoint_every) if a.checkpoint_every else dict(every=1)
    checkpoints = Checkpoints(Path(a.work)/a.run, **seconds)
    bf16 = {'no': False, 'yes': True, 'auto': 'auto'}[a.bf16]
    if first and checkpoints.last() is None: # a plan, by the speed of one process without the optimizer
        speed = training_speed(model, a.length, a.bs, bf16=bf16 is True)*n_processes
        print(plan_run(config, a.length, speed, len(tokens['train']), **(dict(minutes=a.minutes) if a.minutes else dict(tokens=a.steps*a.bs*a.accumulate*a.length))), flush=True)
    history = pretrain(model, tokenizer, chunks['train'], chunks['valid'][:a.eval_chunks], n_steps=a.steps, minutes=a.minutes, batch_size=a.bs, accumulate=a.accumulate,
                       lr=a.lr, warmup_steps=a.warmup, decay=a.decay, optimizer=a.optimizer, strategy=BertMasking(a.mask) if a.objective == 'masked' else None,
                       bf16=bf16, compile=a.compile, eval_every=a.eval_every, seed=a.seed, checkpoints=checkpoints, stop_after=a.stop_after)
    if shared: torch.distributed.destroy_process_group()
    if not first: return
    print(history, history.evals[-1], flush=True)
    if not (a.out and history.done): return
    model.to('cpu').eval()
    save_lm(model, tokenizer, a.out, dtype=torch.bfloat16)
    model, tokenizer = load_lm(a.out, a.objective) # what is measured is what is shipped: 16 bits
    home, recited = (own_writing(model, tokenizer, tokens['train']) if a.objective == 'causal'
                     else (json.loads((Path(a.home)/'home.json').read_text(encoding='utf-8')) if a.home else (), 0))
    scores = measure(model, tokenizer, tokens['train'], tokens['test'], home=home)
    print(json.dumps(scores, indent=1), flush=True)
    words = ['CORPUS' if w in a.corpus else w for w in (argv or sys.argv[1:])]
    words = [w if i == 0 or words[i-1] not in ('--work', '--out', '--home', '--note', '--about', '--start') else words[i-1][2:].upper() for i,w in enumerate(words)]
    notes = ('Text of the held-out movies, of the movies that lesson 6 keeps for validation and test, and files named test* were not read' + (' in this run' if a.start else '') + '. '
             f"{report['train_bytes']:,} bytes of training text, {report['train_tokens']:,} tokens. A small model made for a course: what it writes means nothing.")
    if a.start: notes += f' It began with the tokenizer and the weights of {Path(a.start).name}; what is said here of text is said of this run.'
    if a.note: notes += f' {a.note}'
    if home: notes += (f' home.json holds {len(home)} texts that ' + (f'the model wrote by itself ({recited} more were left out, since they had 20 tokens in a row of the training text)'
                       if a.objective == 'causal' else f'{Path(a.home).name} wrote by itself') + ': they stand for text like that which it has read.')
    before = earlier_runs(a.start) if a.start else []
    about = a.about or 'Read: ' + ', '.join(name for name,_ in report['files']) + '.'
    card = model_card(Path(a.out).name, config, history, about, scores, (f'torchrun --nproc-per-node {n_processes}' if shared else 'python') + ' -m runs.train_tiny ' + shlex.join(words), notes, n_processes, before)
    run = dict(settings=history.settings, seconds=round(history.seconds), decay_from=history.decay_from, evals=history.evals)
    with whole_folder(a.out) as new:
        save_lm(model, tokenizer, new, dtype=torch.bfloat16, card=card, reference_texts=home or None)
        (new/'training.json').write_text(json.dumps(run | (dict(before=before) if before else {}), indent=1) + '\n')


if __name__ == '__main__': main()
