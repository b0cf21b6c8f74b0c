"""Try the library on every family of models that transformers can build small, and write the table down.

    python -m scripts.families            # all of it, on one core about ten minutes
    python -m scripts.families gpt2 bert  # these families only; the other rows stay
    python -m scripts.families --missing  # the rows that do not stand there yet, where it was stopped
    python -m scripts.families --page     # nbs/families.md again, from tests/families/table.json

A row is a family with a head, its cells are made by tests/families/cells.py. Exit status 1: a cell is wrong.
"""
import json
import re
import sys
import warnings
from pathlib import Path

from tests.families.cells import COLUMNS, families, row

TABLE = Path('tests/families/table.json')
PAGE = Path('nbs/families.md')
NAMES = {'load': '`load_lm`', 'save': '`save_lm`', 'evaluate': '`evaluate_lm`', 'train': '`train_loop`',
         'score': '`score_texts`', 'write': '`generate_text`, `fill_mask`', 'classify': '`predict_proba`'}
INTRO = """# Model families

> The library on {n} families of models, tried on small models with random weights.

transformers {version} names {rows} pairs of a model type and a head: causal, masked, encoder-decoder
(seq2seq), and those that are known as classifiers only. Each is built small (a width of 32, two layers, 320
tokens), and the library's answer is compared with the model's own. Of {cells:,} cells, {right:,} are right
and {refused:,} are refused by name; in {own:,} the model's own method fails in the same words.

- `load_lm`: a folder that transformers wrote gives the same logits.
- `save_lm`: a model that was saved and loaded has the same weights.
- `evaluate_lm`: three documents of different lengths in a batch cost what the model's own loss says of each.
- `train_loop`: the first of three losses is the model's own, all are finite, and the weights move.
- `score_texts`, with it `sliding_perplexity` or `pseudo_perplexity`: three texts, against a slow loop.
- `generate_text`: as `model.generate` of each prompt alone. `fill_mask`: as the model's own logits.
- `predict_proba`: a batch of reviews as each alone, with a new head on the same body.

Where a batch has padding, it was tried on both sides. ✓ is right; a number is a refusal, whose sentence
stands below; *t* is transformers' own error. `python -m scripts.families` makes this page, and
`make test` makes a part of it again.

"""
NOT_TRIED = """

## Not tried

What could not be built small from its config, or called with text alone on a CPU, and the error.

| family | head | |
| --- | --- | --- |
"""
COLUMN = 'load', 'save', 'evaluate', 'train', 'score', 'write', 'classify'


def sentence(text, name):
    "A refusal without the names in it."
    text = re.sub(r"PosixPath\('FOLDER/\w+'\)|FOLDER/\w+", 'the folder', text.split(': ', 1)[1])
    text = re.sub(r"\b[A-Z]\w+(For[A-Z]\w+|Model\w*|HeadModel|Decoder)\b", 'TheModel', text)
    return re.sub(r'\d+ of the \d+', 'Some of the', re.sub(rf' \({re.escape(name)}\w*\)', '', text))


def page(table):
    "The table as a page."
    rows = {key: cells for key, cells in table['rows'].items() if 'built' not in cells}
    verdicts = [v.split(':')[0] for cells in rows.values() for v in cells.values()]
    notes, lines = {}, []
    for key, cells in rows.items():
        name, head = key.split('/')
        shown = []
        for column in COLUMN:
            marks = []
            for value in {cells[c]: 0 for c in COLUMNS if c.split()[0] == column}:
                mark = '✓' if value == 'right' else '*t*'
                if value.startswith('refused'):
                    mark = str(notes.setdefault(sentence(value, name), len(notes) + 1))
                marks.append(mark if not value.startswith('wrong') else '**wrong**')
            shown.append(' '.join(dict.fromkeys(marks)))
        lines.append(f'| {name} | {head} | {" | ".join(shown)} |')
    head = ['family', 'head', *(NAMES[c] for c in COLUMN)]
    count = dict(n=len({k.split('/')[0] for k in rows}), rows=len(table['rows']), cells=len(verdicts),
                 right=verdicts.count('right'), refused=verdicts.count('refused'),
                 own=verdicts.count('transformers fails'))
    text = INTRO.format(version=table['transformers'], **count)
    text += f'| {" | ".join(head)} |\n|{" --- |" * len(head)}\n' + '\n'.join(lines) + '\n\n## Refusals\n\n'
    text += '\n'.join(f'{n}. {note}' for note, n in notes.items())
    text += NOT_TRIED
    for key, cells in table['rows'].items():
        if 'built' in cells:
            name, head = key.split('/')
            text += f'| {name} | {head} | {cells["built"].replace("|", " ")} |\n'
    return text


def kept():
    return json.loads(TABLE.read_text(encoding='utf-8')) if TABLE.exists() else {'rows': {}}


def main(only):
    import transformers

    warnings.simplefilter('ignore')
    transformers.utils.logging.set_verbosity_error()
    table, wanted = kept(), families()
    table['transformers'] = transformers.__version__
    if only != ['--page']:
        for name, head in wanted:
            key = f'{name}/{head}'
            if not only or name in only or key in only or only == ['--missing'] and key not in table['rows']:
                table['rows'][key] = cells = row(name, head)
                bad = [f'{k}: {v}' for k, v in cells.items() if v.startswith('wrong')]
                print(name, head, *(bad or ['ok' if 'built' not in cells else cells['built']]), flush=True)
                table['rows'] = {f'{n}/{h}': table['rows'][f'{n}/{h}'] for n, h in wanted
                                 if f'{n}/{h}' in table['rows']}
                TABLE.write_text(json.dumps(table, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    PAGE.write_text(page(table), encoding='utf-8')
    return any(v.startswith('wrong') for cells in table['rows'].values() for v in cells.values())


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))
