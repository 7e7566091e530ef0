"""The comparisons behind ``docs/does-it-help.md``: run them, keep their results, write its tables.

    python benchmarks/does_it_help.py                       # everything, hours on one core
    python benchmarks/does_it_help.py digits-paper --json   # one of them
    python benchmarks/does_it_help.py --tables              # the tables anew, nothing is run

Each is one ``qsgd compare`` command, printed before it is run. What it prints with ``--json`` goes
to ``docs/results/NAME.json``, and from there into the page. A comparison that was interrupted goes
on; runs that have finished are not repeated.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qsgd_lab.compare.text import bare_p, between, rounded, with_error
from qsgd_lab.stats.pairs import Metric

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results"
PAGE = ROOT / "docs" / "does-it-help.md"

EXTENSIONS = ",".join(
    [
        "adamw",
        "sine@0.5:normalized",
        "uniform@0.5:normalized",
        "sine@0.5:all",
        "uniform@0.5:all",
        "sine@0.5:all:normalized",
        "uniform@0.5:all:normalized",
        "circuit@0.5:normalized:depth=1",
        "circuit@0.5:normalized:depth=4",
        "sine@0.5:normalized:shots=64:backend=sampled",
        "sine@0.5:normalized:shots=1024:every=10:backend=fake_brisbane",
    ]
)
COMPARISONS: Mapping[str, str] = {
    "sequences-paper": "sequences --preset paper --seeds 10 --threads 1",
    "digits-paper": "digits --preset paper --seeds 10 --threads 1",
    "sequences-extensions": f"sequences --arms {EXTENSIONS} --seeds 10 --threads 1",
    "digits-extensions": f"digits --arms {EXTENSIONS} --seeds 10 --threads 1",
    "gsm8k": "gsm8k --arms adamw,sine@0.1,sine@0.5,uniform@0.5 --max-steps 40 --seeds 2 "
    "--data ../shared/data/gsm8k",
}
COLUMNS = (
    "arm", "{metric}", "paired difference", "95 % interval", "p (Holm)", "epochs to target",
    "term / step",
)  # fmt: skip


def run(name: str) -> None:
    """Run one comparison and keep its result.

    Raises:
        SystemExit: it failed; what it said is on stderr.
    """
    command = f"qsgd compare {COMPARISONS[name]} --json"
    print(f"$ {command}", file=sys.stderr)
    words = [str(Path(sys.executable).parent / "qsgd"), *shlex.split(command)[1:]]
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    if done.returncode:
        raise SystemExit(f"{name} ended with {done.returncode}.")
    result = json.loads(done.stdout) | {"command": command}
    del result["report"]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def table(result: Mapping[str, Any]) -> str:
    """One comparison as a Markdown table, with the command that makes it again."""
    metric: Metric = next(iter(result["arms"].values()))["paired_difference"]["metric"]
    head = [c.format(metric="accuracy, %" if metric == "accuracy" else "loss") for c in COLUMNS]
    lines = [_line(head), _line(["---"] * len(head))]
    lines += [_line(_row(name, arm, metric)) for name, arm in result["arms"].items()]
    smallest = result["minimum_detectable_effect"]
    unit = "points" if metric == "accuracy" else ""
    found = "–" if smallest is None else f"{rounded(smallest, metric)} {unit}".strip()
    return "\n".join(
        [
            *lines,
            "",
            f"{result['seeds']} seeds. A difference of {found} or more would have been found for "
            "any arm in 80 % of such comparisons.",
            "",
            "```sh",
            result["command"].removesuffix(" --json"),
            "```",
        ]
    )


def with_tables(page: str) -> str:
    """The page with every ``<!-- table: NAME -->`` … ``<!-- end -->`` filled from its result.

    One that has not been run yet keeps what it has.
    """

    def fill(found: re.Match[str]) -> str:
        path = RESULTS / f"{found[1]}.json"
        if not path.exists():
            return found[0]
        result = json.loads(path.read_text(encoding="utf-8"))
        return f"<!-- table: {found[1]} -->\n{table(result)}\n<!-- end -->"

    return re.sub(r"<!-- table: ([a-z0-9-]+) -->.*?<!-- end -->", fill, page, flags=re.DOTALL)


def _row(name: str, arm: Mapping[str, Any], metric: Metric) -> list[str]:
    value, paired, epochs = arm[metric], arm["paired_difference"], arm["epochs_to_target"]
    difference = interval = p = "–"
    if paired["mean"] is not None:
        difference = rounded(paired["mean"], metric, signed=True)
        p, interval = bare_p(paired["p_holm"]), between(paired["ci95"], metric)
    arrived = "–"
    if epochs["target"] is not None:
        median = "not reached" if epochs["median"] is None else f"{epochs['median']:g}"
        arrived = f"{median} ({epochs['reached']} of {epochs['of']})"
    size = arm["effect_size"]["mean"]
    shown = "–" if not size else f"{100 * size:.2g} %"
    mean = with_error(value["mean"], value["se"], metric)
    return [f"`{name}`", mean, difference, interval, p, arrived, shown]


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main() -> None:
    """Run what is named, then write the page's tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(COMPARISONS)}")
    parser.add_argument("--tables", action="store_true", help="run nothing")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")
    arguments = parser.parse_args()
    names = arguments.names or list(COMPARISONS)
    if unknown := sorted(set(names) - set(COMPARISONS)):
        parser.error(f"no comparison {', '.join(unknown)}; there is {', '.join(COMPARISONS)}.")
    if not arguments.tables:
        for name in names:
            run(name)
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    if arguments.json:
        results = {n: json.loads((RESULTS / f"{n}.json").read_text()) for n in names}
        print(json.dumps(results))


if __name__ == "__main__":
    main()
