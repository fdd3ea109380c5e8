"""The generated reference: what it says of every setting, command, report and method."""

from __future__ import annotations

import importlib.util
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from classroom.methods import registry as methods
from classroom.params import Common, Dataset, Study, leaves, read
from classroom.reporting import registry as reports
from support.studies import ROOT

_spec = importlib.util.spec_from_file_location("reference", ROOT / "docs/reference.py")
reference = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(reference)

FILES = {
    Common: [ROOT / "params.yaml"],
    Study: sorted(ROOT.glob("studies/*.yaml")),
    Dataset: sorted(ROOT.glob("datasets/*.yaml")),
}


@pytest.mark.parametrize("section", FILES)
def test_every_setting_has_a_meaning_in_a_sentence(section: type) -> None:
    """It is also what an editor shows."""
    for key in reference.keys(section):
        assert re.match(r"[A-Zα-ω`].*\.$", key.meaning), f"{key.name}: {key.meaning!r}"


@pytest.mark.parametrize("name", methods.PUBLISHED)
def test_every_option_of_a_method_has_a_meaning_in_a_sentence(name: str) -> None:
    for kind in methods.load(name).values():
        for key in reference.keys(kind):
            assert re.match(r"[A-Z`].*\.$", key.meaning), f"{name}: {key.name}: {key.meaning!r}"


@pytest.mark.parametrize("section", FILES)
def test_every_key_of_the_settings_files_is_in_the_reference(section: type) -> None:
    """With names in place of capitals, and the content of `options`, which each method has its own of."""
    known = []
    for key in reference.keys(section):
        within = r"(\..+)?" if key.name.endswith("options") else r"(\.[^.]+)?"
        known.append(re.sub(r"[A-Z]{4,}", r"[^.]+", re.escape(key.name)) + within)
    for path in FILES[section]:
        for key in leaves(read(path)):
            assert any(re.fullmatch(one, key) for one in known), f"{path.name}: {key}"


@pytest.mark.parametrize("name", reference.SCHEMAS)
def test_the_schemas_for_editors_are_those_of_the_code(name: str) -> None:
    kept = ROOT / f"workflow/schemas/{name}.schema.json"
    assert kept.read_text() == reference.schema(name), "run: python docs/reference.py"


def test_bounds_choices_and_defaults_are_those_that_are_enforced() -> None:
    of = {key.name: key for section in FILES for key in reference.keys(section)}
    assert (of["training.batch_size"].kind, of["training.batch_size"].allowed) == ("integer", "≥ 2")
    assert of["training.precision"].kind == "`fp32`, `bf16`"
    assert (of["training.clip_gradients"].kind, of["training.clip_gradients"].default) == ("number or `null`", "`null`")
    assert of["image_size"].allowed == "≥ 32, a multiple of 32"
    assert of["teacher.decoder_channels"].allowed == "5 of them, ≥ 1"
    assert of["reports.samples"].default == "`false`"
    assert of["weights.VARIANT.S1.beta"].default == "`0.0`"
    assert of["seeds"].default == "required"
    assert "download[].checksum" in of


def test_the_pages_name_every_command_report_and_method() -> None:
    for page, names in (
        ("commands", [f"### {name}" for group in reference.GROUPS.values() for name in group]),
        ("reports", [f"## {kind}" for kind in reports.KINDS]),
        ("methods", [f"Name: `{name}`" for name in methods.PUBLISHED]),
    ):
        text = reference.PAGES[page]()
        assert [name for name in names if f"{name}\n" not in text and f"{name}." not in text] == []
    assert "settings and code alone" not in reference.reports_page().split("## resplit")[1].split("## exchange")[0]


def test_text_of_the_code_is_no_markup() -> None:
    """`<id>` would vanish as an HTML element, and a bar would end the cell of a table."""
    assert reference.text("<id>_mask.tif, a|b, `a|b_c_`, *.txt") == r"&lt;id&gt;\_mask.tif, a\|b, `a|b_c_`, \*.txt"
    for page in reference.PAGES.values():
        outside = re.sub(r"```.*?```|`[^`\n]*`|<!--.*?-->", "", page(), flags=re.DOTALL)
        found = list[str]()
        parser = HTMLParser()
        parser.handle_starttag = lambda tag, attributes, found=found: found.append(tag)
        parser.feed(outside)
        assert found == []


def test_the_pages_are_written_twice_alike_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written = []
    for name in ("first", "second"):
        monkeypatch.setattr(reference, "FOLDER", tmp_path / name)
        reference.main()
        written.append({path.name: path.read_text() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert set(written[0]) == {f"{name}.md" for name in reference.PAGES}
