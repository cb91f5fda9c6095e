"""The browsable API's HTML forms, derived from the schemas."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from rest_framework.renderers import HTMLFormRenderer

from training import catalogue
from training.serializers import serializer_for
from vigia_ml.schema import Instance


class Fields(HTMLParser):
    """Returns the values that a browser sends from a form, by name."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sent: dict[str, str] = {}
        self._select = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        if tag == "input":
            self.sent[attributes["name"] or ""] = attributes.get("value") or ""
        elif tag == "select":
            self._select = attributes["name"] or ""
        elif tag == "option" and ("selected" in attributes or self._select not in self.sent):
            self.sent[self._select] = attributes.get("value") or ""


@pytest.mark.parametrize("name", catalogue.names())
def test_the_form_of_a_model_is_prefilled_with_a_valid_instance(name: str) -> None:
    schema = catalogue.get(name).schema
    serializer = serializer_for(name, schema)()
    html = HTMLFormRenderer().render(serializer.data, None, {})
    read = schema.read(Fields(html).sent, text=True)
    assert isinstance(read, Instance), read
    assert read.values == schema.read(schema.example).values  # type: ignore[union-attr]
