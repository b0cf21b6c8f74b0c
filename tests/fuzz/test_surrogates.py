"""Half of a surrogate pair, which is no character, inside every text that a public function takes."""
import re

import pytest
from datasets import Dataset, DatasetDict

HALF = "a film\ud800 of it"
PLACES = {"folder", "path", "source", "info", "fname", "argv"} # of files; they are refused as places
# What is looked at when a page is drawn, or is never written or read as a text.
LATER = {"support.html:Piece above", "support.html:Piece below", "policies:show_chunks tokens",
         "support.files:fingerprint parts", "support.kinds:check_texts name"}


def spoilt(value):
    "The same kind of value with half a pair in one text; None where it holds no text."
    if isinstance(value, str): return HALF
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], str):
        return type(value)([*value[:-1], HALF])
    if isinstance(value, Dataset) and "text" in value.column_names and len(value):
        return None # Arrow holds UTF-8, and takes none
    if isinstance(value, DatasetDict): return None
    return None


def texts_of(calls):
    "(call, argument, value) wherever a valid call has a text."
    return [(c, name, new) for c in calls for name, value in c.args.items()
            if name not in PLACES and (new := spoilt(value)) is not None]


def test_each_is_refused_by_name(calls):
    wrong, tried = [], texts_of(calls)
    for call, name, value in tried:
        if f"{call.name} {name}" in LATER: continue
        try: answer = call(**{name: value})
        except (ValueError, TypeError) as e:
            if isinstance(e, UnicodeError) or not re.search(rf"\b{name}\b|surrogate", str(e)):
                wrong.append((call.title, name, f"{type(e).__name__}: {e}"))
        except Exception as e: wrong.append((call.title, name, repr(e)))
        else: wrong.append((call.title, name, f"accepted: {str(answer)[:80]!r}"))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(tried) > 100 and len({c.name for c, *_ in tried}) > 60


def test_what_counts_as_a_text():
    assert spoilt("a") == HALF and spoilt(["a", "b"]) == ["a", HALF] and spoilt(("a",)) == (HALF,)
    assert spoilt([1]) is spoilt({}) is spoilt(None) is spoilt([]) is None
    with pytest.raises(UnicodeEncodeError): Dataset.from_dict({"text": [HALF]})
