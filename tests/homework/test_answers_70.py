"Right answers of lesson 7 in several styles are accepted; each mistake, made in another style, is named."

import pytest

from tests.homework.answers_70 import RIGHT, WRONG
from tests.homework.judged import accepted, complete, named, right_cases, wrong_cases


def test_every_exercise_and_every_mistake_has_an_answer():
    complete("70", RIGHT, WRONG)


@pytest.mark.parametrize("name, fn", right_cases(RIGHT))
def test_a_right_answer_is_accepted(name, fn):
    accepted("70", name, fn)


@pytest.mark.parametrize("name, mistake, fn", wrong_cases(WRONG))
def test_a_mistake_is_named(name, mistake, fn):
    named("70", name, mistake, fn)
