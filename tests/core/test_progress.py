"""Progress bars: nothing stays of them in a notebook, a terminal gets tqdm's own."""

import nbformat
import pytest
from nbclient import NotebookClient
from tqdm.std import tqdm as plain

from lungseg_utils.core.progress import tqdm
from lungseg_utils.series.run import own_kernel


def test_outside_a_notebook_it_is_tqdms_own(capsys):
    assert issubclass(tqdm, plain)
    assert list(tqdm(range(3), desc="slices")) == [0, 1, 2]
    assert "slices: 100%" in capsys.readouterr().err


@pytest.mark.slow
def test_in_a_notebook_no_widget_is_left():
    source = (
        "from lungseg_utils.core.progress import tqdm\n"
        "for _ in tqdm(range(3)):\n    pass\n"
        "with tqdm(total=2, disable=True) as bar:\n    bar.update()"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    with own_kernel():
        NotebookClient(notebook, kernel_name="python3").execute()
    assert [output.get("data") for output in notebook.cells[0].outputs] == [{}]
