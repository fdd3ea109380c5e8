"""reports/index.html as a file: what stands in it, what it refuses to show, and that all of it is in the file."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

from classroom.errors import DataError
from classroom.reporting import agreement, grid_search, registry
from classroom.reporting.common.provenance import read_runs
from classroom.reporting.site import SECTIONS, inline, number_in
from classroom.reporting.variants import variants_table
from support.fabricated import LGG
from support.fabricated_site import SEEDS, STUDY, all_runs, make_reports, make_site, render, results
from support.rendered import check_sources, one, save
from support.studies import ROOT


class Page(HTMLParser):
    """All tags, the text of headings, and the text of the JSON block."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.headings: list[str] = []
        self.data = ""
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = "data" if ("id", "data") in attrs else tag
        if tag in ("h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "data":
            self.data += data
        elif self.inside in ("h2", "h3"):
            self.headings[-1] += data


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def reports(made: Path, tmp_path: Path) -> Path:
    """The same reports, to be changed."""
    shutil.copytree(made.parent / "pages", tmp_path / "pages")
    return tmp_path


@pytest.fixture(scope="module")
def page(made: Path) -> Page:
    return Page(made.read_text())


def test_every_report_is_there_and_found_in_the_list(page: Page) -> None:
    names = {"table1", "table2", "table4", "table5", "table12", "cost", f"grid-{STUDY}", f"agreement-{STUDY}"}
    assert {attrs["id"] for tag, attrs in page.tags if tag == "article"} == names
    links = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    assert {f"#{name}" for name in names} <= links
    ids = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in links} <= set(ids), "no link leads nowhere"


def test_it_stands_alone(made: Path, page: Page) -> None:
    """One file to mail: what it loads is in it, and its policy forbids anything else."""
    for tag, attrs in page.tags:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            if (value := attrs.get(name)) is not None:
                assert value.startswith(("data:", "#")), (tag, name, value[:60])
    policy = next(attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs)
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "http" not in policy
    assert not re.search(r"@import|url\(", made.read_text())


def test_the_paper_s_values_are_spoken_of_where_there_are_any(made: Path, tmp_path: Path) -> None:
    """A page of one's own studies explained values of the paper that were not there."""
    variants, baselines = results(data=LGG | {"dataset": "skin"})
    save("variants", variants_table("skin", "small", SEEDS, variants, baselines[0]), tmp_path / "skin.md")
    render(tmp_path, all_runs())
    for path, shown in ((made, True), (tmp_path / "index.html", False)):
        text = path.read_text()
        assert ("below it, the paper’s value and ours minus the paper’s" in text) == shown
        assert ("A reproduction of" in text) == shown


def test_the_disclaimer_is_above_every_table_of_results(made: Path) -> None:
    articles = re.split(r"(?=<article )", made.read_text())[1:]
    for article in articles:
        if re.match(r'<article id="(table(2|4|12)|agreement)', article):
            assert article.index("not a reproduction.") < article.index("<img" if "<img" in article else "<table")


def test_a_number_stands_there_with_the_papers_and_the_runs_behind_it(made: Path, page: Page) -> None:
    """The cell of the CSV, which test_tables.py compares with the results."""
    cell = one(
        pd.read_csv(made.parent / "table4.csv"), technique="kd_on", strategy="v2", network="ensemble", metric="iou"
    )
    data = json.loads(page.data)
    found = [
        attrs
        for tag, attrs in page.tags
        if tag == "td" and attrs.get("data-paper") == str(cell.paper) and "IoU" not in str(attrs)
    ]
    (attrs,) = [attrs for attrs in found if float(attrs["data-value"]) == pytest.approx(cell["mean"])]
    assert float(attrs["data-difference"]) == pytest.approx(cell["mean"] - cell.paper)
    assert attrs["data-text"].startswith(f"{cell['mean']:.2f} ± {cell.sd:.3f} paper {cell.paper:.2f}")
    button = page.tags[page.tags.index(("td", attrs)) + 1]
    (source,) = (data["sources"][int(at)] for at in button[1]["data-sources"].split())
    assert source["what"] == "IoU of ensemble on the test split"
    assert list(source["values"]) == [f"runs/{STUDY}/kd_on-v2/seed-{seed}" for seed in SEEDS]
    assert sum(source["values"].values()) / len(SEEDS) == pytest.approx(cell["mean"])
    assert data["runs"].keys() >= source["values"].keys()


def test_every_number_of_the_variants_is_the_mean_of_its_runs(made: Path) -> None:
    cells = check_sources(made.parent / "table4.md")
    assert [len(cell["sources"]) for cell in cells].count(2) == 6 + 12, "differences, below the table"
    assert len(cells) == 12 * 2 * 4 - 3 * 2 + 6 + 12, "mutual learning has no teacher"


def test_pictures_say_in_words_what_is_seen_on_them(page: Page) -> None:
    pictures = {attrs["alt"]: attrs for tag, attrs in page.tags if tag == "img" and attrs["alt"]}
    assert len(pictures) == 2
    (maps,) = (alt for alt in pictures if "Heat maps of" in alt)
    assert "KD + ML V3 from 71.0 to 75.0 %, best at α of S1 0.4" in maps
    (bars,) = pictures.keys() - {maps}
    assert "with their teacher at 90 to 90 %" in bars
    assert all(int(attrs["width"]) > 300 < int(attrs["height"]) for attrs in pictures.values())


def test_the_same_reports_give_the_same_page(made: Path, reports: Path) -> None:
    render(reports, all_runs())
    assert (reports / "index.html").read_bytes() == made.read_bytes()


HOSTILE = '"><img src=x onerror="document.title=1"><script>document.title=2'


def test_names_are_text_whatever_they_hold(
    made: Path, page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Studies and datasets are named by a user, and a page that is mailed is opened by others."""
    drawn = (made.parent / f"grid-{STUDY}.png").read_bytes()
    for module in (grid_search, agreement):
        monkeypatch.setattr(module, "saved", lambda figure: drawn)  # a second each to draw
    reports = tmp_path / "reports"
    changes = {"study": HOSTILE, "data": LGG | {"dataset": "</script><b>", "group": "<i>"}}
    make_reports(reports, **changes)
    runs = all_runs(**changes)
    for run in runs.values():
        run["device"] = "</script><script>document.title=3</script><!--"
    render(reports, runs)
    hostile = Page((reports / "index.html").read_text())
    for made_of in ("script", "style", "img", "b", "i"):
        assert [tag for tag, _ in hostile.tags].count(made_of) == [tag for tag, _ in page.tags].count(made_of), made_of
    assert not [attrs for _, attrs in hostile.tags if any(name.startswith("on") for name in attrs)]
    assert f"Table 4: the twelve variants on {HOSTILE}" in hostile.headings
    assert json.loads(hostile.data)["runs"][f"runs/{HOSTILE}/ml-v1/seed-0"]["device"].startswith("</script>")


# What it refuses to show


def test_no_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"pages: no report has been made yet\. Make one"):
        render(tmp_path, {})
    assert not (tmp_path / "index.html").exists()


def test_a_damaged_page_is_named(reports: Path) -> None:
    for content in ("", "[]", "{}", '{"kind": "cost"}'):
        (reports / "pages" / "table2.json").write_text(content)
        with pytest.raises(DataError, match=r"table2\.json: (cannot be read|lacks ).*Make that report again"):
            render(reports, {})


def test_a_number_is_not_shown_with_the_facts_of_another_training(reports: Path) -> None:
    """A run trained and evaluated again, its table not yet: the seed's value would be the old one's."""
    runs = all_runs()
    run = f"runs/{STUDY}/ml-v1/seed-1"
    runs[run]["predictions"] = "of a later training"
    with pytest.raises(DataError, match=rf"table\d+\.json: depends on a run that has been trained again, {run}\."):
        render(reports, runs)
    del runs[run]
    with pytest.raises(DataError, match=rf"a run that is not evaluated, {run}\. .*reports/index\.html"):
        render(reports, runs)


def test_what_runs_took_is_read_from_all_that_was_evaluated(tmp_path: Path) -> None:
    def cost(run: str) -> dict:
        return {"study": "lgg", "method": "of it", "seeds": {"0": {"run": run, "seconds": 1.0}}}

    files = {
        "variants/lgg/ml-v1.json": cost("runs/lgg/ml-v1/seed-0"),
        "comparison/lgg.json": {"published": [cost("compared/lgg/at/seed-0")], "beside": [cost("runs/lgg/s/seed-0")]},
        "comparison/none.json": {"published": [], "beside": []},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    assert set(read_runs(tmp_path)) == {"runs/lgg/ml-v1/seed-0", "compared/lgg/at/seed-0", "runs/lgg/s/seed-0"}
    (tmp_path / "variants/lgg/ml-v1.json").write_text('{"study": "", "method": "", "seeds": {"0": {"seconds": 1}}}')
    with pytest.raises(DataError, match=r"ml-v1\.json: cannot be read as costs of runs .*Run `classroom evaluate`"):
        read_runs(tmp_path)


# Its parts


def test_every_kind_of_report_has_its_place_and_its_caption() -> None:
    """Snakemake's own report shows every caption, the site those of pictures."""
    shown = [kind for kinds in SECTIONS.values() for kind in kinds]
    assert sorted(shown) == sorted(registry.KINDS)
    assert {path.stem for path in (ROOT / "workflow/report").glob("*.rst")} == set(registry.KINDS)


def test_bold_code_and_lines_are_all_that_is_markup() -> None:
    html = {
        "**84.00 ± 5**<br>paper 1": "<strong>84.00 ± 5</strong><br>paper 1",
        "`a<b` & **c**": "<code>a&lt;b</code> &amp; <strong>c</strong>",
        "``reports/x.md``": "<code>reports/x.md</code>",
        '<img src="x">': "&lt;img src=&#34;x&#34;&gt;",
    }
    assert {text: inline(text) for text in html} == html


def test_what_a_cell_of_text_sorts_by() -> None:
    numbers = {
        "0.10": 0.1, "−3.10 to +2": -3.1, "+4.5": 4.5, "<0.01": 0.01, "**7**": 7.0, "50.0 %": 50.0,
        "1e-05": 1e-5, "56×56×64": 56.0, "–": None, "": None, "S1: α 0.2": None, "fitnet": None,
    }  # fmt: skip
    assert {text: number_in(text) for text in numbers} == numbers
