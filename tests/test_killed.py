"""Writers that are killed or refused by the disk at every step; what a reader and the next writer find."""
import json, subprocess, sys, warnings
from pathlib import Path

import pytest

from course_lm.checkpoints import Checkpoints
from course_lm.support.files import clear, damage, is_there, is_whole, whole_file, whole_folder

root = Path(__file__).resolve().parents[1]
posix = pytest.mark.skipif(sys.platform == "win32", reason="kill -9 and limits are POSIX")


@posix
def test_at_every_step():
    command = [sys.executable, "-m", "tests.kill_points"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert out.returncode == 0, out.stderr
    found = json.loads(out.stdout)
    print({name: campaign["points"] for name, campaign in found.items()}) # pytest -s
    assert len(found) == 13 and not [(name, c["wrong"]) for name, c in found.items() if c["wrong"]]
    assert sum(c["points"] for c in found.values()) > 700
    assert all(c["points"] > (25 if name.startswith("folder") else 8) for name, c in found.items())


@posix
def test_two_processes_at_once(tmp_path):
    code = ("import sys; from course_lm.support.files import whole_folder, whole_file\n"
            "for i in range(15):\n"
            "    with whole_folder(sys.argv[1] + '/place') as new:\n"
            "        for name in 'ab': (new/name).write_text(f'{sys.argv[2]} {i}')\n"
            "    whole_file(sys.argv[1] + '/file', sys.argv[2]*1000)\n")
    both = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path), k], cwd=root, stderr=subprocess.PIPE)
            for k in "xy"]
    assert [p.communicate()[1] for p in both] == [b"", b""]
    assert is_whole(tmp_path / "place") and len({(tmp_path / "place" / n).read_text() for n in "ab"}) == 1
    assert (tmp_path / "file").read_text() in ("x"*1000, "y"*1000)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "place"]


def test_a_file_is_replaced_and_nothing_else(tmp_path):
    assert whole_file(tmp_path / "deep" / "f.json", "1").read_text() == "1"
    assert whole_file(tmp_path / "deep" / "f.json", "ü").read_text(encoding="utf-8") == "ü"
    (tmp_path / "link").symlink_to(tmp_path / "deep" / "f.json")
    for name in ("deep", "link"):
        with pytest.raises(ValueError, match="is no file"): whole_file(tmp_path / name, "2")
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["f.json"]


@posix
def test_what_is_at_work_is_not_cleared(tmp_path):
    with whole_folder(tmp_path / "place") as new:
        clear(tmp_path)
        assert new.exists()
        (new / "a").write_text("1")
    aside = tmp_path / ".part-place-01234567-old"
    (tmp_path / "place").rename(aside)
    assert is_there(tmp_path / "place") and not aside.exists()
    assert (tmp_path / "place" / "a").read_text() == "1"
    assert not is_there(tmp_path / "other")


def test_damage_is_named(tmp_path):
    with whole_folder(tmp_path / "step-00000002") as new: (new / "a").write_text("12345")
    assert damage(tmp_path / "step-00000002") == ""
    (tmp_path / "step-00000002" / "a").write_text("12")
    assert damage(tmp_path / "step-00000002") == "a has 2 of 5 bytes"
    (tmp_path / "step-00000002" / "a").unlink()
    assert damage(tmp_path / "step-00000002") == "a is missing"
    assert "it has no .course_lm.json" in damage(tmp_path)


def test_a_refused_call_leaves_no_folder_and_a_broken_checkpoint_is_named(tmp_path):
    from course_lm.finetuning import train_loop
    from tests.toys import a_model, loaders
    model, (train, _), place = a_model(), loaders(), tmp_path / "run"

    def run(**changes):
        settings = dict(n_steps=4, progress=False, checkpoints=Checkpoints(place, every=2))
        return train_loop(model, train, **settings | changes)
    with pytest.raises(ValueError): run(n_bytes=-1, valid=[{}])
    with pytest.raises(TypeError): run(lr="5")
    with pytest.raises(ValueError): run(keep_best=True)
    assert not place.exists()
    run()
    with whole_folder(place / "step-00000009") as new: (new / "state.json").write_text("{}")
    (place / "step-00000009" / "state.json").write_text("{")
    with pytest.warns(UserWarning, match="step-00000009' is passed over, state.json has 1 of 2 bytes: it "
                                         "goes on from step-00000004"):
        assert len(run(n_steps=5).steps) == 5
    last = place / "step-00000005"
    (last / "model.safetensors").write_bytes(b"")
    with pytest.warns(UserWarning, match="model.safetensors has 0 of .* bytes: the run begins anew"): run()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        run()


# ---- the same writer under a model and under a run

def a_saved(model, tok):
    from course_lm.models import save_lm
    return lambda path, what: lambda steps: save_lm(model[what], tok, path)


def which_model(path, models):
    "The name of the model that a folder holds; 'neither' where it is no model, or another one."
    import torch
    from course_lm.models import load_lm
    if not is_there(path): return None
    found = load_lm(path)[0].state_dict()
    for name, model in models.items():
        if all(torch.equal(v, found[k]) for k, v in model.state_dict().items()): return name
    return "neither"


@posix
@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True], ids=["killed", "disk full"])
def test_a_saved_model_is_the_old_one_or_the_new_one(full, one_thread):
    from tests.kill_points import in_a_child, litter, mine, place
    from tests.toys import a_model, toks
    models = {name: a_model(seed=k, n_embd=16).eval() for k, name in enumerate(("old", "new", "next"))}
    write = a_saved(models, toks[False])
    with place(write, "old") as (root, path): ended, steps = in_a_child(root, write(path, "new"))
    assert ended == 0 and steps > 30
    seen = set()
    for at in range(1, steps, max(1, steps//8)):
        with place(write, "old") as (root, path):
            ended, _ = in_a_child(root, write(path, "new"), at, full)
            found = which_model(path, models)
            assert found in ("old", "new") and len(mine(root)) == 3, (at, ended, found)
            if full: assert found == ("old" if ended else "new") and not litter(root)
            else: assert ended is None
            write(path, "next")(None)
            assert which_model(path, models) == "next" and not litter(root) and len(mine(root)) == 3
            seen.add(found)
    assert "old" in seen


@posix
@pytest.mark.slow
def test_a_run_goes_on_from_a_whole_checkpoint(tmp_path, one_thread):
    import torch
    from course_lm.finetuning import train_loop
    from tests.kill_points import in_a_child
    from tests.toys import a_model, loaders

    def run(place, n):
        model = a_model(n_embd=16)
        train_loop(model, loaders()[0], n_steps=n, checkpoints=Checkpoints(place, every=1), progress=False)
        return torch.cat([p.detach().flatten() for p in model.parameters()])
    want = run(tmp_path / "whole", 3)
    _, steps = in_a_child(tmp_path, lambda steps: run(tmp_path / "counted", 3))
    for k, at in enumerate(range(5, steps, max(1, steps//5))):
        place = tmp_path / f"killed {k}"
        ended, _ = in_a_child(tmp_path, lambda steps, place=place: run(place, 3), at)
        assert ended is None
        with warnings.catch_warnings():
            warnings.simplefilter("error") # nothing half-written is found, or passed over
            assert torch.equal(run(place, 3), want)
        assert [p.name for p in place.iterdir()] == ["step-00000003"]
