"""Hold the code to its size budget: median function at most 8 lines, 5 % over 40, none over 80; files at most 500.

usage: size_budget.py FOLDER
"""

from __future__ import annotations

import ast
import statistics
import sys
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef


def lines_of(function: Function) -> int:
    """Lines of a function without its docstring."""
    length = (function.end_lineno or 0) - function.lineno + 1
    if ast.get_docstring(function) is None:
        return length
    docstring = function.body[0]
    return length - ((docstring.end_lineno or 0) - docstring.lineno + 1)


def functions(path: Path) -> list[tuple[int, str]]:
    """Each function's length and place."""
    nodes = ast.walk(ast.parse(path.read_text()))
    return [(lines_of(node), f"{path}:{node.lineno} {node.name}") for node in nodes if isinstance(node, Function)]


def main(folder: Path) -> int:
    """Print what breaks the budget; 1 when something does."""
    files = sorted(folder.rglob("*.py"))
    found = [each for path in files for each in functions(path)]
    median = statistics.median(length for length, _ in found)
    share = sum(length > 40 for length, _ in found) / len(found)
    broken = [f"{where} has {length} lines (80 at most)" for length, where in found if length > 80]
    sizes = [(path.read_text().count("\n"), path) for path in files]
    broken += [f"{path} has {size} lines (500 at most)" for size, path in sizes if size > 500]
    broken += [f"the median function has {median} lines (8 at most)"] if median > 8 else []
    broken += [f"{share:.1%} of functions are over 40 lines (5 % at most)"] if share > 0.05 else []
    print(*broken, f"size budget: {len(found)} functions, median {median:g} lines, {share:.1%} over 40", sep="\n")
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
