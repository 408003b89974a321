from html.parser import HTMLParser

from braingpt.html.page import page, paragraphs, table


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
