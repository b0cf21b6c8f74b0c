"Lesson 0: what the notebook shows once is checked here over seeds, forms of files and broken machines."
import csv, gzip, hashlib, os, re, subprocess, sys
from collections import Counter

import numpy as np
import pytest

from course_lm import cli, data
from course_lm.reviews import _bad, CUES, _good, _words
from course_lm.data import (
    load_imdb, load_wikitext, python_docs, python_docstrings, python_source, train_tokenizer)
from course_lm.reviews import review_label, review_votes, reviews, show_review
from course_lm.cli import cache_dir, doctor


@pytest.fixture
def no_network(monkeypatch):
    "Whoever opens a connection fails the test."
    import socket
    def refuse(*args, **kwargs): raise AssertionError("called out")
    for name in ("connect", "connect_ex"): monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"): monkeypatch.delenv(name, raising=False)


def word_counter(train, test):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    words = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(train["text"][:]), train["label"][:])
    return model.score(words.transform(test["text"][:]), test["label"][:])


# --- text that is always there

def test_parsing_the_library_imports_nothing_of_it():
    code = "import sys; from course_lm.data import python_docstrings; a = set(sys.modules); python_docstrings(); print(*set(sys.modules) - a)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = set(done.stdout.split())
    assert done.stderr == "" and len(new) < 20 and not new & {"antigravity", "this", "turtle", "tkinter", "idlelib", "asyncio"}


def test_texts_are_the_same_in_every_process():
    code = "import hashlib; from course_lm.data import python_docs, python_docstrings, python_source; print(hashlib.sha256(repr((python_docs(), python_docstrings(), python_source(50))).encode()).hexdigest())"
    runs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ | {"PYTHONHASHSEED": s}).stdout for s in "12"}
    assert len(runs) == 1


def test_the_reference_is_prose():
    docs = python_docs()
    assert not [d for d in docs if "::=" in d or ">>>" in d or "   " in d]
    assert np.mean([d[0].isupper() or not d[0].isalpha() for d in docs]) > .9


def test_the_frozen_text_is_the_same_everywhere_and_has_its_licence():
    from importlib.resources import files
    text = (files("course_lm") / "texts" / "python_docs.txt").read_bytes()
    assert hashlib.sha256(text).hexdigest() == "1ade86d2c1d5056c3a66538539f7fb2515bb5f0044aa16b7e8476e540e8a1dd9"
    assert "\n".join(python_docs()).encode() + b"\n" == text and len(python_docs()) == 1126
    notice = (files("course_lm") / "texts" / "python_docs.LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright (c) 2001-2023 Python Software Foundation; All Rights Reserved" in notice and "PYTHON SOFTWARE FOUNDATION LICENSE VERSION 2" in notice
    assert "Changes that were made" in notice


def test_the_live_text_is_the_running_pythons():
    from pydoc_data.topics import topics
    live = python_docs(live=True)
    assert live and all(any(d[:20] in " ".join(t.split()) for t in topics.values()) for d in live[::200])
    assert len(set(live)) == len(live) and not [d for d in live if "\n" in d or len(d) < 60]


def test_source_leaves_out_tests_and_the_reference():
    assert not {p for p in data._stdlib() if {"test", "tests", "site-packages", "pydoc_data"} & set(p.split("/"))}
    assert set(python_docstrings()) and all(len(d) > 20 for d in python_docstrings())


def test_cache_dir_is_where_the_variable_says(tmp_path, monkeypatch):
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "a" / "b"))
    assert cache_dir() == tmp_path / "a" / "b" and cache_dir().is_dir()
    monkeypatch.setenv("COURSE_LM_CACHE", "")
    monkeypatch.setattr(data.Path, "home", lambda: tmp_path)
    assert cache_dir() == tmp_path / ".cache" / "course_lm"


@pytest.mark.parametrize("masked", [False, True])
def test_tokenizer_saves_loads_and_keeps_its_special_tokens(tmp_path, masked):
    from transformers import AutoTokenizer
    tokenizer = train_tokenizer((d for d in python_docs()[:300]), 700, masked=masked)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = "def f(x): return 'naïve 🙂'\n\n\tx"
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"] and again.decode(again(text)["input_ids"], skip_special_tokens=True) == text
    assert (again.pad_token_id, again.mask_token_id, again.eos_token_id) == ((0, 4, None) if masked else (1, None, 0))
    assert max(tokenizer.get_vocab().values()) == len(tokenizer) - 1 and len(tokenizer) <= 700


def test_smallest_vocabulary_is_the_bytes():
    tokenizer = train_tokenizer(["abc"], 258)
    assert len(tokenizer) == 258 and len(tokenizer("abc")["input_ids"]) == 3


def test_a_word_list_comes_from_its_texts_alone():
    texts = reviews(30)["text"][:] + ["A line.<br /><br />Another ONE!"]
    tokenizer = train_tokenizer(texts, kind="word", min_count=1)
    seen = {w for t in texts for w in re.findall(r"\w+|[^\w\s]", t.lower().replace("<br />", " "))}
    assert set(tokenizer.get_vocab()) == seen | {"[PAD]", "[UNK]"} and "br" not in seen
    assert tokenizer("Zyzzyva!")["input_ids"][0] == tokenizer.unk_token_id == 1 and tokenizer.pad_token_id == 0
    assert tokenizer.mask_token is tokenizer.cls_token is tokenizer.eos_token is None
    assert tokenizer("Film film")["input_ids"] == 2*tokenizer("film")["input_ids"]
    assert len(train_tokenizer(texts, 20, kind="word")) == 20
    counts = Counter(w for t in texts for w in re.findall(r"\w+|[^\w\s]", t.lower().replace("<br />", " ")))
    assert set(train_tokenizer(texts, kind="word").get_vocab()) == {w for w,n in counts.items() if n > 1} | {"[PAD]", "[UNK]"}
    with pytest.raises(ValueError, match="min_count=9"): train_tokenizer(["a b c"], kind="word", min_count=9)


def test_a_word_list_is_the_same_every_time():
    texts = reviews(30)["text"][:]
    a, b = (train_tokenizer(texts, 40, kind="word").get_vocab() for _ in range(2))
    assert a == b


@pytest.mark.parametrize("kind, masked", [("bpe", False), ("bpe", True), ("wordpiece", True), ("unigram", False)])
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
    (dict(kind="words"), "kind='words' must be"), (dict(vocab_size=257), "vocab_size=257 is too small.*258"), (dict(masked=True, vocab_size=260), "261"),
    (dict(kind="unigram", masked=True), "masked=True.*kind='unigram'"), (dict(kind="word", masked=True), "masked=True.*kind='word'"),
    (dict(kind="wordpiece", vocab_size=99), "needs 100"), (dict(kind="word", vocab_size=2), "needs 3"), (dict(texts=[" ", ""]), "texts is empty"),
    (dict(texts=[]), "texts is empty")])
def test_what_no_tokenizer_can_be_learnt_from(wrong, message):
    with pytest.raises(ValueError, match=message): train_tokenizer(**{"texts": ["a text"], **wrong})


# --- reviews

@pytest.mark.parametrize("length", ["short", "long"])
@pytest.mark.parametrize("seed", [0, 11, 42, 2024])
def test_word_counting_gets_between_70_and_85_percent(length, seed):
    train, test = reviews(2000, seed, length), reviews(1000, seed + 1, length)
    assert .70 < word_counter(train, test) < .85
    assert not set(train["text"]) & set(test["text"])


@pytest.mark.parametrize("length", ["short", "long"])
def test_label_is_a_function_of_the_text(length):
    ds = reviews(4000, 7, length)
    assert [review_label(t) for t in ds["text"]] == ds["label"][:]
    assert len(set(ds["text"])) > .999 * len(ds)


def test_half_of_every_even_number_is_positive():
    labels = reviews(1001, 3, "short")["label"][:]
    assert all(sum(labels[:k]) == k // 2 for k in range(0, 1001, 2)) and len(labels) == 1001


def test_the_first_k_of_n_are_the_same():
    ten = reviews(10, 5)["text"][:]
    assert reviews(3, 5)["text"][:] == ten[:3] and reviews(10, 6)["text"][:] != ten and reviews(10, 5, "short")["text"][:] != ten


def test_reviews_are_the_same_on_every_python_and_machine():
    text = "\n".join(reviews(600, 42, "short")["text"]) + "\n".join(reviews(600, 42)["text"])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e402bbae395ebba5"


def test_lengths():
    words = {l: np.array([len(t.split()) for t in reviews(3000, 1, l)["text"]]) for l in ("short", "long")}
    assert 20 <= np.median(words["short"]) <= 31 and 85 <= np.median(words["long"]) <= 112
    assert np.log(words["long"]).std() > .5 and words["long"].max() > 400  # a Poisson would have 0.1


def test_cues_serve_both_labels():
    ds = reviews(4000, 9, "short")
    count = {l: Counter(w for t, y in zip(ds["text"], ds["label"]) if y == l for w in t.lower().replace(".", "").split()) for l in (0, 1)}
    for word in _good + _bad:
        share = count[1][word] / (count[0][word] + count[1][word])
        assert .1 < share < .9, (word, share)
    assert all(.38 < count[1][w] / (count[0][w] + count[1][w]) < .62 for w in ("not", "but", "hardly", "never"))


def test_facts_hold_no_cue():
    facts = [f.format_map(dict.fromkeys("title day genre director kin star second role role2 deed place minutes few".split(), "")) for f in _words["fact"] + _words["open"]]
    said = " ".join(facts + [w for k, ws in _words.items() if k not in ("fact", "open") for w in ws]).lower().split()
    assert not set(said) & set(CUES)


@pytest.mark.parametrize("sentence, vote", [
    ("The plot is not bad.", 1), ("The plot isn't really bad.", 1), ("The cast was never good.", -1), ("It is anything but dull.", 1),
    ("There is nothing great about the music.", -1), ("The cast is nothing short of great.", 1), ("The cast is never less than weak.", -1),
    ("I would not call the ending awful.", 1), ("The film could have been great.", -1), ("The pacing was supposed to be good.", -1), ("I had expected it to be bad.", 1),
    ("The plot could be better.", -1), ("The plot could not be better.", 1), ("The plot could not be worse.", -1), ("I have seen a worse plot in a school play.", 1),
    ("The book has better music.", -1), ("The first film had a worse ending.", 1), ("Critics call it good, and they are wrong.", -1), ("Critics call it good, and they are right.", 1),
    ("My boss loved it; I did not.", -1), ("My boss loved it, and so did I.", 1), ("It is a great choice if you want to fall asleep.", -1),
    ("It is an awful film for anyone who hates films.", 1), ("I did not regret the film.", 1), ("Nobody will love it.", -1),
    ("I wanted to hate it, and could not.", 1), ("I wanted to hate it, and I did.", -1), ("The music is great, but the plot is dull.", -1),
    ("Although the music is great, the plot is dull.", -1), ("Despite the dull plot, I enjoyed it.", 1), ("An awful baker tries to solve a murder.", 0), ("", 0)])
def test_each_way_to_turn_a_cue(sentence, vote):
    assert sum(v for _, v in review_votes(sentence)) == vote


def test_picture_escapes_and_colours():
    page = show_review("The plot is not bad. <b>It is dull.").data
    assert "&lt;b&gt;" in page and page.count("#cfe5ff") == 1 and page.count("#ffdfc0") == 1 and page.count("<u>") == 2


@pytest.mark.parametrize("bad, text", [(dict(n=0), "n must be at least 1"), (dict(n=2, length="tiny"), "length must be one of")])
def test_reviews_says_what_is_wrong(bad, text):
    with pytest.raises(ValueError, match=text): reviews(**bad)


# --- IMDb

rows = [("Great, \"really\".\nTwo lines.", 1), ("null", 0), ("Ünïcode 🙂", 1), ("Dull.", 0)]


def write_csv(path, header=("review", "sentiment"), body=rows):
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as f: csv.writer(f).writerows([header, *body])
    return path


def write_acl(root, movies=True):
    for split in ("train", "test"):
        for name, label in (("neg", 0), ("pos", 1)):
            folder = root / split / name
            folder.mkdir(parents=True)
            texts = [t for t, l in rows if l == label]
            for i, t in enumerate(texts): (folder / f"{i}_{3 + 5 * label}.txt").write_text(t, encoding="utf-8", newline="")
            if movies: (root / split / f"urls_{name}.txt").write_text("".join(f"http://www.imdb.com/title/tt{i:07}/usercomments\n" for i in range(len(texts))))
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
    extra = write_csv(tmp_path / "test.csv", ("", "text", "label", "rating", "movie"), [(0, "Fine.", "0.5", 8, "tt1"), (1, "Dull.", "0", 2, "tt2")])
    with pytest.raises(ValueError, match="row 0: the label is '0.5'"): load_imdb(extra)
    write_csv(extra, ("", "text", "label", "rating", "movie"), [(0, "Fine.", 1, 8, "tt1"), (1, "Dull.", 0, 2, "tt2")])
    assert load_imdb(extra)["test"].to_dict() == dict(text=["Fine.", "Dull."], label=[1, 0], rating=[8, 2], movie=["tt1", "tt2"])


def test_folder_of_the_original(tmp_path, no_network):
    ds = load_imdb(write_acl(tmp_path / "aclImdb"))
    assert ds.num_rows == dict(train=4, test=4, unsupervised=1) and load_imdb(tmp_path)["test"].to_dict() == ds["test"].to_dict()
    train = ds["train"].to_dict()
    assert train["label"] == [0, 0, 1, 1] and train["rating"] == [3, 3, 8, 8] and train["movie"] == ["tt0000000", "tt0000001"] * 2
    assert train["text"] == ["null", "Dull.", rows[0][0], rows[2][0]] and train["file"][2] == "train/pos/0_8.txt"
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
    assert list(zip(ds["train"]["text"], ds["train"]["label"])) == rows and ds["train"]["rating"][:] == [9, 1, 8, 2]
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
    ("a.csv", b"title,stars\nx,3\n", r"a\.csv has the columns \['title', 'stars'\]\. Expected text and label"),
    ("b.csv", b"review,sentiment\ngood,1\nfine,2\n", r"b\.csv, row 1: the label is '2'. Expected one of \[0, 1\]"),
    ("c.csv", b"", r"c\.csv is empty"), ("d.csv", b"review,sentiment\n", r"d\.csv has no rows"), ("e.csv", b"\x89PNG\r\n\x1a\n\x00\xff", r"e\.csv is not a CSV"),
    ("f.csv.gz", b"plain text", r"f\.csv\.gz is not a CSV"), ("g.csv.gz", gzip.compress(b"review,sentiment\n" + b"x,1\n" * 999)[:40], r"g\.csv\.gz is not a CSV"),
    ("h.parquet", b"PAR1 not really", r"h\.parquet is not a parquet file"), ("i.csv", b"review,sentiment\nx,\n", r"i\.csv, row 0: the label is ''"),
    ("j.csv", b"review,sentiment\nx,-1\n", r"j\.csv, row 0: the label is '-1'"), ("k.csv", b"review,sentiment,rating\nx,1,many\n", r"k\.csv: a column is of the wrong type"),
    ("l.csv", b"\n\n\n", r"l\.csv is not a CSV"), ("m.csv", b'review,sentiment\n"never closed,1\n', r"m\.csv")])
def test_bad_files_are_named(tmp_path, name, content, text):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=text): load_imdb(tmp_path / name)


def test_bad_parquet_tables(tmp_path):
    import pandas as pd
    for df, text in [(pd.DataFrame(dict(text=["a"], label=[2])), "the label is 2"), (pd.DataFrame(dict(text=["a", None], label=[1, 0])), "1 of 2 texts are missing"),
                     (pd.DataFrame(dict(text=["a"])), r"has the columns \['text'\]"), (pd.DataFrame(dict(text=["a"], label=[None])), "the label is None")]:
        df.to_parquet(tmp_path / "train.parquet")
        with pytest.raises(ValueError, match=text): load_imdb(tmp_path)


def test_bad_folders(tmp_path, no_network):
    with pytest.raises(ValueError, match="holds neither train/pos and train/neg nor parquet or CSV"): load_imdb(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere: no such file or folder. Expected an aclImdb folder"): load_imdb(tmp_path / "nowhere")
    for name in ("movie_data.csv", "aclImdb", "./data/imdb", "../imdb", "C:\\imdb"):
        with pytest.raises(FileNotFoundError, match="no such file or folder"): load_imdb(name)
    root = write_acl(tmp_path / "aclImdb")
    (root / "train/pos/notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"notes\.txt: expected a name like 0_9\.txt"): load_imdb(root)
    for p in (root / "train/pos").glob("*"): p.unlink()
    with pytest.raises(ValueError, match="has no reviews"): load_imdb(root)
    (root / "train/pos").rmdir()
    with pytest.raises(ValueError, match="a split needs both pos and neg"): load_imdb(root)


def test_any_text_survives_a_csv(tmp_path_factory):
    from hypothesis import given, settings, strategies as st
    text = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda t: "\ufeff" not in t)

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
    assert set(load_imdb()) == {"train", "test", "validation"} and set(load_wikitext()) == {"train", "test", "valid"}
    load_imdb("me/mine"), load_wikitext("me/mine")
    assert asked == [("stanfordnlp/imdb", None), ("Salesforce/wikitext", "wikitext-2-raw-v1"), ("me/mine", None), ("me/mine", None)]
    monkeypatch.setattr(datasets, "load_dataset", lambda *a: datasets.DatasetDict(train=datasets.Dataset.from_dict(dict(body=["x"]))))
    for load in (load_imdb, load_wikitext):
        with pytest.raises(ValueError, match=r"me/mine has the columns \{'train': \['body'\]\}. Expected"): load("me/mine")


def test_hub_out_of_reach(monkeypatch):
    import datasets
    def unreachable(*args): raise OSError("no route")
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConnectionError, match="'stanfordnlp/imdb' is no file or folder here.*HF_HUB_OFFLINE is set.*aclImdb folder"): load_imdb()
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ConnectionError, match="did not give it. Connect once"): load_wikitext()
    def unknown(*args): raise datasets.exceptions.DatasetNotFoundError("no such data set")
    monkeypatch.setattr(datasets, "load_dataset", unknown)
    with pytest.raises(FileNotFoundError, match="'data/imdb' is no file or folder here"): load_imdb("data/imdb")


def test_nothing_is_unpickled(tmp_path):
    import pickle
    (tmp_path / "train.parquet").write_bytes(pickle.dumps(rows))
    with pytest.raises(ValueError, match="is not a parquet file"): load_imdb(tmp_path)
    source = (data.__file__, cli.__file__)
    assert not any(word in open(f, encoding="utf-8").read() for f in source for word in ("pickle", "torch.load", "np.load"))


# --- WikiText

article = " \n = {} = \n \n First paragraph of {} . \n \n = = Life = = \n \n More , with a = b = c . \n \n"


def test_wikitext_forms_agree(tmp_path, no_network):
    import pandas as pd
    text = article.format("Ada", "Ada") + article.format("Bob", "Bob")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "wiki.valid.tokens").write_text(text)
    (tmp_path / "t" / "wiki.train.raw").write_text(text)
    (tmp_path / "c").mkdir()
    pd.DataFrame([article.format(n, n) for n in ("Ada", "Bob")]).to_csv(tmp_path / "c" / "train.csv", header=False, index=False)
    lines, whole, tiny = load_wikitext(tmp_path / "t"), load_wikitext(tmp_path / "t", articles=True), load_wikitext(tmp_path / "c")
    assert list(lines) == ["train", "valid"] and lines.num_rows["valid"] == text.count("\n") and whole.num_rows["train"] == 2 == tiny.num_rows["train"]
    assert lines["train"]["text"][:3] == ["", " = Ada = \n", ""]
    assert [t.split() for t in whole["train"]["text"]] == [t.split() for t in tiny["train"]["text"]] == [t.split() for t in load_wikitext(tmp_path / "c", articles=True)["train"]["text"]]
    pd.DataFrame(dict(text=lines["train"]["text"][:])).to_parquet(tmp_path / "test-00000-of-00001.parquet")
    assert load_wikitext(tmp_path / "test-00000-of-00001.parquet")["test"]["text"][:] == lines["train"]["text"][:]


def test_wikitext_says_what_is_wrong(tmp_path, no_network):
    with pytest.raises(ValueError, match="holds none of"): load_wikitext(tmp_path)
    (tmp_path / "train.txt").write_text("\n \n")
    with pytest.raises(ValueError, match="the split train is empty"): load_wikitext(tmp_path)
    (tmp_path / "train.txt").write_bytes(b"\xff\xfe\x00bad")
    with pytest.raises(ValueError, match=r"train\.txt is not text in UTF-8"): load_wikitext(tmp_path)
    with pytest.raises(FileNotFoundError, match="Expected a folder with train, valid or test"): load_wikitext(tmp_path / "nothing")
    (tmp_path / "valid.parquet").write_bytes(b"no")
    with pytest.raises(ValueError, match=r"valid\.parquet is not a parquet file"): load_wikitext(tmp_path / "valid.parquet")


# --- doctor and the command

def test_doctor_asks_nobody(no_network):
    report = doctor()
    assert not report.value.eq("stopped").any() and report.check.is_unique and {"python", "torch", "GPU"} <= set(report.check)


def test_doctor_reports_a_broken_machine(tmp_path, monkeypatch):
    from importlib import metadata
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("COURSE_LM_CACHE", str(tmp_path / "file" / "cache"))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "psutil", None)
    real = metadata.version
    def version(name):
        if name == "accelerate": raise metadata.PackageNotFoundError(name)
        return "0.1" if name == "datasets" else real(name)
    monkeypatch.setattr(metadata, "version", version)
    report = doctor().set_index("check")
    for check, hint in {"cache folder": "set COURSE_LM_CACHE to a folder you may write to", "threads": "torch cannot be imported", "accelerate": "pip install", "datasets": "pip install"}.items():
        assert report.ok[check] is False and hint in report.hint[check], check
    assert cli.main(["doctor"]) == 1


def test_doctor_never_raises(monkeypatch):
    def broken(*args): raise RuntimeError("odd machine"); yield
    for name in ("_machine", "_packages", "_assets"): monkeypatch.setattr(cli, name, broken)
    assert doctor().hint.tolist() == ["RuntimeError: odd machine"] * 3


def test_doctor_finds_what_was_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    monkeypatch.delenv("HF_DATASETS_CACHE", raising=False)
    look = lambda **kw: doctor(**kw).set_index("check").value
    model, table = "model distilbert/distilgpt2", "dataset stanfordnlp/imdb"
    folder = tmp_path / "models--distilgpt2" / "snapshots" / "abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert look()[model] == "not in the hub cache"  # a config without weights is an interrupted download
    (folder / "model.safetensors").write_bytes(b"x")
    (tmp_path / "datasets" / "stanfordnlp___imdb").mkdir(parents=True)
    (tmp_path / "datasets" / "stanfordnlp___imdb" / "train.arrow").write_bytes(b"x")
    assert look()[model] == look()[table] == "in the hub cache"
    monkeypatch.setattr(cli, "_on_hub", lambda kind, name: kind == "dataset")
    asked = look(network=True)
    assert asked["dataset Salesforce/wikitext"] == "on the hub" and asked["model distilbert/distilbert-base-uncased"] == "not reachable"


def test_command(capsys):
    assert cli.main([]) == 0 and "doctor" in capsys.readouterr().out
    assert cli.main(["doctor"]) in (0, 1) and "checks, " in capsys.readouterr().out.splitlines()[-1]
    for words, status in ((["--version"], 0), (["nonsense"], 2), (["doctor", "--nonsense"], 2)):
        with pytest.raises(SystemExit) as stop: cli.main(words)
        assert stop.value.code == status
    assert capsys.readouterr().out.startswith("course_lm ")
