"""The prepared slices as a torch Dataset, and its loaders.

It lives here, not in a notebook cell, so that workers can import it.
"""

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from lungseg_utils.core.classes import CLASSES, LESIONS, NOT_LESION, NUM_CLASSES
from lungseg_utils.core.device import Device, usable_cores
from lungseg_utils.core.files import InputError
from lungseg_utils.core.image import body_frame
from lungseg_utils.core.stopping import outlive_signals
from lungseg_utils.data.augmentation import augment, build_augmentation, paste_lesions
from lungseg_utils.data.preprocessing import load_prepared
from lungseg_utils.model import check_image_size

MOST_WORKERS = 16
SHARED_MEMORY = Path("/dev/shm")  # on Linux; Docker gives 64 MB
PASTING = 1  # beside seed, epoch and row: draws of their own
SAMPLINGS = ("every_slice", "sources", "lesions")


class SliceDataset(Dataset):
    """Normalised slices of one split with their labels.

    `dataset[i]` or `dataset[epoch, i]` gives (image, labels, row): image float32 (1, S, S) z-scores, labels
    uint8 (S, S) class index, row the line of slices.csv. S is image_size, or growth[epoch] as long as there
    is one. Augmentation depends on (seed, epoch, row) alone. resize: how slices shrink, see
    build_augmentation. frame: what of a slice is taken: `slice`, all of it, or `body`, see image.body_frame.
    paste: the share of slices into which the lesions of another are pasted, see paste_lesions: of any source
    whose labels name the kind, sources alike, augmented as that slice is in this epoch.

    Raises:
        InputError: If the split has no slices, or none has lesions to paste.
    """

    def __init__(
        self,
        prepared_dir: str | Path,
        split: str,
        image_size: int,
        augmentation: str = "none",
        seed: int = 0,
        resize: str = "nearest",
        growth: Sequence[int] = (),
        frame: str = "slice",
        paste: float = 0.0,
    ):
        prepared = load_prepared(prepared_dir)
        self.folder = prepared.dir
        self.preprocessing = prepared.preprocessing
        self.slices = prepared.slices[prepared.slices.split == split]
        self.image_size, self.augmentation, self.seed = image_size, augmentation, seed
        self.resize, self.growth, self.frame, self.paste = resize, tuple(growth), frame, paste
        if self.slices.empty:
            raise InputError(
                f"{self.folder}/slices.csv has no slice in split {split!r}; run 02_preprocessing again."
            )
        build_augmentation(
            augmentation, image_size, resize=resize
        )  # an unknown name is refused here, not in a worker
        shown = self.slices[[CLASSES[c].short for c in LESIONS]].fillna(0).sum(axis=1).to_numpy() > 0
        sources = self.slices.source.to_numpy()
        self.givers = [np.flatnonzero(shown & (sources == source)) for source in np.unique(sources[shown])]
        if paste and not self.givers:
            raise InputError(
                f"paste is {paste}, and no slice in split {split!r} of {self.folder} shows a lesion of known "
                "kind; set paste to 0."
            )

    def __len__(self) -> int:
        return len(self.slices)

    def __getitem__(self, key: int | tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        epoch, i = key if isinstance(key, tuple) else (0, key)
        row = int(self.slices.index[i])
        hu, labels = self._augmented(epoch, i)
        if self.paste:
            rng = np.random.default_rng([self.seed, epoch, row, PASTING])
            if rng.random() < self.paste:
                giver = rng.choice(self.givers[rng.integers(len(self.givers))])
                hu, labels = paste_lesions(hu, labels, *self._augmented(epoch, giver))
        image = torch.from_numpy(self.preprocessing.normalise(hu))[None]
        return image, torch.from_numpy(np.ascontiguousarray(labels)), row

    def _augmented(self, epoch: int, i: int) -> tuple[np.ndarray, np.ndarray]:
        """HU, float32 (S, S), and labels of slice i as this epoch has it, before anything is pasted."""
        row = int(self.slices.index[i])
        source, index = self.slices.source.iloc[i], self.slices["index"].iloc[i]
        # Opened for each slice (0.1 ms): a memory map kept in the dataset would be copied whole into every
        # spawned worker.
        hu = np.load(self.folder / f"images_{source}.npy", mmap_mode="r")[index].astype(np.float32)
        labels = np.array(np.load(self.folder / f"labels_{source}.npy", mmap_mode="r")[index])
        if labels.max() > NOT_LESION:
            raise InputError(
                f"{self.folder}/labels_{source}.npy holds {labels.max()} in slice {index}; expected the "
                "classes 0 to 3; run 02_preprocessing again."
            )
        size = self.growth[epoch] if epoch < len(self.growth) else self.image_size
        pipeline = _pipeline(self.augmentation, size, min(hu.shape), self.resize)
        if self.frame == "body":
            frame = body_frame(hu)
            hu, labels = hu[frame], labels[frame]
        return augment(pipeline, hu, labels, (self.seed, epoch, row))


def check_sampling(sampling: str, shares: str = "") -> None:
    """Raises InputError for a name that is not in SAMPLINGS, and for shares that it does not heed."""
    if sampling not in SAMPLINGS:
        raise InputError(f"sampling is {sampling!r}; expected one of {', '.join(SAMPLINGS)}.")
    if parse_shares(shares) and sampling == "every_slice":
        raise InputError(
            f"shares is {shares!r}, and sampling 'every_slice' has none; set sampling to 'sources' or "
            "'lesions'."
        )


def parse_growth(growth: str) -> list[int]:
    """The sizes of the first epochs, in pixels: `192x2, 256x1` is [192, 192, 256].

    InputError if it is not of that form.
    """
    sizes: list[int] = []
    for part in filter(None, (part.strip() for part in growth.split(","))):
        size, _, epochs = part.partition("x")
        if not (size.isdecimal() and epochs.isdecimal() and int(epochs)):
            raise InputError(f"growth is {growth!r}; expected sizes and epochs, such as '192x5, 256x2'.")
        check_image_size(int(size))
        sizes += [int(size)] * int(epochs)
    return sizes


def parse_shares(shares: str) -> dict[str, float]:
    """Source -> share of the drawn slices: `medseg 0.6, radiopaedia 0.4`.

    Raises InputError if it is not of that form.
    """
    found: dict[str, float] = {}
    for part in filter(None, (part.strip() for part in shares.split(","))):
        try:
            source, share = part.split()
            if source in found:
                raise ValueError(f"{source} twice")
            found[source] = float(share)
        except ValueError as error:
            raise InputError(
                f"shares is {shares!r}; expected 'medseg 0.6, radiopaedia 0.4' or the like."
            ) from error
    if found and not (min(found.values()) > 0 and abs(sum(found.values()) - 1) < 1e-6):
        raise InputError(f"shares is {shares!r}; expected numbers above 0 whose sum is 1.")
    return found


def slice_chances(slices: pd.DataFrame, sampling: str, shares: str = "") -> np.ndarray | None:
    """How often each slice is drawn, float (N,) in relative numbers; None: each exactly once an epoch.

    slices: rows of slices.csv. sampling: `every_slice`, the reference; `sources`: each source gives as many
    slices as the others, since the few of MedSeg are what is tested; `lesions`: so too, and within its source
    a slice counts once, once more if it shows ground glass and once more for consolidation (also where a
    binary label leaves open which). shares: of the sources, where they should not be alike. Raises InputError
    for an unknown name or other sources.
    """
    check_sampling(sampling, shares)
    wanted, sources = parse_shares(shares), slices.source.to_numpy()
    if wanted and wanted.keys() != set(sources):
        raise InputError(f"shares is {shares!r}; expected one for each of {', '.join(sorted(set(sources)))}.")
    if sampling == "every_slice":
        return None
    counts = np.ones(len(slices))
    if sampling == "lesions":
        counts += sum((slices[CLASSES[c].short] > 0).fillna(True).to_numpy(float) for c in LESIONS)
    chances = counts / pd.Series(counts).groupby(sources).transform("sum").to_numpy()
    return chances * [wanted[source] for source in sources] if wanted else chances


def class_pixels(dataset: SliceDataset, items: Iterable[int]) -> np.ndarray:
    """Pixels of each class in items as the dataset gives them, augmented.

    Args:
        dataset: Any split.
        items: Indices, or pairs (epoch, index).

    Returns:
        int64 (n, 4).
    """
    return np.array(
        [np.bincount(dataset[int(i)][1].numpy().ravel(), minlength=NUM_CLASSES)[:NUM_CLASSES] for i in items]
    )


_pipeline = cache(build_augmentation)  # one pipeline a process for each slice size


class EpochBatches(Sampler):
    """One process's share of an epoch's batches, as lists of (epoch, i).

    A pure function of its settings, epoch and start.

    With `chances` (length,) an epoch has as many slices, drawn by them: a slice whose share of the sum is p
    comes p * length times, rounded up or down at random; that takes a seed. The slices, in a new order each
    epoch if there is a seed, fall into ceil(length / batch_size) batches of nearly equal size (at most
    batch_size): no batch of a slice or two at the end, which batch norm could not use. Each batch is one
    step. It is shared out over `pieces` batches in a row and over the processes. Set `.epoch` and `.start`,
    the steps that are done already, before iterating. Raises InputError if a share would be empty.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        seed: int | None = None,
        pieces: int = 1,
        processes: int = 1,
        process: int = 0,
        chances: np.ndarray | None = None,
    ):
        self.chances = chances
        self.length, self.seed, self.pieces, self.processes, self.process = (
            length,
            seed,
            pieces,
            processes,
            process,
        )
        self.steps = -(-length // batch_size)
        self.epoch = self.start = 0
        if length // self.steps < pieces * processes:
            raise InputError(
                f"{length} slices in batches of {batch_size} cannot be shared out over {pieces} x "
                f"{processes} pieces "
                "(accumulation x processes); raise batch_size or lower the others."
            )

    def __len__(self) -> int:
        return (self.steps - self.start) * self.pieces

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for share, _ in self._shares():
            yield [(self.epoch, int(i)) for i in share]

    def weights(self) -> Iterator[float]:
        """For each share, what makes the mean over the shares' mean losses the mean over the batch."""
        for share, batch in self._shares():
            yield len(share) * self.pieces * self.processes / len(batch)

    def _shares(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        order = np.arange(self.length)
        if self.seed is not None:
            rng = np.random.default_rng([self.seed, self.epoch])
            if (
                self.chances is not None
            ):  # systematic sampling: evenly spaced marks over the slices' shares, in any order
                mixed = rng.permutation(self.length)
                marks = (np.arange(self.length) + rng.random()) / self.length
                shares = self.chances[mixed].cumsum()
                order = mixed[np.searchsorted(shares / shares[-1], marks, side="right")]
            order = rng.permutation(order)
        for batch in np.array_split(order, self.steps)[self.start :]:
            for share in np.array_split(batch, self.pieces * self.processes)[self.process :: self.processes]:
                yield share, batch


def choose_workers(workers: int, device: Device, processes: int = 1) -> int:
    """workers; for -1 those that suit the device.

    None beside a CPU that computes (benchmarks/training.md), else the cores, shared by the processes.
    """
    if workers >= 0 or device.type == "cpu":
        return max(workers, 0)
    return min(MOST_WORKERS, max(1, usable_cores() // processes))


def workers_that_fit(workers: int, batch_size: int, image_size: int) -> int:
    """workers, or 0 where shared memory has no room for the batches that they hand on.

    Results are the same.
    """
    if not workers or not SHARED_MEMORY.is_dir():
        return workers
    batch = batch_size * image_size**2 * 5  # bytes: a float32 and a uint8 a pixel
    waiting = 2 * workers * 3  # two loaders; each worker fills one batch while two wait
    return workers if shutil.disk_usage(SHARED_MEMORY).free > waiting * batch else 0


def make_loader(
    dataset: SliceDataset, batches: EpochBatches, workers: int = 0, pin_memory: bool = False
) -> DataLoader:
    """Batches of (images float32 (B, 1, S, S), labels uint8 (B, S, S), rows int64 (B,)).

    `batches` is its batch_sampler.

    The number of workers does not change a value.
    """
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        worker_init_fn=outlive_signals,
        persistent_workers=workers > 0,
        pin_memory=pin_memory,
        # its own, so that starting workers takes nothing from the model's random numbers
        generator=torch.Generator(),
    )


@contextmanager
def closing(*loaders: DataLoader) -> Iterator[None]:
    """Ends the loaders' workers on leaving.

    A notebook's traceback would keep them, and an exit would wait for them.
    """
    try:
        yield
    finally:
        for loader in loaders:
            if loader.num_workers and loader._iterator is not None:  # torch has no public way
                loader._iterator._shutdown_workers()  # type: ignore[attr-defined]  # of those with workers
