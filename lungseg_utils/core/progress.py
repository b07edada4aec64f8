"""Progress bars that leave nothing behind in a notebook.

A widget lives as long as its kernel: in a notebook that is opened again, a bar would read "Error displaying
widget: model not found". So there the bar goes when it has ended.
"""

from typing import Any

from tqdm.auto import tqdm as _tqdm

tqdm: Any = _tqdm
if any(kind.__module__ == "tqdm.notebook" for kind in _tqdm.__mro__):  # in a notebook: it takes ipywidgets
    from IPython.display import display
    from tqdm.notebook import tqdm_notebook

    class _Vanishing(tqdm_notebook):  # type: ignore[type-arg]
        """tqdm's bar for notebooks; its output is emptied at its end."""

        def __init__(self, *arguments: Any, **options: Any):
            super().__init__(*arguments, **{**options, "display": False})
            self._shown = None
            if not self.disable:
                self._shown = display(self.container, display_id=True)  # type: ignore[no-untyped-call]

        def close(self) -> None:
            """End the bar and take it off the screen."""
            super().close()
            if self._shown is not None:
                self._shown.update({}, raw=True)
                self._shown = None

    tqdm = _Vanishing
