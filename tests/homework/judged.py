"What the tests of the answers share: the cases of a lesson, and how they are judged."

import importlib

import pytest

from course_lm.homework.checking import checked_function


def exercises(lesson):
    "The exercises of a bank by name."
    bank = importlib.import_module(f"course_lm.homework.bank_{lesson}")
    return {exercise.name: exercise for exercise in bank.EXERCISES}


def right_cases(right):
    return [
        pytest.param(name, fn, id=f"{name}-{fn.__name__}")
        for name, answers in right.items()
        for fn in answers
    ]


def wrong_cases(wrong):
    return [
        pytest.param(name, mistake, fn, id=f"{name}-{mistake}-{fn.__name__}")
        for name, answers in wrong.items()
        for mistake, fn in answers
    ]


def accepted(lesson, name, fn):
    report = checked_function(exercises(lesson)[name], fn)
    assert report.passed, str(report)


def named(lesson, name, mistake, fn):
    "Rejected for this mistake, or for one of two that look the same, with a message and three hints."
    report = checked_function(exercises(lesson)[name], fn)
    assert not report.passed and {report.mistake, *report.also} == set(mistake.split(" or ")), str(report)
    assert report.sure == (" or " not in mistake)
    assert report.message and len(report.hints) == 3 and report.example is not None


def complete(lesson, right, wrong):
    "Each exercise has right answers in four styles, and each of its mistakes was made again."
    found = exercises(lesson)
    assert found.keys() == right.keys() == wrong.keys()
    for name, exercise in found.items():
        assert len(right[name]) >= 4
        made = {id for mistake, _ in wrong[name] for id in mistake.split(" or ")}
        assert made == {mistake.id for mistake in exercise.mistakes}
