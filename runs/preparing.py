"""What train_tiny does before and after training: the command line, tokens on disk, notes for the card."""
import argparse, hashlib, json, shlex, time
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from course_lm.checkpoints import Checkpoints
from course_lm.data import train_tokenizer
from course_lm.releasing import encode, read_folder, split_documents
from course_lm.support.files import check_folder, whole_file, whole_folder


def arguments(argv, about):
    "What the command line asks for, checked."
    p = argparse.ArgumentParser(description=about)
    p.add_argument('--objective', choices=['causal', 'masked'], default='causal')
    p.add_argument('--corpus', nargs='+', required=True, metavar='FOLDER')
    p.add_argument('--minutes', type=float,
                   help='training time over all sessions; a larger number extends a run that is done')
    p.add_argument('--steps', type=int, help='updates, in place of --minutes')
    p.add_argument('--work', required=True, help='folder for tokens and checkpoints; outside the repository')
    p.add_argument('--run', default='run', help='name of the run inside --work')
    p.add_argument('--start', metavar='FOLDER',
                   help='a model whose tokenizer and weights the run begins with, in place of new ones; '
                         'take a --run of its own, and another --seed for another order')
    p.add_argument('--out', help='folder for the finished model, with its card')
    p.add_argument('--home', help='folder of a causal model whose home.json is put beside a masked one')
    p.add_argument('--measure', action='store_true',
                   help='train nothing: compute the numbers of the card of the model in --out again')
    p.add_argument('--about', help='corpus and licence, for the card; without it the card names the files')
    p.add_argument('--note', help='a sentence for the card')
    p.add_argument('--licence', help='of the weights, for the front matter of the card: apache-2.0')
    p.add_argument('--language', help='of the texts, for the same: en')
    p.add_argument('--datasets', nargs='+', default=[], metavar='NAME',
                   help='of the corpus on a hub, for the same: stanfordnlp/imdb')
    p.add_argument('--threads', type=int, default=1, help='of each process')
    p.add_argument('--seed', type=int, default=42, help='of weights, order and masks')
    p.add_argument('--vocab', type=int, default=4096, help='tokens of the tokenizer')
    p.add_argument('--tokenizer-every', type=int, default=3,
                   help='the tokenizer is trained on every so many-th document')
    p.add_argument('--layers', type=int, default=4, help='blocks')
    p.add_argument('--heads', type=int, default=6, help='attention heads in a block; they divide the width')
    p.add_argument('--width', type=int, default=192, help='numbers for each token')
    p.add_argument('--length', type=int, default=256, help='tokens in a chunk: the context')
    p.add_argument('--bs', type=int, default=24, help='chunks in a batch, of all processes together')
    p.add_argument('--accumulate', type=int, default=1, help='batches in an update')
    p.add_argument('--lr', type=float, default=3e-3, help='highest learning rate')
    p.add_argument('--warmup', type=int, default=100, help='updates in which it grows')
    p.add_argument('--decay', type=float, default=.2, help='share of the run that the decay takes')
    p.add_argument('--optimizer', choices=['adamw', 'muon'], default='muon')
    p.add_argument('--mask', type=float, default=.3, help='share of tokens hidden from a masked model')
    p.add_argument('--eval-chunks', type=int, default=192, help='chunks of valid to evaluate on')
    p.add_argument('--eval-every', type=int, default=200, help='updates between evaluations')
    p.add_argument('--checkpoint-every', type=float, default=300, help='seconds')
    p.add_argument('--compile', action='store_true', help='torch.compile: needs a C++ compiler')
    p.add_argument('--bf16', choices=['no', 'yes', 'auto'], default='no',
                   help='16-bit arithmetic; auto: tried out, taken where it is faster')
    p.add_argument('--stop-after', type=int,
                   help='updates after which this session ends; the same command goes on')
    p.add_argument('--device', default=None, help='cpu, or cuda')
    a = p.parse_args(argv)
    if (a.minutes is None) == (a.steps is None) and not a.measure: p.error('give --minutes or --steps')
    if a.measure and not a.out: p.error('--measure needs --out')
    if a.start and a.out and Path(a.start).expanduser().resolve() == Path(a.out).expanduser().resolve():
        p.error('--start and --out are one folder: what the run began with would be lost')
    if a.start and not (Path(a.start).expanduser()/'config.json').exists():
        p.error(f'--start {a.start} is no folder of a model: it has no config.json')
    if a.out and not a.measure: # before hours of training, not after them
        try: check_folder(a.out, '--out')
        except ValueError as e: p.error(str(e))
    return a


def prepare(a, theirs=None):
    "Tokenizer (`theirs`, or a new one), tokens of train, valid and test, and the report; kept in --work."
    folder = Path(a.work)/f'{a.objective}-{len(theirs) if theirs else a.vocab}'
    files = _files(a)
    if (folder/'report.json').exists(): _check_prepared(a, folder, files, theirs)
    else: _make(a, folder, files, theirs)
    tokens = {name: np.load(folder/f'{name}.npy', mmap_mode='r') for name in ('train', 'valid', 'test')}
    report = json.loads((folder/'report.json').read_text())
    return _tokenizer(folder), tokens, report


def _tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder/'tokenizer', trust_remote_code=False)


def _files(a):
    "Names and sizes of what the corpus folders hold."
    found = (p for f in a.corpus for p in Path(f).expanduser().rglob('*') if p.suffix in ('.parquet', '.txt'))
    return sorted([p.name, p.stat().st_size] for p in found)


def _check_prepared(a, folder, files, theirs):
    if theirs and _tokenizer(folder).get_vocab() != theirs.get_vocab():
        raise SystemExit(f'{folder} holds tokens of another tokenizer than that of --start {a.start}: '
                         'take another --work')
    was = json.loads((folder/'report.json').read_text())['files']
    if was == files: return
    there, here = (f'{len(fs)} files, {sum(n for _,n in fs):,} bytes' for fs in (was, files))
    raise SystemExit(f'{folder} holds the tokens of another corpus ({there}; --corpus has {here}): '
                     'take another --work')


def _make(a, folder, files, theirs):
    parts, report = split_documents([d for f in a.corpus for d in read_folder(f)])
    start = time.time()
    masked = a.objective == 'masked'
    tokenizer = theirs or train_tokenizer(parts['train'][::a.tokenizer_every], a.vocab, masked=masked)
    print(f'tokenizer made in {time.time()-start:.0f} s', flush=True)
    with whole_folder(folder, '--work') as new:
        tokenizer.save_pretrained(new/'tokenizer')
        for name in ('train', 'valid', 'test'):
            tokens = encode(parts[name], tokenizer)
            np.save(new/f'{name}.npy', tokens.astype(np.uint16 if len(tokenizer) < 2**16 else np.int32))
            report[f'{name}_tokens'] = len(tokens)
        report |= dict(files=files, seconds=round(time.time()-start))
        (new/'report.json').write_text(json.dumps(report, indent=1))


def check_start(a, config):
    "The model of --start must have the shape that is asked for."
    asked = dict(num_hidden_layers=a.layers, num_attention_heads=a.heads, hidden_size=a.width,
                 max_position_embeddings=a.length)
    for k,n in asked.items():
        if getattr(config, k) == n: continue
        raise SystemExit(f'--start {a.start} has {k} {getattr(config, k)}, asked for is {n}: '
                         'give its --layers, --heads, --width and --length')


def check_beginning(a, first):
    "A run goes on only with what it began with: new weights, or those of --start."
    where, began = Path(a.work)/a.run, 'new'
    if a.start:
        began = hashlib.sha256((Path(a.start).expanduser()/'model.safetensors').read_bytes()).hexdigest()
    if Checkpoints(where).last() is None:
        if first: whole_file(where/'began.txt', began)
        return
    known = (where/'began.txt').read_text() if (where/'began.txt').exists() else 'new'
    if known != began:
        raise SystemExit(f'{where} holds a run that began with other weights: take another --run')


def earlier_runs(folder):
    "What the weights in a folder have behind them: the runs that training.json tells of, the oldest first."
    path = Path(folder).expanduser()/'training.json'
    if not path.exists(): return []
    last = json.loads(path.read_text())
    return [*last.pop('before', []), last]


def front_matter(a):
    "What a hub reads of a card, as YAML: what the command line says, and what the model is for."
    task = 'text-generation' if a.objective == 'causal' else 'fill-mask'
    said = dict(license=a.licence, language=a.language, library_name='transformers', pipeline_tag=task)
    lines = [f'{k}: {json.dumps(v)}' for k,v in said.items() if v]
    if a.datasets: lines += ['datasets:', *(f'- {json.dumps(name)}' for name in a.datasets)]
    return '\n'.join(['---', *lines, '---', '', ''])


def notes(a, report, home, recited):
    parts = ['Text of the held-out movies, of the movies that lesson 6 keeps for validation and test, and '
             f'files named test* were not read{" in this run" if a.start else ""}.',
             f'{report["train_bytes"]:,} bytes of training text, {report["train_tokens"]:,} tokens.',
             'A small model made for a course: what it writes means nothing.']
    if a.start:
        parts.append(f'It began with the tokenizer and the weights of {Path(a.start).name}; what is said '
                     'here of text is said of this run.')
    if a.note: parts.append(a.note)
    if home:
        whose = f'{Path(a.home).name} wrote by itself' if a.objective == 'masked' else (
            f'the model wrote by itself ({recited} more were left out, since they had 20 tokens in a row of '
            'the training text)')
        parts.append(f'home.json holds {len(home)} texts that {whose}: they stand for text like that '
                     'which it has read.')
    return ' '.join(parts)


def command_line(a, argv, n_processes):
    "The command that was given, without the paths of this machine."
    hidden = ('--work', '--out', '--home', '--note', '--about', '--start')
    words = ['CORPUS' if w in a.corpus else w for w in argv]
    words = [words[i-1][2:].upper() if i and words[i-1] in hidden else w for i,w in enumerate(words)]
    start = f'torchrun --nproc-per-node {n_processes}' if n_processes > 1 else 'python'
    return f'{start} -m runs.train_tiny {shlex.join(words)}'
