"""The report of a cleaned log: figures as given, verdicts, titles of strangers as text, nothing from the network, nothing to say."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from denoise_code.cleaning.report import CleaningReport, EvidenceRow, RarityRow, SelfTest, ThresholdRow, verdict, write_report
from denoise_code.common.page import percent, table
from denoise_code.common.suspects import OPEN, Item, SuspiciousInteraction, suspects_section

HOSTILE = [
    "<script>alert('x')</script>",
    '" onmouseover="alert(1)',
    "</ul></article></section><img src=x onerror=alert(1)>",
    "&lt;b&gt; &amp;lt;i&amp;gt;",
    "שלום עולם",
    "\u202eevil",
    "x" * 300,
    "half a pair: \ud800",
]
VOID = {"meta", "input"}


class Page(HTMLParser):
    """Tags that stand open at the end or close what is not open, tags with attributes, and the texts."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.texts.append(data)


def suspect(title="Odd one", probability=0.9, **fields):
    fields = {
        "user": "anna",
        "item": Item("K1", title),
        "replacement": Item("K2", "Better one"),
        "before": [],
        "after": [],
    } | fields
    return SuspiciousInteraction("line 7", probability=probability, is_flagged=probability > 0.5, **fields)


REPORT = CleaningReport(
    log="toys.csv",
    n_records=20_000,
    n_users=1_234,
    n_items=567,
    status_counts={"scored": 19_000, "no_title": 900, "too_short": 77, "duplicate": 23},
    noise_share=0.1,
    share_bound=0.168,
    rule="above a probability of 0.5 (--threshold)",
    n_flagged=420,
    suspects=[suspect(before=[Item("K3", "Oldest"), Item("K4", "Older")], after=[Item("K5", "Newer")])],
    self_test=SelfTest(2_000, 560, 18_000, 360, (0.26, 0.3), (0.018, 0.022), (0.58, 0.63)),
    thresholds=[ThresholdRow(0.2, 1_400, 0.45, 0.32), ThresholdRow(0.9, 0, 0.0, None)],
    rarity=[RarityRow(1, 1, 0, 0, None), RarityRow(2, 4, 1_000, 60, 0.21), RarityRow(20, None, 8_000, 40, 0.031)],
    evidence=[EvidenceRow("collaborative", 0.321, 0.64), EvidenceRow("fused", 0.168, None)],
)
EMPTY = replace(REPORT, status_counts={}, n_flagged=0, suspects=[], self_test=None, thresholds=[], rarity=[], evidence=[])


def written(tmp_path, report):
    write_report(tmp_path / "report.html", report)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def texts(text):
    page = Page(text)
    assert not page.open
    return " ".join("".join(page.texts).split())


def test_the_figures_are_those_given(tmp_path):
    said = texts(written(tmp_path, REPORT))
    assert "20,000 lines of 1,234 users and 567 items" in said
    assert "17% at most" in said and "90% confidence" in said and "assume 10%" in said
    assert "420 flaggedlines (2.1%), above a probability of 0.5 (--threshold); left out in cleaned.csv" in said
    assert "2,000 random items were planted into a copy of this log (10% of its lines)" in said
    assert "28% (26% to 30%) of them are flagged, and 2.0% (1.8% to 2.2%) of all other lines" in said
    assert "So 61% (58% to 63%) of what is flagged was planted" in said
    assert "fewer than 5 users have, 6.0% are flagged; of those whose item 20 or more users have, 0.5%" in said
    assert "1 user0––2 to 4 users1,0006.0%0.21020 or more users8,0000.5%0.031" in said
    assert "0.21,40045%32%0.900%–" in said
    assert "collaborative32%0.640fused17%–" in said and "not judged, the user's only line77" in said
    assert "line 7, user anna0.90OldestOlderOdd onefits:Better oneNewer" in said and "The first 1 of 420" in said


def test_what_is_done_with_flagged_lines_is_said(tmp_path):
    said = texts(
        written(tmp_path, replace(REPORT, is_replaced=True, rule="the most suspicious 2% (--drop), probabilities from 0.48"))
    )
    assert "the most suspicious 2% (--drop), probabilities from 0.48; exchanged in cleaned.csv" in said


@pytest.mark.parametrize(
    ("flagged", "intervals", "kind", "words"),
    [
        ((1200, 360), ((0.58, 0.62), (0.01, 0.03)), "good", "most of the noise is found"),
        ((560, 360), ((0.26, 0.3), (0.01, 0.03)), "good", "most of the noise stays in"),
        ((560, 700), ((0.26, 0.3), (0.03, 0.05)), "", "Read each line"),
        ((560, 360), ((0.01, 0.5), (0.01, 0.03)), "bad", "Do not clean"),  # few users: the difference may be chance
        ((190, 1000), (None, None), "bad", "Do not clean"),  # 9.5 % of planted, 5.6 % of others
        ((0, 0), (None, None), "bad", "does not mean that the log is clean"),
    ],
)
def test_verdict(flagged, intervals, kind, words):
    test = SelfTest(2_000, flagged[0], 18_000, flagged[1], *intervals)
    assert verdict(test)[0] == kind and words in verdict(test)[1]


def test_a_self_test_of_few_lines_says_nothing():
    kind, words = verdict(SelfTest(n_planted=10, n_planted_flagged=10, n_others=300, n_others_flagged=0))
    assert kind == "" and words.startswith("Only 10 items could be planted")


def test_items_that_nobody_else_has(tmp_path):
    rows = [RarityRow(1, 1, 600, 40, 0.01), RarityRow(2, 4, 300, 10, 0.3), RarityRow(5, None, 100, 1, 0.05)]
    untitled = texts(written(tmp_path, replace(REPORT, rarity=rows, evidence=[EvidenceRow("collaborative", 0.3, 0.7)])))
    assert "60% of the judged lines have an item that nobody else has, and so have 40 of the 51 flagged ones" in untitled
    assert "only its title can tell, and titles were not read" in untitled
    titled = texts(written(tmp_path, replace(REPORT, rarity=rows, evidence=[EvidenceRow("semantic", 0.3, 0.7)])))
    assert "only its title can tell." in titled
    assert "nobody else has" not in texts(written(tmp_path, replace(REPORT, rarity=rows[1:])))


def test_what_another_log_taught_is_said_of_that_log(tmp_path):
    said = texts(written(tmp_path, replace(REPORT, taught_by="old_cleaned", n_flagged=0)))
    assert "planted into a copy of the log in old_cleaned" in said and "of the lines of the log in old_cleaned are noise" in said
    assert "None is flagged; these come nearest." in said and "this log" not in said


def test_flags_of_which_half_may_be_wrong_by_chance_are_not_trusted():
    """18 of 35 flagged ones were planted: the interval goes down to a third."""
    few = SelfTest(600, 18, 5_400, 17, (0.02, 0.05), (0.001, 0.005), (0.35, 0.67))
    assert verdict(few)[0] == "" and "with other users it may be less than half" in verdict(few)[1]
    many = replace(few, n_planted_flagged=180, n_others_flagged=60, right_interval=(0.66, 0.83))
    assert verdict(many)[0] == "good"


def test_titles_of_strangers_are_text(tmp_path):
    hostile = [suspect(title, replacement=Item("", title), before=[Item("", title)] * 3, user=title) for title in HOSTILE]
    text = written(tmp_path, replace(REPORT, suspects=hostile, log=HOSTILE[0]))
    page = Page(text)
    assert not page.open and sum(tag == "script" for tag, _ in page.tags) == 1
    assert not {tag for tag, _ in page.tags} & {"img", "iframe", "link", "object", "embed", "base", "form", "a"}
    assert not {name for _, attributes in page.tags for name in attributes if name.startswith("on") or name == "style"}
    said = "".join(page.texts)
    for title, shown in zip(HOSTILE, [*HOSTILE[:3], "<b> &lt;i&gt;", *HOSTILE[4:7], "half a pair: ?"]):
        assert said.count(shown) >= 5, title
    assert text.count("<bdi>") == text.count("</bdi>") == 6 * len(HOSTILE)


def test_nothing_is_asked_of_the_network(tmp_path):
    text = written(tmp_path, REPORT)
    assert not re.search(r"https?:|//|src=|@import|url\(|fetch|XMLHttp", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy


def test_the_filter_needs_a_script_and_all_else_does_not(tmp_path):
    many = [suspect(f"Title {number}", 1 - number / 1000) for number in range(OPEN + 7)]
    text = written(tmp_path, replace(REPORT, suspects=many))
    assert '<label class="filter" hidden>' in text and text.count("<article ") == OPEN + 7
    shown, rest = text.split("<summary>7 more</summary>")
    assert shown.count("<article ") == OPEN and rest.count("<article ") == 7 and "Title 0<" in shown
    assert "more</summary>" not in suspects_section("Suspects", "", many[:OPEN])


def test_the_key_stands_where_a_title_shows_nothing():
    for title in ("", "  ", "\u200b\ufeff", "&nbsp;", "\x00"):
        assert Item("B07X &amp;", title).name == "B07X &amp;"  # a key is as the log has it
    assert Item("B07X", "Munch &amp; Crunch").name == "Munch & Crunch"


def test_truth_stands_beside_a_suspect_where_it_is_known():
    for is_noise, mark in ((True, ">injected<"), (False, ">not injected<")):
        assert mark in suspects_section("Suspects", "", [suspect(is_noise=is_noise)])
    assert "injected" not in suspects_section("Suspects", "", [suspect()])
    assert "fits:" not in suspects_section("Suspects", "", [suspect(replacement=None)])


def test_a_log_of_which_little_can_be_said(tmp_path):
    said = texts(written(tmp_path, EMPTY))
    assert "Not tested" in said and "0 flagged" in said and "no line could be judged" in said
    assert "Show those" not in said and "More figures" not in said and "Rare" not in said


def test_a_failed_write_leaves_the_old_report(tmp_path):
    written(tmp_path, REPORT)
    before = (tmp_path / "report.html").read_bytes()
    with pytest.raises(AttributeError):
        write_report(tmp_path / "report.html", replace(REPORT, suspects=[None]))
    assert (tmp_path / "report.html").read_bytes() == before and len(list(tmp_path.iterdir())) == 1


def test_numbers_of_tables_and_shares():
    assert "<td>12</td><td>1,000</td><td>0.250</td><td>–</td>" in table(["a"], [[np.int64(12), 1000, np.float32(0.25), None]])
    shares = {0: "0%", 0.0002: "less than 0.1%", 0.001: "0.1%", 0.0944: "9.4%", 0.0996: "10.0%", 0.284: "28%", 1: "100%"}
    assert {share: percent(share) for share in shares} == shares
