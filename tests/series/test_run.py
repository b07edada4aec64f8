"""The runner, on four tiny notebooks of its own.

Order, parameters, failures, going on, and what run.json says.
"""

import difflib
import errno
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import papermill
import pytest
from click.testing import CliRunner
from helpers import no_windows, wait_for
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lungseg_utils.cli import main
from lungseg_utils.core.files import LOCK, InputError, locked, resolve_path
from lungseg_utils.data.arrays import FILES
from lungseg_utils.series import run as series
from lungseg_utils.series.parameters import (
    MISSPELT,
    NOTEBOOKS,
    check_meaning,
    check_parameters,
    check_values,
    declared_parameters,
    load_profile,
)
from lungseg_utils.series.run import (
    NotebookError,
    all_notebooks,
    find_notebooks,
    refresh_notebooks,
    run_series,
    select_notebooks,
)

DATA = 'data_dir: str = "phantom"  # phantom, auto, or a folder\n'
RUN = 'run_dir: str = "runs/tiny"  # where the results go\n'
TINY = {
    "01_look.ipynb": (DATA + RUN + "clip_min: float = -1500.0  # HU, lowest = air\n", ""),
    "02_prepare.ipynb": (RUN + "flip: bool = True\nworkers: int | None = None\n", ""),
    "03_train.ipynb": (
        RUN + "epochs: int = 10\nseed: int = 0\ndivisor: int = 1\n",
        "\n# a comment first\n1 / divisor",
    ),
}
LOG = """\
import json, os, sys
from pathlib import Path
names = {names}
seen = dict(notebook={stem!r}, values={{name: globals()[name] for name in names}}, python=sys.executable,
            cwd=os.getcwd(), backend=os.environ["MPLBACKEND"])
with open(Path(run_dir) / "seen.jsonl", "a") as handle:
    handle.write(json.dumps(seen) + "\\n")
"""
# The command line as a process of its own, on the tiny notebooks.
COMMAND = """\
import functools, signal, sys
from pathlib import Path
if hasattr(signal, "SIGHUP"):  # whatever the tests themselves were started under, nohup say
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
from lungseg_utils import cli
from lungseg_utils.series import run as series
series.run_series = functools.partial(series.run_series, folder=Path(sys.argv.pop(1)))
cli.main(prog_name="lungseg")
"""


def write_notebook(path, parameters, *sources):
    cells = [new_markdown_cell("# Title"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    cells += [*map(new_code_cell, sources), new_markdown_cell("## Summary")]
    nbformat.write(new_notebook(cells=cells), path)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Folder of the tiny series, with a demo profile."""
    folder = tmp_path_factory.mktemp("tiny {series}")  # papermill formats its paths: braces must survive
    for name, (parameters, last) in TINY.items():
        names = [line.split(":")[0] for line in parameters.splitlines()]
        write_notebook(folder / name, parameters, LOG.format(names=names, stem=Path(name).stem), last)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "demo.yaml").write_text("epochs: 3\nclip_min: -1000\nflip: false\n")
    return folder


@pytest.fixture(scope="module")
def history(tiny, tmp_path_factory):
    """Three runs on one run directory: 03 fails; go on from there; 01 alone.

    Jupyter's own `python3` is broken.
    """
    home = tmp_path_factory.mktemp("home")
    broken = home / "jupyter" / "kernels" / "python3" / "kernel.json"
    broken.parent.mkdir(parents=True)
    broken.write_text(json.dumps({"argv": ["/no/such/python"], "display_name": "x", "language": "python"}))
    out = home / "runs" / "a"
    found = {"out": out, "home": home}

    def keep(name, done):
        seen = [json.loads(line) for line in (out / "seen.jsonl").read_text().splitlines()]
        (out / "seen.jsonl").unlink()
        found[name] = (done, json.loads((out / "run.json").read_text()), seen)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUNGSEG_HOME", str(home))
        patch.setenv("JUPYTER_PATH", str(home / "jupyter"))
        patch.setenv("MPLBACKEND", "Agg")
        run = ["run", "--run-dir", "runs/a"]
        (home / "some" / "data").mkdir(parents=True)
        (home / "some" / "data" / "images_medseg.npy").touch()
        patch.setenv("LUNGSEG_DATA_DIR", "some/data")
        arguments = [
            "--data-dir",
            "some/data",
            "-p",
            "divisor",
            "0",
            "-p",
            "epochs",
            "5",
            "-p",
            "clip_min",
            "-900",
        ]
        keep(
            "failed",
            subprocess.run(
                [sys.executable, "-c", COMMAND, tiny, *run, *arguments],
                cwd=tiny.parent,
                capture_output=True,
                text=True,
            ),
        )
        found["copies"] = {p.name: nbformat.read(p, 4) for p in (out / "notebooks").glob("*.ipynb")}
        patch.setattr(series, "run_series", functools.partial(run_series, folder=tiny))
        keep(
            "from", CliRunner().invoke(main, [*run, "--from", "03", "-p", "seed", "7", "-p", "divisor", "1"])
        )
        keep(
            "only",
            CliRunner().invoke(
                main, [*run, "--only", "01_look", "--data-dir", "auto", "-p", "clip_min", "-800"]
            ),
        )
        assert os.environ["JUPYTER_PATH"] == str(home / "jupyter")
    return found


@pytest.mark.slow
def test_notebooks_run_in_order_in_this_python_from_their_folder(history, tiny):
    _, _, seen = history["failed"]
    assert [entry["notebook"] for entry in seen] == ["01_look", "02_prepare", "03_train"]
    assert {entry["python"] for entry in seen} == {sys.executable}
    assert {entry["cwd"] for entry in seen} == {str(tiny)}
    assert {entry["backend"] for entry in seen} == {"module://matplotlib_inline.backend_inline"}


@pytest.mark.slow
def test_each_notebook_receives_its_own_parameters(history):
    _, _, seen = history["failed"]
    run_dir = str(history["out"])
    assert [entry["values"] for entry in seen] == [
        {
            "data_dir": str(history["home"] / "some" / "data"),
            "run_dir": run_dir,
            "clip_min": -900.0,
        },  # -p over profile
        {"run_dir": run_dir, "flip": False, "workers": None},  # profile over default
        {"run_dir": run_dir, "epochs": 5, "seed": 0, "divisor": 0},
    ]
    cells = history["copies"]["02_prepare.ipynb"].cells
    [injected] = [c for c in cells if "injected-parameters" in c.metadata.get("tags", [])]
    assert "epochs" not in injected.source


@pytest.mark.slow
def test_failure_is_three_lines_on_a_clean_screen(history):
    done, record, _ = history["failed"]
    assert done.returncode == 1
    assert done.stdout == ""
    bars = [
        line for line in done.stderr.splitlines() if "%|" in line
    ]  # a bar redraws itself as often as it likes
    lines = [line for line in done.stderr.splitlines() if line and line not in bars]
    assert [*dict.fromkeys(line.split(":")[0] for line in bars)] == ["01_look", "02_prepare", "03_train"]
    assert {line.split(":")[0] for line in bars if "100%" in line} == {"01_look", "02_prepare"}
    copy = history["out"] / "notebooks" / "03_train.ipynb"
    assert lines == [
        (
            f"error: notebook 03_train failed; partial copy: {copy}; "
            f"go on with: lungseg run --run-dir {history['out']} --from 03"
        ),
        "cell 4: # a comment first",
        "ZeroDivisionError: division by zero",
    ]
    assert record["notebooks"]["03_train"]["error"].splitlines()[1:] == lines[1:]


@pytest.mark.slow
def test_partial_copy_is_kept(history):
    cells = history["copies"]["03_train.ipynb"].cells
    assert any(
        o.output_type == "error" and o.ename == "ZeroDivisionError"
        for c in cells
        for o in c.get("outputs", [])
    )


@pytest.mark.slow
def test_a_stop_is_not_a_failure(tmp_path):
    stop = "class Stopped(Exception):\n    pass\nraise Stopped('after step 3')"
    write_notebook(tmp_path / "03_train.ipynb", "run_dir: str = 'runs/a'", stop)
    with pytest.raises(
        NotebookError, match="(?s)03_train stopped; .*go on with: .*--from 03.*Stopped: after step 3"
    ):
        run_series(run_dir=str(tmp_path / "out"), folder=tmp_path, progress=False)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == record["notebooks"]["03_train"]["status"] == "stopped"


def test_an_interrupt_says_how_to_go_on(tmp_path, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", interrupted)
    write_notebook(tmp_path / "03_train.ipynb", "run_dir: str = 'runs/a'", "pass")
    with pytest.raises(NotebookError, match="(?s)03_train stopped; .*go on with: .*--from 03"):
        run_series(run_dir=str(tmp_path / "out"), folder=tmp_path, progress=False)
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "stopped"


@pytest.mark.slow
def test_run_json_of_a_failed_run(history):
    _, record, _ = history["failed"]
    assert set(record) == {
        "schema",
        "status",
        "started",
        "finished",
        "device",
        "profile",
        "given",
        "parameters",
        "seed",
        "versions",
        "python",
        "platform",
        "notebooks",
    }
    assert (record["schema"], record["status"], record["profile"], record["seed"]) == (1, "failed", "demo", 0)
    assert record["given"] == {
        "epochs": 5,
        "clip_min": -900.0,
        "flip": False,
        "divisor": 0,
        "data_dir": str(history["home"] / "some" / "data"),
        "run_dir": str(history["out"]),
    }
    assert record["parameters"] == {**record["given"], "workers": None, "seed": 0}
    assert {"lungseg", "torch", "numpy", "papermill"} <= record["versions"].keys()
    assert [n["status"] for n in record["notebooks"].values()] == ["finished", "finished", "failed"]
    for entry in record["notebooks"].values():
        assert entry["started"] <= entry["finished"] and 0 < entry["seconds"] < 120
    own = record["notebooks"]["02_prepare"]["parameters"]
    assert own == {"run_dir": str(history["out"]), "flip": False, "workers": None}


@pytest.mark.slow
def test_from_goes_on_and_keeps_what_is_known_of_the_earlier(history):
    done, record, seen = history["from"]
    assert (done.exit_code, done.stdout) == (0, f"results: {history['out']}\n")
    assert [entry["notebook"] for entry in seen] == ["03_train"]
    # The failed run's parameters still hold, without being given again; -p changes them.
    assert seen[0]["values"] == {"run_dir": str(history["out"]), "epochs": 5, "seed": 7, "divisor": 1}
    assert (record["status"], record["seed"]) == ("finished", 7)
    assert "error" not in record["notebooks"]["03_train"]
    earlier = history["failed"][1]["notebooks"]
    assert [record["notebooks"][name] for name in ("01_look", "02_prepare")] == [*earlier.values()][:2]
    assert [n["status"] for n in record["notebooks"].values()] == ["finished"] * 3


@pytest.mark.slow
def test_only_runs_one(history):
    done, record, seen = history["only"]
    assert done.exit_code == 0
    assert [entry["notebook"] for entry in seen] == ["01_look"]
    assert seen[0]["values"]["data_dir"] == "auto"
    assert list(record["notebooks"]) == ["01_look", "02_prepare", "03_train"]
    assert record["notebooks"]["03_train"] == history["from"][1]["notebooks"]["03_train"]


def test_device_is_read_from_the_model(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"device": "cpu (2 threads): torch sees no GPU"}')
    series._write_record(tmp_path, {})
    assert json.loads((tmp_path / "run.json").read_text())["device"] == "cpu (2 threads): torch sees no GPU"


@pytest.mark.slow
def test_dead_kernel_is_a_failure_too(tmp_path, capfd):
    write_notebook(tmp_path / "01_dies.ipynb", RUN, "print('here')", "import os; os._exit(1)")
    with pytest.raises(NotebookError) as caught:
        run_series(run_dir=str(tmp_path / "run"), folder=tmp_path, progress=False)
    first, second, third = str(caught.value).splitlines()
    assert (
        "01_dies" in first
        and second == "cell 4: import os; os._exit(1)"
        and third.startswith("DeadKernelError")
    )
    assert (
        nbformat.read(tmp_path / "run" / "notebooks" / "01_dies.ipynb", 4).cells[3].outputs[0].text
        == "here\n"
    )
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parameters": {"epoch": "3"}}, "no notebook has the parameter 'epoch' of -p; did you mean epochs?"),
        ({"parameters": {"zzz": "3"}}, "expected one of data_dir, run_dir"),
        ({"parameters": {"epochs": "3.5"}}, "epochs is '3.5' in -p; expected int"),
        ({"parameters": {"epochs": "many"}}, "expected int, like the default 10"),
        ({"parameters": {"flip": "maybe"}}, "flip is 'maybe' in -p; expected bool"),
        ({"parameters": {"clip_min": ""}}, "expected float"),
        ({"parameters": {"epochs": True}}, "epochs is True"),
        ({"profile": "absent"}, "no profile 'absent'.*expected one of demo, or"),
        ({"only": "07"}, "no notebook '07'; expected one of 01_look, 02_prepare, 03_train"),
        ({"start": "training"}, "no notebook 'training'"),
        ({"only": "01", "start": "02"}, "both --only and --from"),
        (
            {"only": "02", "parameters": {"epochs": "3"}},
            "epochs does nothing in 02_prepare.*or run 03_train too",
        ),
        ({"start": "02", "data_dir": "phantom"}, "data_dir does nothing in 02_prepare, 03_train"),
        ({"data_dir": "/no/such"}, "/no/such is not a folder"),
        ({"parameters": {"seed": "-1"}}, "seed is -1; expected a number from 0"),
        ({"parameters": {"clip_min": "nan"}}, "clip_min is nan in -p; expected float, a finite number"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(tiny, tmp_path, options, message):
    with pytest.raises(InputError, match=message) as caught:
        run_series(run_dir=str(tmp_path / "run"), folder=tiny, **options)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs: '3'", "epochs is '3' in profile"),
        ("clip_min: low", "expected float"),
        ("flip: 1", "expected bool"),
        ("flip: no", "expected bool, true or false"),
        ("epochs: 3\nepochs: 4", "epochs is given twice"),
        ("epocs: 3", "did you mean epochs"),
        ("- epochs", "holds list; expected a YAML mapping"),
        ("a: b: c", "is not YAML"),
        ("a: " + 2000 * "[", "is not YAML"),
        ("", "holds NoneType"),
    ],
)
def test_mistakes_in_a_profile_are_refused(tiny, tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        run_series(run_dir=str(tmp_path / "run"), profile=tmp_path / "mine.yaml", folder=tiny)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_profile_is_yaml_1_2(tmp_path):
    (tmp_path / "mine.yaml").write_text("a: 1e-3\nb: no\nc: -1500\nd: 1:30\ne: true\nf:\ng: .5\n")
    values = load_profile(tmp_path / "mine.yaml")
    assert values == {"a": 0.001, "b": "no", "c": -1500, "d": "1:30", "e": True, "f": None, "g": 0.5}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"loss": "focal"}, "loss is 'focal'; expected one of cross_entropy, dice_cross_entropy"),
        ({"encoder": "efficientnet_b2"}, "efficientnet-b2"),
        ({"image_size": 100}, "a multiple of 32"),
        ({"augmentation": "heavy"}, "expected one of none, reference"),
        ({"split": "random"}, "expected one of reference, by_volume, submission"),
        ({"fit_on": "test"}, "'all' or one of medseg, radiopaedia"),
        ({"clip_min": 500.0, "clip_max": 0.0}, "clip_min below clip_max"),
        ({"further_data": "'/no such'"}, "/no such is not a folder"),
        ({"model": "/no/such"}, "expected a folder with a trained model, pretrained or pretrained-small"),
        ({"encoder_weights": "/no/such.pt"}, "expected imagenet, none, or a file"),
        ({"start_from": "/no/such"}, "start_from is '/no/such'; expected a folder with a trained model"),
        ({"angle": 90.0}, "degrees from -45 to 45"),
        ({"consolidation_threshold": 0.0}, "numbers above 0"),
        ({"processes": -1}, "expected 0 or more"),
        ({"growth": "64x-2"}, "expected sizes and epochs"),
        ({"growth": "64x0"}, "expected sizes and epochs"),
        ({"shares": "medseg 0.5, medseg 1", "sampling": "lesions"}, "shares is"),
        (
            {"shares": "medseg 0.5, radiopaedi 0.5", "sampling": "lesions"},
            "of covid19_ct_seg, medseg",
        ),
        ({"shares": "medseg 1", "sampling": "lesions"}, "expected medseg, radiopaedia"),
        ({"shares": "medseg 0.5, radiopaedia 0.5", "sampling": "every_slice"}, "'every_slice' has none"),
        ({"accumulation": 25, "batch_size": 24}, "no more pieces than slices"),
    ],
)
def test_what_means_nothing_is_refused_with_what_would(values, message):
    with pytest.raises(InputError, match=message):
        check_meaning(values)


NAMESPACE = {
    "__annotations__": {
        "flip": bool,
        "learning_rate": float,
        "epochs": int,
        "workers": int | None,
        "other": list,
    },
    "flip": "false",
    "learning_rate": "1e-3",
    "epochs": 8,
    "workers": "2",
    "other": [],
}


def test_a_notebook_makes_what_plain_papermill_hands_on_its_own_kind():
    namespace = {**NAMESPACE}
    check_values(namespace)
    assert namespace == {**NAMESPACE, "flip": False, "learning_rate": 0.001, "workers": 2}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"flip": "maybe"}, "flip is 'maybe' in this notebook; expected bool, true or false"),
        ({"epochs": 3.5}, "expected int"),
        ({"epochs": 0}, "epochs is 0; expected a number above 0"),
        ({"In": ["", "# Parameters\nepoch = 3\n"]}, "no parameter 'epoch'; did you mean epochs"),
    ],
)
def test_a_notebook_refuses_what_plain_papermill_lets_through(given, message):
    with pytest.raises(InputError, match=message):
        check_values({**NAMESPACE, **given})


def test_every_notebook_checks_its_parameters_and_takes_every_profile():
    for notebook in all_notebooks():
        cells = nbformat.read(notebook, 4).cells
        [first] = [k for k, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
        assert "\ncheck_values(globals())" in cells[first + 1].source, notebook.name
        declared = declared_parameters(notebook)
        for profile in (NOTEBOOKS / "profiles").glob(
            "*.yaml"
        ):  # README: papermill -f hands all of it to each
            for name in load_profile(profile).keys() - declared.keys():
                assert not difflib.get_close_matches(name, declared, 1, MISSPELT), (notebook.name, name)


@pytest.mark.parametrize(
    "content", ["", "[]", '{"given": null}', '{"notebooks": []}', '{"notebooks": {"01_look": null}}']
)
def test_a_damaged_record_is_not_gone_on_from(tiny, tmp_path, monkeypatch, content):
    monkeypatch.setattr(series, "_execute", lambda *_: None)
    (tmp_path / "run.json").write_text(content)
    for options in ({"start": "03"}, {"only": "01"}):
        with pytest.raises(InputError, match="run.json is damaged; expected the parameters of the last run"):
            run_series(run_dir=str(tmp_path), folder=tiny, **options)
    run_series(run_dir=str(tmp_path), folder=tiny, start="03", profile="demo", progress=False)
    assert json.loads((tmp_path / "run.json").read_text())["parameters"]["epochs"] == 3


@pytest.mark.parametrize("stem", ["03_training", "04_results", "05_how_sure"])
def test_what_a_notebook_reads_is_looked_at_before_it_runs(stem, tmp_path):
    write_notebook(tmp_path / f"{stem}.ipynb", RUN, "pass")
    out = tmp_path / "my run"
    with pytest.raises(InputError, match="run 02_preprocessing first.*--run-dir '.*my run' --only 02"):
        run_series(run_dir=str(out), only=stem, folder=tmp_path)
    assert not out.exists()


def test_a_profile_is_found_where_the_caller_stands(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text("epochs: 5")
    assert load_profile("mine.yaml", tiny) == {"epochs": 5}
    with pytest.raises(InputError, match="expected one of demo, or"):
        load_profile(tmp_path / "none", tiny)


def test_one_runner_at_a_time_and_none_beside_a_writing_notebook(tiny, tmp_path):
    for name in (series.RUNNER_LOCK, LOCK):
        with (
            locked(tmp_path, "another", name),
            pytest.raises(InputError, match="is being written by another"),
        ):
            run_series(run_dir=str(tmp_path), folder=tiny)


def test_a_machine_that_cannot_talk_to_itself_is_named(monkeypatch, tiny, tmp_path):
    def unreachable(*_):
        raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    monkeypatch.setattr("socket.create_server", unreachable)
    with pytest.raises(InputError, match="loopback network interface"):
        run_series(run_dir=str(tmp_path / "run"), folder=tiny)


@pytest.mark.slow
def test_what_a_notebook_notes_is_said_on_the_terminal(tmp_path, capfd):
    write_notebook(tmp_path / "01_look.ipynb", RUN, "print('seen')\nprint('note: odd')", "print('note: odd')")
    run_series(run_dir=str(tmp_path / "my run"), folder=tmp_path, progress=False)
    assert capfd.readouterr().err == "note: odd\n"
    write_notebook(tmp_path / "01_look.ipynb", RUN, "1 / 0")
    with pytest.raises(NotebookError, match=f"--run-dir '{tmp_path / 'my run'}' --from 01"):
        run_series(run_dir=str(tmp_path / "my run"), folder=tmp_path, progress=False)


def test_the_notebooks_of_a_language_run_and_go_on_in_it(tmp_path):
    """Its folder decides; the English notebooks still say which parameters there are."""
    series, out = tmp_path / "series", tmp_path / "out"
    (series / "es").mkdir(parents=True)
    for name in ("01_look.ipynb", "02_prepare.ipynb"):
        for folder, said in ((series, "English"), (series / "es", "Spanish")):
            write_notebook(folder / name, RUN + 'language: str = "en"', f"print('note: {said}', language)")

    def said():
        for copy in sorted((out / "notebooks").iterdir()):
            yield next(o.text for c in nbformat.read(copy, 4).cells for o in c.get("outputs", ()))

    run_series(run_dir=str(out), parameters={"language": "es"}, folder=series, progress=False)
    assert list(said()) == ["note: Spanish es\n"] * 2
    run_series(run_dir=str(out), start="02", folder=series, progress=False)
    assert list(said()) == ["note: Spanish es\n"] * 2
    run_series(run_dir=str(out), parameters={"language": "en"}, only="02", folder=series, progress=False)
    assert list(said()) == ["note: Spanish es\n", "note: English en\n"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
@no_windows
def test_a_stop_ends_in_good_order_and_a_kill_is_told_by_the_next_call(tmp_path, name):
    waits = "from pathlib import Path\nPath(run_dir, 'here').touch()\nimport time\ntime.sleep(9999)"
    write_notebook(tmp_path / "01_look.ipynb", RUN, "pass")
    write_notebook(tmp_path / "03_train.ipynb", RUN, waits)
    out = tmp_path / "out"
    command = [sys.executable, "-c", COMMAND, tmp_path, "run", "--run-dir", out, "--from", "03"]
    status = []
    for signal_sent in (getattr(signal, name), signal.SIGKILL):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        wait_for((out / "here").exists)
        (out / "here").unlink()
        if signal_sent != signal.SIGKILL:
            (out / "checkpoint").mkdir()
            (out / "checkpoint" / "progress.json").write_text('{"epoch": 2, "step": 7}')
        process.send_signal(signal_sent)
        message = process.communicate(timeout=900)[1]
        status.append((process.returncode, json.loads((out / "run.json").read_text())["status"]))
        if signal_sent != signal.SIGKILL:
            assert "03_train stopped" in message and "up to epoch 2 after step 7" in message
    assert status == [(75, "stopped"), (-signal.SIGKILL, "running")]
    write_notebook(tmp_path / "03_train.ipynb", RUN, "pass")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and f"note: the last run in {out} was killed in 03_train" in done.stderr


def test_unusable_data_are_refused_when_the_notebook_that_looks_at_them_is_left_out(tiny_phantom, tmp_path):
    write_notebook(tmp_path / "02_preprocessing.ipynb", DATA + RUN, "pass")
    data = shutil.copytree(tiny_phantom, tmp_path / "data")
    masks = np.load(data / FILES["medseg"][1])
    np.save(data / FILES["medseg"][1], 255 * masks)
    with pytest.raises(InputError, match="values other than 0 or 1"):
        run_series(run_dir=str(tmp_path / "run"), only="02", data_dir=str(data), folder=tmp_path)
    assert not (tmp_path / "run").exists()


def test_run_directory_among_the_data_is_refused(tiny, tmp_path):
    for data_dir, place in ((str(tmp_path), tmp_path), ("phantom", resolve_path("data/phantom"))):
        with pytest.raises(InputError, match="is the data's; expected another"):
            run_series(run_dir=str(place), data_dir=data_dir, folder=tiny)
    assert not any(tmp_path.iterdir())


def test_run_directory_that_is_a_file_is_refused(tiny, tmp_path):
    (tmp_path / "run").write_text("precious")
    with pytest.raises(InputError, match="is a file; expected a folder"):
        run_series(run_dir=str(tmp_path / "run"), folder=tiny)
    assert (tmp_path / "run").read_text() == "precious"


def test_package_without_notebooks_says_so(tmp_path):
    with pytest.raises(InputError, match="run from a checkout"):
        run_series(folder=tmp_path)


@pytest.mark.parametrize("content", ["", "[]", '{"cells": [{"metadata": {}}]'])
def test_broken_notebook_is_named(tmp_path, content):
    (tmp_path / "01_broken.ipynb").write_text(content)
    with pytest.raises(InputError, match="01_broken.ipynb"):
        declared_parameters(tmp_path / "01_broken.ipynb")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (("epochs", "3"), 3),
        (("clip_min", "-1e3"), -1000.0),
        (("clip_min", "7"), 7.0),
        (("flip", "No"), False),
        (("flip", "1"), True),
        (("data_dir", "0012"), "0012"),
        (("workers", "none"), None),
        (("workers", "2"), 2),
    ],
)
def test_text_becomes_the_declared_kind(tiny, text, value):
    declared = {}
    for notebook in find_notebooks(tiny):
        declared |= declared_parameters(notebook)
    [converted] = check_parameters(declared, dict([text]), "-p").values()
    assert converted == value and type(converted) is type(value)


@pytest.mark.parametrize("name", ["02", "02_prepare", "02_prepare.ipynb"])
def test_a_notebook_is_chosen_by_number_or_name(tiny, name):
    notebooks = find_notebooks(tiny)
    assert select_notebooks(notebooks, only=name) == notebooks[1:2]
    assert select_notebooks(notebooks, start=name) == notebooks[1:]
    assert select_notebooks(notebooks) == notebooks


@pytest.mark.slow
def test_refresh_leaves_only_what_means_something(tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_DATA_DIR", "elsewhere")
    path = tmp_path / "01_look.ipynb"
    write_notebook(
        path,
        RUN,
        "import os; print('LUNGSEG_DATA_DIR' in os.environ)",
        "from lungseg_utils.core import resolve_path; print(resolve_path(run_dir))",
        "from IPython.display import display\n"
        "display({'application/vnd.jupyter.widget-view+json': {}, 'text/plain': 'bar'}, raw=True)",
    )
    before = nbformat.read(path, 4)
    refresh_notebooks(tmp_path)
    after = nbformat.read(path, 4)
    assert [c.id for c in after.cells] == [c.id for c in before.cells]
    assert [c.source for c in after.cells] == [c.source for c in before.cells]
    printed = [
        "".join(o.text for o in c.outputs) for c in after.cells[2:4]
    ]  # a busy machine sends it in pieces
    assert printed == ["False\n", "runs/tiny\n"]
    assert after.cells[4].outputs == []
    assert [c.metadata for c in after.cells] == [c.metadata for c in before.cells]
    assert after.metadata.language_info == {"name": "python"}


# --- the committed notebooks and profiles ---


def test_shared_parameters_agree_across_the_notebooks():
    declared = {}
    for notebook in all_notebooks():
        for name, parameter in declared_parameters(notebook).items():
            assert declared.setdefault(name, parameter) == parameter, f"{name} differs in {notebook.name}"
    assert {"data_dir", "run_dir", "epochs", "seed"} <= declared.keys()
    assert declared["data_dir"].default == "phantom"


@pytest.mark.parametrize("profile", sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml")))
def test_profiles_fit_the_notebooks(profile):
    declared = {}
    for notebook in all_notebooks():
        declared |= declared_parameters(notebook)
    values = check_parameters(declared, load_profile(profile), profile)
    if profile == "demo":  # a notebook opened in Jupyter runs the demo
        assert values == {name: declared[name].default for name in values}


def test_papermill_help_reads_every_parameter():
    for notebook in all_notebooks():
        shown = papermill.inspect_notebook(notebook)
        assert shown.keys() == declared_parameters(notebook).keys(), notebook.name
        assert all(p["help"] and p["inferred_type_name"] != "None" for p in shown.values()), notebook.name
