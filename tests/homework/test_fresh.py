"Answers written from the contracts alone, in uncommon styles: right ones pass, wrong ones don't."
import importlib, re, subprocess, sys

import pytest

from course_lm.homework import exercise_of
from course_lm.homework.checking import checked_function
from scripts.lessons import root
from tests.homework import fresh

for part in ("12", "34", "5", "67"): importlib.import_module(f"tests.homework.fresh_{part}")


def ids(case): return f"{case[0]}-{case[-1].__name__}" if isinstance(case, tuple) else None


@pytest.mark.parametrize("case", fresh.RIGHT, ids=ids)
def test_a_right_answer_is_accepted(case):
    name, fn = case
    report = checked_function(exercise_of(name), fn)
    assert report.passed, str(report)


@pytest.mark.parametrize("case", fresh.WRONG, ids=ids)
def test_a_wrong_answer_is_rejected_and_a_known_mistake_named(case):
    name, mistake, fn = case
    report = checked_function(exercise_of(name), fn)
    assert not report.passed and report.message + report.title
    if not mistake: return
    assert {report.mistake, *report.also} == set(re.split(" or | and ", mistake)), str(report)
    assert report.sure == (" or " not in mistake)


def test_every_contract_has_fresh_answers():
    right, wrong = ({case[0] for case in cases} for cases in (fresh.RIGHT, fresh.WRONG))
    assert right == wrong and len(right) == 33


SCRIPT = """
from course_lm.homework import check
from tests.homework.fresh_67 import the_real_one
print(check.gpt2_parameters(the_real_one, verbose=False).passed)
"""


def test_the_time_to_import_transformers_is_not_the_functions_own():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, cwd=root)
    assert done.stdout == "True\n", done.stderr
