"""The published data sets that `lungseg import` reads: their layouts, and what is to be known about each.

data/README.md has the table and the references.
"""

from dataclasses import dataclass

from lungseg_utils.core.classes import LUNG_WINDOW
from lungseg_utils.data.arrays import FILES


@dataclass(frozen=True)
class Kind:
    """One data set. images, lesions, lungs.

    Folders under SOURCE, or the names of three files if it is one stack.

    source: its name in file names and slices.csv. stack: one file holds single slices of many patients.
    suffix: what the masks' names have more than the images'. effusion: the masks hold 1 ground glass, 2
    consolidation, 3 pleural effusion; else 1 lesion. shared: how the names of cases begin that the
    competition has as well, as 8-bit pictures. about: what the text file beside the arrays says.
    """

    source: str
    images: str
    lesions: str
    lungs: str | None
    about: tuple[str, ...]
    stack: bool = False
    suffix: str = ""
    effusion: bool = False
    shared: str | None = None

    @property
    def competition(self) -> bool:
        """Whether these are the competition's own slices."""
        return self.source in FILES

    @property
    def arrays(self) -> tuple[str, str]:
        """Names of the files of images and of labels."""
        images, labels = FILES.get(self.source, (f"images_{self.source}.npy", None))
        return images, labels or f"labels_{self.source}.npy"

    @property
    def note(self) -> str:
        """Name of the text file beside the arrays."""
        return f"{self.source}.txt"

    @property
    def files(self) -> set[str]:
        """Names of all files that an import writes."""
        table = FILES["test"][0] if self.stack else "volumes.csv" if self.competition else "slices.csv"
        return {*self.arrays, self.note, table}


_EFFUSION = (
    (
        "Masks: 1 ground glass, 2 consolidation; lung mask without lesion is lung other; all else "
        "background. Pleural "
        "effusion, 3, is fluid beside the lung: background, also where the lung mask holds it. A lesion "
        "outside the lung "
        "mask is a lesion."
    ),
)
MEDSEG = Kind(
    source="medseg",
    images="tr_im",
    lesions="tr_mask",
    lungs="tr_lungmasks_updated",
    stack=True,
    effusion=True,
    about=(
        (
            "MedSeg Covid Dataset 1: 100 axial CT slices of more than 40 patients, labelled by MedSeg's "
            "radiologists."
        ),
        (
            "Source: figshare, doi:10.6084/m9.figshare.13521488; the lung masks: "
            "medicalsegmentation.com/covid19."
        ),
        "Licence: CC0 on the arrays; the images are those of the Italian Society of Radiology (SIRM).",
        *_EFFUSION,
        "Overlap: these are the competition's MedSeg slices (val_im: its test slices), not further data.",
    ),
)
RADIOPAEDIA = Kind(
    source="radiopaedia",
    images="rp_im",
    lesions="rp_msk",
    lungs="rp_lung_msk",
    effusion=True,
    about=(
        "MedSeg Covid Dataset 2: 9 CT volumes of Radiopaedia, 829 slices, labelled by MedSeg's radiologists.",
        "Source: figshare, doi:10.6084/m9.figshare.13521509.",
        "Licence: Radiopaedia's modified CC BY-NC-SA for the images, whatever is said of the arrays.",
        *_EFFUSION,
        "Overlap: these are the competition's Radiopaedia slices, not further data.",
    ),
)
COVID19_CT_SEG = Kind(
    source="covid19_ct_seg",
    images="COVID-19-CT-Seg_20cases",
    lesions="Infection_Mask",
    lungs="Lung_Mask",
    shared="radiopaedia",
    about=(
        (
            "COVID-19-CT-Seg: 20 CT volumes, 10 of Coronacases, 10 of Radiopaedia (Ma et al. 2021, "
            "doi:10.1002/mp.14676)."
        ),
        "Source: Zenodo, doi:10.5281/zenodo.3757476.",
        (
            "Licence: the authors' benchmark page says CC BY-NC-SA, others cite it as CC BY 4.0: keep the "
            "stricter."
        ),
        (
            "Masks: an infection is a lesion of unknown kind (label 4); lung mask without it is lung other; "
            "all else is "
            "background."
        ),
        (
            "HU: the Radiopaedia cases are 8-bit pictures. Grey 0..255 is read as "
            f"{LUNG_WINDOW[0]}..{LUNG_WINDOW[1]}, as "
            "in the competition's copies of such pictures; the authors say -1250..250 (data/README.md)."
        ),
        (
            "Overlap: the Radiopaedia cases are taken to be those of the competition; which is which is not "
            "documented. "
            "Their split is left_out, so that they neither count twice nor leak into a validation."
        ),
    ),
)
MOSMED = Kind(
    source="mosmed",
    images="studies/CT-1",
    lesions="masks",
    lungs=None,
    suffix="_mask",
    about=(
        (
            "MosMedData COVID19_1110: its 50 annotated CT studies (Morozov et al. 2020, "
            "doi:10.1101/2020.05.20.20100362)."
        ),
        "Source: mosmed.ai/datasets/covid19_1110.",
        "Licence: CC BY-NC-ND 3.0: do not pass the converted arrays on.",
        (
            "Masks: ground glass or consolidation is a lesion of unknown kind (label 4). There is no lung "
            "mask: all else "
            "is lung other or background, which of them is unknown (label 5)."
        ),
        "Overlap: none known; the patients are Moscow's.",
    ),
)
KINDS = {"medseg": MEDSEG, "radiopaedia": RADIOPAEDIA, "covid19-ct-seg": COVID19_CT_SEG, "mosmed": MOSMED}
