"Right answers of lesson 1 in several styles are accepted; each mistake, made in another style, is named."

import pytest

from tests.homework.answers_10 import RIGHT, WRONG
from tests.homework.judged import accepted, complete, named, right_cases, wrong_cases


def test_every_exercise_and_every_mistake_has_an_answer():
    complete("10", RIGHT, WRONG)


@pytest.mark.parametrize("name, fn", right_cases(RIGHT))
def test_a_right_answer_is_accepted(name, fn):
    accepted("10", name, fn)


@pytest.mark.parametrize("name, mistake, fn", wrong_cases(WRONG))
def test_a_mistake_is_named(name, mistake, fn):
    named("10", name, mistake, fn)
