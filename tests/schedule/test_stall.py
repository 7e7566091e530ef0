"""The training thread waits for no disk, network or lock. benchmarks/stall.py times it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE_S

SCRIPTS = Path(__file__).parents[1] / "scripts"


@pytest.mark.parametrize("policy", ["tracked", pytest.param("hold", marks=pytest.mark.slow)])
def test_asking_listening_and_applying_touch_no_file_socket_database_or_lock(
    filebox, tmp_path, policy
):
    """Once the first refresh is asked for; before, the courier is started and code is imported."""
    watched = subprocess.run(
        [sys.executable, SCRIPTS / "watched_training.py", tmp_path / "vendor", policy],
        env=filebox,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_S,
    )
    assert watched.returncode == 0, watched.stderr
    found = json.loads(watched.stdout)
    assert found["happened"]["answered"] >= 3
    assert found["seen"] == {}


def test_the_watch_sees_what_it_is_there_for(tmp_path):
    """A file, a socket, a database, a lock, a process and a sleep."""
    script = (
        "import watched_training as w, socket, sqlite3, threading, time, subprocess, sys\n"
        "w.watching = True\n"
        "open('x', 'w').close(); socket.socket().close(); sqlite3.connect(':memory:').close()\n"
        "threading.Lock().acquire(); time.sleep(0); subprocess.run([sys.executable, '-V'])\n"
        "w.watching = False\n"
        "print('|'.join(w.seen))"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{SCRIPTS}:{SCRIPTS.parents[1]}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    kinds = set(found.stdout.strip().splitlines()[-1].split("|"))
    assert {
        "open",
        "socket.__new__",
        "sqlite3.connect",
        "lock of __main__",
        "subprocess.Popen",
    } <= kinds
