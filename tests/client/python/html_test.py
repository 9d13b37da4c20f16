"""Notebook HTML: complete, escaped, and true to the numbers."""

import html.parser
import re

import pytest

import cupola

VOID = {"input", "br"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and keeps the text and the elements."""

    def __init__(self, page):
        super().__init__()
        self.open, self.elements, self.text = [], [], ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def tokens(self):
        return [a for tag, a in self.elements if a.get("class") == "t"]


@pytest.fixture
def sae(client):
    return client.dictionary("tiny/sae")


def test_features(sae):
    page = Page(sae.features(["The sky is", "The"])._repr_html_())
    assert "tiny/sae" in page.text and "5" not in page.text.split("tokens")[0]
    assert "computed" in page.text
    assert len(page.tokens()) == 6
    assert "position 3 · id 3" in page.text
    assert "script" not in {tag for tag, _ in page.elements}
    for _, attributes in page.elements:
        assert not {"src", "href", "onclick"} & set(attributes)
    assert "from cache" in sae.features(["The sky is", "The"])._repr_html_()


def test_everything_is_escaped(sae, server):
    server.words[3] = b'"><script>alert(1)</script>'
    features = sae.features([[1, 3, 6]])
    features.provenance.__dict__["dictionary"] = "<i>tiny</i>"
    source = features._repr_html_()
    page = Page(source)
    assert "<script" not in source and "<i>tiny" not in source
    assert '"><script>alert(1)</script>' in page.text
    assert "<b>&" in page.text and "<i>tiny</i>" in page.text


def test_shades_follow_the_strongest_latent(sae):
    shades = [
        float(re.match(r"--m:([\d.]+)", token["style"])[1])
        for token in Page(sae.features("The sky is").to_html()).tokens()
    ]
    # Latents peak at 900 on BOS, which only clips; then 2, 3 and 4 of 4.
    assert shades == [1.0, 0.5, 0.75, 1.0]


def test_a_chosen_latent(sae):
    features = sae.features("The sky is")
    for latent in (2, 32, 49):  # of the table, weak, and nowhere active
        page = Page(features.to_html(latent=latent, top=3))
        checked = [a for _, a in page.elements if "checked" in a]
        assert len(checked) == 1 and not checked[0]["id"].endswith("all")
        assert str(latent) in page.text
    # Two cells on one page do not share their ids.
    assert (
        features.to_html().split("id=")[1] != features.to_html().split("id=")[1]
    )


def test_tokens_that_were_not_asked_for_are_dim(sae):
    page = Page(sae.features("The sky is", positions=[1, -1])._repr_html_())
    dim = [a for _, a in page.elements if a.get("class") == "off"]
    assert len(page.tokens()) == 2 and len(dim) == 2


def test_long_answers_are_cut_and_say_so(sae):
    page = Page(sae.features([[1] * 700])._repr_html_())
    assert len(page.tokens()) == 600
    assert "100 more tokens" in page.text


def test_inputs_have_rows_instead_of_tokens(sae):
    page = Page(sae.encode([[0.0] * 4] * 3)._repr_html_())
    assert len(page.tokens()) == 3 and "row 2" in page.text


def test_without_a_server_ids_stand_for_tokens(server):
    with cupola.connect(server.target) as client:
        features = client.dictionary("tiny/sae").features("The sky")
    assert "[2]" in Page(features._repr_html_()).text


def test_tables_of_entries(client):
    page = Page(client.models()._repr_html_())
    for part in ("tiny", "resident", "llama", "3.0 MiB"):
        assert part in page.text
    page = Page(client.dictionaries()._repr_html_())
    for part in ("tiny/sae", "blocks.0.hook_resid_post", "0.25", "far off"):
        assert part in page.text
    assert "none" in Page(type(client.models())()._repr_html_()).text


def test_cards(client):
    page = Page(client.model("tiny")._repr_html_())
    assert "0101010101010101…" in page.text and "d_vocab" in page.text
    page = Page(client.dictionary("tiny/sae")._repr_html_())
    assert "dead_latents 7" in page.text
    for answer in (client.status(), client.cache_statistics()):
        Page(answer._repr_html_())
