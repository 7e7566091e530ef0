"""A task script's code: every file of its own folder that it is made of, however it is loaded."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from qsgd_core.settings import load_settings
from qsgd_core.training import TrainConfig, load_task, resume, train
from qsgd_core.training.code import code_of, edited_since

FILES = {
    "task_of_parts.py": """
import importlib.util
from pathlib import Path
import torch
import part_model
from part_package.deep import width
from qsgd_core import Built, Task, TaskDefaults

spec = importlib.util.spec_from_file_location("anything", Path(__file__).parent / "part_data.py")
data = importlib.util.module_from_spec(spec)
spec.loader.exec_module(data)


class Parts(Task):
    name = "parts"
    metrics = ("loss",)
    defaults = TaskDefaults(epochs=1)

    def build(self, seed):
        import part_late
        importlib.import_module("part_by_" + "name")
        x = torch.randn(data.N, width)
        model = part_model.make(width)
        return Built(model, [x], lambda m: {"loss": float(m(x).mean())})

    def loss(self, model, batch):
        return (model(batch) ** 2).mean()


def make_task():
    return Parts()
""",
    "part_model.py": "from torch import nn\ndef make(n): return nn.Linear(n, 1)\n",
    "part_package/__init__.py": "",
    "part_package/deep.py": "from .shared import four as width\nfrom . import beside\n",
    "part_package/shared.py": "four = 4\n",
    "part_package/beside.py": "",
    "part_data.py": "N = 8\n",
    "part_late.py": "",
    "part_by_name.py": "",
    "not_imported.py": "",
    ".venv/lib/site-packages/part_of_nobody.py": "",
}
AT_ONCE = set(FILES) - {"part_by_name.py", "not_imported.py"}
AT_ONCE -= {".venv/lib/site-packages/part_of_nobody.py"}


@pytest.fixture
def source(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr("qsgd_core.training.run.draw", lambda *_: None)
    for name, text in FILES.items():
        path = tmp_path / "src" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    before = set(sys.modules)
    yield f"{tmp_path / 'src' / 'task_of_parts.py'}:make_task"
    for name in set(sys.modules) - before:
        if "part" in name:
            del sys.modules[name]


def test_code_is_what_was_executed_and_what_the_text_imports(source):
    load_task(source, load_settings())
    assert set(code_of(source)) == AT_ONCE
    assert code_of("digits") == code_of(None) == {}


def test_a_resumed_run_says_which_file_changed(source, tmp_path, caplog):
    task, _ = load_task(source, load_settings())
    config = TrainConfig(perturbation="circuit")
    train(task, config, source=source, run_dir=tmp_path / "run")
    resume(str(tmp_path / "run"), task, asked={"epochs": 2})
    assert "changed since" not in caplog.text
    (Path(source).parent / "part_by_name.py").write_text("N = 9\n")
    resume(str(tmp_path / "run"), task, asked={"epochs": 3})
    assert "not what the run was started with: part_by_name.py changed since" in caplog.text


def test_a_file_that_is_gone_counts_as_edited(source):
    load_task(source, load_settings())
    then = code_of(source)
    assert edited_since(then, source) == []
    (Path(source).parent / "part_data.py").unlink()
    assert edited_since(then, source) == ["part_data.py"]
