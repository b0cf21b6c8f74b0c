"""Set up .venv: `python -m scripts.set_up`, or `python scripts/set_up.py`; `make` calls it.

    python -m scripts.set_up             # the library, JupyterLab, and what tests need
    python -m scripts.set_up site        # add what `make site` needs: any list of settings.ini
    CPU=1 python -m scripts.set_up       # PyTorch without its GPU libraries: about 2 GB, not 7, on Linux
    NEWEST=1 python -m scripts.set_up    # the newest versions within settings.ini's bounds: no constraints

uv installs where it is there, pip elsewhere, the same set: constraints.txt. Python's own library is enough.
"""
import os, runpy, shutil, subprocess, sys, tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent


def refusal(version=sys.version_info) -> str:
    "Why the course cannot have this Python, in a sentence; nothing where it can."
    return runpy.run_path(str(root / "setup.py"))["refusal"](version)


def interpreter(env: Path) -> Path: return env / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def make(env: Path) -> Path:
    "The environment's Python; the environment is made where there is none."
    python = interpreter(env)
    if not python.exists(): subprocess.run([sys.executable, "-m", "venv", str(env)], check=True)
    return python


def find_uv(python: Path) -> str:
    "uv of the path or of the environment, or nothing."
    return shutil.which("uv") or shutil.which("uv", path=str(python.parent)) or ""


def wanted(name: str) -> bool:
    "Does the environment ask for it, as CPU=1 does?"
    return os.environ.get(name, "0") not in ("", "0")


def pins() -> list[str]: return [] if wanted("NEWEST") else ["--constraint", str(root / "constraints.txt")]


def has_cpu_wheels(uv: str, python: Path, said: list[str]) -> bool:
    "Can uv get PyTorch for CPUs? It knows where they are; nothing is installed."
    with tempfile.TemporaryDirectory() as tmp:
        asked = Path(tmp, "asked.txt")
        asked.write_text("torch\n", encoding="utf-8")
        command = [uv, "pip", "compile", "--quiet", "--torch-backend", "cpu", "--python", str(python),
                   *pins(), str(asked)]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0: return True
    said.append("PyTorch's wheels for CPUs cannot be reached: the plain ones come, with their GPU libraries")
    return False


def commands(python: Path, extra: str, cpu: bool, said: list[str]) -> list[list[str]]:
    "Ways to install, the first to be tried first; what a user should know is added to `said`."
    pip = [str(python), "-m", "pip", "install", "--disable-pip-version-check"]
    quiet = [] if extra == "dev" else ["--quiet"]
    what = [*quiet, *pins(), "--editable", f"{root}[{extra}]"]
    uv = find_uv(python)
    if cpu and not uv:
        subprocess.run([*pip, "--quiet", "uv"])
        uv = find_uv(python)
    if not uv: return [[*pip, *what]]
    by_uv = [uv, "pip", "install", "--python", str(python), *what]
    if cpu and has_cpu_wheels(uv, python, said): by_uv += ["--torch-backend", "cpu"]
    return [by_uv, [*pip, *what]]


def install(env: Path, extra: str = "dev", cpu: bool = False) -> int:
    "Install; the exit status of the last way that was tried."
    said, code = [], 1
    for command in commands(make(env), extra, cpu, said):
        while said: print(said.pop())
        code = subprocess.run(command, cwd=root).returncode
        if code == 0: break
    return code


def main(words: list[str]) -> int:
    env, extra = root / ".venv", words[0] if words else "dev"
    why = refusal()
    if why: sys.exit(why)
    known = runpy.run_path(str(root / "setup.py"))["EXTRAS"]
    if extra not in known: sys.exit(f"no list {extra!r} in settings.ini; there are {', '.join(known)}")
    cpu = wanted("CPU")
    size = "2 GB" if cpu else "7 GB on Linux, 2 GB with CPU=1"
    if extra == "dev": print(f"Setting up .venv (about {size}; some minutes, once)", flush=True)
    code = install(env, extra, cpu)
    if code or extra != "dev": return code
    subprocess.run([str(interpreter(env)), "-m", "scripts.hooks"], cwd=root)
    (env / ".installed").touch()
    return 0


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
