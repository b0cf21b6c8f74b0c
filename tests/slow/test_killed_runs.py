"Training runs that are killed at random moments, and go on as if nothing had happened."
import subprocess, sys
from pathlib import Path

import pytest

root = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_killed_for_real():
    command = [sys.executable, "-m", "tests.slow.kill_and_resume", "--kills", "4"]
    out = subprocess.run(command, capture_output=True, text=True, cwd=root)
    assert out.returncode == 0, out.stdout + out.stderr
    assert "4 kills" in out.stdout and "the same losses, evaluations and weights" in out.stdout
