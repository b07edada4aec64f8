"""The notebooks' parameters.

What each declares, what a profile or the command line gives, and whether the two agree. papermill passes
"false" as text and only warns of an unknown name, so both are settled here: by the runner before anything
runs, and by each notebook in the cell after its parameters.
"""

import ast
import difflib
import json
import math
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import yaml

from lungseg_utils.core.files import CHECKOUT, InputError, standing_path
from lungseg_utils.core.language import ENGLISH, check_language, language_now, set_language

NOTEBOOKS = CHECKOUT / "notebooks"
KINDS: dict[str, Any] = {"bool": bool, "int": int, "float": float, "str": str}
WORDS = {"bool": "bool, true or false", "int": "int", "float": "float, a finite number", "str": "str"}
CELL = "this notebook"
MISSPELT = 0.85  # how alike two names are, from 0 to 1, of which one is a slip
# Parameters that are checked without the libraries of training, which take seconds to load: 00, 01, 10 and 20
# have no others, and 04 and 05 have only those of the inference besides.
LIGHT = {
    "language",
    *("data_dir", "run_dir", "results_dir", "figures_dir", "scan", "series", "model_dir"),
    *("split", "validation_volume", "batch_size", "first_size", "first_slices", "first_epochs", "first_seed"),
}
INFERENCE = {
    *("model", "flip", "angle", "temperature", "ground_glass_threshold", "consolidation_threshold"),
    *("min_lung_share", "min_lesion_pixels"),
}
WORDS_FOR_BOOL = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


CORE_SCHEMA = {
    "null": r"^(?:null|Null|NULL|~|)$",
    "bool": r"^(?:true|True|TRUE|false|False|FALSE)$",
    "int": r"^[-+]?(?:0|[1-9][0-9]*)$",
    "float": r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$"
    r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
}


class Yaml12(yaml.SafeLoader):
    """YAML 1.2, its core schema (yaml.org/spec/1.2.2, 10.3): 1e-3 is a number, `no` is text. No key twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, list]] = {}  # type: ignore[misc]  # PyYAML's is one, too

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        """As PyYAML does it, but a key that is there already is an error."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        if twice := [key for key in keys if keys.count(key) > 1]:
            raise yaml.YAMLError(f"{twice[0]} is given twice")
        return super().construct_mapping(node, deep)


for _kind, _pattern in CORE_SCHEMA.items():
    Yaml12.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), None)


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's `parameters` cell: `name: kind = default`.

    Optional if the annotation has `| None`.
    """

    name: str
    kind: str
    optional: bool
    default: object


def declared_parameters(notebook: Path) -> dict[str, Parameter]:
    """What the cell tagged `parameters` declares, by name.

    A line's kind is its annotation, else its default's type.
    """
    try:
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        source = "".join(
            line
            for cell in cells
            if "parameters" in cell["metadata"].get("tags", ())
            for line in [*cell["source"], "\n"]
        )
        declared = {}
        for line in ast.parse(source).body:
            if not isinstance(line, ast.Assign | ast.AnnAssign):
                continue
            target = line.targets[0] if isinstance(line, ast.Assign) else line.target
            if line.value is None or not isinstance(target, ast.Name):
                raise ValueError(f"line {line.lineno} of the cell gives no value to a name")
            default = ast.literal_eval(line.value)
            annotation = (
                ast.unparse(line.annotation) if isinstance(line, ast.AnnAssign) else type(default).__name__
            )
            kinds = {kind.strip() for kind in annotation.split("|")}
            known = kinds & KINDS.keys()
            if len(known) != 1 or not kinds - known <= {"None"}:
                raise ValueError(f"{target.id} is {annotation}, not one of {', '.join(KINDS)}")
            declared[target.id] = Parameter(target.id, known.pop(), "None" in kinds, default)
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise InputError(
            f"the parameters of {notebook.name} cannot be read ({error}); expected a notebook with a cell "
            "tagged 'parameters' of lines like `epochs: int = 10`; mend or check out that file"
        ) from error
    return declared


def _converted(parameter: Parameter, value: Any, origin: str) -> Any:
    """`value` as the declared kind.

    Text is parsed where it may stand for another kind; a profile has types of its own.
    """
    if parameter.optional and value in (None, "none", "None", "null"):
        return None
    text = origin in ("-p", CELL) and isinstance(value, str)
    try:
        if text:
            value = (
                WORDS_FOR_BOOL[value.lower()] if parameter.kind == "bool" else KINDS[parameter.kind](value)
            )
        elif parameter.kind == "float" and type(value) is int:
            value = float(value)
        if type(value) is KINDS[parameter.kind] and not (
            parameter.kind == "float" and not math.isfinite(value)
        ):
            return value
    except (KeyError, ValueError, OverflowError):
        pass
    like = "" if parameter.default is None else f", like the default {parameter.default!r}"
    raise InputError(
        f"parameter {parameter.name} is {value!r} in {origin}; expected {WORDS[parameter.kind]}{like}"
    )


def load_profile(profile: str | Path, folder: Path = NOTEBOOKS) -> dict[str, object]:
    """The YAML mapping of a profile.

    Args:
        profile: A name in `folder`/profiles ("demo"), or a file; relative to where the caller stands, or to
            the checkout.
        folder: The notebooks'.

    Returns:
        Parameter -> value, unchecked.
    """
    known_profiles = {path.stem: path for path in sorted((folder / "profiles").glob("*.yaml"))}
    path = known_profiles.get(str(profile)) or standing_path(profile)
    if not path.is_file():
        known = ", ".join(known_profiles)
        raise InputError(
            f"there is no profile {str(profile)!r} ({path}); expected one of {known}, or a YAML file"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Yaml12)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({problem}); expected lines like `epochs: 10`") from None
    if not isinstance(values, dict):
        raise InputError(
            f"{path} holds {type(values).__name__}; expected a YAML mapping, lines like `epochs: 10`"
        )
    return values


def check_parameters(
    declared: Mapping[str, Parameter], given: Mapping[str, object], origin: str
) -> dict[str, Any]:
    """`given`, every name known and every value of its declared kind.

    Raises InputError, which gives the nearest name.
    """
    for name in given:
        if name not in declared:
            nearest = difflib.get_close_matches(str(name), declared, 1)
            expected = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(declared)}"
            raise InputError(f"no notebook has the parameter {name!r} of {origin}; {expected}")
    return {name: _converted(declared[name], value, origin) for name, value in given.items()}


def check_values(namespace: dict[str, Any]) -> None:
    """Check the parameters of the notebook whose globals() these are, and speak its language from here on.

    Plain papermill hands on text (`-p flip false`, a profile's 1e-3): it becomes the declared kind here, in
    place. Raises InputError for what is of another kind or means nothing, and for a misspelt name, of which
    papermill only warns.
    """
    annotations = namespace.get("__annotations__") or namespace.get("__annotate__", lambda _: {})(1)
    declared = {}
    for name, annotation in annotations.items():
        kinds = {getattr(kind, "__name__", kind) for kind in typing.get_args(annotation) or (annotation,)}
        optional, kinds = "NoneType" in kinds, kinds - {"NoneType"}
        if len(kinds) == 1 and kinds <= KINDS.keys():
            declared[name] = Parameter(name, kinds.pop(), optional, None)
    injected = [
        source for source in namespace.get("In", ()) if source.startswith("# Parameters")
    ]  # by papermill
    names = [
        line.targets[0].id
        for line in ast.parse(injected[-1] if injected else "").body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name)
    ]
    for name in names:
        if name not in declared and (near := difflib.get_close_matches(name, declared, 1, MISSPELT)):
            raise InputError(f"this notebook has no parameter {name!r}; did you mean {near[0]}?")
    values = {name: _converted(parameter, namespace[name], CELL) for name, parameter in declared.items()}
    check_meaning(values)
    set_language(values.get("language", language_now()))
    namespace.update(values)


def check_meaning(values: Mapping[str, Any]) -> None:
    """Raises InputError for a value that some notebook would refuse, maybe hours later.

    Any of them may be missing.
    """
    from lungseg_utils.data.find import listed_folders
    from lungseg_utils.data.preprocessing import check_clip, check_fit_on
    from lungseg_utils.data.splits import check_split

    check_language(values.get("language", ENGLISH))
    check_split(values.get("split", "reference"))
    check_fit_on(values.get("fit_on", "all"))
    check_clip(values.get("clip_min", -math.inf), values.get("clip_max", math.inf))
    listed_folders(values.get("further_data", ""))
    least = {"processes": 0, "validation_volume": 1, "batch_size": 1, "first_slices": 1, "first_epochs": 1}
    for name, limit in least.items():
        if values.get(name, limit) < limit:
            raise InputError(f"{name} is {values[name]}; expected {limit} or more")
    if values.keys() & INFERENCE:
        _check_inference(values)
    if values.keys() - LIGHT - INFERENCE:
        _check_training(values)


def _check_inference(values: Mapping[str, Any]) -> None:
    """`check_meaning` of 04's parameters."""
    from lungseg_utils.inference.settings import InferenceSettings

    InferenceSettings.from_names(values)
    _check_model("model", values)


def _check_model(parameter: str, values: Mapping[str, Any]) -> None:
    """Raises InputError if the parameter names no trained model; it may be missing or empty."""
    from lungseg_utils.inference.pretrained import model_folder

    if model := values.get(parameter):
        folder = model_folder(model, "")
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{parameter} is {model!r}; expected a folder with a trained model, pretrained or "
                f"pretrained-small; {folder} is none"
            )


def _check_training(values: Mapping[str, Any]) -> None:
    """`check_meaning` of the parameters of 02 and 03."""
    from lungseg_utils.data.arrays import FILES
    from lungseg_utils.data.datasets import parse_shares
    from lungseg_utils.data.published_sets import KINDS as SETS
    from lungseg_utils.model import check_encoder_weights
    from lungseg_utils.training.config import TrainingConfig

    settings = [field.name for field in fields(TrainingConfig)]
    TrainingConfig(**{name: values[name] for name in settings if values.get(name) is not None})
    check_encoder_weights(values.get("encoder_weights", "none"))
    _check_model("start_from", values)
    sources, known = parse_shares(values.get("shares", "")), {kind.source for kind in SETS.values()}
    if sources and not set(FILES) - {"test"} <= set(sources) <= known:
        raise InputError(
            f"shares is {values['shares']!r}; expected medseg, radiopaedia and what further_data adds, of "
            f"{', '.join(sorted(known))}; correct the names"
        )
