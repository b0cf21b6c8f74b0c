"""Train one of the course's small language models from scratch on folders of text. Lesson 7 explains it.

    python -m runs.train_tiny --objective causal --corpus FOLDER FOLDER --minutes 120 --work WORK --out FOLDER

A corpus folder holds .parquet files (a column text, perhaps movie and label) and .txt files (WikiText's
form). Files named test* are never read for training, nor is text of held-out movies: see `split_documents`.
WORK gets tokens and checkpoints (never commit it); a run that was stopped goes on when the same command is
given again. A corpus of your own needs a WORK of its own, a model of another shape a --run of its own. Two
cores are used best by two processes, each with half of every batch:

    torchrun --nproc-per-node 2 -m runs.train_tiny ...
"""
import json, os, shutil, sys
from pathlib import Path

import torch

from course_lm.checkpoints import Checkpoints
from course_lm.labels import BertMasking
from course_lm.models import load_lm, new_model, save_lm, tiny_bert_config, tiny_gpt_config
from course_lm.pretraining import PretrainRecipe, pretrain
from course_lm.releasing import cut, measure_model, model_card, own_writing
from course_lm.scratch import plan_run, training_speed
from course_lm.support.files import whole_folder

from runs.preparing import (
    arguments, check_beginning, check_start, command_line, earlier_runs, front_matter, notes, prepare)


def recipe_of(a):
    "The recipe that the command line asks for."
    strategy = BertMasking(a.mask) if a.objective == 'masked' else None
    return PretrainRecipe(
        n_steps=a.steps, minutes=a.minutes, batch_size=a.bs, accumulate=a.accumulate, lr=a.lr,
        warmup_steps=a.warmup, decay=a.decay, optimizer=a.optimizer, strategy=strategy,
        bf16={'no': False, 'yes': True, 'auto': 'auto'}[a.bf16],
        compile=a.compile, eval_every=a.eval_every, seed=a.seed)


def model_of(a, tokenizer, start):
    "The model to train: a new one, or that of --start."
    shape = tiny_gpt_config if a.objective == 'causal' else tiny_bert_config
    if start: model = start.train()
    else:
        config = shape(tokenizer, n_layer=a.layers, n_head=a.heads, n_embd=a.width, max_length=a.length)
        model = new_model(config, a.seed)
    return model.to(a.device) if a.device else model


def print_plan(a, model, n_tokens, n_processes):
    speed = training_speed(model, a.length, a.bs, bf16=a.bf16 == 'yes')*n_processes
    much = dict(minutes=a.minutes) if a.minutes else dict(tokens=a.steps*a.bs*a.accumulate*a.length)
    print(plan_run(model.config, a.length, speed, n_tokens, **much), flush=True)


def home_texts(folder):
    path = Path(folder)/'home.json' if folder else None
    return json.loads(path.read_text(encoding='utf-8')) if path and path.exists() else ()


def release(a, model, tokenizer, tokens, report, history, command):
    "Save what was trained, measure it as it is saved (in 16 bits), and write its card."
    save_lm(model.to('cpu').eval(), tokenizer, a.out, dtype=torch.bfloat16)
    model, tokenizer = load_lm(a.out, a.objective)
    home, recited = home_texts(a.home), 0
    if a.objective == 'causal': home, recited = own_writing(model, tokenizer, tokens['train'])
    scores = measure_model(model, tokenizer, tokens['train'], tokens['test'], reference_texts=home)
    print(json.dumps(scores, indent=1), flush=True)
    about = a.about or 'Read: ' + ', '.join(name for name,_ in report['files']) + '.'
    before = earlier_runs(a.start) if a.start else []
    card = front_matter(a) + model_card(Path(a.out).name, model.config, history, about, scores, command,
                                         notes(a, report, home, recited), before)
    evals = [{k: None if v != v else v for k,v in e.items()} for e in history.evals] # JSON has no NaN
    run = dict(settings=history.settings, seconds=round(history.seconds), decay_from=history.decay_from,
               evals=evals)
    with whole_folder(a.out) as new:
        inner = save_lm(model, tokenizer, new/'model', dtype=torch.bfloat16, card=card,
                        reference_texts=home or None)
        for file in inner.iterdir():
            if not file.name.startswith('.'): file.rename(new/file.name)
        shutil.rmtree(inner)
        told = json.dumps(run | (dict(before=before) if before else {}), indent=1)
        (new/'training.json').write_text(told + '\n')


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    a = arguments(argv, __doc__.split('\n')[0])
    torch.set_num_threads(a.threads)
    # torchrun sets them
    n_processes, first = int(os.environ.get('WORLD_SIZE', 1)), os.environ.get('RANK', '0') == '0'
    shared, cuda = n_processes > 1, a.device == 'cuda'
    if shared and cuda: torch.cuda.set_device(int(os.environ['LOCAL_RANK'])) # a GPU for each
    if shared: torch.distributed.init_process_group('nccl' if cuda else 'gloo')
    start, theirs = load_lm(a.start, a.objective) if a.start else (None, None)
    if start: check_start(a, start.config)
    if first: prepared = prepare(a, theirs)
    if shared: torch.distributed.barrier() # the others read what the first has made
    tokenizer, tokens, report = prepared if first else prepare(a, theirs)
    tokenizer.model_max_length = a.length
    if first: print(json.dumps(report), flush=True)
    if a.measure:
        model, tokenizer = load_lm(a.out, a.objective)
        scores = measure_model(model, tokenizer, tokens['train'], tokens['test'],
                               reference_texts=home_texts(a.out))
        return print(json.dumps(scores, indent=1))
    chunks = {k: cut(tokens[k], a.length, tokenizer) for k in ('train', 'valid')}
    model = model_of(a, tokenizer, start)
    check_beginning(a, first)
    often = dict(seconds=a.checkpoint_every) if a.checkpoint_every else dict(every=1)
    checkpoints = Checkpoints(Path(a.work)/a.run, **often)
    if first and checkpoints.last() is None: print_plan(a, model, len(tokens['train']), n_processes)
    history = pretrain(model, tokenizer, chunks['train'], chunks['valid'][:a.eval_chunks], recipe_of(a),
                       checkpoints, a.stop_after)
    if shared:
        torch.distributed.barrier() # nobody leaves while the first still saves
        torch.distributed.destroy_process_group() # by all: one that ends without it aborts, at times
    if not first: return
    print(history, history.evals[-1], flush=True)
    if a.out and history.done:
        release(a, model, tokenizer, tokens, report, history, command_line(a, argv, n_processes))


if __name__ == '__main__':
    main()
    sys.stdout.flush()
    # torch's threads may abort a process that ends before the first one
    if int(os.environ.get('RANK', 0)): os._exit(0)
