"""The command line: `lungseg` or `python -m lungseg_utils`. Heavy libraries load only where needed."""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lungseg_utils import __version__
from lungseg_utils.core.files import InputError, first_line, in_words, resolve_path, standing_path
from lungseg_utils.core.language import ENGLISH, LANGUAGES, set_language
from lungseg_utils.core.stopping import NOT_FINISHED, stops_interrupt

if TYPE_CHECKING:
    from lungseg_utils.scans.scan import Scan

LISTED = 20  # series at most that the terminal lists


class Command(click.Command):
    """Refuses an argument without text, as a shell makes of an unset variable."""

    def invoke(self, ctx: click.Context) -> object:
        """Run it; an option that is left out is None, so an empty one is a slip."""
        for parameter in self.params:
            value = ctx.params.get(str(parameter.name))
            if value == "" or (isinstance(value, tuple) and "" in value):
                name = (
                    parameter.opts[0]
                    if parameter.param_type_name == "option"
                    else parameter.human_readable_name
                )
                raise InputError(f"{name} is empty; expected a value; see whether a variable is not set.")
        return super().invoke(ctx)


class Group(click.Group):
    """What people can mend is one message without a traceback.

    Exit status 2 for bad input and for what the operating system refuses, 1 for a failed notebook, 75 for
    what was stopped.
    """

    command_class = Command

    def invoke(self, ctx: click.Context) -> object:
        """Run a command; an error that people can mend ends it with its sentence."""
        for name in ("stdout", "stderr"):
            if getattr(sys, name) is None:  # closed, as by 2>&-: bars and libraries write there all the same
                setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  # for good
        from lungseg_utils.series.run import NotebookError, NotebookStopped

        os.environ["MPLBACKEND"] = "agg"  # a command draws files, whatever a notebook's shell says
        with stops_interrupt():
            try:
                return super().invoke(ctx)
            except (InputError, NotebookError) as error:
                message = f"error: {error}"
                stopped = isinstance(error, NotebookStopped)
                status = 2 if isinstance(error, InputError) else NOT_FINISHED if stopped else 1
            except (OSError, EOFError) as error:
                if isinstance(error, BrokenPipeError):
                    raise
                words = in_words(error) if isinstance(error, OSError) else first_line(error)
                message, status = f"error: {words}", 2
            except KeyboardInterrupt:
                message = "stopped before its end; nothing half-written is left; run the same command again"
                status = NOT_FINISHED
                # Python notes an interrupt that leaves an exec of text, as many imports do, and at its end
                # would die of SIGINT whatever the status; another exec makes it forget.
                exec("")
        with suppress(OSError):  # the terminal may be closed
            click.echo(message, err=True)
        ctx.exit(status)


def as_given(parameters: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """What -p gave. Raises InputError for a name with two values, one of which would do nothing."""
    given: dict[str, str] = {}
    for name, value in parameters:
        if given.setdefault(name, value) != value:
            raise InputError(
                f"-p {name} is given twice, {given[name]!r} and {value!r}; expected one; leave one out"
            )
    return given


def shares_work(command: Callable) -> Callable:
    """Adds the options by which a command's work is shared out: see core.cluster."""
    options = (
        click.option(
            "--jobs",
            type=click.IntRange(1),
            metavar="N",
            help="How many at once on this machine.  [default: 1]",
        ),
        click.option("--scheduler", metavar="ADDRESS", help="A Dask scheduler, such as tcp://node7:8786."),
        click.option(
            "--scheduler-file", metavar="FILE", help="What `dask scheduler --scheduler-file FILE` wrote."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


in_language = click.option(
    "--language",
    metavar="LANGUAGE",
    help=f"Of what readers read: {', '.join(LANGUAGES)}.  [default: en]",
)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "show_default": True})
@click.version_option(__version__, prog_name="lungseg")
def main() -> None:
    """Segmentation of lung infection in chest CT: run the notebooks, make practice data, check real data.

    Relative paths start at the checkout (or at LUNGSEG_HOME), from whatever directory you call.
    """


@main.command()
@click.option(
    "--data-dir", metavar="DIR", help="Folder with the competition's five arrays; or: phantom, auto."
)
@click.option("--run-dir", metavar="DIR", help="Where the results go.  [default: the profile's]")
@click.option(
    "--profile",
    metavar="NAME|FILE.yaml",
    help="Parameters: demo, reference, or a YAML file.  [default: demo; to go on, the last run's]",
)
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter; repeatable."
)
@in_language
@click.option("--only", metavar="NN", help="Run one notebook, by number or name: 03.")
@click.option("--from", "start", metavar="NN", help="Go on from this notebook in the same run directory: 02.")
def run(
    data_dir: str | None,
    run_dir: str | None,
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
    language: str | None,
    only: str | None,
    start: str | None,
) -> None:
    """Run the notebooks in order.

    papermill executes them; the executed copies and run.json land in the run directory. Of two values for a
    parameter, -p wins over --data-dir and --run-dir, these over the profile, the profile over the notebooks'
    own defaults.
    """
    from lungseg_utils.series.run import run_series

    if not (profile or only or start):
        profile = "demo"
    out = run_series(
        profile=profile,
        data_dir=data_dir,
        run_dir=run_dir,
        parameters=({"language": language} if language else {}) | as_given(parameters),
        only=only,
        start=start,
    )
    click.echo(f"results: {out}")


@main.command()
@click.argument("plan", type=click.Path(), metavar="PLAN.yaml")
@click.option("--out", metavar="DIR", help="The batch's folder.  [default: runs/ and the plan's name]")
@shares_work
@click.option("--dry-run", is_flag=True, help="Check the plan and show its runs, with an estimate.")
@click.pass_context
def batch(
    ctx: click.Context,
    plan: str,
    out: str | None,
    jobs: int | None,
    scheduler: str | None,
    scheduler_file: str | None,
    dry_run: bool,
) -> None:
    """Run the notebooks many times: a grid of settings, seeds and folds.

    PLAN.yaml names a profile, parameters for all runs, and a grid, seeds, folds or explicit runs: see
    docs/batch.md. What runs have in common is prepared once; finished runs are skipped, interrupted ones go
    on, failed ones are tried once more. At the end they are compared, seeds taken together, on one page:
    batch.html. Exit code 0: all finished. 1: some failed. 75: stopped in good order, run the same command
    again to go on. 2: bad input.
    """
    from lungseg_utils.core.cluster import needs_dask
    from lungseg_utils.series.batch import place_runs, run_batch
    from lungseg_utils.series.plan import load_plan
    from lungseg_utils.series.report import dry_run_table, summarise

    folder = resolve_path(out or Path("runs") / Path(plan).stem)
    if dry_run:
        needs_dask(jobs, scheduler, scheduler_file)
        click.echo(dry_run_table(place_runs(load_plan(plan), folder), folder, jobs or 1))
        return
    path = standing_path(plan)
    text = path.read_text(encoding="utf-8") if path.is_file() else ""  # as it was, whatever becomes of it
    outcomes = run_batch(plan, folder, jobs=jobs, scheduler=scheduler, scheduler_file=scheduler_file)
    click.echo(summarise(text, folder, outcomes))
    found = {outcome.status for outcome in outcomes}
    ctx.exit(NOT_FINISHED if "stopped" in found else 1 if "failed" in found else 0)


@main.command()
@click.option(
    "--run-dir", required=True, metavar="DIR", help="Where model/, history.csv and the checkpoint go."
)
@click.option(
    "--prepared", metavar="DIR", help="What 02_preprocessing left.  [default: prepared/ in the run directory]"
)
@click.option(
    "--profile", metavar="NAME|FILE.yaml", help="Settings; what it says of other notebooks is left out."
)
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="One setting; repeatable; wins."
)
@click.pass_context
def train(
    ctx: click.Context,
    run_dir: str,
    prepared: str | None,
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
) -> None:
    """Train without a notebook.

    Several GPUs or machines: `accelerate launch --multi_gpu --num_processes 2 -m lungseg_utils train
    --run-dir DIR`. Settings not given have the reference recipe's values. Exit code 0: finished. 75: stopped
    in good order, run the same command again to go on. 1: it diverged. 2: bad input. (A launcher of several
    processes makes 1 of them all.)
    """
    from lungseg_utils.series.alone import train_alone

    ctx.exit(train_alone(run_dir, prepared, profile, as_given(parameters)))


@main.command()
@click.argument("out", type=click.Path())
@click.option("--medseg", type=click.IntRange(1), default=40, help="MedSeg-like slices.")
@click.option("--volumes", type=click.IntRange(1), default=9, help="Radiopaedia-like volumes.")
@click.option("--slices", type=click.IntRange(1), default=13, help="Slices in each volume.")
@click.option("--size", type=click.IntRange(32), default=256, help="Pixels along a side of a slice.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    help="The same seed makes the same data.  [default: 0; with --hidden a secret one]",
)
@click.option("--hidden", is_flag=True, help="For a contest: keep the test labels apart, add a baseline.")
def phantom(
    out: str, medseg: int, volumes: int, slices: int, size: int, seed: int | None, hidden: bool
) -> None:
    """Write synthetic chest CT to the folder OUT.

    The five arrays have the competition's names, shapes and types. With --hidden they are in OUT/students,
    and OUT/teacher has what `lungseg score` takes: the test labels, and a baseline's submission.
    """
    from lungseg_utils.data.phantom import write_phantom

    sizes: dict[str, Any] = dict(medseg=medseg, volumes=volumes, slices_per_volume=slices, size=size)
    if not hidden:
        click.echo(f"phantom: {write_phantom(resolve_path(out), **sizes, seed=seed or 0)}")
        return
    from lungseg_utils.core.files import quoted
    from lungseg_utils.series.contest import STUDENTS, SUBMISSIONS, TEACHER, TRUTH, write_contest

    teacher = write_contest(out, seed, **sizes) / TEACHER
    click.echo(f"students: {teacher.parent / STUDENTS}")
    click.echo(f"lungseg score {quoted(teacher / SUBMISSIONS)} {quoted(teacher / TRUTH)}")


@main.command()
@click.argument("data_dir", type=click.Path())
@click.pass_context
def check(ctx: click.Context, data_dir: str) -> None:
    """Check the arrays in DATA_DIR.

    DATA_DIR is a folder with the five arrays; or: phantom, auto. All that is found comes in one table. Exit
    code 0: usable. 1: the contract is broken. 2: there is no such folder.
    """
    from lungseg_utils.data.checks import check_data
    from lungseg_utils.data.find import find_data

    report = check_data(find_data(data_dir))
    click.echo(str(report))
    ctx.exit(0 if report.usable else 1)


@main.command()
@click.argument("runs", nargs=-1, required=True, metavar="RUN...")
@click.option(
    "--out", metavar="DIR", help="Where the table and figure go.  [default: compare/ in the first RUN]"
)
def compare(runs: tuple[str, ...], out: str | None) -> None:
    """Compare runs, given by their run directories.

    Shows the settings that differ, the scores with their bootstrap intervals, and how far each run is from
    the first one on the same slices; runs that differ in nothing but the seed are taken together as well. To
    choose the first, name it before the others: a run that is named twice counts once.
    """
    import textwrap

    from lungseg_utils.evaluation.compare import as_text, load_runs
    from lungseg_utils.plots.comparison import save_comparison

    left_out: list[str] = []
    loaded = load_runs(runs, left_out)
    folder = resolve_path(out) if out else loaded[0].folder / "compare"
    parts, sentences, _ = save_comparison(folder, loaded, left_out)
    click.echo(as_text(parts))
    for note in sentences:
        click.echo(textwrap.fill(note, 110, subsequent_indent="  "))
    click.echo(f"comparison: {folder}")


@main.command()
@click.argument("source", type=click.Path(), required=False, metavar="[RUN|LABELS.png]")
@click.option(
    "--check", "path", type=click.Path(), metavar="FILE", help="Verify and draw FILE instead of writing one."
)
def submit(source: str | None, path: str | None) -> None:
    """Write the competition's sub.csv of a run.

    RUN is a run directory with prepared/ and model/. The file lands in RUN/results, by the inference steps
    that 04_results scored there (else plain argmax). LABELS.png holds the labels of the test slices, one
    below another, as benchmarks/finalists.py writes them; the rows land beside it. With --check, FILE (.csv,
    .csv.gz) is verified row by row and drawn into a .png beside it, over the test slices of RUN if that is
    given.
    """
    from lungseg_utils.evaluation.submission import submit as write
    from lungseg_utils.plots.submission import check_submission

    if path:
        figure, masks = check_submission(path, source)
        both = masks.all(-1).sum()
        click.echo(
            f"{path}: {masks.size:,} rows in order, {masks.mean():.2%} are 1; {both:,} pixels have both "
            "classes"
        )
        click.echo(f"figure: {figure}")
    elif source:
        written, rows = write(source)
        click.echo(f"submission: {written}, {rows:,} rows")
    else:
        raise click.UsageError("expected a run directory, a picture of labels, or --check FILE")


@main.command()
@click.argument("path", type=click.Path(), metavar="FILE")
@click.argument("masks", type=click.Path(), metavar="MASKS.npy")
def score(path: str, masks: str) -> None:
    """Score a sub.csv against true masks; rank a folder of them.

    MASKS.npy holds one-hot masks (N, H, W, 4) or class indices (N, H, W). Prints the competition's score in
    both readings of its rule, and the F1 of each class; a class that is neither in the truth nor in the file
    has none. If FILE is a folder with a .csv, or a folder with one, for each name: all of them, the best
    first.
    """
    from lungseg_utils.evaluation.submission import rank_submissions, score_submission

    if resolve_path(path).is_dir():
        ranked = rank_submissions(path, masks)
        click.echo(ranked.drop(columns="problem").round(4).to_string(index=False, na_rep="none"))
        for problem in filter(None, ranked.problem):
            click.echo(problem, err=True)
        return
    scores = score_submission(path, masks)
    lines = {
        "score, pixels of all slices pooled": scores["pooled"],
        "score, averaged over slices": scores["per_image"],
    }
    lines |= {f"F1 of {name}, pooled": value for name, value in scores["classes"].items()}
    for name, value in lines.items():
        click.echo(f"{name:36} {'none' if value != value else f'{value:.4f}'}")


@main.command("import")
@click.argument("kind", metavar="KIND")
@click.argument("source", type=click.Path())
@click.argument("out", type=click.Path())
def import_(kind: str, source: str, out: str) -> None:
    """Convert a published data set to arrays.

    KIND is medseg, radiopaedia, covid19-ct-seg or mosmed. data/README.md says where each comes from, which
    files SOURCE holds, what its labels become and what its licence allows.
    """
    from lungseg_utils.data.importers import import_data
    from lungseg_utils.data.published_sets import KINDS

    folder = import_data(kind, source, out)
    click.echo((folder / KINDS[kind].note).read_text(encoding="utf-8"), nl=False)
    click.echo(f"arrays: {folder}")


@main.command("predict")
@click.argument("paths", type=click.Path(), metavar="SCAN...", nargs=-1, required=True)
@click.option(
    "--model",
    metavar="DIR",
    help="Folder with a trained model.  [default: the model that comes with lungseg]",
)
@click.option("--out", required=True, metavar="DIR", help="New folder for the results, or an earlier call's.")
@click.option(
    "--series",
    metavar="N|UID",
    help="Which DICOM series of one scan: its number in the list that is shown if there is none, or UID.",
)
@click.option(
    "--keep-identity",
    is_flag=True,
    help="Copy the patient's identifiers into the DICOM mask, for an archive.",
)
@in_language
@shares_work
@click.pass_context
def predict_scan(
    ctx: click.Context,
    paths: tuple[str, ...],
    model: str | None,
    out: str,
    series: str | None,
    keep_identity: bool,
    language: str | None,
    **shared: Any,
) -> None:
    """Segment your own scan, or many: masks and reports.

    SCAN is NIfTI, DICOM (a file, a folder, a zip or a tar), MHA or NRRD (with SimpleITK), a .npy array in HU,
    or a PNG or JPEG slice or a folder of them; where you stand, or relative to the checkout. In DIR land the
    mask in the scan's own grid, report.html and report.png (one page), and report.json. No result names the
    file or the patient unless --keep-identity is given. Research software, not a diagnosis.

    Of several SCANs, a folder or a zip with several, or a text file (.txt) of paths, each gets a folder of
    its own in DIR, and cases.csv and cases.html show all of them; only sources.csv says whose they are.
    Finished ones are skipped. Exit code 1: some could not be read.
    """
    from lungseg_utils.core.cluster import needs_dask
    from lungseg_utils.inference.pretrained import PRETRAINED, model_folder
    from lungseg_utils.report.cases import is_cases_folder
    from lungseg_utils.report.page import check_case_folder
    from lungseg_utils.scans.io import read_scan
    from lungseg_utils.scans.scan import SeveralScans
    from lungseg_utils.scans.sources import is_list

    set_language(language or ENGLISH)
    needs_dask(**shared)  # before the minutes that follow, as what else is wrong
    target = standing_path(out)
    model = model or "pretrained"
    folder = model_folder(model if model in PRETRAINED else standing_path(model), "")
    several = len(paths) > 1 or is_cases_folder(target) or is_list(paths[0])
    if several and series:
        raise InputError("--series chooses of one scan, and there are several; leave it out.")
    if not several:
        check_case_folder(target)  # before the minutes that follow
        try:
            scan = read_scan(paths[0], int(series) if series and series.isdecimal() else series)
        except SeveralScans:
            if series:
                raise
            several = True
    if several:
        ctx.exit(_predict_cases(paths, target, folder, keep_identity, shared))
    _predict_case(scan, target, folder, keep_identity)


def _predict_case(scan: "Scan", target: Path, model: Path, keep_identity: bool) -> None:
    """One scan, and what the terminal shows of it."""
    import textwrap

    from lungseg_utils.inference.segmenter import Segmenter
    from lungseg_utils.report.case import predict_case
    from lungseg_utils.report.page import check_room, key_numbers, save_case

    segmenter = Segmenter.load(model)
    check_room(target, scan)
    case = predict_case(scan, segmenter, description="slices")
    folder = save_case(case, target, keep_identity)
    click.echo(case.summary["case"])
    for value, words in key_numbers(case.summary):
        click.echo(f"{value:>10}  {words}")
    for text in case.warnings:
        click.echo(textwrap.fill(text, 110, initial_indent="note: ", subsequent_indent="      "))
    click.echo(textwrap.fill(case.summary["statement"], 110))
    click.echo(f"report: {folder / 'report.html'}")


def _predict_cases(
    paths: tuple[str, ...], target: Path, model: Path, keep_identity: bool, shared: dict[str, Any]
) -> int:
    """Many scans, and what the terminal shows of them; the exit status."""
    import textwrap

    from tqdm.auto import tqdm

    from lungseg_utils.report.case import STATEMENT
    from lungseg_utils.report.cases import PAGE, SOURCES, Making, cases_folder, predict_cases, save_cases
    from lungseg_utils.scans.sources import find_scans

    making = Making.of(model, keep_identity)
    with cases_folder(target) as folder:
        sources = find_scans(paths)
        count = sum(source.chosen for source in sources)
        outcomes = predict_cases(sources, folder, making, **shared)
        ended = save_cases(sources, tqdm(outcomes, "scans", total=count, unit="scan"), folder)
    failed = [outcome for outcome in ended if outcome.summary is None]
    before = sum(not outcome.made for outcome in ended)
    click.echo(f"{count} scans: {count - len(failed)} cases, {before} made earlier; {len(failed)} not read")
    if left_out := len(sources) - count:
        click.echo(
            f"{left_out} series of these studies were not chosen; {SOURCES} lists them, and --series takes "
            "one of a single study"
        )
        listed = [source for source in sources if source.series]  # DICOM; others have no series
        for source in listed if len(listed) <= LISTED else ():
            click.echo(f"{'chosen' if source.chosen else 'not chosen':>10}  {source.series}")
    for outcome in failed:
        text = f"{outcome.case}: {outcome.message}"
        click.echo(textwrap.fill(text, 110, subsequent_indent="  "), err=True)
    click.echo(textwrap.fill(STATEMENT, 110))
    click.echo(f"cases: {folder / PAGE}")
    click.echo(f"whose they are: {folder / SOURCES} identifies patients: keep it apart")
    return 1 if failed else 0


@main.command()
@click.argument("out", type=click.Path())
@click.option(
    "--owner", required=True, metavar="NAME", help="The name in the address of your Kaggle profile."
)
@click.option("--profile", metavar="NAME|FILE.yaml", help="Parameters of the run.  [default: best]")
@click.option(
    "-p", "parameters", nargs=2, multiple=True, metavar="NAME VALUE", help="One parameter; repeatable; wins."
)
@click.option("--one-each", is_flag=True, help="One kernel a notebook instead of one for the whole series.")
@click.option("--plan", metavar="PLAN.yaml", help="A plan of `lungseg batch`: kernels for each of its runs.")
def kaggle(
    out: str,
    owner: str,
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
    one_each: bool,
    plan: str | None,
) -> None:
    """Write folders to upload to Kaggle.

    A data set, and the series as kernels. They run there on two T4 with the internet off, and leave
    submission.csv. It takes a connection to PyPI once. docs/kaggle.md says what to do with them.
    """
    from lungseg_utils.core.files import quoted
    from lungseg_utils.series.kaggle import write_kernels

    if plan and (parameters or profile):
        raise InputError(
            "--profile or -p stand beside --plan; expected one of them; put the others into the plan"
        )
    dataset, *kernels = write_kernels(out, owner, profile or "best", as_given(parameters), one_each, plan)
    click.echo(f"kaggle datasets create -p {quoted(dataset)}")
    for kernel in kernels:
        click.echo(f"kaggle kernels push -p {quoted(kernel)}")


@main.command("class")
@click.argument("out", type=click.Path())
@in_language
@click.option(
    "--format", "form", type=click.Choice(["plain", "nbgrader"]), default="plain", help="nbgrader: a course."
)
@click.option("--offline", is_flag=True, help="student/ is all that laptops without the internet need.")
@click.option(
    "--platform",
    "systems",
    multiple=True,
    type=click.Choice(["windows", "macos", "linux"]),
    help="Of these laptops; repeatable.  [default: all]",
)
@click.option(
    "--python", "pythons", multiple=True, metavar="3.N", help="Theirs; repeatable.  [default: this]"
)
@click.option("--torch", default="cpu", help="PyTorch's build for Linux; pypi: PyPI's, with CUDA.")
@click.option("--solve", is_flag=True, help="Run the key on the phantom, for `lungseg grade --key`: minutes.")
def class_(
    out: str,
    language: str | None,
    form: str,
    offline: bool,
    systems: tuple[str, ...],
    pythons: tuple[str, ...],
    torch: str,
    solve: bool,
) -> None:
    """Write what a class needs to the new folder OUT.

    student/ has the notebooks without outputs and solutions; teacher/ the key: notebooks with the right
    answers, and key.md. With --format nbgrader, course/ is a course for nbgrader's own commands instead of
    student/. Git leaves OUT alone. docs/teaching.md says what to do with it.

    With --offline, student/ also has the package with its weights, wheels, the phantom and start.py: copied
    to a laptop with Python, `python start.py lab` sets up and opens the notebooks without a network.
    """
    from functools import partial

    from lungseg_utils.series.classroom import solve_key, write_class
    from lungseg_utils.series.offline import fill_offline

    if offline and form != "plain":
        raise InputError("--offline goes with --format plain; expected one of them; leave the other out.")
    fill = partial(fill_offline, systems=systems, pythons=pythons, torch=torch)
    folder = write_class(out, language or ENGLISH, form, complete=fill if offline else None)
    click.echo(f"class: {folder}")
    if offline:
        size = sum(path.stat().st_size for path in (folder / "student").rglob("*") if path.is_file())
        click.echo(f"student: {size / 1e9:.2f} GB")
    if solve:
        click.echo(f"key: {solve_key(folder)}")


@main.command()
@click.argument("out", type=click.Path())
@in_language
def slides(out: str, language: str | None) -> None:
    """Write slides of the notebooks to the folder OUT.

    They open in a browser; reveal.js comes from the web, or from OUT/reveal: see docs/teaching.md.
    """
    from lungseg_utils.series.slides import write_slides

    for page in write_slides(out, language or ENGLISH):
        click.echo(page)


@main.command()
@click.argument("answers", type=click.Path(), metavar="FOLDER")
@click.option("--key", type=click.Path(), metavar="DIR", help="teacher/ of `lungseg class OUT --solve`.")
@click.option("--out", type=click.Path(), metavar="FILE.csv", help="[default: grades.csv in FOLDER]")
def grade(answers: str, key: str | None, out: str | None) -> None:
    """Make a table of a class's answers, each right one checked again.

    FOLDER holds a folder or an answers.json for each student, of the student's name. A row a student and
    exercise: attempts, verdict, whether it was checked again ("differs": the file calls right what is not),
    last mistake, first and last time. Without --key, what depends on the data is not checked again.
    """
    from lungseg_utils.core.files import input_path, write_csv
    from lungseg_utils.series.grading import collect_answers, summarise

    table = collect_answers(answers, key)
    path = resolve_path(out) if out else input_path(answers) / "grades.csv"
    write_csv(path, table)
    click.echo(summarise(table))
    click.echo(f"table: {path}")


@main.command()
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Look at this machine: what will run, on what, what to mend.

    Versions, device and precision, memory, disk, data, the Hugging Face hub. Exit code 0: the series can run.
    1: it cannot.
    """
    from lungseg_utils.doctor import can_run, diagnose, examine, report

    findings = diagnose(examine())
    click.echo(report(findings))
    ctx.exit(0 if can_run(findings) else 1)


@main.command(hidden=True)
@in_language
def notebooks(language: str | None) -> None:
    """Re-execute the notebooks in place on the phantom, for the committed copies (make notebooks)."""
    from lungseg_utils.series.run import edition_of, refresh_notebooks

    refresh_notebooks(edition_of(language or ENGLISH))


@main.command(hidden=True)
def translations() -> None:
    """Bring catalogues and notebooks of the other languages up to date (make translations)."""
    from lungseg_utils.series.translation import write_translations

    for path, missing in write_translations().items():
        click.echo(f"{path}: {missing} texts to translate" if missing else f"{path}")
