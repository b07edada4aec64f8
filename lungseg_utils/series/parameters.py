"""The notebooks' parameters.

What each declares, what a profile or the command line gives, and whether the two agree.

papermill passes "false" as text and only warns of an unknown name, so both are settled here, before anything
runs.
"""

import ast
import difflib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lungseg_utils.core.files import CHECKOUT, InputError, resolve_path

NOTEBOOKS = CHECKOUT / "notebooks"
KINDS = {"bool": bool, "int": int, "float": float, "str": str}
WORDS_FOR_BOOL = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


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
            [kind] = kinds - {"None"} if kinds - {"None"} <= KINDS.keys() else []
            declared[target.id] = Parameter(target.id, kind, "None" in kinds, default)
    except (ValueError, KeyError, TypeError, AttributeError, SyntaxError) as error:
        raise InputError(
            f"the parameters of {notebook.name} cannot be read ({error}); expected a notebook with a cell "
            "tagged 'parameters' of lines like `epochs: int = 10`; mend or check out that file"
        ) from error
    return declared


def _converted(parameter: Parameter, value: object, origin: str) -> object:
    """`value` as the declared kind.

    Text is parsed where it came from -p; a profile's YAML has types of its own.
    """
    if parameter.optional and value in (None, "none", "None", "null"):
        return None
    try:
        if origin == "-p" and isinstance(value, str):
            return WORDS_FOR_BOOL[value.lower()] if parameter.kind == "bool" else KINDS[parameter.kind](value)
        if type(value) is KINDS[parameter.kind]:
            return value
        if parameter.kind == "float" and type(value) is int:
            return float(value)
    except (KeyError, ValueError):
        pass
    hint = " (YAML reads 1e-3 as text: write 0.001)" if parameter.kind == "float" and origin != "-p" else ""
    raise InputError(
        f"parameter {parameter.name} is {value!r} in {origin}; expected {parameter.kind}, like the "
        f"default {parameter.default!r}{hint}"
    )


def load_profile(profile: str | Path, folder: Path = NOTEBOOKS) -> dict[str, object]:
    """The YAML mapping of a profile: a name in `folder`/profiles ("demo"), or a file."""
    import yaml

    named = folder / "profiles" / f"{profile}.yaml"
    path = named if named.exists() else resolve_path(profile)
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in named.parent.glob("*.yaml")))
        raise InputError(
            f"there is no profile {str(profile)!r} ({path}); expected one of {known}, or a YAML file"
        )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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
