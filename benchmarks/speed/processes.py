"""Lesson 7: what a second core is worth to the training of a small model: as a second thread, and as a second
process.

    python -m benchmarks.speed.processes                 # about two minutes a round on two cores
    python -m benchmarks.speed.processes --no-compile    # without a C++ compiler

Each way trains the shape of tiny-gpt with the recipe of runs/train_tiny.py (Muon, 24 chunks of 256 ids drawn
at random) for so many updates, after a shorter run in which machine code is made and caches warm up. The ways
take turns, --rounds times; the best counts, since other programs only ever slow a run down. `speed` is the
ratio to one process with one thread. Results go to course_lm/records/processes.json, with machine, versions
and date.
"""
import argparse, json, os, subprocess, sys
from pathlib import Path

from benchmarks.bench import keep, machine, results, root

RESULTS = results/'processes.json'
WAYS = {'1 process, 1 thread': (1, 1), '1 process, 2 threads': (1, 2), '2 processes, 1 thread each': (2, 1)}

def train(args):
    """One way, in a process of its own, or in several that torchrun has started; the first prints tokens per
    second."""
    import numpy as np, torch
    from course_lm.data import train_tokenizer
    from course_lm.models import new_model, tiny_gpt_config
    from course_lm.pretraining import pretrain
    torch.set_num_threads(args.threads)
    shared = 'RANK' in os.environ
    if shared: torch.distributed.init_process_group('gloo')
    tokenizer = train_tokenizer(['a text'], 300)
    chunks = np.random.default_rng(0).integers(0, len(tokenizer), (24*8, 256))
    model = new_model(tiny_gpt_config(4096, n_layer=4, n_head=6, n_embd=192, max_length=256))
    # the first run makes the machine code and warms the caches; the second is measured
    for n in (max(1, args.updates//3), args.updates):
        history = pretrain(model, tokenizer, chunks, n_steps=n, batch_size=24, optimizer='muon',
                           bf16=args.bf16, compile=args.compile, decay=0., progress=False)
    if os.environ.get('RANK', '0') == '0': print(json.dumps(args.updates*24*256/history.seconds))
    if shared: torch.distributed.destroy_process_group()

def measure(args):
    best, flags = {}, ['--updates', str(args.updates), *(['--no-compile'] if not args.compile else []),
                       *(['--bf16'] if args.bf16 else [])]
    for _ in range(args.rounds):
        for name,(processes, threads) in WAYS.items():
            start = [sys.executable, '-m'] + (['torch.distributed.run', '--standalone', '--nproc-per-node',
                                               str(processes), '-m'] if processes > 1 else [])
            out = subprocess.run([*start, 'benchmarks.speed.processes', '--train', '--threads', str(threads),
                                  *flags], capture_output=True, text=True, cwd=root,
                                  env={**os.environ, 'OMP_NUM_THREADS': str(threads)})
            if out.returncode: raise SystemExit(out.stderr[-3000:])
            speed = json.loads(out.stdout.splitlines()[-1])
            best[name] = max(best.get(name, 0), speed)
            print(f'{name:<30} {speed:8,.0f} tokens/s', flush=True)
    one = best['1 process, 1 thread']
    keep({'rows': [{'way': k, 'tokens per second': round(v), 'speed': round(v/one, 2)}
                   for k,v in best.items()],
          'settings': {'updates': args.updates, 'rounds': args.rounds, 'compile': args.compile,
                       'bf16': args.bf16}, 'machine': machine('torch', 'transformers')}, args.out)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--updates', type=int, default=30)
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--bf16', action='store_true')
    p.add_argument('--no-compile', dest='compile', action='store_false')
    p.add_argument('--threads', type=int, default=1, help=argparse.SUPPRESS)
    p.add_argument('--train', action='store_true', help=argparse.SUPPRESS)
    p.add_argument('--out', type=Path, default=RESULTS)
    args = p.parse_args()
    (train if args.train else measure)(args)

if __name__ == '__main__': main()
