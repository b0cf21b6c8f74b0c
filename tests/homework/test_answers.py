"Right answers in several styles are accepted; each mistake, made in another style than the bank's, is named."

import importlib

import pytest

from course_lm.homework.checking import checked_function
from course_lm.homework.exercises import answer

LESSONS = "10", "20", "30", "40", "50", "60", "70"
ANSWERS = {n: importlib.import_module(f"tests.homework.answers_{n}") for n in LESSONS}
BANKS = {n: importlib.import_module(f"course_lm.homework.bank_{n}") for n in LESSONS}
EXERCISES = {exercise.name: exercise for bank in BANKS.values() for exercise in bank.EXERCISES}


@pytest.fixture(scope="module", autouse=True)
def imported():
    "What two exercises need of transformers, which takes seconds the first time."
    for name in ("decay_groups", "add_pad_token"):
        answer(EXERCISES[name], EXERCISES[name].reference, EXERCISES[name].inputs[0])


def right_cases():
    for n, answers in ANSWERS.items():
        for name, fns in answers.RIGHT.items():
            for fn in fns: yield pytest.param(name, fn, id=f"{n}-{name}-{fn.__name__}")


def wrong_cases():
    for n, answers in ANSWERS.items():
        for name, pairs in answers.WRONG.items():
            for mistake, fn in pairs:
                yield pytest.param(name, mistake, fn, id=f"{n}-{name}-{mistake}-{fn.__name__}")


@pytest.mark.parametrize("name, fn", right_cases())
def test_a_right_answer_is_accepted(name, fn):
    report = checked_function(EXERCISES[name], fn)
    assert report.passed, str(report)


@pytest.mark.parametrize("name, mistake, fn", wrong_cases())
def test_a_mistake_is_named(name, mistake, fn):
    "For what it is, or as one of two that look the same, with a message and three hints."
    report = checked_function(EXERCISES[name], fn)
    assert not report.passed and {report.mistake, *report.also} == set(mistake.split(" or ")), str(report)
    assert report.sure == (" or " not in mistake)
    assert report.message and len(report.hints) == 3 and report.example is not None
    assert not set("{}") & set(report.title)


@pytest.mark.parametrize("n", LESSONS)
def test_every_exercise_has_four_right_answers_and_each_mistake_again(n):
    right, wrong = ANSWERS[n].RIGHT, ANSWERS[n].WRONG
    found = {exercise.name: exercise for exercise in BANKS[n].EXERCISES}
    assert found.keys() == right.keys() == wrong.keys()
    for name, exercise in found.items():
        assert len(right[name]) >= 4
        made = {id for mistake, _ in wrong[name] for id in mistake.split(" or ")}
        assert made == {mistake.id for mistake in exercise.mistakes}


def test_two_mistakes_at_once_are_both_named():
    def below_zero(step, warmup_steps, n_steps):
        return step / warmup_steps if step < warmup_steps else (n_steps - step) / (n_steps - warmup_steps)

    report = checked_function(EXERCISES["linear_schedule"], below_zero)
    assert {report.mistake, *report.also} == {"below-zero", "division-by-zero"}
