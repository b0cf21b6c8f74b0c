"The cells that need a network: what is stored under them is what was seen when they were run."
import json

import pytest

from benchmarks.experiments.for_real import RESULTS, is_bar, needed, with_folders
from scripts.lessons import code_hash, left_out, numbered, read, recorded

CELLS = {f"{p.stem}#{c.id}": c for p in numbered() for c in read(p).cells
         if c.cell_type == "code" and left_out(c.source) == "network"}
RECORD = json.loads(RESULTS.read_text(encoding="utf-8"))


def text_of(outputs):
    return [o.get("text") or o["data"].get("text/html") or o["data"]["text/plain"] for o in outputs]


@pytest.mark.parametrize("key", CELLS)
def test_what_stands_below_a_cell_was_seen_there(key):
    cell = CELLS[key]
    assert cell.outputs, f"run `python -m benchmarks.experiments.for_real {key[:2]}`: the cell was never seen"
    assert text_of(cell.outputs) == text_of(recorded(key, cell.source))


def test_every_row_of_the_record_is_that_of_a_cell():
    assert {k: row["code"] for k, row in RECORD.items()} == {
        k: code_hash(cell.source) for k, cell in CELLS.items()}


def test_a_progress_bar_is_no_output():
    assert is_bar(dict(data={"text/plain": "training:   0%|          | 0/126 [00:00<?, ?it/s]"}))
    assert not is_bar(dict(data={"text/plain": "50 % | of"})) and not is_bar(dict(name="stdout", text="0%|"))


def test_a_cell_that_has_changed_has_no_output():
    key = next(iter(RECORD))
    assert recorded(key, CELLS[key].source) and not recorded(key, CELLS[key].source + "\n1")


def test_only_the_cells_that_are_needed_run():
    import nbformat
    sources = ("import math", "unused = 1", "x = 2\ny = 3", "#| network\nz = 4",
               "def f(a): return math.sqrt(a + y)", "f(9)")
    cells = [nbformat.v4.new_code_cell(s) for s in sources]
    assert [c.source for c in needed(cells, 5)] == [sources[0], sources[2], sources[4]]


def test_names_of_the_hub_become_folders():
    from argparse import Namespace
    args = Namespace(imdb="a", wikitext="b")
    source = "at_hand('stanfordnlp/imdb')\nload_imdb()['train']\nload_wikitext(articles=True)"
    local = "at_hand('a')\nload_imdb('a')['train']\nload_wikitext('b', articles=True)"
    assert with_folders(source, args) == local


def test_what_lesson_55_says_of_its_live_run_and_of_that_of_50():
    def bits(key):
        table = RECORD[key]["outputs"][0]["data"]["text/plain"]
        return [line.split()[-1] for line in table.split("\n")[1:]]
    assert bits("55_adapters#for-real") == ["1.447", "1.357"]
    assert bits("50_fine_tuning#bf692a17") == ["1.447", "1.365"]
