"""The report: one file that shows everything, asks for nothing from outside, and trusts no string."""

import base64
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from study.figures import FAMILY_COLOURS
from study.figures.style import png_bytes
from study.proxies import PROXIES
from study.report.gallery import Suspect
from study.report.html import (
    FigureSection,
    FileEntry,
    RunEntry,
    TableSection,
    breakable,
    format_score,
    groups,
    render_figure,
    write_report,
)

EVIL = "<script>alert('x')</script>\"&"


def correlations(**changes):
    """Two proxies against two references, three repeats."""
    rows = [
        {"proxy": name, "label": f"{name}, long", "family": "speed", "easy": "high", "on": "train", "part": part}
        | {"reference": reference, "repeat": r, "spearman": value, "low": value - 0.1, "high": value + 0.1, "n": 1234}
        | {"kendall": value / 2, "kendall_low": 0.0, "kendall_high": 0.5, "ceiling": 0.95, "distinct": 31}
        for reference in ("published", "cscore")
        for part in ("unsaturated", "all")
        for name, value in (("forgetting", -0.2), ("cbtl", 0.8))
        for r in range(3)
    ]
    return pd.DataFrame(rows).assign(**changes)


def lines(points=3):
    figure = Figure(figsize=(4, 3))
    figure.subplots().plot(np.random.default_rng(0).random(points), "o")
    return figure


def image():
    figure = Figure(figsize=(4, 3))
    figure.subplots().imshow(np.eye(4))
    return figure


class Tags(HTMLParser):
    """All tags with their attributes, and the text outside style and script."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.inside = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("style", "script"):
            self.text.append(data)


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A whole report whose every string is hostile."""
    path = write_report(
        tmp_path_factory.mktemp("report") / "new" / "report.html",
        title=EVIL,
        facts={EVIL: EVIL},
        correlations=correlations(label=EVIL, proxy=EVIL, family=EVIL),
        figures=[FigureSection(EVIL, EVIL, EVIL, lines()), FigureSection("J-fig4", "grid", "what it shows", image())],
        tables=[TableSection(EVIL, pd.DataFrame({EVIL: [EVIL] * 150, "score": np.linspace(-1, 1, 150)}), EVIL)],
        files=[FileEntry("suspects.csv", EVIL), FileEntry(EVIL, "scores", EVIL)],
        colours={EVIL: "red;background:url(http://x)"},
        runs=[RunEntry("abc", EVIL, "http://127.0.0.1:5000/#/runs/abc"), RunEntry(EVIL, EVIL, "javascript:alert(1)")],
    )
    return path.read_text(encoding="utf-8")


@pytest.fixture
def small(tmp_path):
    """Write a report that has only the given parts."""

    def write(**parts):
        path = tmp_path / "report.html"
        whole = {"title": "t", "facts": {}, "correlations": correlations(), "figures": []} | parts
        return write_report(path, **whole).read_text(encoding="utf-8")

    return write


def test_nothing_is_loaded_from_outside(page):
    """The MLflow UI shows the page in a sandbox without network; a missing style would leave bare text."""
    tags = Tags(page).tags
    loaded = [a.get("src") for t, a in tags if "src" in a] + [a["href"] for t, a in tags if t != "a" and "href" in a]
    loaded += re.findall(r"url\(([^)]*)", page) + re.findall(r"@import\s+(\S+)", page)
    assert len(loaded) == 2
    assert all(address.startswith("data:image/") for address in loaded)


def test_links_lead_to_the_page_itself_or_to_a_run(page):
    """A run's link comes from a tracking server that others write to; `javascript:` must not get through."""
    links = [a["href"] for t, a in Tags(page).tags if t == "a"]
    assert len(links) > 3
    assert [h for h in links if not h.startswith("#")] == ["http://127.0.0.1:5000/#/runs/abc"]


def test_every_entry_of_the_contents_has_its_place(page):
    """A contents list that leads nowhere is worse than none."""
    tags = Tags(page).tags
    anchors = {a["href"][1:] for t, a in tags if t == "a" and a["href"].startswith("#")}
    assert anchors == {"figure-1", "figure-2", "table-1", "correlations", "facts", "files", "sources"}
    assert anchors <= {a.get("id") for _, a in tags}


def test_no_string_of_the_user_becomes_markup(page):
    """Class names and paths come from folders that strangers fill."""
    assert [t for t, _ in Tags(page).tags].count("script") == 1
    assert "<script>alert" not in page


def test_hostile_strings_are_shown_as_they_are(page):
    """Escaped twice, an ampersand in a class name would read &amp;amp;."""
    assert EVIL in "".join(Tags(page).text)


def test_every_figure_says_in_words_what_it_shows(page):
    """For those who hear the page, and where a picture fails."""
    assert [a["alt"] for t, a in Tags(page).tags if t == "img"][1] == "grid. what it shows"


def test_a_long_table_is_cut_and_says_so(page):
    """150 000 rows would make a page that no browser opens."""
    assert "The first 100 of 150 rows." in page


def test_a_figure_of_the_page_is_the_file_beside_it():
    """Drawn once: the page takes no longer than the artifacts."""
    figure = lines()
    assert render_figure(figure)["uri"] == "data:image/png;base64," + base64.b64encode(png_bytes(figure)).decode()


def test_a_figure_has_its_size_in_pixels_of_the_page():
    """Without it the text below jumps while the page opens."""
    assert (render_figure(lines())["width"], render_figure(lines())["height"]) == (384, 288)


def test_the_cscore_on_all_examples_comes_first():
    """The first tab is the one that is read."""
    assert [g["name"] for g in groups(correlations())] == [
        "C-score, all examples",
        "C-score, unsaturated only",
        "published C-score, all examples",
        "published C-score, unsaturated only",
    ]


def test_the_best_proxy_comes_first():
    """The table is a ranking."""
    assert [row["proxy"] for row in groups(correlations())[0]["rows"]] == ["cbtl", "forgetting"]


def test_a_proxy_without_correlation_comes_last_as_a_dash(small):
    """A constant proxy has none; nan in a table looks like a fault of the page."""
    rows = correlations()
    rows.loc[rows["proxy"] == "cbtl", ["spearman", "low", "high", "ceiling"]] = np.nan
    assert groups(rows)[0]["rows"][-1]["proxy"] == "cbtl"
    assert "nan" not in "".join(Tags(small(correlations=rows)).text)


def test_repeats_are_averaged_and_said(small):
    """Otherwise each proxy stands in the table three times."""
    assert len(groups(correlations())[0]["rows"]) == 2
    assert "Means over 3 repeats" in small()


def test_the_bar_is_as_long_as_the_correlation(small):
    """A bar is believed before its number."""
    shown = small()
    assert 'style="width:80.0%"' in shown
    assert 'class="against" style="width:20.0%"' in shown


def test_a_family_has_the_colour_of_the_figures(small):
    """The table and the ranking below it are read together."""
    rows = correlations(family="learning speed")
    shown = small(correlations=rows, colours=FAMILY_COLOURS)
    assert f'style="background:{FAMILY_COLOURS["learning speed"]}"' in shown


def test_every_registered_family_has_a_colour_of_its_own():
    """A family whose name the palette does not know is grey in the figures, and nobody is told."""
    families = {spec.family for spec in PROXIES.values()}
    assert families <= set(FAMILY_COLOURS)
    assert len({FAMILY_COLOURS[family] for family in families}) == len(families)


def test_the_noise_ceilings_of_train_and_test_are_told_apart():
    """They rest on other examples, and so differ."""
    rows = pd.concat([correlations(), correlations(on="test", ceiling=0.8)])
    assert groups(rows)[0]["ceilings"] == pytest.approx({"test": 0.8, "train": 0.95})


def test_the_lead_points_to_the_pictures_that_the_page_has(small):
    """The person who looks for label errors wants one click, not a scroll past the statistics."""
    picture = Suspect("a/1.png", "a", "b", 0.25, "file:///a/1.png", "data:image/png;base64,AA==")
    shown = small(figures=[FigureSection("J-fig6", "classes", "s", lines())], suspects=[picture], folded=True)
    assert '<a href="#suspects">the suspects</a>' in shown
    assert '<a class="file" href="file:///a/1.png">a/<wbr>1.png</a>' in shown
    assert shown.index('id="suspects"') < shown.index("<details>") < shown.index('id="correlations"')
    assert '<a href="#figure-1">classes</a>' in shown


def test_a_file_of_another_run_says_of_which(small):
    """`cscore.parquet` lies with the ensemble, not beside the page."""
    shown = small(files=[FileEntry("cscore.parquet", "scores", "abc123")])
    assert "<code>cscore.parquet</code>: scores; in run <code>abc123</code>" in shown


@pytest.mark.parametrize("keep", [0, 1])
def test_a_report_with_next_to_nothing_is_written(small, keep):
    """The first thing a newcomer makes is a report of one run without an ensemble."""
    assert ("no proxy that can be compared with" in small(correlations=correlations()[:keep])) == (keep == 0)


def test_a_report_is_replaced_in_one_step(small, tmp_path):
    """A report that is read while it is written must be the old one or the new one."""
    assert small(title="old") != small(title="new")
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_the_same_report_gives_the_same_bytes(small):
    """Artifacts carry a checksum, and two reports of the same runs can be compared."""
    assert small() == small()


def test_the_page_stays_small(small):
    """It travels to a tracking server and opens in a frame."""
    assert len(small(figures=[FigureSection(f"f{i}", "t", "s", lines(200)) for i in range(12)])) < 1_000_000


@pytest.mark.parametrize(
    ("value", "text"), [(0.5, "0.500"), (0.00024596, "0.00025"), (0.0, "0.000"), (-7.46, "−7.460"), (np.nan, "–")]
)
def test_scores_of_suspects_have_digits_enough(value, text):
    """The first suspects of a single run all read 0.000."""
    assert format_score(value) == text


def test_paths_break_after_folders():
    """On a telephone a name broke inside ".jpg"; what is copied stays the path, and no name becomes markup."""
    assert breakable("cat/<b>.jpg") == "cat/<wbr>&lt;b&gt;.jpg"
