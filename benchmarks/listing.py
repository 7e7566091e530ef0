"""CPU time of the listing commands, each in a process of its own: median of several, user + system.

They answer while somebody waits, so they import neither torch nor an SDK. Goal: under 0.5 s.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys

COMMANDS = (["plugins"], ["backends"], ["perturbations"], ["jobs", "list"], ["budget", "show"])


def cpu_seconds(arguments: list[str]) -> float:
    """User and system time of one ``qsgd`` command."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "qsgd_core", *arguments, "--json"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Print seconds by command, or one JSON object with ``--json``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    report = {
        " ".join(command): round(
            statistics.median(cpu_seconds(command) for _ in range(args.runs)), 3
        )
        for command in COMMANDS
    }
    if args.json:
        print(json.dumps(report))
        return
    for command, seconds in report.items():
        print(f"qsgd {command:14} {seconds:.3f} s CPU")


if __name__ == "__main__":
    main()
