"""Small tokenizers and helpers that the tests of labels and of denoising share."""
import re

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from course_lm.data import train_tokenizer

TEXT = ["the cat sat on the mat. the dog, unhappily, sat on the log."]
quick = settings(max_examples=60, deadline=None) # the machine may be busy
ids_of = st.lists(st.integers(5, 280), min_size=1, max_size=40)


def tokenizer(masked, sentinels=0):
    made = train_tokenizer(TEXT*9, vocab_size=290, masked=masked)
    extra = [f"<extra_id_{i}>" for i in range(sentinels)]
    if extra: made.add_special_tokens({"extra_special_tokens": extra})
    return made


CAUSAL, MASKED, T5 = tokenizer(False), tokenizer(True), tokenizer(False, 40)


def within(hits, trials, p): return abs(hits - trials*p) < 5*(trials*p*(1-p))**.5


def raises(error, text): return pytest.raises(error, match=re.escape(text))
