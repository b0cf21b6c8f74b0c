"""The lessons' cells that need a network (`#| network`), really run, with the models and data at hand.

    nice -n 10 python -m benchmarks.experiments.for_real 02 54 --imdb FOLDER --wikitext FOLDER

What a cell shows is kept in course_lm/records/for_real.json with machine, date and a hash of its code, and is
stored under the cell. `scripts.refresh` keeps it there as long as the code is the same; a kernel without a
network leaves such cells out. Of a lesson's other cells those run that the cell needs. IMDb and WikiText-2,
by their names on the hub, are the folders given here; models are what load_lm finds.
"""
import argparse, ast, tempfile, time
from pathlib import Path

from benchmarks import bench

bench.prepare(threads=1)
from scripts.lessons import (
    all_notebooks, chosen, code_hash, left_out, prepare_environment, read, recorded, write)

RESULTS = bench.results/'for_real.json'


def names(source):
    "Names that a cell binds, and names that it reads."
    found = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Name)]
    binds = {n.id for n in found if isinstance(n.ctx, ast.Store)}
    for n in ast.walk(ast.parse(source)):
        if isinstance(n, (ast.Import, ast.ImportFrom)):
            binds |= {(a.asname or a.name).split('.')[0] for a in n.names}
        if isinstance(n, (ast.FunctionDef, ast.ClassDef)): binds.add(n.name)
    return binds, {n.id for n in found if isinstance(n.ctx, ast.Load)}


def needed(cells, at):
    "The cells above this one that bind what it reads, and what they read, in their order; warnings stay off."
    keep, wanted = [], names(cells[at].source)[1]
    for cell in reversed(cells[:at]):
        if cell.cell_type != 'code' or left_out(cell.source): continue
        binds, reads = names(cell.source)
        if binds & wanted or 'filterwarnings' in cell.source:
            keep, wanted = [cell, *keep], wanted - binds | reads
    return keep


def with_folders(source, args):
    for name, call, folder in (('stanfordnlp/imdb', 'load_imdb(', args.imdb),
                               ('Salesforce/wikitext', 'load_wikitext(', args.wikitext)):
        source = source.replace(repr(name), repr(str(folder)))
        source = source.replace(f'{call})', f'{call}{str(folder)!r})')
        source = source.replace(f'{call}articles', f'{call}{str(folder)!r}, articles')
    return source


def run(cells, at, args, folder):
    "What one cell shows, without bars and warnings."
    import nbformat
    from nbclient import NotebookClient
    from scripts.refresh import tidy
    copies = [nbformat.from_dict(dict(c)) for c in (*needed(cells, at), cells[at])]
    copies[-1]['source'] = with_folders(copies[-1]['source'].replace('#| network\n', ''), args)
    nb = nbformat.v4.new_notebook(cells=copies)
    NotebookClient(nb, timeout=3000, resources=dict(metadata=dict(path=folder))).execute()
    tidy(nb)
    return [o for o in nb.cells[-1].outputs if o.get('name') != 'stderr' and not is_bar(o)]


def is_bar(output): return '%|' in output.get('data', {}).get('text/plain', '')


def store(path):
    "Put what is recorded under the cells of a lesson, as `scripts.refresh` does."
    nb = read(path)
    for cell in nb.cells:
        if cell.cell_type == 'code' and left_out(cell.source) == 'network':
            cell.outputs = recorded(f'{path.stem}#{cell.id}', cell.source)
    write(nb, path)


def main(args):
    prepare_environment()
    found = bench.kept(RESULTS)
    for path in chosen(all_notebooks(), args.lessons):
        cells = read(path).cells
        for at, cell in enumerate(cells):
            if cell.cell_type != 'code' or left_out(cell.source) != 'network': continue
            key = f'{path.stem}#{cell.id}'
            if found.get(key, {}).get('code') == code_hash(cell.source): continue
            start = time.perf_counter()
            with tempfile.TemporaryDirectory() as folder: outputs = run(cells, at, args, folder)
            print(key, f'{time.perf_counter()-start:.0f} s', *outputs, sep='\n')
            found[key] = dict(code=code_hash(cell.source), machine=bench.machine('torch', 'transformers'),
                              outputs=outputs)
            bench.keep(found, RESULTS)
        store(path)


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('lessons', nargs='+')
    parser.add_argument('--imdb', type=Path)
    parser.add_argument('--wikitext', type=Path)
    main(parser.parse_args())
