"""What the documentation shows is what the tested files hold."""

from __future__ import annotations

import importlib.util
import json
import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def python_blocks(name: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / name).read_text(), flags=re.DOTALL)


def test_every_python_block_of_the_readme_stands_in_the_tested_example():
    example = (ROOT / "examples/quickstart.py").read_text()
    blocks = python_blocks("README.md")
    assert blocks
    for block in blocks:
        for line in block.strip().splitlines():
            assert line in example


def test_every_python_line_of_the_page_on_training_code_stands_in_a_tested_example():
    examples = "\n".join(path.read_text() for path in (ROOT / "examples").glob("*.py"))
    blocks = python_blocks("docs/training-libraries.md")
    assert blocks
    for block in blocks:
        for line in block.strip().splitlines():
            assert line.strip() in examples


def test_the_tables_of_the_result_are_what_the_comparisons_printed():
    spec = importlib.util.spec_from_file_location(
        "does_it_help", ROOT / "benchmarks/does_it_help.py"
    )
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    page = (ROOT / "docs/does-it-help.md").read_text()
    assert made.with_tables(page) == page
    assert {path.stem for path in made.RESULTS.glob("*.json")} == set(made.COMPARISONS)
    for name, command in made.COMPARISONS.items():
        assert f"<!-- table: {name} -->" in page
        result = json.loads((made.RESULTS / f"{name}.json").read_text())
        assert result["command"] == f"qsgd compare {command} --json"


def test_the_quickstart_runs_and_tells_the_effect_size(capsys: pytest.CaptureFixture[str]):
    runpy.run_path(str(ROOT / "examples/quickstart.py"))
    said = capsys.readouterr().out
    assert re.search(r"the term was 0\.\d\d% of the AdamW step", said)
    assert "s came from 'exact'" in said


def test_every_relative_link_of_the_documentation_leads_somewhere():
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
