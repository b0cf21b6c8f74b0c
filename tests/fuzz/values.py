"""The 37 kinds of value that somebody passes by mistake."""
import math
from pathlib import Path

import numpy as np

KINDS = {
    # one too little, one too many, or a number from somewhere else
    "None": lambda w: None,
    "True": lambda w: True,
    "0": lambda w: 0,
    "-1": lambda w: -1,
    "2**40": lambda w: 2**40,
    "0.5": lambda w: .5,
    "2.5": lambda w: 2.5,
    "nan": lambda w: math.nan,
    "inf": lambda w: math.inf,
    "np.int64(3)": lambda w: np.int64(3),
    "np.float32(nan)": lambda w: np.float32("nan"),
    # texts
    "''": lambda w: "",
    "'abc'": lambda w: "abc",
    "'5'": lambda w: "5",
    "half a surrogate": lambda w: "x\ud800y",
    "bytes": lambda w: b"abc",
    "Path": lambda w: Path("no such folder"),
    # lists and their like
    "[]": lambda w: [],
    "[1]": lambda w: [1],
    "(1, 2)": lambda w: (1, 2),
    "ragged": lambda w: [[1, 2], [3]],
    "[None]": lambda w: [None],
    "['']": lambda w: [""],
    "['a', None]": lambda w: ["a", None],
    "{}": lambda w: {},
    "{'a': 1}": lambda w: {"a": 1},
    "generator": lambda w: (i for i in [1, 2]),
    # arrays
    "0-d array": lambda w: np.array(3),
    "2-d array": lambda w: np.array([[1, 2, 3], [4, 5, 6]]),
    "empty array": lambda w: np.array([]),
    "array of floats": lambda w: np.array([.5, 1.5]),
    # tables
    "DataFrame": lambda w: w.frame,
    "Dataset, another column": lambda w: w.other_column,
    "Dataset with None": lambda w: w.with_none,
    "DatasetDict": lambda w: w.splits,
    # the right kind, and another one
    "another tokenizer": lambda w: w.other_tok,
    "another model": lambda w: w.other_model,
}
# How a message may show the value, besides `repr`.
SHOWN = {
    "2**40": ["1099511627776"], "nan": ["nan"], "inf": ["inf"], "np.int64(3)": ["3"],
    "np.float32(nan)": ["nan"], "half a surrogate": ["ud800", "surrogate"], "Path": ["no such folder"],
    "0-d array": ["shape ()"], "2-d array": ["(2, 3)"], "empty array": ["(0,)"], "array of floats": ["(2,)"],
    "DataFrame": ["DataFrame"], "Dataset, another column": ["Dataset", "'other'"],
    "Dataset with None": ["Dataset"], "DatasetDict": ["DatasetDict"], "generator": ["generator"],
}
