"""Pictures of the Coronacases Initiative as a further source of training slices.

`python benchmarks/coronacases.py SOURCE OUT`.

SOURCE: images/ (8-bit grey, contrast equalised, no HU), labels/ (stored labels, lesions of unknown kind) and
index.csv (slice, patient). The grey is read as `lungseg predict` reads it, one estimate a patient. OUT:
arrays and table for importers.add_to_prepared, 512 px. --leave-out: patients whose rows get the split
left_out.
"""

from pathlib import Path

import click
import cv2
import numpy as np
import pandas as pd

from lungseg_utils.core.classes import LESION, LESIONS, SHORT_NAMES
from lungseg_utils.core.files import replace_folder, resolve_path, write_csv
from lungseg_utils.data.grey import fit_grey
from lungseg_utils.data.importers import SIZE

SOURCE = "coronacases"


def resized(path: Path, interpolation: int) -> np.ndarray:
    return cv2.resize(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE), (SIZE, SIZE), interpolation=interpolation)


@click.command(help=__doc__)
@click.argument("source")
@click.argument("out")
@click.option("--leave-out", type=int, multiple=True)
def main(source: str, out: str, leave_out: tuple[int, ...]) -> None:
    source = resolve_path(source)
    index = pd.read_csv(source / "index.csv")
    images, labels = np.empty((2, len(index), SIZE, SIZE), np.int16)
    for _, rows in index.groupby("patient"):
        grey = [resized(source / "images" / f"{name}.webp", cv2.INTER_LINEAR) for name in rows.slice]
        scale = fit_grey(grey)
        click.echo(
            f"patient {rows.patient.iloc[0]}: {len(rows)} slices, HU = {scale.slope:.2f} * grey "
            f"{scale.intercept:+.0f}"
        )
        for i, picture, name in zip(rows.index, grey, rows.slice):
            images[i], labels[i] = (
                scale.hu(picture),
                resized(source / "labels" / f"{name}.png", cv2.INTER_NEAREST),
            )
    split = np.where(index.patient.isin(leave_out), "left_out", "train")
    table = pd.DataFrame({"source": SOURCE, "index": index.index, "volume": index.patient, "split": split})
    for c, short in enumerate(SHORT_NAMES):
        table[short] = pd.array((labels == c).sum((1, 2)), "Int64")
        if c in LESIONS:
            table.loc[(labels == LESION).any((1, 2)), short] = pd.NA
    with replace_folder(resolve_path(out)) as folder:
        np.save(folder / f"images_{SOURCE}.npy", images)
        np.save(folder / f"labels_{SOURCE}.npy", labels.astype(np.uint8))
        write_csv(folder / "slices.csv", table)


if __name__ == "__main__":
    main()
