"""A plan of many runs: a YAML file in, checked runs out, each with a name and a fingerprint.

    profile: demo
    parameters: {epochs: 6}
    grid:
      loss: [cross_entropy, dice_cross_entropy]
    seeds: [0, 1, 2]

What a run is, its parameters and its data say, not its name: so a plan that grows knows its earlier runs.
"""

import difflib
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lungseg_utils.core.files import InputError, standing_path
from lungseg_utils.data.find import find_data, listed_folders
from lungseg_utils.data.preprocessing import data_fingerprint
from lungseg_utils.series.parameters import (
    NOTEBOOKS,
    check_meaning,
    check_parameters,
    declared_parameters,
    load_profile,
)
from lungseg_utils.series.run import find_notebooks
from lungseg_utils.training.config import HOW, TrainingConfig

KEYS = ("profile", "parameters", "grid", "runs", "seeds", "folds")
PREPARING = ("01", "02")  # the numbers of the notebooks whose work runs may share
LONGEST_NAME = 120  # characters of a run directory's name, whatever its file system
FINGERPRINT = 12  # hexadecimal digits


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan.

    Attributes:
        name: Of its run directory: what differs between the plan's runs, `loss=cross_entropy,seed=0`.
        parameters: All that the series declares, but for run_dir.
        preparation: Fingerprint of the data and of the parameters that decide what is prepared.
    """

    name: str
    parameters: dict[str, Any]
    preparation: str

    @property
    def fingerprint(self) -> str:
        """Of all on which the result depends; not of where the data lie nor of how the work is done."""
        return run_fingerprint(self.parameters, self.preparation)

    @property
    def setting(self) -> dict[str, Any]:
        """The parameters but for the seed, to find runs that differ in nothing else."""
        return {name: value for name, value in self.parameters.items() if name != "seed"}


def run_fingerprint(parameters: Mapping[str, Any], preparation: str) -> str:
    """See `PlannedRun.fingerprint`."""
    aside = {"run_dir", "data_dir", "further_data", "processes", "language", *HOW}
    return _fingerprint([preparation, {k: v for k, v in parameters.items() if k not in aside}])


def _fingerprint(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:FINGERPRINT]


def load_plan(path: str | Path, folder: Path = NOTEBOOKS) -> list[PlannedRun]:
    """The runs of a plan, every value checked as `lungseg run` does; the phantom is made if it is wanted.

    Args:
        path: The YAML file; relative to where the caller stands, or to the checkout.
        folder: The notebooks'.

    Returns:
        The runs: the grid's or the explicit ones, for each fold and seed, seeds innermost.

    Raises:
        InputError: The plan cannot be read, or some run could not be carried out.
    """
    runs = planned_parameters(path, folder)
    for _, values in runs:
        check_meaning(values)
    declared_by = {notebook.stem: declared_parameters(notebook) for notebook in find_notebooks(folder)}
    prepares = _preparing(declared_by)
    data = {where: _data(*where) for where in dict.fromkeys(_where(values) for _, values in runs)}
    _check_folds(values for _, values in runs)
    found: list[PlannedRun] = []
    numbers: dict[str, int] = {}
    for number, (name, values) in enumerate(runs, 1):
        preparation = _fingerprint([data[_where(values)], {name: values[name] for name in prepares}])
        run = PlannedRun(name, {k: v for k, v in values.items() if k != "run_dir"}, preparation)
        if run.fingerprint in numbers:
            raise InputError(
                f"runs {numbers[run.fingerprint]} and {number} of {path} are the same; expected each once; "
                "leave one out"
            )
        found.append(run)
        numbers[run.fingerprint] = number
    return found


def planned_parameters(path: str | Path, folder: Path = NOTEBOOKS) -> list[tuple[str, dict[str, Any]]]:
    """The name of each run of a plan and its parameters, each of its declared kind; no data are needed.

    Args:
        path: As in `load_plan`, as is the folder.
        folder: The notebooks'.

    Returns:
        Name and all that the series declares, a run each.

    Raises:
        InputError: The plan cannot be read, or has a parameter that no notebook declares.
    """
    path = standing_path(path)
    if not path.is_file():
        raise InputError(f"there is no plan {path}; expected a YAML file; see docs/batch.md")
    plan = load_profile(path, folder)
    for key in plan:
        if key not in KEYS:
            nearest = difflib.get_close_matches(str(key), KEYS, 1)
            expected = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(KEYS)}"
            raise InputError(f"{path} has {key!r}; {expected}; single parameters go below `parameters:`")
    notebooks = find_notebooks(folder)
    declared = {name: p for notebook in notebooks for name, p in declared_parameters(notebook).items()}
    profile = plan.get("profile")
    common = {name: parameter.default for name, parameter in declared.items()}
    if profile is not None:
        common |= check_parameters(declared, load_profile(str(profile), folder), f"profile {profile}")
    given = _mapping(plan.get("parameters"), "parameters", path)
    common |= check_parameters(declared, given, str(path))

    runs = []
    for chosen in _combinations(plan, path):
        if "run_dir" in {**given, **chosen}:
            raise InputError(f"{path} sets run_dir; expected none: each run has one of its own; see --out")
        runs.append(common | check_parameters(declared, chosen, str(path)))
    return list(zip(_names(runs), runs, strict=True))


def _mapping(value: Any, key: str, path: Path) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key} in {path} is {value!r}; expected lines like `epochs: 10` below it")
    return value


def _values(value: Any, key: str, path: Path) -> list[Any]:
    """A list of values, each once."""
    if not isinstance(value, list) or not value:
        raise InputError(f"{key} in {path} is {value!r}; expected a list of values, such as [0, 1]")
    if twice := [one for one in value if value.count(one) > 1]:
        raise InputError(f"{key} in {path} has {twice[0]!r} twice; expected each value once")
    return value


def _combinations(plan: Mapping[str, Any], path: Path) -> Iterator[dict[str, Any]]:
    """What each run sets beyond what all have in common."""
    if "grid" in plan and "runs" in plan:
        raise InputError(f"{path} has both grid and runs; expected one of them; leave one out")
    grid = {
        name: _values(values, name, path) for name, values in _mapping(plan.get("grid"), "grid", path).items()
    }
    explicit = _values(plan["runs"], "runs", path) if "runs" in plan else [{}]
    rows = [_mapping(row, "runs", path) for row in explicit]
    if "runs" not in plan:
        rows = [dict(zip(grid, values)) for values in itertools.product(*grid.values())]
    axes: dict[str, list[Any]] = {}
    if "folds" in plan:
        axes["validation_volume"] = _values(plan["folds"], "folds", path)
    if "seeds" in plan:
        axes["seed"] = _values(plan["seeds"], "seeds", path)
    parameters = _mapping(plan.get("parameters"), "parameters", path)
    for name in grid:
        if name in parameters:
            raise InputError(f"{path} has {name} in parameters and in grid; expected it once; leave one out")
    for key, name in (("folds", "validation_volume"), ("folds", "split"), ("seeds", "seed")):
        if key in plan and (name in parameters or any(name in row for row in rows)):
            raise InputError(f"{path} has {key} and sets {name} too; expected one of them; leave one out")
    for row in rows:
        for values in itertools.product(*axes.values()):
            split = {"split": "by_volume"} if "folds" in plan else {}
            yield {**row, **split, **dict(zip(axes, values))}


def _preparing(declared_by: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The parameters on which the prepared folder depends: of its notebooks, and none of a training's."""
    training = {field.name for field in fields(TrainingConfig)}
    names = {name for stem, own in declared_by.items() if stem.split("_")[0] in PREPARING for name in own}
    return sorted(names - training - {"run_dir", "data_dir", "further_data", "language"})


def _where(values: Mapping[str, Any]) -> tuple[str, str]:
    return values.get("data_dir", ""), values.get("further_data", "")


def _data(data_dir: str, further: str) -> list[str]:
    """Fingerprints of the data folders, wherever they lie."""
    folders = [find_data(data_dir)] if data_dir else []
    return [data_fingerprint(folder) for folder in [*folders, *listed_folders(further)]]


def _check_folds(runs: Iterable[Mapping[str, Any]]) -> None:
    """Raises InputError for a volume that the data do not have."""
    from lungseg_utils.data.arrays import load_data

    volumes: dict[str, set[int]] = {}
    for values in runs:
        if values.get("split") != "by_volume":
            continue
        where = values["data_dir"]
        if where not in volumes:
            volumes[where] = set(map(int, load_data(find_data(where)).volumes))
        if values["validation_volume"] not in volumes[where]:
            known = ", ".join(map(str, sorted(volumes[where])))
            raise InputError(
                f"the fold {values['validation_volume']} is no volume of {where}; expected some of {known}"
            )


def _names(runs: list[dict[str, Any]]) -> list[str]:
    """What differs, as text that a folder can be named by; the seed last."""
    differing = [name for name in runs[0] if any(run[name] != runs[0][name] for run in runs)]
    differing.sort(key=lambda name: name == "seed")
    names = []
    for run in runs:
        parts = [f"{name}={re.sub(r'[^A-Za-z0-9.+-]+', '_', str(run[name]))}" for name in differing]
        name = ",".join(parts) or "run"
        if len(name) > LONGEST_NAME:
            name = f"{name[: LONGEST_NAME - FINGERPRINT - 1]}~{_fingerprint(name)}"
        names.append(name)
    twice = {name for name in names if names.count(name) > 1}  # values that differ in their marks alone
    return [f"{name}~{_fingerprint(run)}" if name in twice else name for name, run in zip(names, runs)]
