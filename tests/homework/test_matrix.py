"""Every mistake of every bank has a name of its own: exercise x mistake x input.

Each mistake and each pair is handed to the recogniser as if a student had made it. It must come out with its
own ids; where the inputs can't tell two apart, both are named; where one mistake makes another invisible, the
one that shows is named. `python -m scripts.homework --table` prints the counts.
"""
import json, re
from importlib import import_module
from importlib.util import find_spec

import pytest

from course_lm.homework import LESSONS, exercise_of, names_of
from course_lm.homework.exercises import answer, judge, version
from course_lm.homework.recognition import Known, matrix, recognised
from course_lm.homework.report import message_of
from scripts.homework import exercises
from scripts.lessons import nbs
from tests.test_pages import anchors

NAMES = exercises()
MISTAKES = [(name, m.id) for name in NAMES for m in exercise_of(name).mistakes]


@pytest.mark.parametrize("name", NAMES)
def test_each_mistake_and_each_pair_is_named(name):
    found = matrix(exercise_of(name))
    assert {m.id for m in exercise_of(name).mistakes} == {ids[0] for ids in found if len(ids) == 1}
    alone = {ids[0]: what for ids, what in found.items() if len(ids) == 1 and what not in ("named", "either")}
    pairs = {ids: what for ids, what in found.items()
             if len(ids) == 2 and what not in ("named", "either", "hidden")}
    assert (alone, pairs) == ({}, {})


@pytest.mark.parametrize("name", NAMES)
def test_the_reference_passes(name):
    exercise = exercise_of(name)
    for input in exercise.inputs:
        got = answer(exercise, version(exercise), input)
        assert judge(exercise, input, got, got) == ""


@pytest.mark.parametrize("name", NAMES)
def test_inputs_are_plain_and_within_the_contract(name):
    exercise = exercise_of(name)
    assert 2 <= len(exercise.inputs) <= 16
    for input in exercise.inputs:
        assert json.loads(json.dumps(input)) == input
        assert exercise.valid is None or exercise.valid(input)


@pytest.mark.parametrize("name, id", MISTAKES)
def test_a_mistake_can_be_reported(name, id):
    exercise = exercise_of(name)
    mistake, known = exercise[id], Known(exercise)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", id) and len(mistake.hints) == 3 and all(mistake.hints)
    assert mistake.title and mistake.title[0] == mistake.title[0].strip() and not mistake.title.endswith(".")
    assert mistake.source == "" or mistake.source.startswith("https://")
    file, _, place = mistake.anchor.partition("#")
    assert place in anchors(nbs / file)
    if not known.version((id,)): return
    outs = [known.outcome((id,), i) for i in range(len(exercise.inputs))]
    for i in recognised(known, outs).wrong:
        if outs[i].kind != "value": continue
        text = message_of(mistake, exercise.inputs[i], outs[i].value, known.want(i))
        assert len(text) > 20 and "{" not in re.sub(r"\{('|\d|\})", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_an_exercise_has_its_place_in_the_lesson(name):
    file, _, place = exercise_of(name).anchor.partition("#")
    assert place in anchors(nbs / file)


@pytest.mark.parametrize("lesson", LESSONS)
def test_the_table_of_names_agrees_with_the_banks(lesson):
    module = f"course_lm.homework.bank_{lesson}0"
    if find_spec(module) is None: pytest.skip(f"{module} is not there yet")
    there = {e.name for e in import_module(module).EXERCISES}
    assert there == set(names_of(lesson))


def test_ids_are_unique_within_an_exercise():
    assert len(set(MISTAKES)) == len(MISTAKES)


def test_there_are_a_hundred_mistakes():
    assert len(MISTAKES) >= 100
