"""What a user meets before any command runs: the list of commands, examples, the version, completion."""

from __future__ import annotations

import itertools
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from classroom import cli
from support.finished import classroom
from support.studies import ROOT

GROUP = typer.main.get_command(cli.app)


def test_help_lists_every_command_once_with_its_whole_first_sentence() -> None:
    listed = list(itertools.chain.from_iterable(cli.GROUPS.values()))
    assert sorted(listed) == sorted(GROUP.commands)
    text = classroom("classroom --help").out
    places = [text.index(f"\n{title}:\n") for title in cli.GROUPS]
    assert places == sorted(places)
    assert "..." not in text.split("Options:")[1]
    for name, command in GROUP.commands.items():
        sentence = re.split(r"\.\s", command.help)[0].split()
        assert " ".join(sentence).rstrip(".") in " ".join(text.split()), name


def parsed(line: str) -> tuple[str, dict[str, Any], Any]:
    """The command, its parameters and its context for a command line, without running it."""
    program, *words = shlex.split(line)
    assert program == "classroom"
    context = GROUP.make_context(program, list(words))
    name, command, rest = GROUP.resolve_command(context, words)
    within = command.make_context(name, rest, parent=context)
    return name, within.params, within


@pytest.mark.parametrize("name", sorted(GROUP.commands))
def test_the_help_of_a_command_ends_with_an_example_that_can_be_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its arguments and options are those that the command takes; the study, method or report that it names exists."""
    monkeypatch.chdir(ROOT)
    last = " ".join(classroom(f"classroom {name} --help").out.rsplit("\n\n", 1)[-1].split())
    line = last.removeprefix("Example: ")
    assert line != last
    command, values, context = parsed(line)
    assert command == name
    for one in GROUP.commands[name].params:
        given = values.get(one.name)
        for value in given if isinstance(given, (list, tuple)) else [given]:
            if isinstance(value, Path) and value.parts[0] == "examples":
                assert value.is_file()
            elif value and one.shell_complete(context, ""):
                completed = [item.value for item in one.shell_complete(context, str(value))]
                assert str(value) in completed, f"{one.name} {value}"


def test_a_stale_example_does_not_parse() -> None:
    for line in ("classroom train lgg-resnet18 kd_ml-v3 --sede 0", "classroom train lgg-resnet18 kd_ml-v3"):
        with pytest.raises(Exception, match=r"sede|seed"):
            parsed(line)


def test_one_change_is_one_value(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """`classroom use` and `overlay` printed `1 values changed`."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("classroom.settings.plan.write_plan", lambda params: None)
    for changed, said in ((["studies"], "1 value changed"), (["scale", "seeds"], "2 values changed")):
        cli._print_changes("studies skin", changed)
        assert capsys.readouterr().out.splitlines()[0] == f"studies skin: {said}"


def test_version_is_the_package_s_and_in_a_checkout_the_commit() -> None:
    from importlib.metadata import version

    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    said = classroom("classroom --version").out.strip()
    start, _, commit = said.partition(", commit ")
    assert start == f"classroom {version('classroom')}"
    assert head.startswith(commit.removesuffix("-dirty"))
    assert commit


def test_the_commit_of_another_repository_is_not_that_of_an_installed_package(tmp_path: Path) -> None:
    """An environment in a project's folder, where git ignores it."""
    from classroom.git import commit_of

    package = tmp_path / "project/.venv/classroom/cli.py"
    package.parent.mkdir(parents=True)
    package.touch()
    (tmp_path / "project/.gitignore").write_text(".venv\n")
    for command in ("init -q", "add .gitignore", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *shlex.split(command)], cwd=tmp_path / "project", check=True)
    assert commit_of(package) == ""
    assert commit_of(tmp_path / "project/.gitignore") != ""


def test_only_changes_of_the_code_make_the_version_of_the_code_dirty(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings are changed in every project; each job's are in its manifest."""
    from classroom.git import code_version

    monkeypatch.chdir(tmp_path)
    files = Path("params.yaml"), Path("src/classroom/loop.py")
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("before")
    for command in ("init -q", "add .", "-c user.name=a -c user.email=a@b commit -qm first"):
        subprocess.run(["git", *shlex.split(command)], check=True)
    clean = code_version()
    for file, expected in zip(files, (clean, f"{clean}-dirty"), strict=True):
        file.write_text("after")
        assert code_version() == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("classroom rec", ["reconcile"]),
        ("classroom train lgg-res", ["lgg-resnet18"]),
        ("classroom train lgg-resnet18 student kd_ml", ["kd_ml-v1", "kd_ml-v2", "kd_ml-v3"]),
        ("classroom train lgg-resnet18 fit", ["fitnet"]),
        ("classroom evaluate lgg-resnet18 p", ["published"]),
        ("classroom fetch ham", ["ham10000"]),
        ("classroom scale s", ["small"]),
        ("classroom report ind", ["index"]),
        ("classroom explain table4-", ["table4-per-patient"]),
        ("classroom use lgg-resnet18 lgg-m", ["lgg-mobilenet"]),
        ("classroom export lgg-resnet18 kd_ml-v3 --net", ["--network"]),
    ],
)
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(shell: str, line: str, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the entry that the shell's script calls."""
    monkeypatch.setenv("_CLASSROOM_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", line)
    monkeypatch.setenv("COMP_CWORD", str(len(line.split()) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", line)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("_TYPER_COMPLETE_WORD_TO_COMPLETE", line.split()[-1])
    out = classroom("classroom", ROOT).out
    if shell == "zsh":  # "word":"description", both in one list
        words = re.findall(r'^"([^"]+)"', out.partition("((")[2], re.MULTILINE)
    else:
        words = [line.split("\t")[0] for line in out.splitlines()]
    assert sorted(filter(None, words)) == expected


def test_completion_outside_of_a_project_and_of_broken_files_offers_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_CLASSROOM_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "classroom report t")
    monkeypatch.setenv("COMP_CWORD", "2")
    for broken in (False, True):
        if broken:
            shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
            (tmp_path / "workflow/plan.yaml").write_text("plan: [")
        done = classroom("classroom", tmp_path)
        assert (done.out.strip(), done.error) == ("", "")


def test_completion_loads_neither_torch_nor_pandas() -> None:
    """Else every press of the key would take seconds."""
    script = (
        "import sys; from classroom.cli import _complete_method, _complete_report; _complete_method('k'); "
        "_complete_report('t'); print({'torch', 'pandas', 'numpy', 'rich', 'ruamel'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("set()", "{'ruamel'}")  # params' reader of YAML
