"""A training's settings: declared once, and by the same names in 03's cell and in the profiles."""

from dataclasses import asdict, fields

import pytest

from lungseg_utils.core.files import InputError
from lungseg_utils.series.parameters import NOTEBOOKS, declared_parameters, load_profile
from lungseg_utils.training.config import TrainingConfig

SETTINGS = {field.name: field for field in fields(TrainingConfig)}


def test_the_cell_of_03_declares_every_setting_with_its_kind():
    declared = declared_parameters(NOTEBOOKS / "03_training.ipynb")
    assert {name: declared[name].kind for name in SETTINGS} == {
        n: f.type.__name__ for n, f in SETTINGS.items()
    }
    assert declared.keys() - SETTINGS.keys() == {"run_dir", "processes", "experiment_steps", "language"}


@pytest.mark.parametrize("profile", sorted(path.stem for path in (NOTEBOOKS / "profiles").glob("*.yaml")))
def test_a_profile_sets_what_a_notebook_declares(profile):
    declared = {name for path in NOTEBOOKS.glob("0*.ipynb") for name in declared_parameters(path)}
    values = load_profile(profile)
    assert values.keys() <= declared
    TrainingConfig(**{name: value for name, value in values.items() if name in SETTINGS})


def test_the_settings_are_found_by_their_names_among_others():
    config = TrainingConfig(epochs=3, encoder="resnet18", monitor="val_miou")
    assert TrainingConfig.from_names({**asdict(config), "run_dir": "x", "other": 1}) == config
    without = {name: value for name, value in asdict(config).items() if name != "growth"}
    with pytest.raises(InputError, match="there is no growth; expected every training setting"):
        TrainingConfig.from_names(without)
