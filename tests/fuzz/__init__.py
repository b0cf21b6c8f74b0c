"""A fuzzer: every public function, called with what somebody passes by mistake.

`python -m tests.fuzz --all` tries all of it, and says what came of it; `test_fuzz.py` tries a share in each
run of the tests. What is public is found by itself (`found.py`). Each function needs a valid call
(`calls_*.py`), in which one argument at a time is replaced by each of the values in `values.py`.
"""
