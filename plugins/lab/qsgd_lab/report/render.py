"""What ``qsgd report`` calls: a folder and a form in, text out."""

from __future__ import annotations

import io
import json
from pathlib import Path

from qsgd_core.cli.commands.budget import open_ledger
from qsgd_core.cli.commands.report import PAGES
from qsgd_core.cli.show.output import print_table
from qsgd_core.errors import ConfigError
from qsgd_core.files import plain
from qsgd_core.training.folder.folder import RunFolder
from qsgd_lab.compare import text
from qsgd_lab.compare.plan import read_plan
from qsgd_lab.compare.table import Comparison, read_comparison
from qsgd_lab.report import backstage, comparison, run
from qsgd_lab.report.document import Document
from qsgd_lab.report.page import html
from qsgd_lab.report.twin import markdown


def of_run(folder: Path, form: str) -> str:
    """A run as ``html`` or ``markdown``."""
    return _page(run.document(RunFolder(folder), open_ledger), form)


def of_comparison(folder: Path, form: str) -> str:
    """A comparison as ``text``, ``json``, ``html`` or ``markdown``, as far as it has come."""
    found = read_comparison(folder, read_plan(folder))
    if form == "text":
        return _text(found)
    if form == "json":
        page = folder / PAGES["html"]
        said = found.to_dict(page) | ({} if page.is_file() else {"report": None})
        return json.dumps(plain(said), ensure_ascii=False, allow_nan=False)
    return comparison_page(found, form)


def comparison_page(found: Comparison, form: str) -> str:
    """A comparison that has been read, as ``html`` or ``markdown``."""
    return _page(comparison.document(found, backstage.look(found, open_ledger)), form)


def _text(found: Comparison) -> str:
    """As ``qsgd compare`` prints it."""
    printed = io.StringIO()
    print_table(*text.short(found), file=printed)
    return printed.getvalue() + "".join(f"* {sentence}\n" for sentence in text.sentences(found))


def _page(document: Document, form: str) -> str:
    if form == "html":
        return html(document)
    if form == "markdown":
        return markdown(document)
    raise ConfigError(f"There is no report in the form {form!r}. Ask for html or markdown.")
