"""Run the folders of `lungseg kaggle` as Kaggle does, in a tree that is made like its own.

    python benchmarks/fake_kaggle.py FOLDERS DATA PYTHON OUT [--layout new]

FOLDERS is what `lungseg kaggle` wrote, DATA the competition's arrays, PYTHON the interpreter of an
environment with the package versions of Kaggle's image; what the kernels leave in /kaggle/working lands in
OUT. Linux and root: /kaggle/input is mounted read-only in a namespace without a network, and what the kernels
install is forgotten.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import click

# Where Kaggle has mounted a competition, a data set and another kernel's output over the years.
LAYOUTS = {
    "old": ("{slug}", "{slug}", "{slug}"),
    "mixed": ("competitions/{slug}", "{slug}", "{slug}"),
    "new": ("competitions/{slug}", "datasets/{owner}/{slug}", "notebooks/{owner}/{slug}"),
}
SCRIPT = """\
set -e
ip link set lo up || true
mount -t tmpfs none /kaggle
mkdir /kaggle/input /kaggle/working /kaggle/temp
mount -t tmpfs none /kaggle/temp
mkdir /kaggle/temp/up /kaggle/temp/work
mount --bind {out} /kaggle/working
up=upperdir=/kaggle/temp/up,workdir=/kaggle/temp/work
mount -t overlay none -o lowerdir={environment},$up {environment}
{mounts}
mount -o remount,ro /kaggle
cd /kaggle/working
env -i PATH={environment}/bin:/usr/bin:/bin HOME=/tmp LANG=C.UTF-8 \
    {python} -m papermill {kernel} /kaggle/working/__notebook__.ipynb --no-progress-bar --log-output
"""


@click.command()
@click.argument("folders", type=click.Path(exists=True, path_type=Path))
@click.argument("data", type=click.Path(exists=True, path_type=Path))
@click.argument("python", type=click.Path(exists=True, path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="new")
def main(folders: Path, data: Path, python: Path, out: Path, layout: str) -> None:
    """Run each kernel of FOLDERS, the output of the one before it attached."""
    Path("/kaggle").mkdir(exist_ok=True)
    try:
        for metadata in sorted(folders.resolve().glob("*/kernel-metadata.json")):
            about = json.loads(metadata.read_text(encoding="utf-8"))
            run(about, metadata.parent, folders.resolve(), data.resolve(), python, out.resolve(), layout)
    finally:
        Path("/kaggle").rmdir()


def run(about: dict, kernel: Path, folders: Path, data: Path, python: Path, out: Path, layout: str) -> None:
    """Run one kernel in a namespace of its own; its output lands in OUT under its name."""
    places = zip(("competition", "dataset", "kernel"), LAYOUTS[layout], (data, folders / "dataset", None))
    mounts = []
    for kind, place, source in places:
        for name in about[f"{kind}_sources"]:
            owner, _, slug = name.rpartition("/")
            target = Path("/kaggle/input", place.format(owner=owner, slug=slug))
            mounts += [f"mkdir -p {target}", f"mount --bind {source or out / slug} {target}"]
            mounts += [f"mount -o remount,ro,bind {target}"]
    own = out / about["id"].partition("/")[2]
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir(parents=True)
    script = SCRIPT.format(
        out=own,
        environment=python.absolute().parents[1],
        mounts="\n".join(mounts),
        python=python.absolute(),
        kernel=kernel / about["code_file"],
    )
    began = time.monotonic()
    done = subprocess.run(["unshare", "--mount", "--net", "bash", "-c", script], check=False)
    click.echo(f"{about['id']}: exit status {done.returncode} after {time.monotonic() - began:.0f} s")
    if done.returncode:
        sys.exit(done.returncode)


if __name__ == "__main__":
    main()
