"""reports/index.html as it is used: in a real Chromium, from a file, with mouse, keyboard and fingers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from support.fabricated_site import SEEDS, STUDY, make_site
from support.rendered import one

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
SHOWN = "#table4 .table:first-of-type tbody tr:not([hidden]) > th:nth-child(%d)"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A headless Chromium. Where there is none the tests are skipped, unless CLASSROOM_REQUIRE_BROWSER is set."""
    browser, driver = next(filter(None, map(shutil.which, CHROMIUM)), None), shutil.which("chromedriver")
    if not browser or not driver:
        lacking = "Chromium and chromedriver" if not browser else "chromedriver"
        message = f"{lacking} not found, so the site is not tried in a browser (apt install chromium chromium-driver)"
        pytest.fail(message) if os.environ.get("CLASSROOM_REQUIRE_BROWSER") else pytest.skip(message)
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in (*ARGUMENTS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield started
    started.quit()


class Site:
    """The page open in Chromium, and what a reader does with it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def run(self, script: str, *arguments: Any) -> Any:
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        return self.driver.find_element("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        """Of all that can be seen."""
        found = "[...document.querySelectorAll(arguments[0])].filter(e => e.checkVisibility())"
        return self.run(f"return {found}.map(e => e.innerText.trim())", selector)

    def focus(self, selector: str) -> None:
        self.run("document.querySelector(arguments[0]).focus()", selector)

    def focused(self) -> str:
        """The text of what has the focus."""
        return self.run("return document.activeElement.innerText.trim()")

    def press(self, *keys: str) -> None:
        from selenium.webdriver import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.driver).send_keys(getattr(Keys, key, key)).perform()

    def column(self, number: int) -> list[float | None]:
        """Our numbers in a column of Table 4, from top to bottom."""
        texts = self.texts(f"#table4 .table:first-of-type tbody tr:not([hidden]) > :nth-child({number})")
        return [float(text.split(" ")[0]) if " ± " in text else None for text in texts]

    def device(self, width: int, height: int, mobile: bool) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", {"enabled": mobile})

    def scheme(self, name: str) -> None:
        wanted = {"prefers-color-scheme": name, "prefers-reduced-motion": "reduce"}  # or clicks miss what still scrolls
        features = [{"name": feature, "value": value} for feature, value in wanted.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def messages(self) -> list[str]:
        return [entry["message"] for entry in self.driver.get_log("browser")]


def load(chromium: Any, made: Path, *device: Any) -> Iterator[Site]:
    opened = Site(chromium)
    opened.device(*device)
    opened.scheme("light")
    chromium.get_log("performance")
    chromium.get(made.as_uri())
    yield opened
    assert opened.messages() == []


@pytest.fixture
def site(chromium: Any, made: Path) -> Iterator[Site]:
    """Freshly loaded; whatever a test does, the console must have stayed empty."""
    yield from load(chromium, made, 1280, 900, False)


@pytest.fixture
def phone(chromium: Any, made: Path) -> Iterator[Site]:
    """The same on a phone, which has fingers."""
    yield from load(chromium, made, 360, 740, True)


def test_it_loads_from_a_file_and_asks_nobody(site: Site, made: Path) -> None:
    """Every request of the load and of whatever else the browser did on this page."""
    events = [json.loads(entry["message"])["message"] for entry in site.driver.get_log("performance")]
    asked = [of["params"]["request"]["url"] for of in events if of["method"] == "Network.requestWillBeSent"]
    assert made.as_uri() in asked
    assert {url.split(":")[0] for url in asked} <= {"file", "data"}
    assert [url for url in asked if url.startswith("file:")] == [made.as_uri()]
    assert len(site.texts("article")) == 8
    assert all(site.run("return [...document.images].filter(i => i.alt).map(i => i.complete && i.naturalWidth > 300)"))


def test_its_policy_stops_what_a_name_might_smuggle_in(site: Site) -> None:
    """Even a script that got into the page could load nothing and write no markup."""
    stopped = site.driver.execute_async_script("""
        const [done] = [...arguments].slice(-1);
        const stopped = [];
        addEventListener("securitypolicyviolation", event => stopped.push(event.effectiveDirective));
        document.body.append(Object.assign(new Image(), {src: "https://example.org/x.png"}));
        const script = document.createElement("script");
        try { script.text = "document.title = 'taken'"; document.body.append(script); } catch { stopped.push("text"); }
        try { document.body.innerHTML = "<p>taken</p>"; } catch { stopped.push("innerHTML"); }
        fetch("https://example.org").catch(() => setTimeout(() => done(stopped), 100));
    """)
    assert {"img-src", "connect-src", "innerHTML"} <= set(stopped)
    assert site.driver.title.startswith("Classroom")
    site.messages()  # the browser's complaints are what was asked for


# Sorting and choosing -------------------------------------------------------------------------------------------


def test_a_column_sorts_by_its_numbers_both_ways_and_back(site: Site, made: Path) -> None:
    before = site.column(5)
    numbers = [value for value in before if value is not None]
    blanks = [None] * (len(before) - len(numbers))
    button = site.find("#table4 thead th:nth-child(5) .sort")
    for direction, expected in (
        ("descending", sorted(numbers, reverse=True) + blanks),
        ("ascending", sorted(numbers) + blanks),
        (None, before),
    ):
        button.click()
        assert site.column(5) == expected
        assert site.find("#table4 thead th:nth-child(5)").get_attribute("aria-sort") == direction
        assert len(site.texts("[aria-sort]")) == (direction is not None)
    assert len(set(numbers)) > 5
    check_sorted_rows_keep_their_names_and_all_their_cells(site, made)


def check_sorted_rows_keep_their_names_and_all_their_cells(site: Site, made: Path) -> None:
    """In the first order a technique stands once; out of it every row says what it is of."""
    site.find("#table4 thead th:nth-child(3) .sort").click()
    table = pd.read_csv(made.parent / "table4.csv")
    labels = {"ml": "ML", "kd_off": "KD (off)", "kd_on": "KD (on)", "kd_ml": "KD + ML"}
    rows = list(zip(*(site.texts(SHOWN % at) for at in (1, 2)), site.column(3), site.column(8), strict=False))
    assert all(technique for technique, *_ in rows)
    of = table[(table.strategy == "v1") & (table.metric == "iou")]
    networks = {"ensemble": "Ensemble"}
    expected = [(labels[c.technique], networks.get(c.network, c.network), round(c.mean, 2)) for c in of.itertuples()]
    shown = [row[:3] for row in rows if row[2] is not None]
    assert sorted(shown) == sorted(expected)
    for technique, network, _, f_score in rows:
        if f_score is not None:
            key = {value: name for name, value in labels.items()}[technique]
            cell = one(table, technique=key, network=network.replace("Ens", "ens"), strategy="v3", metric="f_score")
            assert f_score == round(cell["mean"], 2)


def test_numbers_sort_by_the_papers_or_the_difference_too(site: Site) -> None:
    from selenium.webdriver.support.ui import Select

    for by, pick in (("the paper’s", 1), ("the difference", 2)):
        Select(site.find("#table4 [data-by]")).select_by_visible_text(by)
        head = site.find("#table4 thead th:nth-child(3)")
        while head.get_attribute("aria-sort") != "ascending":
            head.find_element("css selector", ".sort").click()
        below = [text.split("\n")[1] for text in site.texts("#table4 tbody td:nth-child(3)") if "paper" in text]
        values = [float(text.replace("−", "-").replace(",", "").split(" ")[pick]) for text in below]
        assert len(values) > 10
        assert values == sorted(values)


def test_rows_and_strategies_can_be_chosen(site: Site) -> None:
    from selenium.webdriver.support.ui import Select

    choices = {"technique": "table4 [data-column='0']", "network": "table4 [data-column='1']"}
    Select(site.find(f"#{choices['network']}")).select_by_visible_text("Ensemble")
    assert site.texts(SHOWN % 1) == ["ML", "KD (off)", "KD (on)", "KD + ML"]
    Select(site.find(f"#{choices['technique']}")).select_by_visible_text("KD + ML")
    assert site.texts(SHOWN % 1) == ["KD + ML"]
    Select(site.find("#table4 [data-strategy]")).select_by_visible_text("V3")
    heads = [text for text in site.texts("#table4 .table:first-of-type thead th") if text]
    assert heads == ["technique", "network", "V3 IoU", "V3 F-score"]
    assert site.find("#table4 .cell[tabindex='0']").is_displayed(), "the Tab key still finds a number"


# Where a number is from -----------------------------------------------------------------------------------------


def test_a_number_leads_to_its_runs_and_a_difference_to_both_sides(site: Site, made: Path) -> None:
    """The seeds' values, and of every run time, digest and best epochs."""
    cells = site.driver.find_elements("css selector", "#table4 .table:first-of-type tbody tr:last-child .cell")
    cells[4].click()  # the ensemble of KD + ML: V3 IoU
    assert site.find("#provenance").is_displayed()
    assert site.find("#provenance h2").text == "KD + ML · Ensemble · V3 IoU"
    mean = one(
        pd.read_csv(made.parent / "table4.csv"), technique="kd_ml", strategy="v3", network="ensemble", metric="iou"
    )["mean"]
    assert site.find("#provenance .shown").text.startswith(f"{mean:.2f} ± ")
    assert site.texts("#provenance h3") == [f"IoU of ensemble on the test split, runs/{STUDY}/kd_ml-v3"]
    rows = [site.texts(f"#provenance tbody tr:nth-child({at + 1}) td") for at in SEEDS]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    values = [float(row[1].removesuffix(" %")) for row in rows]
    assert len(set(values)) == 3
    assert sum(values) / 3 == pytest.approx(mean, abs=0.005)
    for seed, row in zip(SEEDS, rows, strict=True):
        digest = sha256(f"runs/{STUDY}/kd_ml-v3/seed-{seed}".encode()).hexdigest()
        assert row[2:4] == ["1.7 min", digest[:12]]
        assert row[4:] == [f"S1 {5 + seed}, S2 9", "cpu", "0123456789ab"]
        assert digest in site.find("#provenance details").get_attribute("textContent")
    site.press("ESCAPE")
    site.find("#at-a-glance tbody td:nth-child(5) .cell").click()
    assert site.texts("#provenance h3") == [
        f"IoU of ensemble on the test split, runs/{STUDY}/kd_ml-v3",
        f"IoU of S1 on the test split, runs/{STUDY}/student",
    ]
    site.press("ESCAPE")
    site.find(f"#grid-{STUDY} .cell").click()
    assert site.texts("#provenance h3 code") == [f"grid/{STUDY}/kd_ml-v3/0.1-0.4-0.5"]
    assert site.texts("#provenance tbody td:nth-child(3)") == ["30.0 s"] * 3
    site.press("ESCAPE")
    site.find("#cost tbody tr:nth-child(2) .cell").click()  # of a teacher and a student
    row = site.texts("#provenance tbody tr:nth-child(1) td")
    assert row[:3] == [f"runs/{STUDY}/student/seed-0", "1.667 min", "1.7 min"]
    assert row[4] == "T 4, S1 5, S2 9"


def test_all_of_it_works_by_keyboard(site: Site) -> None:
    """From the head of a column to a number, into where it is from and back, without a mouse."""
    site.focus("#table4 .scroll")
    site.press("TAB", "TAB", "TAB")
    assert site.focused() == "V1 IoU"
    site.press("ENTER")
    assert site.find("#table4 thead th:nth-child(3)").get_attribute("aria-sort") == "descending"
    assert site.focused() == "V1 IoU"
    site.press("TAB", "TAB", "TAB", "TAB", "TAB", "TAB")
    first = site.focused()
    assert " ± " in first
    site.press("ARROW_RIGHT", "ARROW_DOWN", "ARROW_DOWN", "ARROW_UP", "ARROW_LEFT", "ARROW_DOWN")
    reached = site.focused()
    assert reached != first
    site.press("ENTER")
    assert site.run("return document.activeElement.closest('#provenance') !== null"), "the focus is in the dialog"
    assert site.find("#provenance .shown").text.startswith(reached.split("\n")[0])
    site.press("ESCAPE")
    assert not site.find("#provenance").is_displayed()
    assert site.focused() == reached, "and returns to the number"
    site.press("TAB")
    assert not site.run("return document.activeElement.matches('#table4 .table:first-of-type .cell')"), (
        "a table of a hundred numbers is one stop"
    )


# Pictures -------------------------------------------------------------------------------------------------------


def scale(site: Site) -> float:
    return float(site.find("#zoom").get_attribute("data-scale"))


def place(site: Site) -> tuple[float, float]:
    box = site.run("return document.querySelector('#zoom img').getBoundingClientRect().toJSON()")
    return box["x"], box["y"]


def wait_for_picture(site: Site) -> None:
    site.driver.execute_async_script(
        "document.querySelector('#zoom img').decode().then(() => setTimeout(arguments[0], 50))"
    )


def test_a_picture_is_enlarged_and_moved_by_keys_and_by_mouse(site: Site) -> None:
    site.focus(f"#agreement-{STUDY} .enlarge")
    site.press("ENTER")
    wait_for_picture(site)
    assert site.find("#zoom").is_displayed()
    assert scale(site) == 1
    width = site.run("return document.querySelector('#zoom img').getBoundingClientRect().width")
    site.press("+", "+")
    assert scale(site) == pytest.approx(2.25)
    grown = site.run("return document.querySelector('#zoom img').getBoundingClientRect().width")
    assert grown == pytest.approx(2.25 * width)
    before = place(site)
    site.press("ARROW_RIGHT", "ARROW_DOWN")
    assert place(site) == pytest.approx((before[0] - 60, before[1] - 60))
    site.press("-")
    assert scale(site) == pytest.approx(1.5)
    site.press("0")
    assert scale(site) == 1
    check_mouse(site)
    site.press("ESCAPE")
    assert not site.find("#zoom").is_displayed()
    assert site.run("return document.activeElement.matches('.enlarge')")
    site.find(f"#agreement-{STUDY} .enlarge").click()
    wait_for_picture(site)
    site.find("#zoom .close").click()
    assert not site.find("#zoom").is_displayed()


def check_mouse(site: Site) -> None:
    """In the picture enlarged: buttons, the wheel and dragging."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin

    stage = site.find("#zoom .stage")
    site.find("[data-zoom='in']").click()
    assert scale(site) == 1.5
    ActionChains(site.driver).scroll_from_origin(ScrollOrigin.from_element(stage), 0, -400).perform()
    assert scale(site) > 2
    before = place(site)
    ActionChains(site.driver).move_to_element(stage).click_and_hold().move_by_offset(70, -30).release().perform()
    assert place(site) == pytest.approx((before[0] + 70, before[1] - 30))
    ActionChains(site.driver).move_by_offset(20, 20).perform()
    assert place(site) == pytest.approx((before[0] + 70, before[1] - 30)), "let go is let go"
    site.find("[data-zoom='fit']").click()
    assert scale(site) == 1


def test_a_picture_is_enlarged_by_two_fingers(phone: Site) -> None:
    phone.find(f"#agreement-{STUDY} .enlarge").click()
    wait_for_picture(phone)

    def touch(kind: str, *points: tuple[int, int]) -> None:
        at = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(points)]
        phone.driver.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})

    touch("touchStart", (160, 400), (200, 400))
    for spread in (30, 40, 60):
        touch("touchMove", (180 - spread, 400), (180 + spread, 400))
    touch("touchEnd")
    assert scale(phone) == pytest.approx(3, abs=0.1), "fingers three times as far apart"


# Phones, the dark, and eyes -------------------------------------------------------------------------------------

CONTRAST = """
const parse = text => text.match(/[\\d.]+/g).map(Number);
const over = ([r, g, b, a = 1], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a)];
const behind = element => {
  const layers = [];
  for (let at = element; at; at = at.parentElement) layers.unshift(parse(getComputedStyle(at).backgroundColor));
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
};
const luminance = colour => {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const poor = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
  if (!own || !element.checkVisibility()) continue;
  const back = behind(element), front = over(parse(getComputedStyle(element).color), back);
  const [dark, light] = [luminance(back), luminance(front)].sort((a, b) => a - b);
  const contrast = (light + 0.05) / (dark + 0.05);
  if (contrast < 4.5) poor.push([element.tagName, element.className, element.textContent.slice(0, 30), contrast]);
}
return {poor, page: luminance(behind(document.body))};
"""


def test_text_stands_out_by_day_and_night(site: Site) -> None:
    """WCAG 2.2 AA: 4.5 to 1, with the dialog open too; and dark is dark."""
    site.find("#table4 .cell").click()
    for name in ("light", "dark"):
        site.scheme(name)
        found = site.run(CONTRAST)
        assert found["poor"] == [], name
        assert found["page"] < 0.02 if name == "dark" else found["page"] > 0.9


def test_a_phone_scrolls_tables_and_never_the_page(phone: Site) -> None:
    def width() -> int:
        return phone.run("return Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)")

    assert width() == 360
    left = "return document.querySelector(arguments[0]).getBoundingClientRect().left"
    names = [f"#table4 tbody tr:nth-child(3) > th:nth-child({at})" for at in (1, 2)]
    before = [phone.run(left, name) for name in names]
    phone.run("document.querySelector('#table4 .scroll').scrollLeft = 250")
    assert phone.run("return document.querySelector('#table4 .scroll').scrollLeft") == 250
    assert [phone.run(left, name) for name in names] == before, "the names of rows stay in sight"
    assert phone.run(left, "#table4 tbody tr:nth-child(3) > td") < before[0]
    phone.focus("#table4 .cell")
    boxes = [phone.run("return arguments[0].getBoundingClientRect().toJSON()", phone.find(of)) for of in
             (names[1], "#table4 .cell")]  # fmt: skip
    assert boxes[1]["left"] >= boxes[0]["right"] - 1, "what has the focus is not hidden behind them"
    phone.find("#table4 .cell").click()
    assert width() == 360
    assert phone.run("return document.querySelector('#provenance').getBoundingClientRect().right") <= 360


def test_it_can_be_read_without_its_script(chromium: Any, made: Path) -> None:
    """Every number, its paper's and every picture; nothing that would not work is offered."""
    site = Site(chromium)
    chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        chromium.get(made.as_uri())
        text = chromium.find_element("css selector", "#table4").text
        assert "paper 80.12" in text
        assert not chromium.find_element("css selector", "#table4 .choose").is_displayed()
        assert chromium.find_element("css selector", f"#agreement-{STUDY} img").is_displayed()
    finally:
        chromium.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    assert site.messages() == []
