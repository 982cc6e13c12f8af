"""The notebook among the examples is executed, and shows what it is there for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

nbformat: Any = pytest.importorskip("nbformat")
nbclient: Any = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("openai")

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # of the kernel's own client
def test_the_notebook_shows_a_live_line_and_a_report() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in notebook.cells)  # it is kept without what one run of it made

    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute()

    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    pages = [str(output.data["text/html"]) for output in outputs if "text/html" in output.get("data", {})]
    live, report = pages[0], pages[-1]
    assert re.search(r"\$0\.19\d* (of|/) \$0\.20", live), live
    assert "By model" in report and "gpt-4o" in report and "ratings" in report
    said = "".join(output.text for output in outputs if output.output_type == "stream")
    assert "22 are rated. The budget for this is used up." in said
