"""Kill training runs at random moments, let them go on, and see whether anybody could tell.

    python -m tests.slow.kill_and_resume               # 24 kills, about a minute
    python -m tests.slow.kill_and_resume --kills 4     # what the tests run

A causal model with dropout and a masked model with fresh masks, on Python's own reference, are each trained
once without interruption. Then each is trained again in a process that is killed (kill -9) at random moments,
half of them while a checkpoint is being written, and started again with the same call. At the end every loss,
every evaluation and every weight must be the same to the last bit. Exit code 1 if one is not, or if no kill
fell into a write.
"""
import argparse, json, multiprocessing, os, random, shutil, sys, tempfile, time
from pathlib import Path

os.environ.update(OMP_NUM_THREADS='1', TOKENIZERS_PARALLELISM='false', HF_HUB_OFFLINE='1',
                  HF_DATASETS_DISABLE_PROGRESS_BARS='1')

import torch
from safetensors.torch import load_file, save_file
import transformers.models.gpt2.modeling_gpt2  # here once, and not in every child
import transformers.models.modernbert.modeling_modernbert  # noqa: F401

from course_lm.checkpoints import Checkpoints
from course_lm.chunking import lm_datasets
from course_lm.data import python_docs, train_tokenizer
from course_lm.finetuning import lm_loaders, train_loop
from course_lm.models import new_model, tiny_bert_config, tiny_gpt_config

RUNS = {'causal, dropout': dict(masked=False, accumulate=1),
        'masked, best kept': dict(masked=True, accumulate=2, keep_best=True)}
# a fork has everything imported; where there is none (Windows), each child imports by itself
processes = multiprocessing.get_context('fork' if 'fork' in multiprocessing.get_all_start_methods()
                                        else 'spawn')


def prepare(masked):
    "(tokenizer, train rows, validation rows)"
    docs = python_docs()
    tokenizer = train_tokenizer(docs[:200], 500, masked=masked)
    data = lm_datasets(docs[:60], docs[-30:], tokenizer, 32)
    return tokenizer, data['train'].to_list(), data['valid'].to_list()


def train(data, out, checkpoint, masked, n_steps=150, **settings):
    "One run from where its checkpoint is, in a process of its own; what comes out is written to `out`."
    tokenizer, *rows = data
    config = tiny_bert_config if masked else tiny_gpt_config
    model = new_model(config(tokenizer, n_layer=2, n_embd=32), seed=1)
    for m in model.modules():
        if isinstance(m, torch.nn.Dropout): m.p = .1
    history = train_loop(model, *lm_loaders(rows, tokenizer, batch_size=8), n_steps=n_steps, lr=3e-3,
                         eval_every=20, seed=3, progress=False,
                         checkpoints=None if checkpoint is None else Checkpoints(checkpoint, every=4),
                         **settings)
    save_file({n: p.detach().clone() for n,p in model.named_parameters()}, f'{out}.safetensors')
    Path(f'{out}.half').write_text(json.dumps([history.steps, history.evals]))
    os.replace(f'{out}.half', f'{out}.json')


def start(*args, **settings):
    child = processes.Process(target=train, args=args, kwargs=settings)
    child.start()
    return child


def writing(folder):
    return any(p.name.startswith('.part-') for p in folder.iterdir()) if folder.exists() else False


def kill(child, folder, wait, in_a_write):
    """Kill `child` after `wait` seconds; in the first checkpoint written from then on, if so wished. False if
    it ended before."""
    until = time.perf_counter() + wait
    while child.is_alive() and time.perf_counter() < until: time.sleep(.001)
    while in_a_write and child.is_alive() and not writing(folder): pass
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


def differences(one, two):
    "What is not the same, to the last bit, in two runs' results."
    (steps, evals), (steps2, evals2) = (json.loads(Path(f'{p}.json').read_text()) for p in (one, two))
    a, b = (load_file(f'{p}.safetensors') for p in (one, two))
    wrong = [f'update {s["step"]}' for s,t in zip(steps, steps2) if s != t]
    wrong += ['number of updates'] if len(steps) != len(steps2) else []
    wrong += ['evaluations'] if json.dumps(evals) != json.dumps(evals2) else []
    return wrong + [f'weights {n}' for n in a if not torch.equal(a[n], b[n])]


def newest(folder):
    found = sorted(folder.glob('step-*')) if folder.exists() else []
    return int(found[-1].name[5:]) if found else 0


def torture(name, settings, kills, chance, room):
    "Rows about the kills, and what was different in the end."
    data, reference, out, folder = prepare(
        settings.pop('masked')), room/'reference', room/'out', room/'checkpoints'
    settings['masked'] = data[0].mask_token_id is not None
    began = time.perf_counter()
    child = start(data, reference, None, **settings)
    child.join()
    if child.exitcode: sys.exit(f'{name}: the run without interruption failed')
    whole, rows, wrong, lives = time.perf_counter()-began, [], [], 0
    while len(rows) < kills or lives == 0:
        child, in_a_write = start(data, out, folder, **settings), len(rows) % 2 == 1
        if len(rows) < kills and kill(child, folder, chance.uniform(0, whole/4), in_a_write):
            rows.append((name, len(rows)+1, 'in a write' if in_a_write else 'anywhere', newest(folder),
                         'yes' if writing(folder) else ''))
            continue
        child.join()
        if child.exitcode:
            return rows, [f'the run failed when it went on after update {newest(folder)}'], lives
        wrong, lives = wrong + differences(reference, out), lives+1
        if len(rows) < kills: shutil.rmtree(folder)
    return rows, wrong, lives


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--kills', type=int, default=24, help='kills in all')
    parser.add_argument('--seed', type=int, default=None,
                        help='of the moments; they depend on the machine as well')
    args = parser.parse_args()
    chance, rows, wrong = random.Random(args.seed), [], []
    for i,(name,settings) in enumerate(RUNS.items()):
        with tempfile.TemporaryDirectory() as room:
            more, other, lives = torture(name, dict(settings), (args.kills + i)//len(RUNS), chance,
                                         Path(room))
        print(f'{name}: killed {len(more)} times, came to its end {lives} time{"s"*(lives != 1)}: '
              f'{"the same to the last bit" if not other else other}', flush=True)
        rows, wrong = rows + more, wrong + other
    print(f'\n{"run":20} {"kill":>4}  {"moment":12} {"went on after update":>20}  half-written folder left '
          f'behind')
    for name,i,moment,step,half in rows: print(f'{name:20} {i:>4}  {moment:12} {step:>20}  {half}')
    halves = sum(1 for r in rows if r[-1])
    print(f'\n{len(rows)} kills, {halves} of them inside a write; {"NOT " if wrong else ""}the same losses, '
          f'evaluations and weights as without interruption')
    if not halves: print('no kill fell into a write: that case was not tried')
    return 1 if wrong or not halves or len(rows) < args.kills else 0


if __name__ == '__main__': sys.exit(main())
