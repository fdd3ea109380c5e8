"""The pages of docs/ agree with the code, and with the site that shows them."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

from support.documents import DOCS, GENERATED, pages
from support.studies import ROOT


def named(entry: Any) -> Iterator[str]:
    """Every page of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from named(part)


def test_the_navigation_leads_to_every_page() -> None:
    """A page that is not in it is found by search alone; one that does not exist is an error only after building."""
    listed = list(named(tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]))
    there = {path.relative_to(DOCS).as_posix() for path in pages()} | GENERATED
    of_results = {page for page in there if page.startswith("results/")} - {"results/index.md"}  # which leads to them
    assert sorted(listed) == sorted(there - of_results)


def resolve(path: str) -> tuple[object, object]:
    """What a dotted path means, and the class or module that it is in."""
    parts = path.split(".")
    for count in range(len(parts) - 1, 0, -1):
        try:
            inside: Any = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for name in parts[count:-1]:
            inside = getattr(inside, name)
        return getattr(inside, parts[-1]), inside
    raise LookupError(path)


def equations(text: str) -> set[int]:
    """The numbers in `Eq. 8` and `Eqs. 4–7, 9, 10`."""
    found = set[int]()
    for of in re.findall(r"Eqs?\. ((?:\d+(?:–\d+)?(?:, | and )?)+)", text):
        for first, last in re.findall(r"(\d+)(?:–(\d+))?", of):
            found |= set(range(int(first), int(last or first) + 1))
    return found


def test_each_equation_of_the_paper_leads_to_a_function_that_names_it() -> None:
    """A reader who looks for an equation finds it where the page says, after a function has moved too."""
    page = (DOCS / "explanation/paper.md").read_text()
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| \[`(classroom\.[\w.]+)`\]\([^)]*#\2\) \|$", page, re.MULTILINE)
    told = set[int]()
    for left, path in rows:
        function, inside = resolve(path)
        numbers, doc = equations(left), function.__doc__ or ""
        if not isinstance(inside, ModuleType):
            doc += inside.__doc__ or ""
        assert numbers <= equations(doc), f"{path} does not name {left}"
        told |= numbers
    assert told == set(range(1, 16))


def shown() -> list[ModuleType]:
    """The modules of the API reference."""
    names = [
        name for path in DOCS.glob("reference/api/*.md") for name in re.findall("^::: (.+)$", path.read_text(), re.M)
    ]
    return [importlib.import_module(name) for name in names]


def functions(inside: object, module: str) -> Iterator[FunctionType]:
    """The public functions and methods that a module or class of `module` defines."""
    for name, value in vars(inside).items():
        of = getattr(value, "__func__", value)
        if isinstance(of, FunctionType) and of.__code__.co_filename == importlib.import_module(module).__file__:
            if name == "__init__" or not name.startswith("_"):
                yield of
        elif isinstance(value, type) and value.__module__ == module and not name.startswith("_"):
            yield from functions(value, module)


def test_the_api_reference_explains_the_parameters_of_every_function_with_more_than_two() -> None:
    """`ruff` sees whether there is a docstring, and its form; not which parameters it leaves out."""
    silent = []
    for module in shown():
        for of in functions(module, module.__name__):
            parameters = [name for name in inspect.signature(of).parameters if name not in ("self", "cls")]
            section = re.search(r"^ *Parameters\n *-+\n(.*?)(?=^ *[A-Z]\w+\n *-+\n|\Z)", of.__doc__ or "", re.M | re.S)
            explained = set(re.findall(r"^ *(\w+(?:, \w+)*)(?: : .*)?$", section[1] if section else "", re.M))
            missing = set(parameters) - {name for line in explained for name in line.split(", ")}
            if len(parameters) > 2 and missing:
                silent.append(f"{module.__name__}.{of.__qualname__}: {', '.join(sorted(missing))}")
    assert silent == []


def test_every_module_of_the_api_reference_is_one_whose_docstrings_are_checked() -> None:
    ignored = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["ruff"]["lint"]["per-file-ignores"]
    (pattern,) = [key for key, rules in ignored.items() if rules == ["D"]]
    checked = re.search(r"\{(.+)\}", pattern)[1].split(",")
    files = [Path(module.__file__).relative_to(ROOT / "src/classroom").with_suffix("") for module in shown()]
    assert sorted(checked) == sorted(map(str, files))


def test_the_check_of_the_site_names_what_is_missing_and_what_is_loaded(tmp_path: Path) -> None:
    """A dead link of the navigation, an anchor that was renamed, and a font from the web end `make docs`."""
    spec = importlib.util.spec_from_file_location("check", DOCS / "check.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    (tmp_path / "style.css").write_text("@import 'https://fonts.example/a.css'; p { background: url(local.png) }")
    (tmp_path / "b.html").write_text("<h1 id='there'>B</h1><link rel='canonical' href='https://a.example/b'>")
    (tmp_path / "a.html").write_text(
        "<a href='b.html#there'>1</a><a href='b.html#gone'>2</a><a href='c.html'>3</a><a href='https://a.example'>4</a>"
        "<script src='https://cdn.example/x.js'></script><img src='data:,'><link rel='stylesheet' href='style.css'>"
    )
    assert check.faults(tmp_path) == [
        "b.html has no anchor #gone (a.html; 1 in all)",
        "c.html is linked to, and does not exist (a.html; 1 in all)",
        "https://cdn.example/x.js is loaded from the web (a.html; 1 in all)",
        "https://fonts.example/a.css is loaded from the web (style.css; 1 in all)",
    ]
