from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from braingpt.html.lines import lines
from braingpt.html.page import page, paragraphs, table, text
from scripts.picture import cut


class _Seen(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags, self.text = [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)

    def handle_data(self, data) -> None:
        self.text.append(data)


def test_a_page_holds_text_as_text_and_loads_nothing() -> None:
    html = page(
        "<script>1</script> & 한국어",
        [paragraphs("<b>bold</b>"), table(["<i>", "n"], [("<u>\nx", 12_345), ("y", None)])],
    )
    seen = _Seen(html)
    assert (
        not {"script", "b", "i", "u", "link", "img"} & set(seen.tags)
        and "url(" not in html
        and "default-src 'none'" in html
    )
    assert (
        seen.text.count("<script>1</script> & 한국어") == 2
        and "<b>bold</b>" in seen.text
        and "12,345" in seen.text
        and "-" in seen.text
    )


def test_a_plot_of_a_page_becomes_a_file_for_a_document() -> None:
    html = page(
        "p", [lines({"<a>": [(0, 1), (1, 2)]}, title, "x", "y").html() for title in ("One", "Two & <b>")]
    )
    drawing = ElementTree.fromstring(cut(html, "Two"))
    words = ["".join(one.itertext()) for one in drawing.iter() if one.tag.endswith("text")]
    assert "Two & <b>" in words and "<a>" in words and "var(" not in cut(html, "Two")
    with pytest.raises(SystemExit, match="no plot"):
        cut(html, "Three")


def test_a_column_is_wrapped_as_its_contents_need() -> None:
    html = table(
        ["name", "path", "n"], [("v1", "runs/" + "long-name/" * 3, 1_234), ("v2", "b", None)], words=2
    )
    assert 'class="short">v1' in html and "long-<wbr>name/<wbr>" in html and '<td class="n">1,234' in html
    assert text("100 % of 5 %") == "100\u00a0% of 5\u00a0%"
