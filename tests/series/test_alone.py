"""Training from the command line: settings, exit codes, one sentence for people."""

import json

import pytest
import torch
from click.testing import CliRunner
from helpers import TINY_CONFIG

from lungseg_utils.cli import main
from lungseg_utils.core.device import Device
from lungseg_utils.core.stopping import NOT_FINISHED
from lungseg_utils.series import alone

pytestmark = pytest.mark.slow

SETTINGS = {
    name: getattr(TINY_CONFIG, name)
    for name in ("encoder", "encoder_weights", "image_size", "epochs", "batch_size")
}


@pytest.fixture
def command(prepared_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(alone, "choose_device", lambda: Device("cpu", "tests", "tests"))

    def run(*arguments, **settings):
        torch.set_num_threads(1)
        options = [
            part for name, value in {**SETTINGS, **settings}.items() for part in ("-p", name, str(value))
        ]
        return CliRunner().invoke(
            main, ["train", "--run-dir", str(tmp_path), "--prepared", str(prepared_dir), *options, *arguments]
        )

    return run


def test_stopped_it_says_so_and_the_same_command_goes_on(command, tmp_path):
    stopped = command(max_minutes=1e-9)
    assert (
        stopped.exit_code == NOT_FINISHED
        and "Everything is saved" in stopped.stderr
        and "Traceback" not in stopped.output
    )
    finished = command(
        "--profile", "reference"
    )  # -p wins; what the profile says of other notebooks is left out
    assert finished.exit_code == 0, finished.output
    record = json.loads((tmp_path / "model" / "config.json").read_text())
    assert record["training"]["image_size"] == 32 and "cpu (tests)" in finished.stdout


def test_bad_input_and_divergence(command):
    assert command(batch_size="many").exit_code == 2
    unknown = command(batchsize=3)
    assert unknown.exit_code == 2 and "did you mean batch_size?" in unknown.stderr
    diverged = command(learning_rate=1e30)
    assert diverged.exit_code == 1 and diverged.stderr.rstrip().endswith(
        "lower the learning_rate or set max_grad_norm."
    )
