"`course_lm.data`: texts that are the same everywhere, tokenizers of every kind, and files in every form."
import csv, gzip, hashlib, os, re, subprocess, sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from course_lm import cli, data
from course_lm.data import (
    load_imdb, load_wikitext, python_docs, python_docstrings, python_source, train_tokenizer)
from course_lm.reviews import reviews


# --- text that is always there

def test_parsing_the_library_imports_nothing_of_it():
    code = ("import sys; from course_lm.data import python_docstrings; a = set(sys.modules); "
            "python_docstrings(); print(*set(sys.modules) - a)")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = set(done.stdout.split())
    assert done.stderr == "" and len(new) < 20
    assert not new & {"antigravity", "this", "turtle", "tkinter", "idlelib", "asyncio"}


def test_texts_are_the_same_in_every_process():
    code = ("import hashlib; from course_lm.data import *; texts = python_docs(), python_docstrings(), "
            "python_source(50); print(hashlib.sha256(repr(texts).encode()).hexdigest())")
    def run(seed):
        env = os.environ | {"PYTHONHASHSEED": seed}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env=env).stdout
    runs = {run(seed) for seed in "12"}
    assert len(runs) == 1


def test_the_reference_is_prose():
    docs = python_docs()
    assert not [d for d in docs if "::=" in d or ">>>" in d or "   " in d]
    assert np.mean([d[0].isupper() or not d[0].isalpha() for d in docs]) > .9


def test_the_frozen_text_is_the_same_everywhere_and_has_its_licence():
    from importlib.resources import files
    text = (files("course_lm") / "texts" / "python_docs.txt").read_bytes()
    digest = hashlib.sha256(text).hexdigest()
    assert digest == "1ade86d2c1d5056c3a66538539f7fb2515bb5f0044aa16b7e8476e540e8a1dd9"
    assert "\n".join(python_docs()).encode() + b"\n" == text and len(python_docs()) == 1126
    notice = (files("course_lm") / "texts" / "python_docs.LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved" in notice
    assert "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in notice
    assert "Changes that were made" in notice


def test_the_live_text_is_the_running_pythons():
    from pydoc_data.topics import topics
    live = python_docs(live=True)
    assert live and all(any(d[:20] in " ".join(t.split()) for t in topics.values()) for d in live[::200])
    assert len(set(live)) == len(live) and not [d for d in live if "\n" in d or len(d) < 60]


def test_source_leaves_out_tests_and_the_reference():
    assert not {p for p in data._stdlib()
                if {"test", "tests", "site-packages", "pydoc_data"} & set(p.split("/"))}
    assert set(python_docstrings()) and all(len(d) > 20 for d in python_docstrings())


@pytest.mark.parametrize("masked", [False, True])
def test_tokenizer_saves_loads_and_keeps_its_special_tokens(tmp_path, masked):
    from transformers import AutoTokenizer
    tokenizer = train_tokenizer((d for d in python_docs()[:300]), 700, masked=masked)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x): return 'naïve 🙂'\n\n\tx"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
    assert (again.pad_token_id, again.mask_token_id,
            again.eos_token_id) == ((0, 4, None) if masked else (1, None, 0))
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1 and len(tokenizer) <= 700


def test_smallest_vocabulary_is_the_bytes():
    tokenizer = train_tokenizer(["abc"], 258)
    assert len(tokenizer) == 258 and len(tokenizer("abc")["input_ids"]) == 3


def test_a_word_list_comes_from_its_texts_alone():
    texts = reviews(30)["text"][:] + ["A line.<br /><br />Another ONE!"]
    tokenizer = train_tokenizer(texts, kind="word", min_count=1)
    seen = {w for t in texts for w in re.findall(r"\w+|[^\w\s]", t.lower().replace("<br />", " "))}
    assert set(tokenizer.get_vocab()) == seen | {"[PAD]", "[UNK]"} and "br" not in seen
    assert tokenizer("Zyzzyva!")["input_ids"][0] == tokenizer.unk_token_id == 1
    assert tokenizer.pad_token_id == 0
    assert tokenizer.mask_token is tokenizer.cls_token is tokenizer.eos_token is None
    assert tokenizer("Film film")["input_ids"] == 2*tokenizer("film")["input_ids"]
    assert len(train_tokenizer(texts, 20, kind="word")) == 20
    counts = Counter(w for t in texts for w in re.findall(r"\w+|[^\w\s]", t.lower().replace("<br />", " ")))
    twice = {w for w,n in counts.items() if n > 1}
    assert set(train_tokenizer(texts, kind="word").get_vocab()) == twice | {"[PAD]", "[UNK]"}
    with pytest.raises(ValueError, match="min_count=9"): train_tokenizer(["a b c"], kind="word", min_count=9)


def test_a_word_list_is_the_same_every_time():
    texts = reviews(30)["text"][:]
    a, b = (train_tokenizer(texts, 40, kind="word").get_vocab() for _ in range(2))
    assert a == b


@pytest.mark.parametrize("kind, masked", [("bpe", False), ("bpe", True), ("wordpiece", True),
                                          ("unigram", False)])
def test_kinds_of_tokenizers(kind, masked):
    tokenizer = train_tokenizer(python_docs()[:100], 600, kind)
    if kind == "bpe" and masked: tokenizer = train_tokenizer(python_docs()[:100], 600, masked=True)
    ids = tokenizer("a name")["input_ids"]
    assert (tokenizer.mask_token is not None) == masked and 300 < len(tokenizer) <= 600
    if masked: assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id) == (2, 3)
    else: assert tokenizer.eos_token_id == 0 and tokenizer.pad_token_id == 1
    rare = train_tokenizer(python_docs()[:100], 600, kind, min_count=500) if kind != "unigram" else None
    assert rare is None or len(rare) < len(tokenizer)


@pytest.mark.parametrize("wrong, message", [
    (dict(kind="words"), "kind='words' must be"), (dict(vocab_size=257), "vocab_size=257 is too small.*258"),
    (dict(masked=True, vocab_size=260), "261"),
    (dict(kind="unigram", masked=True), "masked=True.*kind='unigram'"),
    (dict(kind="word", masked=True), "masked=True.*kind='word'"),
    (dict(kind="wordpiece", vocab_size=99), "needs 100"), (dict(kind="word", vocab_size=2), "needs 3"),
    (dict(texts=[" ", ""]), "texts hold white space only"), (dict(texts=[]), r"texts=\[\] must be"),
    (dict(texts=iter([])), "texts=.*nothing in it"), (dict(texts=["a", "\ud800"]), r"texts\[1\]=")])
def test_what_no_tokenizer_can_be_learnt_from(wrong, message):
    with pytest.raises(ValueError, match=message): train_tokenizer(**{"texts": ["a text"], **wrong})


@pytest.mark.parametrize("texts, message",
                         [("one str", "put it in a list"), ({"a"}, "a set has no order"),
                          (["a", 3], r"\[1\]=3"),
                                            (["a", None], r"\[1\]=None")])
def test_texts_of_another_type(texts, message):
    with pytest.raises(TypeError, match=message): train_tokenizer(texts)
    with pytest.raises(TypeError, match="live=1 must be"): python_docs(live=1)
    with pytest.raises(ValueError, match="max_files=0 must be"): python_source(max_files=0)
    with pytest.raises(TypeError, match="source=3 must be"): load_imdb(3)
    with pytest.raises(ValueError, match="source='' must be"): load_wikitext("")


# --- IMDb

rows = [("Great, \"really\".\nTwo lines.", 1), ("null", 0), ("Ünïcode 🙂", 1), ("Dull.", 0)]


def write_csv(path, header=("review", "sentiment"), body=rows):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as f:
        csv.writer(f).writerows([header, *body])
    return path


def write_acl(root, movies=True):
    for split in ("train", "test"):
        for name, label in (("neg", 0), ("pos", 1)):
            folder = root / split / name
            folder.mkdir(parents=True)
            texts = [t for t, l in rows if l == label]
            for i, t in enumerate(texts):
                (folder / f"{i}_{3 + 5 * label}.txt").write_text(t, encoding="utf-8", newline="")
            urls = [f"http://www.imdb.com/title/tt{i:07}/usercomments\n" for i in range(len(texts))]
            if movies: (root / split / f"urls_{name}.txt").write_text("".join(urls))
    (root / "train" / "unsup").mkdir()
    (root / "train" / "unsup" / "0_0.txt").write_text("Nobody knows.")
    return root


@pytest.mark.parametrize("name", ["movie_data.csv", "movie_data.csv.gz"])
def test_csv(tmp_path, no_network, name):
    ds = load_imdb(write_csv(tmp_path / name))
    assert list(ds) == ["train"] and list(zip(ds["train"]["text"], ds["train"]["label"])) == rows
    assert ds["train"].features["label"].names == ["neg", "pos"]


def test_csv_of_other_people(tmp_path, no_network):
    spreadsheet = tmp_path / "IMDB Dataset.csv"
    spreadsheet.write_bytes(b"\xef\xbb\xbfreview,sentiment\r\nFine.,positive\r\nDull.,negative\r\n")
    assert load_imdb(str(spreadsheet))["train"]["label"][:] == [1, 0]
    extra = write_csv(tmp_path / "test.csv", ("", "text", "label", "rating", "movie"),
                      [(0, "Fine.", "0.5", 8, "tt1"), (1, "Dull.", "0", 2, "tt2")])
    with pytest.raises(ValueError, match="row 0: the label is '0.5'"): load_imdb(extra)
    write_csv(extra, ("", "text", "label", "rating", "movie"),
              [(0, "Fine.", 1, 8, "tt1"), (1, "Dull.", 0, 2, "tt2")])
    assert load_imdb(extra)["test"].to_dict() == dict(text=["Fine.", "Dull."], label=[1, 0], rating=[8, 2],
                                                      movie=["tt1", "tt2"])


def test_folder_of_the_original(tmp_path, no_network):
    ds = load_imdb(write_acl(tmp_path / "aclImdb"))
    assert ds.num_rows == dict(train=4, test=4, unsupervised=1)
    assert load_imdb(tmp_path)["test"].to_dict() == ds["test"].to_dict()
    train = ds["train"].to_dict()
    assert train["label"] == [0, 0, 1, 1] and train["rating"] == [3, 3, 8, 8]
    assert train["movie"] == ["tt0000000", "tt0000001"] * 2
    assert train["text"] == ["null", "Dull.", rows[0][0], rows[2][0]]
    assert train["file"][2] == "train/pos/0_8.txt"
    assert ds["unsupervised"]["label"][:] == [-1] and "rating" not in ds["unsupervised"].column_names
    assert "movie" not in load_imdb(write_acl(tmp_path / "other", movies=False))["train"].column_names


def test_reviews_are_in_the_order_of_their_numbers(tmp_path):
    root = write_acl(tmp_path / "aclImdb")
    for i in (2, 10): (root / "train/pos" / f"{i}_9.txt").write_text(str(i))
    assert load_imdb(root)["train"]["text"][-2:] == ["2", "10"]


def test_parquet_folder_with_shards(tmp_path, no_network):
    import pandas as pd
    (tmp_path / "plain_text").mkdir()
    df = pd.DataFrame(rows, columns=["text", "label"]).assign(rating=[9, 1, 8, 2])
    df[:2].to_parquet(tmp_path / "plain_text" / "train-00000-of-00002.parquet")
    df[2:].to_parquet(tmp_path / "plain_text" / "train-00001-of-00002.parquet")
    df[["text"]].to_parquet(tmp_path / "plain_text" / "unsupervised-00000-of-00001.parquet")
    ds = load_imdb(tmp_path)
    assert list(zip(ds["train"]["text"], ds["train"]["label"])) == rows
    assert ds["train"]["rating"][:] == [9, 1, 8, 2]
    assert ds["unsupervised"]["label"][:] == [-1] * 4


def test_the_four_forms_agree(tmp_path):
    import pandas as pd
    acl = load_imdb(write_acl(tmp_path / "aclImdb"))["train"]
    body = list(zip(acl["text"], acl["label"]))
    write_csv(tmp_path / "movie_data.csv", body=body)
    (tmp_path / "p").mkdir()
    pd.DataFrame(body, columns=["text", "label"]).to_parquet(tmp_path / "p" / "train.parquet")
    for source in (tmp_path / "movie_data.csv", tmp_path / "p"):
        ds = load_imdb(source)["train"]
        assert list(zip(ds["text"], ds["label"])) == body and ds.features["label"] == acl.features["label"]


@pytest.mark.parametrize("name, content, text", [
    ("a.csv", b"title,stars\nx,3\n",
     r"a\.csv has the columns \['title', 'stars'\]\. Expected text and label"),
    ("b.csv", b"review,sentiment\ngood,1\nfine,2\n",
     r"b\.csv, row 1: the label is '2'. Expected one of \[0, 1\]"),
    ("c.csv", b"", r"c\.csv is empty"), ("d.csv", b"review,sentiment\n", r"d\.csv has no rows"),
    ("e.csv", b"\x89PNG\r\n\x1a\n\x00\xff", r"e\.csv is not a CSV"),
    ("f.csv.gz", b"plain text", r"f\.csv\.gz is not a CSV"),
    ("g.csv.gz", gzip.compress(b"review,sentiment\n" + b"x,1\n" * 999)[:40], r"g\.csv\.gz is not a CSV"),
    ("h.parquet", b"PAR1 not really", r"h\.parquet is not a parquet file"),
    ("i.csv", b"review,sentiment\nx,\n", r"i\.csv, row 0: the label is ''"),
    ("j.csv", b"review,sentiment\nx,-1\n", r"j\.csv, row 0: the label is '-1'"),
    ("k.csv", b"review,sentiment,rating\nx,1,many\n", r"k\.csv: a column is of the wrong type"),
    ("l.csv", b"\n\n\n", r"l\.csv is not a CSV"),
    ("m.csv", b'review,sentiment\n"never closed,1\n', r"m\.csv")])
def test_bad_files_are_named(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=text): load_imdb(tmp_path / name)


def test_bad_parquet_tables(tmp_path):
    import pandas as pd
    for table, text in [(dict(text=["a"], label=[2]), "the label is 2"),
                        (dict(text=["a", None], label=[1, 0]), "1 of 2 texts are missing"),
                        (dict(text=["a"]), r"has the columns \['text'\]"),
                        (dict(text=["a"], label=[None]), "the label is None")]:
        pd.DataFrame(table).to_parquet(tmp_path / "train.parquet")
        with pytest.raises(ValueError, match=text): load_imdb(tmp_path)


def test_bad_folders(tmp_path, no_network):
    with pytest.raises(ValueError, match="holds neither train/pos and train/neg nor parquet or CSV"):
        load_imdb(tmp_path)
    with pytest.raises(FileNotFoundError,
                       match="nowhere': no such file or folder. Expected an aclImdb folder"):
        load_imdb(tmp_path / "nowhere")
    for name in ("movie_data.csv", "aclImdb", "./data/imdb", "../imdb", "C:\\imdb"):
        with pytest.raises(FileNotFoundError, match="no such file or folder"): load_imdb(name)
    root = write_acl(tmp_path / "aclImdb")
    (root / "train/pos/0_7.txt").write_text("A second one with this number.")
    assert load_imdb(root)["train"]["rating"][2:4] == [7, 8]
    (root / "train/pos/notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt: expected a name like 0_9\.txt"): load_imdb(root)
    for p in (root / "train/pos").glob("*"): p.unlink()
    with pytest.raises(ValueError, match="has no reviews"): load_imdb(root)
    (root / "train/pos").rmdir()
    with pytest.raises(ValueError, match="a split needs both pos and neg"): load_imdb(root)


def test_any_text_survives_a_csv(tmp_path_factory):
    from hypothesis import given, settings, strategies as st
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]),
                   min_size=1).filter(lambda t: "\ufeff" not in t)

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(text, st.integers(0, 1)), min_size=1, max_size=5))
    def survives(body):
        ds = load_imdb(write_csv(tmp_path_factory.mktemp("csv") / "movie_data.csv", body=body))["train"]
        assert list(zip(ds["text"], ds["label"])) == body
    survives()


def test_hub_names(monkeypatch):
    import datasets
    asked = []
    def fake(name, config=None):
        asked.append((name, config))
        return datasets.DatasetDict({s: reviews(2) for s in ("train", "test")} | {"validation": reviews(2)})
    monkeypatch.setattr(datasets, "load_dataset", fake)
    assert set(load_imdb()) == {"train", "test", "validation"}
    assert set(load_wikitext()) == {"train", "test", "valid"}
    load_imdb("me/mine"), load_wikitext("me/mine")
    assert asked == [("stanfordnlp/imdb", None), ("Salesforce/wikitext", "wikitext-2-raw-v1"),
                     ("me/mine", None), ("me/mine", None)]
    monkeypatch.setattr(datasets, "load_dataset",
                        lambda *a: datasets.DatasetDict(train=datasets.Dataset.from_dict(dict(body=["x"]))))
    for load in (load_imdb, load_wikitext):
        with pytest.raises(ValueError, match=r"me/mine' has the columns \{'train': \['body'\]\}. Expected"):
            load("me/mine")


def test_hub_out_of_reach(monkeypatch):
    import datasets
    def unreachable(*args): raise OSError("no route")
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError,
                       match="'stanfordnlp/imdb' is no file .*HF_HUB_OFFLINE is set.*aclImdb folder"):
        load_imdb()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConnectionError, match="did not give it. Connect once"): load_wikitext()
    def unknown(*args): raise datasets.exceptions.DatasetNotFoundError("no such data set")
    monkeypatch.setattr(datasets, "load_dataset", unknown)
    with pytest.raises(FileNotFoundError, match="'data/imdb' is no file or folder here"):
        load_imdb("data/imdb")


def test_nothing_is_unpickled(tmp_path):
    import pickle
    (tmp_path / "train.parquet").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match="is not a parquet file"): load_imdb(tmp_path)
    source = (data.__file__, cli.__file__)
    assert not any(word in open(f, encoding="utf-8").read() for f in source
                   for word in ("pickle", "torch.load", "np.load"))


# --- WikiText

article = " \n = {} = \n \n First paragraph of {} . \n \n = = Life = = \n \n More , with a = b = c . \n \n"


def test_wikitext_forms_agree(tmp_path, no_network):
    import pandas as pd
    text = article.format("Ada", "Ada") + article.format("Bob", "Bob")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "wiki.valid.tokens").write_text(text)
    (tmp_path / "t" / "wiki.train.raw").write_text(text)
    (tmp_path / "c").mkdir()
    table = pd.DataFrame([article.format(n, n) for n in ("Ada", "Bob")])
    table.to_csv(tmp_path / "c" / "train.csv", header=False, index=False)
    lines, whole = (load_wikitext(tmp_path / "t", articles=a) for a in (False, True))
    tiny, tiny_whole = (load_wikitext(tmp_path / "c", articles=a) for a in (False, True))
    assert list(lines) == ["train", "valid"] and lines.num_rows["valid"] == text.count("\n")
    assert whole.num_rows["train"] == 2 == tiny.num_rows["train"]
    assert lines["train"]["text"][:3] == ["", " = Ada = \n", ""]
    words = [[t.split() for t in ds["train"]["text"]] for ds in (whole, tiny, tiny_whole)]
    assert words[0] == words[1] == words[2]
    pd.DataFrame(dict(text=lines["train"]["text"][:])).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    again = load_wikitext(tmp_path / "test-00000-of-00001.parquet")
    assert again["test"]["text"][:] == lines["train"]["text"][:]


def test_wikitext_says_what_is_wrong(tmp_path, no_network):
    with pytest.raises(ValueError, match="holds none of"): load_wikitext(tmp_path)
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="the split train is empty"): load_wikitext(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(ValueError, match=r"train\.txt is not text in UTF-8"): load_wikitext(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected a folder with train, valid or test"):
        load_wikitext(tmp_path / "nothing")
    (tmp_path / "valid.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"valid\.parquet is not a parquet file"):
        load_wikitext(tmp_path / "valid.parquet")


# ---- Folders and files of strangers


def acl_folder(root, name, make):
    "Four reviews, and one more that `make` makes."
    for part in ("train/neg", "train/pos", "test/neg", "test/pos"):
        (root / part).mkdir(parents=True)
        (root / part / "0_9.txt").write_text("text")
    make(root / "train/pos" / name)
    return root


@pytest.mark.skipif(os.name != "posix", reason="named pipes and devices")
@pytest.mark.parametrize("make, text", [
    (os.mkfifo, "is no plain file"), (lambda p: p.symlink_to("/dev/zero"), "leaves the folder"),
    (lambda p: p.symlink_to("/etc/hostname"), "leaves the folder"),
    (lambda p: p.write_bytes(b"\xff\xfe"), "is not text in UTF-8")])
def test_what_is_no_review_is_named_and_never_opened(tmp_path, make, text):
    with pytest.raises(ValueError, match=rf"1_9\.txt.* {text}"):
        load_imdb(acl_folder(tmp_path / "acl", "1_9.txt", make))
    make(tmp_path / "wiki.txt")
    if "UTF-8" in text or make is os.mkfifo:
        with pytest.raises(ValueError, match=rf"wiki\.txt.* {text}"): load_wikitext(tmp_path / "wiki.txt")


def test_links_within_a_folder_and_to_a_folder_are_followed(tmp_path):
    folder = acl_folder(tmp_path / "acl", "1_9.txt", lambda p: p.symlink_to(p.with_name("0_9.txt")))
    (tmp_path / "link").symlink_to(folder)
    assert load_imdb(tmp_path / "link")["train"]["text"][:] == ["text"] * 3


def test_the_cache_of_the_hub_keeps_its_files_beside_the_folder(tmp_path):
    blob, folder = tmp_path / "blobs" / "a1b2", tmp_path / "snapshots" / "c3"
    for p in (blob.parent, folder): p.mkdir(parents=True)
    blob.write_text("review,sentiment\ngood,1\nbad,0\n")
    (folder / "train.csv").symlink_to("../../blobs/a1b2")
    assert load_imdb(folder)["train"]["label"][:] == [1, 0]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_a_small_file_that_holds_too_much_is_refused(tmp_path, monkeypatch, name):
    import course_lm.data
    rows = pd.DataFrame(dict(text=["x" * 1000] * 5000, label=1))
    path = tmp_path / name
    rows.to_parquet(path) if name.endswith("parquet") else rows.to_csv(path, index=False)
    assert len(load_imdb(path)["train"]) == 5000
    monkeypatch.setattr(course_lm.data, "_most", 3_000_000)
    assert name == "a.csv" or path.stat().st_size < 200_000
    with pytest.raises(ValueError, match=rf"{name} holds more than 3,000,000 bytes"): load_imdb(path)


def test_a_comma_in_a_text_loses_nothing(tmp_path):
    path = tmp_path / "movie_data.csv"
    path.write_text("review,sentiment\nA good film, really,1\nBad acting, boring plot,0\n")
    with pytest.raises(ValueError, match=r"movie_data\.csv has more fields in its rows .* quotation marks"):
        load_imdb(path)
    path.write_text('review,sentiment\n"A good film, really",1\n')
    assert load_imdb(path)["train"]["text"][:] == ["A good film, really"]


@pytest.mark.parametrize("name, columns", [
    ("both.parquet", dict(review=["a"], text=["b"], label=[1])),
    ("lists.parquet", dict(text=[["a"]], label=[1])),
    ("none.parquet", dict(text=[None, "a"], label=[0, 1])),
    ("half.parquet", dict(text=["a"], label=[.5])), ("bytes.parquet", dict(text=[b"a"], label=[1])),
    ("numbers.parquet", dict(text=[1, 2], label=[0, 1]))])
def test_tables_that_are_not_as_expected_are_named(tmp_path, name, columns):
    import pyarrow as pa
    import pyarrow.parquet as pq
    pq.write_table(pa.table(columns), tmp_path / name)
    with pytest.raises(ValueError, match=re.escape(name)): load_imdb(tmp_path / name)
