"""Lesson 4: right answers in every style pass, and each mistake in another style than the bank's is named."""

import pytest

from course_lm.homework.bank_40 import EXERCISES
from course_lm.homework.checking import checked_function

from .answers_40 import RIGHT, WRONG

BANK = {exercise.name: exercise for exercise in EXERCISES}


@pytest.mark.parametrize("name, fn", [(name, fn) for name, fns in RIGHT.items() for fn in fns])
def test_right_answers_pass_in_every_style(name, fn):
    report = checked_function(BANK[name], fn)
    assert report.passed, str(report)


@pytest.mark.parametrize("name, id, fn", [(name, *pair) for name, pairs in WRONG.items() for pair in pairs])
def test_a_mistake_in_another_style_is_named(name, id, fn):
    report = checked_function(BANK[name], fn)
    assert (report.passed, report.mistake, report.also) == (False, id, ()), str(report)
    assert report.message and not set("{}") & set(report.title)


def test_every_exercise_and_every_mistake_has_an_answer_here():
    assert set(RIGHT) == set(WRONG) == set(BANK)
    for name, exercise in BANK.items():
        assert len(RIGHT[name]) >= 4
        assert {id for id, _ in WRONG[name]} == {mistake.id for mistake in exercise.mistakes}
