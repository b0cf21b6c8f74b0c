"The script that trains the shipped models. The resume test really kills a process."

import json, os, signal, subprocess, sys, time
from pathlib import Path

import pytest
import torch
import yaml

from course_lm.checkpoints import Checkpoints
from course_lm.data import python_docs
from course_lm.models import load_lm, reference_texts
from course_lm.predictions import fill_mask
from runs import train_tiny

root = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.fixture(scope='module')
def docs():
    return python_docs()[:150]


def corpus_folder(tmp_path, docs):
    import pyarrow as pa, pyarrow.parquet as pq

    folder = tmp_path / 'corpus'
    folder.mkdir(parents=True)
    texts = [f'{t} ({i})' for i, t in enumerate(docs * 3)]
    movies = [f'tt{i // 3:04d}' for i in range(len(texts))]
    pq.write_table(
        pa.table({'text': texts, 'label': [i % 2 for i in range(len(texts))], 'movie': movies}),
        folder / 'train.parquet',
    )
    (folder / 'valid.txt').write_text(
        '\n = One = \n\n some words here .\n = = A section = = \n more .\n = Two = \n\n the end .\n'
    )
    (folder / 'test.txt').write_text(' = Three = \n\n never to be learnt .\n')
    return folder


def options(folder, work, *more):
    return [
        '--corpus',
        str(folder),
        '--steps',
        '40',
        '--work',
        str(work),
        '--vocab',
        '400',
        '--layers',
        '2',
        '--heads',
        '2',
        '--width',
        '32',
        '--length',
        '32',
        '--bs',
        '8',
        '--accumulate',
        '2',
        '--warmup',
        '5',
        '--eval-every',
        '10',
        '--tokenizer-every',
        '1',
        '--checkpoint-every',
        '0',
        *more,
    ]


def front_matter(card):
    empty, front, _ = card.split('---\n', 2)
    assert empty == ''
    return yaml.safe_load(front)


@pytest.mark.slow
def test_killed_and_resumed_to_identical_weights(docs, tmp_path, capsys):
    from safetensors.torch import load_file

    folder, env = corpus_folder(tmp_path, docs), {**os.environ, 'OMP_NUM_THREADS': '1'}
    p = subprocess.Popen(
        [sys.executable, '-m', 'runs.train_tiny', *options(folder, tmp_path / 'killed')],
        env=env,
        cwd=root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(30_000):
        found = Checkpoints(tmp_path / 'killed' / 'run').last()
        if p.poll() is not None or (found and int(found.name[5:]) >= 7):
            break
        time.sleep(0.01)
    p.send_signal(signal.SIGKILL)
    p.wait()
    at = int(Checkpoints(tmp_path / 'killed' / 'run').last().name[5:])
    assert 7 <= at < 40, 'it was to be killed on its way'
    train_tiny.main(options(folder, tmp_path / 'killed'))
    train_tiny.main(options(folder, tmp_path / 'whole', '--out', str(tmp_path / 'out')))
    a, b = (Checkpoints(tmp_path / w / 'run').last() for w in ('whole', 'killed'))
    assert a.name == b.name == 'step-00000040'
    a, b = load_file(a / 'model.safetensors'), load_file(b / 'model.safetensors')
    assert a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
    card = (tmp_path / 'out' / 'README.md').read_text()
    capsys.readouterr()
    train_tiny.main(
        [w for w in options(folder, tmp_path / 'whole', '--out', str(tmp_path / 'out'), '--measure')]
    )
    assert (tmp_path / 'out' / 'README.md').read_text() == card and front_matter(card) == dict(
        library_name='transformers', pipeline_tag='text-generation'
    )
    said = capsys.readouterr().out
    scores = json.loads(said[said.index('\n{') + 1 :] if said.startswith('{"documents') else said)
    for name, value in scores.items():
        assert (
            f'| {name} | {value:.4g} |' in card
            if isinstance(value, float)
            else f'| {name} | {value} |' in card
        )
    assert str(tmp_path) not in card and '--corpus CORPUS' in card
    home = json.loads((tmp_path / 'out' / 'home.json').read_text())
    assert home and home == reference_texts(tmp_path / 'out')
    assert json.loads((tmp_path / 'out' / 'training.json').read_text())['evals'][-1]['step'] == 40
    train_tiny.main(
        options(
            folder,
            tmp_path / 'whole',
            '--objective',
            'masked',
            '--run',
            'bert',
            '--steps',
            '4',
            '--home',
            str(tmp_path / 'out'),
            '--out',
            str(tmp_path / 'bert'),
            '--licence',
            'apache-2.0',
            '--language',
            'no',
            '--datasets',
            'stanfordnlp/imdb',
            'a: b',
        )
    )
    assert reference_texts(tmp_path / 'bert') == home
    card = (tmp_path / 'bert' / 'README.md').read_text()
    assert str(tmp_path) not in card and '\n# bert\n' in card
    assert front_matter(card) == dict(
        license='apache-2.0',
        language='no',
        library_name='transformers',
        pipeline_tag='fill-mask',
        datasets=['stanfordnlp/imdb', 'a: b'],
    )


def test_the_script_makes_a_masked_model(docs, tmp_path):
    folder = corpus_folder(tmp_path, docs)
    train_tiny.main(
        options(
            folder, tmp_path / 'work', '--objective', 'masked', '--steps', '4', '--out', str(tmp_path / 'out')
        )
    )
    model, tok = load_lm(tmp_path / 'out', 'masked')
    assert len(fill_mask(model, tok, 'a [MASK] b')) == 5
    assert 'masked tokens guessed right' in (tmp_path / 'out' / 'README.md').read_text()


def test_another_corpus_and_another_shape_are_refused(docs, tmp_path):
    folder = corpus_folder(tmp_path, docs)
    run = options(folder, tmp_path / 'work', '--stop-after', '1')
    train_tiny.main(run)
    with pytest.raises(ValueError, match='belongs to another run'):
        train_tiny.main([*run, '--layers', '3'])
    (folder / 'more.txt').write_text(' = Four = \n\n more to read .\n')
    with pytest.raises(SystemExit, match='tokens of another corpus'):
        train_tiny.main(run)


def test_a_run_begins_with_the_weights_of_another(docs, tmp_path, capsys):
    "The second run starts where the first ended, with another order and schedule; the card adds both up."
    folder, told = (
        corpus_folder(tmp_path, docs),
        lambda name: json.loads((tmp_path / name / 'training.json').read_text()),
    )
    train_tiny.main(options(folder, tmp_path / 'work', '--out', str(tmp_path / 'one')))
    # its tokenizer comes with it, whatever --vocab says
    more = ['--steps', '10', '--seed', '7', '--vocab', '300', '--start']
    train_tiny.main(
        options(
            folder,
            tmp_path / 'work',
            '--run',
            'two',
            *more,
            str(tmp_path / 'one'),
            '--out',
            str(tmp_path / 'two'),
        )
    )
    one, two, card = told('one'), told('two'), (tmp_path / 'two' / 'README.md').read_text()
    # 16 bits on the way
    assert (
        abs(two['evals'][0]['valid_loss'] - one['evals'][-1]['valid_loss'])
        < 0.02
        < one['evals'][0]['valid_loss'] - one['evals'][-1]['valid_loss']
    )
    assert two['before'] == [one] and '| Updates | 50 (40 before this run, 10 in it) |' in card
    assert f'| Tokens read | {50 * 16 * 32:,} ({40 * 16 * 32:,} before' in card
    assert '--start START' in card and 'the weights of one;' in card and str(tmp_path) not in card
    # a work folder of its own
    train_tiny.main(
        options(folder, tmp_path / 'other', *more, str(tmp_path / 'two'), '--out', str(tmp_path / 'three'))
    )
    assert [len(r['evals']) for r in told('three')['before']] == [len(one['evals']), len(two['evals'])]
    assert '(50 before this run' in (tmp_path / 'three' / 'README.md').read_text()
    assert (tmp_path / 'other' / 'causal-400' / 'tokenizer' / 'tokenizer.json').read_bytes() == (
        tmp_path / 'work' / 'causal-400' / 'tokenizer' / 'tokenizer.json'
    ).read_bytes()
    with pytest.raises(SystemExit, match='num_hidden_layers 2, asked for is 3'):
        train_tiny.main(
            options(
                folder, tmp_path / 'work', '--run', 'x', '--layers', '3', '--start', str(tmp_path / 'one')
            )
        )
    for wrong, why in (
        (['--start', str(tmp_path / 'nowhere')], 'it has no config.json'),
        (['--start', str(tmp_path / 'one'), '--out', str(tmp_path / 'one')], 'are one folder'),
    ):
        with pytest.raises(SystemExit):
            train_tiny.main(options(folder, tmp_path / 'work', *wrong))
        assert why in capsys.readouterr().err
    # --run forgotten
    with pytest.raises(SystemExit, match='began with other weights'):
        train_tiny.main(options(folder, tmp_path / 'work', '--start', str(tmp_path / 'one')))
    # --start forgotten
    with pytest.raises(SystemExit, match='began with other weights'):
        train_tiny.main(options(folder, tmp_path / 'work', '--run', 'two', '--steps', '10', '--seed', '7'))
    corpus_folder(tmp_path / 'else', docs[::-1])
    train_tiny.main(options(tmp_path / 'else' / 'corpus', tmp_path / 'third', '--stop-after', '1'))
    with pytest.raises(SystemExit, match='another tokenizer'):
        train_tiny.main(
            options(
                tmp_path / 'else' / 'corpus',
                tmp_path / 'third',
                '--run',
                'x',
                '--start',
                str(tmp_path / 'one'),
            )
        )


@pytest.mark.slow
def test_torchrun_and_the_script(docs, tmp_path):
    "Two processes of the script itself: one model, one card, and the card says how it was made."
    folder = corpus_folder(tmp_path, docs)
    r = subprocess.run(
        [
            sys.executable,
            '-m',
            'torch.distributed.run',
            '--standalone',
            '--nproc-per-node',
            '2',
            '-m',
            'runs.train_tiny',
            *options(
                folder,
                tmp_path / 'work',
                '--steps',
                '4',
                '--out',
                str(tmp_path / 'out'),
                '--about',
                'Made-up text, free for all.',
                '--note',
                'Two sat at it.',
            ),
        ],
        env={**os.environ, 'PYTHONPATH': str(root), 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
        timeout=300,
        cwd=root,
    )
    assert r.returncode == 0, r.stderr[-3000:]
    card = (tmp_path / 'out' / 'README.md').read_text()
    for part in (
        '2 process(es) of 1 thread(s)',
        'torchrun --nproc-per-node 2 -m runs.train_tiny',
        'Made-up text, free for all.',
        'Two sat at it.',
        '| Updates | 4 |',
    ):
        assert part in card
    assert r.stdout.count('bits per byte, held-out') == 1 and str(tmp_path) not in card
