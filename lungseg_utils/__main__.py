"""The command line: `lungseg` or `python -m lungseg_utils`. Heavy libraries load only where needed."""

import click

from lungseg_utils import __version__
from lungseg_utils.files import InputError, resolve_path


class Group(click.Group):
    """What people can mend is one message without a traceback: exit 2 for bad input, 1 for a failed notebook."""

    def invoke(self, ctx: click.Context) -> object:
        from lungseg_utils.series import NotebookError

        try:
            return super().invoke(ctx)
        except (InputError, NotebookError) as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2 if isinstance(error, InputError) else 1)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="lungseg")
def main() -> None:
    """Segmentation of lung infection in chest CT: run the notebooks, make practice data, check real data.

    Relative paths start at the checkout (or at LUNGSEG_HOME), from whatever directory you call.
    """


@main.command()
@click.option("--data-dir", metavar="DIR", help="Folder with the competition's five arrays; or: phantom, auto.")
@click.option("--run-dir", metavar="DIR", help="Where the results go.  [default: the profile's]")
@click.option("--profile", metavar="NAME|FILE.yaml",
              help="Parameters: demo, reference, or a YAML file.  [default: demo; to go on, the last run's]")
@click.option("-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter; repeatable.")
@click.option("--only", metavar="NN", help="Run one notebook, by number or name: 03.")
@click.option("--from", "start", metavar="NN", help="Go on from this notebook in the same run directory: 02.")
def run(data_dir: str | None, run_dir: str | None, profile: str | None, parameters: tuple[tuple[str, str], ...],
        only: str | None, start: str | None) -> None:
    """Run the notebooks in order.

    papermill executes them; the executed copies and run.json land in the run directory. Of two values for a parameter,
    -p wins over --data-dir and --run-dir, these over the profile, the profile over the notebooks' own defaults.
    """
    from lungseg_utils.series import run_series

    if not (profile or only or start):
        profile = "demo"
    out = run_series(profile=profile, data_dir=data_dir, run_dir=run_dir, parameters=dict(parameters), only=only,
                     start=start)
    click.echo(f"results: {out}")


@main.command()
@click.argument("out", type=click.Path())
@click.option("--medseg", type=click.IntRange(1), default=40, help="MedSeg-like slices.")
@click.option("--volumes", type=click.IntRange(1), default=9, help="Radiopaedia-like volumes.")
@click.option("--slices", type=click.IntRange(1), default=13, help="Slices in each volume.")
@click.option("--size", type=click.IntRange(32), default=256, help="Pixels along a side of a slice.")
@click.option("--seed", type=click.IntRange(0), default=0, help="The same seed makes the same data.")
def phantom(out: str, medseg: int, volumes: int, slices: int, size: int, seed: int) -> None:
    """Write synthetic chest CT to the folder OUT.

    The five arrays have the competition's names, shapes and types.
    """
    from lungseg_utils.phantom import write_phantom

    folder = write_phantom(resolve_path(out), medseg=medseg, volumes=volumes, slices_per_volume=slices, size=size,
                           seed=seed)
    click.echo(f"phantom: {folder}")


@main.command()
@click.argument("data_dir", type=click.Path())
@click.pass_context
def check(ctx: click.Context, data_dir: str) -> None:
    """Check the arrays in DATA_DIR.

    DATA_DIR is a folder with the five arrays; or: phantom, auto. All that is found comes in one table. Exit code 0:
    usable. 1: the contract is broken. 2: there is no such folder.
    """
    from lungseg_utils.checks import check_data
    from lungseg_utils.data import find_data

    report = check_data(find_data(data_dir))
    click.echo(str(report))
    ctx.exit(0 if report.usable else 1)


@main.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Look at this machine: what will run, on what, what to mend.

    Versions, device and precision, memory, disk, data, the Hugging Face hub. Exit code 0: the series can run. 1: it
    cannot.
    """
    from lungseg_utils.doctor import can_run, diagnose, report
    from lungseg_utils.machine import examine

    findings = diagnose(examine())
    click.echo(report(findings))
    ctx.exit(0 if can_run(findings) else 1)


@main.command(hidden=True)
def notebooks() -> None:
    """Re-execute the notebooks in place on the phantom, for the copies that are committed (make notebooks)."""
    from lungseg_utils.series import refresh_notebooks

    refresh_notebooks()


if __name__ == "__main__":
    main(prog_name="lungseg")
