"`course_lm.reviews`: the label is a function of the text, whatever the seed, and word counts cannot read it."
import hashlib
from collections import Counter

import numpy as np
import pytest

from course_lm.reviews import CUES, _bad, _good, _words, review_label, review_votes, reviews, show_review
from course_lm.support.html import pale


def word_counter(train, test):
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    words = TfidfVectorizer()
    model = LogisticRegression(max_iter=1000).fit(words.fit_transform(train["text"][:]), train["label"][:])
    return model.score(words.transform(test["text"][:]), test["label"][:])


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
    assert reviews(3, 5)["text"][:] == ten[:3] and reviews(10, 6)["text"][:] != ten
    assert reviews(10, 5, "short")["text"][:] != ten


def test_reviews_are_the_same_on_every_python_and_machine():
    text = "\n".join(reviews(600, 42, "short")["text"]) + "\n".join(reviews(600, 42)["text"])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "e402bbae395ebba5"


def test_lengths():
    words = {l: np.array([len(t.split()) for t in reviews(3000, 1, l)["text"]]) for l in ("short", "long")}
    assert 20 <= np.median(words["short"]) <= 31 and 85 <= np.median(words["long"]) <= 112
    assert np.log(words["long"]).std() > .5 and words["long"].max() > 400  # a Poisson would have 0.1


def test_cues_serve_both_labels():
    ds = reviews(4000, 9, "short")
    count = {l: Counter(w for t, y in zip(ds["text"], ds["label"]) if y == l
                        for w in t.lower().replace(".", "").split()) for l in (0, 1)}
    for word in _good + _bad:
        share = count[1][word] / (count[0][word] + count[1][word])
        assert .1 < share < .9, (word, share)
    assert all(.38 < count[1][w] / (count[0][w] + count[1][w]) < .62
               for w in ("not", "but", "hardly", "never"))


def test_facts_hold_no_cue():
    fields = "title day genre director kin star second role role2 deed place minutes few".split()
    facts = [f.format_map(dict.fromkeys(fields, "")) for f in _words["fact"] + _words["open"]]
    said = " ".join(facts + [w for k, ws in _words.items() if k not in ("fact", "open")
                             for w in ws]).lower().split()
    assert not set(said) & set(CUES)


@pytest.mark.parametrize("sentence, vote", [
    ("The plot is not bad.", 1), ("The plot isn't really bad.", 1), ("The cast was never good.", -1),
    ("It is anything but dull.", 1), ("There is nothing great about the music.", -1),
    ("The cast is nothing short of great.", 1), ("The cast is never less than weak.", -1),
    ("I would not call the ending awful.", 1), ("The film could have been great.", -1),
    ("The pacing was supposed to be good.", -1), ("I had expected it to be bad.", 1),
    ("The plot could be better.", -1), ("The plot could not be better.", 1),
    ("The plot could not be worse.", -1), ("I have seen a worse plot in a school play.", 1),
    ("The book has better music.", -1), ("The first film had a worse ending.", 1),
    ("Critics call it good, and they are wrong.", -1), ("Critics call it good, and they are right.", 1),
    ("My boss loved it; I did not.", -1), ("My boss loved it, and so did I.", 1),
    ("It is a great choice if you want to fall asleep.", -1),
    ("It is an awful film for anyone who hates films.", 1), ("I did not regret the film.", 1),
    ("Nobody will love it.", -1), ("I wanted to hate it, and could not.", 1),
    ("I wanted to hate it, and I did.", -1), ("The music is great, but the plot is dull.", -1),
    ("Although the music is great, the plot is dull.", -1), ("Despite the dull plot, I enjoyed it.", 1),
    ("An awful baker tries to solve a murder.", 0), ("", 0)])
def test_each_way_to_turn_a_cue(sentence, vote):
    assert sum(v for _, v in review_votes(sentence)) == vote


def test_picture_escapes_and_colours():
    page = show_review("The plot is not bad. <b>It is dull.").data
    assert "&lt;b&gt;" in page and page.count(pale("blue")) == 4 == page.count(pale("orange"))
    assert page.count("underline") == 2 and "<b>" not in page


@pytest.mark.parametrize("bad, text", [(dict(n=0), "n=0 must be"),
                                       (dict(n=5, length="medium"), "length='medium' must be"),
                                       (dict(n=2, length="tiny"), "length='tiny' must be 'long' or 'short'"),
                                       (dict(n=2, seed=-1), "seed=-1 must be")])
def test_reviews_says_what_is_wrong(bad, text):
    with pytest.raises(ValueError, match=text): reviews(**bad)
    for function in (review_votes, show_review):
        with pytest.raises(TypeError, match="text=3 must be a str"): function(3)
    with pytest.raises(TypeError, match="n=2.5 must be"): reviews(2.5)
