"""The notebooks' rules, for each of them: what papermill sees, what it refuses, what is stored."""

import ast
import re
import subprocess
import sys
from itertools import groupby
from statistics import median

import nbformat
import pytest
from papermill.inspection import inspect_notebook

from lib.notebook import check_parameters, clean, main, student
from lib.setup import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
TYPES = ("int", "float", "bool", "str", "List[", "Optional[")


def read(path):
    return nbformat.read(path, as_version=4)


def tagged(notebook, tag: str) -> list:
    return [cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])]


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request):
    return request.param


def test_metadata_is_clean_and_the_kernel_is_python3(path):
    notebook = read(path)
    assert notebook.metadata.kernelspec.name == "python3"
    assert clean(read(path)) == notebook
    assert "papermill" not in notebook.metadata


def test_papermill_sees_every_parameter_with_type_and_help(path):
    (cell,) = tagged(read(path), "parameters")
    seen = inspect_notebook(str(path))
    declared = [line.split(":")[0] for line in cell.source.splitlines()]
    assert list(seen) == declared
    for name, parameter in seen.items():
        assert parameter["inferred_type_name"].startswith(TYPES), name
        assert len(parameter["help"]) > 5, name


def test_the_next_cell_checks_the_parameters_first(path):
    code = [cell for cell in read(path).cells if cell.cell_type == "code"]
    following = code[[("parameters" in cell.metadata.get("tags", [])) for cell in code].index(True) + 1]
    assert following.source.splitlines()[0] == "parameters = notebook.check_parameters(In, globals())"


def test_stored_outputs_have_no_error_and_something_to_see(path):
    outputs = [output for cell in read(path).cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 4
    assert "widget" not in path.read_text(encoding="utf-8")


def test_there_is_something_to_check_and_something_to_solve(path):
    notebook = read(path)
    assert tagged(notebook, "nbval-check-output") and tagged(notebook, "solution")
    assert all(cell.outputs for cell in tagged(notebook, "nbval-check-output"))


SECTIONS = ["Parameters", "The data", "The model", "The evidence", "Your run", "Looking inside", "Try your own",
            "Exercises"]  # fmt: skip


def code_of(path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


def prose_of(path) -> str:
    """Without code, formulas and links, whose numbers nobody measured."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for other in (r"```.*?```", r"`[^`]*`", r"\$\$.*?\$\$", r"\$[^$]*\$", r"\[[^\]]*\]\([^)]*\)"):
        text = re.sub(other, "", text, flags=re.DOTALL)
    return text


def test_the_sections_stand_in_the_same_order_everywhere(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    named = [next((name for name in SECTIONS if heading.startswith(name)), heading) for heading in headings]
    assert [name for name, _ in groupby(named)] == SECTIONS
    assert text.startswith("# ") and text.index("### What we found") < text.index("## Parameters")


def test_cells_are_short(path):
    cells = [cell.splitlines() for cell in code_of(path)]
    assert median(map(len, cells)) <= 6
    assert [line for lines in cells for line in lines if len(line) > 110] == []


def test_prose_states_no_measured_number(path):
    assert re.findall(r".{0,30}\d\.\d.{0,10}", prose_of(path)) == []


def test_evidence_comes_before_anything_is_trained(path):
    code = code_of(path)
    steps = ("found(", "Evidence(", ".ablate(")
    first = [next(i for i, cell in enumerate(code) if step in cell) for step in steps]
    assert first == sorted(first)
    training = [cell for cell in code if ".ablate(" in cell or "experiment.run(" in cell]
    assert len(training) == 1  # what was asked for, and nothing else


def test_no_name_is_used_for_two_things(path):
    """So that cells can be run again in any order."""
    named = [name for cell in code_of(path) for name in assigned(cell)]
    assert sorted(name for name in set(named) if named.count(name) > 1) == []


def assigned(cell: str) -> set[str]:
    """The names that a cell gives a value to, but for those of its functions and the variables of its loops."""
    names, todo = set(), list(ast.parse(cell).body)
    while todo:
        node = todo.pop()
        if isinstance(node, (ast.FunctionDef, ast.Lambda, ast.ClassDef)):
            continue
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = [part for target in targets for part in ast.walk(target)]
            names |= {part.id for part in parts if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)}
        todo += ast.iter_child_nodes(node)
    return names


def test_student_copies_have_no_solution_and_no_output(path, tmp_path):
    copy = read(student(path, tmp_path))
    assert not tagged(copy, "solution")
    assert not any(cell.get("outputs") for cell in copy.cells)
    assert [cell.source for cell in tagged(copy, "answer")] == [""] * len(tagged(read(path), "solution"))


def test_an_unknown_parameter_stops_papermill_with_the_nearest_name(tmp_path):
    one = NOTEBOOKS[0]
    command = [sys.executable, "-m", "papermill", one, tmp_path / "out.ipynb", "-p", "epoch", "2", "--no-progress-bar"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode != 0
    assert "parameter 'epoch' is unknown, did you mean 'epochs'?" in done.stderr


DECLARED = (
    'dataset: str = "x"  # a\nepochs: Optional[int] = None  # b\nseeds: List[int] = [0]  # c\nrate: float = 1.0  # d'
)
DEFAULTS = {}
exec(f"from typing import List, Optional\n{DECLARED}", DEFAULTS)


def test_parameters_are_collected():
    injected = "# Parameters\nepochs = 2\n"
    for cells in (["", "%matplotlib inline", DECLARED, injected], []):  # nbval keeps no history
        chosen = check_parameters(cells, DEFAULTS | {"epochs": 2})
        assert chosen == {"dataset": "x", "epochs": 2, "seeds": [0], "rate": 1.0}


@pytest.mark.parametrize("injected, values, message", [
    ("# Parameters\nepoch = 2\n", {}, "parameter 'epoch' is unknown, did you mean 'epochs'"),
    ("", {"epochs": "two"}, r"parameter 'epochs' is 'two', expected Optional\[int\]"),
    ("", {"epochs": True}, "parameter 'epochs' is True"),
    ("", {"seeds": 3}, r"parameter 'seeds' is 3, expected List\[int\]"),
    ("", {"dataset": None}, "parameter 'dataset' is None, expected str"),
    ("", {"seeds": ["0"]}, r"parameter 'seeds' is \['0'\], expected List\[int\]"),
    ("", {"seeds": [0.5]}, r"parameter 'seeds' is \[0.5\], expected List\[int\]"),
    ("", {"seeds": [True]}, r"parameter 'seeds' is \[True\], expected List\[int\]"),
    ("", {"seeds": []}, "parameter 'seeds' is empty, expected at least one of int"),
])  # fmt: skip
def test_bad_parameters_are_named(injected, values, message):
    with pytest.raises(ValueError, match=message):
        check_parameters([DECLARED, injected], DEFAULTS | values)


def test_the_command_line_refuses_other_actions(capsys):
    with pytest.raises(SystemExit):
        main(["publish", "x.ipynb"])
    assert "invalid choice: 'publish'" in capsys.readouterr().err
