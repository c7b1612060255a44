"""The page: what it says without a browser, and what it does in one."""

import base64
import logging
import re
import shutil
import sys

import pandas as pd
import pytest

from easyedit_packe.bench.report import find_runs, markdown, write_report
from easyedit_packe.bench.report.page import write_page

from ..browser import chromium
from .folders import read_rows, write_rows, write_run
from .pages import EVIL, Page, make_study


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Two editors on six records, and the page."""
    folder = make_study(tmp_path_factory.mktemp("study"))
    write_page([folder / "runs"], folder / "page.html", folder)
    return folder


@pytest.fixture(scope="module")
def page(study):
    return Page((study / "page.html").read_text(encoding="utf-8"))


def test_every_figure_is_the_csvs(study, page):
    write_report([study / "runs"], study / "out")
    frame = pd.read_csv(study / "out" / "report.csv")
    titles = {"easyedit": "EasyEdit's metrics", "rome": "ROME's and AlphaEdit's metrics"}
    titles["subject"] = "Other questions about the edited subject"
    shown = set()
    for family, title in titles.items():
        (_, heads, *rows) = page.tables[title]
        for (editor, _), *cells in rows:
            for (metric, _), (_, value) in zip(heads[1:], cells, strict=True):
                if value is not None and metric != "n":
                    shown.add((editor, family, metric, float(value)))
    assert shown == {(r.editor, r.family, r.metric, r.mean) for r in frame.itertuples()}


def test_the_records_have_the_means_of_the_csv(study, page):
    frame = pd.read_csv(study / "out" / "report.csv").set_index(["editor", "family", "metric"])["mean"]
    (group,) = page.groups
    for i, (family, metric) in enumerate(group["metrics"]):
        for run in group["runs"]:
            values = [figures[i] for _, figures, *_ in run["rows"]]
            assert sum(values) / len(values) == pytest.approx(frame[run["editor"], family, metric], rel=1e-5)


def test_a_record_has_what_was_asked_and_said(page):
    (group,) = page.groups
    assert group["asked"][0]["efficacy"] == [["Where is Tower 0", EVIL]]
    assert group["asked"][1]["generality"] == [["Tower 1 stands in", "City 1"]]
    assert (group["subject"][1], group["old"][1]) == ("Tower 1", "Old 1")
    at, _, said = group["before"][1]
    assert (at, said["efficacy"]) == (1, ["Old 1"])
    assert all(len(group["asked"][0][what]) == len(texts) for what, texts in group["runs"][0]["rows"][0][2].items())


def test_nothing_of_the_rows_is_markup(study, page):
    text = (study / "page.html").read_text(encoding="utf-8")
    assert "<img src=x" not in text
    assert text.count("</script") == 2
    assert [tag for tag, _ in page.elements].count("script") == 2


def test_the_page_asks_nobody(study, page):
    text = (study / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|@import|@font-face|url\(|fetch\(|import\(", text)
    linked = [e[name] for _, e in page.elements for name in ("src", "href") if name in e]
    assert all(address.startswith(("data:", "#")) for address in linked)
    assert "default-src 'none'" in text


def test_the_same_rows_are_the_same_bytes(study):
    write_page([study / "runs"], study / "again.html", study)
    assert (study / "again.html").read_bytes() == (study / "page.html").read_bytes()


def test_best_and_tied_are_those_of_the_text(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0, 0.5, 1.0, 1.0])
    write_run(tmp_path, "ROME", [0.5, 1.0, 0.5, 1.0])
    write_run(tmp_path, "KN", [0.0, 0.0, 0.0, 0.1])
    write_page([tmp_path], tmp_path / "page.html", tmp_path)
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    said = "Highest score: zsre PaCKE, tied with ROME."
    assert said in text
    assert said in markdown(find_runs([tmp_path]))
    marks = dict(re.findall(r'<th scope="row">(\w+)</th>.*class="(\w+)">[^<]*(?:<abbr[^>]*>≈</abbr>)?</td></tr>', text))
    assert (marks["PaCKE"], marks["ROME"]) == ("best", "tied")
    assert "KN" not in marks


def test_what_tables_keep_apart_is_apart(tmp_path):
    write_run(tmp_path, "PaCKE", [1.0] * 3)
    write_run(tmp_path, "PaCKE", [1.0] * 3, protocol="consecutive")
    write_run(tmp_path, "ROME", [1.0] * 2, protocol="consecutive")
    write_run(tmp_path, "ROME", [1.0] * 2, protocol="consecutive", n=3, label="unfinished")
    write_page([tmp_path], tmp_path / "page.html", tmp_path)
    page = Page((tmp_path / "page.html").read_text(encoding="utf-8"))
    found = [(g["section"], [run["editor"] for run in g["runs"]], len(g["cases"])) for g in page.groups]
    assert sorted(found) == [(0, ["ROME"], 2), (1, ["PaCKE"], 3), (2, ["PaCKE"], 3)]
    assert [e["id"] for tag, e in page.elements if e.get("class") == "part"] == ["s0", "s1", "s2"]


def test_figures_are_there_where_they_can_be_drawn(study, page, monkeypatch, tmp_path):
    figures = pytest.importorskip("easyedit_packe.bench.figures", reason="nothing draws figures here")
    shown = [base64.b64decode(e["src"].split(",")[1]) for tag, e in page.elements if tag == "img"]
    files = figures.write_figures([study / "runs"], tmp_path).files
    assert len(shown) == sum(file.suffix == ".svg" for file in files) > 0
    assert all(b"<svg " in picture for picture in shown)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    write_page([study / "runs"], tmp_path / "page.html", study)
    assert "<img" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_without_figures_says_what_to_install(study, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "easyedit_packe.bench.figures", None)
    write_page([study / "runs"], tmp_path / "page.html", study)
    assert 'pip install "easyedit-packe[figures]"' in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_prompts_come_only_from_the_very_file(tmp_path, caplog):
    folder = make_study(tmp_path)
    (tmp_path / "zsre_mend_eval.json").write_text((tmp_path / "zsre_mend_eval.json").read_text() + " ")
    with caplog.at_level(logging.WARNING):
        write_page([folder / "runs"], tmp_path / "page.html", tmp_path)
    assert "the file zsre_mend_eval that the runs were made with; give it with --data." in caplog.text
    (group,) = Page((tmp_path / "page.html").read_text(encoding="utf-8")).groups
    assert group["asked"] == [None] * 6


def test_rows_of_any_age_make_a_page(tmp_path):
    """Half a letter, an unmeasured unedited model, no texts, a refusal, a case id that is text."""
    folder = write_run(tmp_path, "PaCKE", [1.0, 0.0], refused={"1": "half a letter \ud83d"})
    rows = read_rows(folder / "cases.jsonl")
    write_rows(folder / "cases.jsonl", [rows[0] | {"verdicts": [{"said": "x", "right": None, "reply": ""}]}, rows[1]])
    shutil.rmtree(folder.parents[1] / "unedited")
    write_page([tmp_path], tmp_path / "page.html", tmp_path)
    (group,) = Page((tmp_path / "page.html").read_text(encoding="utf-8")).groups
    first, second = group["runs"][0]["rows"]
    assert first[2:] == [{"free": ["x"]}, [None]]
    assert second[2:] == [None, None, "half a letter ?"]


# --- in a browser ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    with chromium() as started:
        yield started


@pytest.fixture
def opened(browser):
    """Opens a page; fails where it asks anybody, or complains."""
    tab, bad = browser.new_page(), []
    tab.on("console", lambda said: bad.append(said.text) if said.type in ("error", "warning") else None)
    tab.on("pageerror", lambda error: bad.append(str(error)))
    tab.on("request", lambda asked: None if asked.url.startswith(("file:", "data:")) else bad.append(asked.url))

    def go(file):
        tab.goto(file.as_uri())
        return tab

    yield go
    tab.close()
    assert bad == []


def column(tab, name):
    """The cells of the list under a head."""
    heads = [h.strip() for h in tab.locator("#list thead tr:last-child th").all_text_contents()]
    at = heads.index(name) + 1
    return tab.locator(f"#list tbody tr > :nth-child({at})").all_text_contents()


def test_a_table_sorts_by_its_means(study, opened):
    tab = opened(study / "page.html")
    table = tab.locator("table.sortable").first
    head = table.get_by_role("button", name="efficacy")

    def values():
        cells = table.locator("tbody tr td:nth-child(3)").evaluate_all("all => all.map(one => one.dataset.value)")
        return [float(value) for value in cells]

    before = values()
    head.click()
    assert values() == sorted(before, reverse=True)
    assert head.locator("xpath=..").get_attribute("aria-sort") == "descending"
    head.press("Enter")
    assert values() == sorted(before)
    assert head.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    head.press("Space")
    assert values() == before
    assert head.locator("xpath=..").get_attribute("aria-sort") == "none"
    locality = table.get_by_role("button", name="locality")
    for _ in range(2):  # what is missing is last, whichever way it goes
        locality.click()
        assert table.locator("tbody th").last.text_content() == "Original model"


def test_records_are_searched_filtered_and_opened(study, page, opened):
    tab = opened(study / "page.html")
    (group,) = page.groups
    assert tab.locator("#count").text_content() == "12 records"
    tab.get_by_label("Search").fill("tower 3 CITY")
    assert column(tab, "prompt") == ["Where is Tower 3"] * 2
    tab.get_by_label("Editor").select_option("ROME")
    assert tab.locator("#count").text_content() == "1 of 12 records"
    tab.get_by_role("button", name="Clear").click()
    at = group["metrics"].index(["easyedit", "efficacy"])
    failed = [row for run in group["runs"] for row in run["rows"] if row[1][at] < 1]
    tab.get_by_label("Show").select_option("easyedit efficacy")
    assert tab.locator("#count").text_content() == f"{len(failed)} of 12 records"
    tab.get_by_role("button", name="Clear").click()
    tab.locator("#list .open", has_text="Where is Tower 0").first.click()
    record = tab.locator("dialog")
    assert EVIL in record.text_content().replace("\xa0", " ")
    assert "Old 0" in record.text_content()
    assert record.locator("h2").text_content() == "zsre 0, ROME"
    tab.keyboard.press("ArrowRight")
    assert record.locator("h2").text_content() == "zsre 1, ROME"
    tab.keyboard.press("Escape")
    assert not record.is_visible()
    assert tab.evaluate("window.evil") is None
    assert tab.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_no_page_is_wider_than_its_window(study, opened, width, scheme):
    tab = opened(study / "page.html")
    tab.set_viewport_size({"width": width, "height": 700})
    tab.emulate_media(color_scheme=scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert (tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)") == (
        scheme == "light"
    )
    tab.locator("#list .open").first.click()
    assert tab.locator("dialog").evaluate("one => one.scrollWidth <= one.clientWidth && one.clientWidth <= innerWidth")


@pytest.mark.slow
def test_five_thousand_records_are_fluent(tmp_path, opened):
    folder = make_study(tmp_path, ["PaCKE"], 5000)
    write_page([folder / "runs"], folder / "page.html", folder)
    assert (folder / "page.html").stat().st_size < 10e6
    tab = opened(folder / "page.html")
    assert tab.locator("#count").text_content() == "5,000 records"
    seconds = """act => { const start = performance.now(); act(); document.body.offsetHeight;
                 return (performance.now() - start) / 1000 }"""
    for name in ("prompt", "efficacy", "kl"):
        head = tab.locator("#list").get_by_role("button", name=name).first
        assert head.evaluate(f"head => ({seconds})(() => head.click())") < 1
    drawn = [float(text) for text in column(tab, "kl")]
    assert len(drawn) == 50
    assert drawn == sorted(drawn)
    typed = "box => { box.value = '4999'; box.dispatchEvent(new Event('input', {bubbles: true})) }"
    box = tab.get_by_label("Search")
    assert box.evaluate(f"box => ({seconds})(() => ({typed})(box))") < 0.5  # the first one reads all texts
    assert box.evaluate(f"box => ({seconds})(() => ({typed})(box))") < 0.1
    assert column(tab, "prompt") == ["Where is Tower 4999"]
