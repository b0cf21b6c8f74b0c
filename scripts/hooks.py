"""Let git merge notebooks cell by cell: `python -m scripts.hooks`. Set-up runs it; twice does no harm.

It does what nbdev_install_hooks does for git, and no more: that one also writes into the Jupyter settings of
the whole account, leaves a file in the tree, and fails in a second working tree. Outside a checkout it does
nothing.
.gitattributes names the driver; without it (after `make clean`) git merges notebooks as text.
"""
import shutil, subprocess, sys
from pathlib import Path

root = Path(__file__).resolve().parent.parent
driver = ("if [ -x .venv/bin/nbdev_merge ]; then .venv/bin/nbdev_merge %O %A %B %P; "
          "else git merge-file %A %O %B; fi")
trust = "#!/bin/sh\n# Notebooks that were merged may show their widgets and pictures again.\n"
trust += "if [ -x .venv/bin/nbdev_trust ]; then .venv/bin/nbdev_trust > /dev/null 2>&1; fi\nexit 0\n"


def git(*args: str, tree: Path = root) -> str:
    "What git says, or nothing where it fails."
    done = subprocess.run(["git", *args], cwd=tree, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else ""


def install(tree: Path = root) -> str:
    "Set the driver and the hook for this checkout; says what was done."
    top = git("rev-parse", "--show-toplevel", tree=tree) if shutil.which("git") else ""
    if not top: return "no git checkout, no hooks"
    if Path(top).resolve() != tree.resolve():
        return "inside somebody else's git checkout, no hooks"
    git("config", "--local", "merge.nbdev-merge.name", "notebooks, cell by cell", tree=tree)
    git("config", "--local", "merge.nbdev-merge.driver", driver, tree=tree)
    hook = Path(tree, git("rev-parse", "--git-path", "hooks", tree=tree), "post-merge")
    if hook.exists() and hook.read_text() != trust: return "merge driver set; your own post-merge hook stays"
    hook.parent.mkdir(parents=True, exist_ok=True)
    hook.write_text(trust)
    hook.chmod(0o755)
    return "git merges notebooks cell by cell"


if __name__ == "__main__":
    try: print(install())
    except OSError as e: print(f"no hooks: {e}", file=sys.stderr)
