"""Every figure that a test draws is described, and its text can be read at the size at which it is shown."""

import pytest
from matplotlib import pyplot as plt
from matplotlib.text import Text

from lungseg_utils.plots.parts import DPI, STYLE, alt_text

BROWSER = 96  # dots that are shown as an inch
READABLE = 9  # points


@pytest.fixture(autouse=True)
def described_and_readable():
    """In the notebooks' style; figures that a test saved and closed are not looked at."""
    plt.close("all")  # another room's
    with plt.rc_context(STYLE):
        yield
        figures = [plt.figure(number) for number in plt.get_fignums()]
        plt.close("all")
    for figure in figures:
        assert len(alt_text(figure)) > 30, alt_text(figure)
        sizes = {
            text.get_fontsize() * DPI / BROWSER for text in figure.findobj(Text) if text.get_text().strip()
        }
        assert min(sizes, default=READABLE) >= READABLE, sizes
