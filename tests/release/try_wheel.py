"""Build the wheel, install it into an empty environment, and use the shipped models there with sockets
blocked.

    python -m tests.release.try_wheel           # a new environment, all from the registry: minutes, 7 GB
    python -m tests.release.try_wheel --here    # the libraries of this environment; course_lm from the wheel
"""
import argparse, os, subprocess, sys, tempfile, venv, zipfile
from pathlib import Path

from scripts.lessons import root

probe = '''
import socket, sys
tried = []
def blocked(*args, **kw):
    tried.append(args)
    raise OSError("a socket was opened")
socket.create_connection = socket.getaddrinfo = blocked
socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = blocked
import course_lm
from pathlib import Path
assert Path(course_lm.__file__).is_relative_to(Path(sys.argv[1])), course_lm.__file__
from course_lm.models import load_lm
from course_lm.predictions import fill_mask, generate_text
from course_lm.baselines import LABELS
from course_lm.classification import predict_proba
model, tokenizer = load_lm("tiny")
print("writes:", repr(generate_text(model, tokenizer, "The film", max_new_tokens=12, temperature=0)))
model, tokenizer = load_lm("tiny", head="masked")
print("fills:", fill_mask(model, tokenizer, f"I {tokenizer.mask_token} this film.", top_k=3).token.tolist())
model, tokenizer = load_lm("tiny-bert", "sequence-classification", LABELS)
probs = predict_proba(model, tokenizer, ["A fine film.", "A dull film."])
print("classifies, untrained:", probs.round(2).tolist())
assert not tried, tried # nor tried and given up in silence
'''


def build(folder: Path) -> Path:
    "The wheel, made from a copy of the tree, so that no build folder is left in it."
    import shutil
    copy = folder / "source"
    shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".git", ".venv", "_run", "nbs", "tests",
                                                              "benchmarks", "runs", "__pycache__",
                                                              "*.egg-info", "build", "dist"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-deps",
               "--no-build-isolation", "--wheel-dir", str(folder), str(copy)]
    subprocess.run(command, check=True)
    return next(folder.glob("*.whl"))


def use(python: str, where: Path, **env: str) -> str:
    """What the probe prints in that Python; course_lm must lie below `where`, the current folder is an empty
    one, and nothing says that the hub is off."""
    with tempfile.TemporaryDirectory() as empty:
        done = subprocess.run([python, "-c", probe, str(where)], cwd=empty, capture_output=True, text=True,
                              env={**{k: v for k, v in os.environ.items()
                                      if k not in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")},
                                      "PYTHONPATH": "", **env})
    if done.returncode: raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def main(here: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="course_lm-") as tmp:
        folder = Path(tmp).resolve()
        wheel = build(folder)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB")
        if here:
            zipfile.ZipFile(wheel).extractall(folder / "site")
            print(use(sys.executable, folder / "site", PYTHONPATH=str(folder / "site")), end="")
            return
        venv.create(folder / "env", with_pip=True)
        python = str(folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python")
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        "--constraint", str(root / "constraints.txt"), str(wheel)], check=True, cwd=tmp)
        print(use(python, folder / "env"), end="")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--here", action="store_true", help="do not make an environment")
    main(parser.parse_args().here)
