"""The recommender's page in a real browser, with the API, its log and a real small index."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.contrib.sessions.models import Session

from predictions.models import Prediction
from recommender.models import Interaction, Movie
from tests.browser.conftest import CHROMIUM
from tests.recommender.conftest import active_index, add_movies
from training.models import ModelVersion
from training.registry import lookup

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed (apt install chromium)"),
    pytest.mark.django_db(transaction=True),
]
HOSTILE = '<img src=x onerror="document.title=1">'


@pytest.fixture
def index(db: None) -> ModelVersion:
    """Returns an active index of the small catalogue and of a movie with a hostile title."""
    lookup.sync_catalogue()
    add_movies()
    Movie.objects.create(
        id=66,
        title=HOSTILE,
        year=1966,
        genres=["Comedy", HOSTILE],
        keywords=["clown", HOSTILE],
        description=f"Two clowns of a circus and {HOSTILE}",
        language="en",
    )
    return active_index("hostile")


def cards(page: Any) -> list[str]:
    """Returns the recommended titles."""
    page.locator("#mv-results[aria-busy=false]").wait_for()
    titles: list[str] = page.locator("#mv-cards h3").all_inner_texts()
    return titles


def test_a_title_leads_to_recommendations_with_reasons_and_cards_lead_further(
    page: Any, index: ModelVersion
) -> None:
    page.goto("/")
    page.get_by_role("navigation", name="Main").get_by_role("link", name="Movies").click()
    field = page.get_by_role("combobox", name="A movie you like")
    field.press_sequentially("the li")
    field.and_(page.locator("[aria-expanded=true]")).wait_for()
    page.keyboard.press("ArrowDown")
    chosen = page.get_by_role("listbox", name="Titles").get_by_role("option", selected=True)
    assert chosen.inner_text().split("\n") == ["The Lighthouse Keeper", "1999"]
    assert field.get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Like The Lighthouse Keeper").wait_for()
    assert cards(page)[0] == "Storm over the Island"
    assert page.url.endswith("/movies/?movie=1")
    assert page.evaluate("document.activeElement.id") == "mv-heading", (
        "the focus moves to the heading for screen readers"
    )
    assert "guards a lighthouse" in page.locator(".mv-about").inner_text()

    first = page.get_by_role("article", name="Storm over the Island")
    answer = Prediction.objects.get()
    [stored, *_] = answer.prediction
    assert f"match {stored['score']:.2f}" in first.inner_text()
    shares = [float(text.strip("\u202f%<")) for text in first.locator("dt b").all_inner_texts()]
    assert abs(sum(shares) - 100) <= len(shares), "the shares of the fields add up to 100"
    assert re.search(r"lighthouse\s\d+\u202f%", first.locator("dd").first.inner_text())

    first.get_by_role("link").click()
    page.get_by_role("heading", name="Like Storm over the Island").wait_for()
    assert Prediction.objects.count() == 2
    clicked = Interaction.objects.get()
    assert (clicked.recommendation, clicked.movie_id, clicked.kind, clicked.rank) == (
        answer.pk,
        2,
        "clicked",
        1,
    )
    trail = page.get_by_role("navigation", name="Trail")
    assert trail.get_by_role("listitem").all_inner_texts() == [
        "The Lighthouse Keeper",
        "Storm over the Island",
    ]
    assert trail.locator("[aria-current=page]").inner_text() == "Storm over the Island"

    page.go_back()
    page.get_by_role("heading", name="Like The Lighthouse Keeper").wait_for()
    assert Prediction.objects.count() == 2, "going back shows the kept answer"
    page.go_forward()
    page.get_by_role("heading", name="Like Storm over the Island").wait_for()
    page.reload()
    trail.get_by_role("link", name="The Lighthouse Keeper").click()
    page.get_by_role("heading", name="Like The Lighthouse Keeper").wait_for()
    assert trail.is_hidden() and page.title() == "Like The Lighthouse Keeper · Vigía"


def test_titles_are_never_read_as_markup(page: Any, index: ModelVersion) -> None:
    page.goto("/movies/")
    page.get_by_label("A movie you like").press_sequentially("<img")
    page.get_by_role("option", name=HOSTILE).click()
    page.get_by_role("heading", name=f"Like {HOSTILE}").wait_for()
    page.get_by_role("article", name="A Circus Winter").get_by_role("link").click()
    page.get_by_role("heading", name="Like A Circus Winter").wait_for()
    card = page.get_by_role("article", name=HOSTILE)
    card.get_by_role("link", name=HOSTILE).click()
    page.get_by_role("heading", name=f"Like {HOSTILE}").wait_for()
    page.goto("/movies/?text=" + HOSTILE.replace(" ", "+") + "+clown&genre=" + HOSTILE.replace(" ", "+"))
    assert cards(page) == [HOSTILE]
    assert page.locator("main img").count() == 0
    assert page.title() == f"For “{HOSTILE} clown” · Vigía"


def test_empty_answers_and_errors_show_a_note(page: Any, index: ModelVersion) -> None:
    page.goto("/movies/")
    field, ask = page.get_by_label("A movie you like"), page.get_by_role("button", name="Recommend")
    field.fill("Twice told")
    ask.click()
    page.get_by_role("heading", name="Which movie do you mean?").wait_for()
    assert page.locator(".mv-candidates a").all_inner_texts() == ["Twice Told (2020)", "Twice Told (1980)"]
    page.get_by_role("link", name="Twice Told (1980)").click()
    page.get_by_role("heading", name="Like Twice Told").wait_for()
    assert page.url.endswith("?movie=7") and "Twice Told" in cards(page)

    page.locator("summary", has_text="Filters").click()
    page.get_by_label("from").fill("1890")
    page.get_by_label("to", exact=True).fill("1891")
    page.get_by_label("to", exact=True).blur()
    page.get_by_role("heading", name="The filters exclude every movie").wait_for()
    assert page.url.endswith("?movie=7&from=1890&to=1891")
    page.locator(".mv-note").get_by_role("button", name="Clear filters").click()
    page.locator("#mv-cards h3").first.wait_for()
    assert page.url.endswith("?movie=7")

    field.fill("nothing of the sort")
    ask.click()
    page.get_by_role("heading", name="Unknown movie").wait_for()
    page.get_by_role("button", name="Describe it instead").click()
    words = page.get_by_label("Description of the movie you want")
    assert words.input_value() == "nothing of the sort"
    words.fill("qwertz")
    page.keyboard.press("Control+Enter")
    page.get_by_role("heading", name="The index knows none of these words").wait_for()
    assert "none of these words" in page.get_by_role("status").inner_text()

    Session.objects.all().delete()
    words.fill("clowns")
    ask.click()
    login = page.get_by_role("link", name="Log in")
    login.wait_for()
    assert login.get_attribute("href").endswith("?next=%2Fmovies%2F%3Ftext%3Dclowns")


def test_words_filters_and_liked_movies_change_the_recommendations(page: Any, index: ModelVersion) -> None:
    page.goto("/movies/")
    page.get_by_label("Describe it").check()
    page.get_by_label("Description of the movie you want").fill("robots in a city")
    page.get_by_role("button", name="Recommend").click()
    assert cards(page) == ["Robots at Dawn", "City of Robots"]
    page.locator("summary", has_text="Filters").click()
    page.get_by_role("group", name="Genres, any of them").get_by_label("Drama").check()
    page.locator("#mv-cards > li").nth(1).wait_for(state="detached")
    assert cards(page) == ["City of Robots"]
    assert page.url.endswith("?text=robots+in+a+city&genre=Drama")
    page.get_by_role("button", name="Like City of Robots").click()
    liked = page.get_by_role("region", name="Movies you liked")
    page.get_by_role("status").get_by_text("You liked City of Robots").wait_for()
    assert Interaction.objects.get().kind == "liked"
    page.get_by_role("button", name="Clear filters").click()
    liked.get_by_role("link", name="Recommend from these").click()
    page.get_by_role("heading", name="Like the movie you liked").wait_for()
    assert "Robots at Dawn" in cards(page)
    assert page.url.endswith("?liked=5")
    liked.get_by_role("button", name="Remove City of Robots").click()
    assert liked.is_hidden()


def test_going_back_restores_the_start(page: Any, index: ModelVersion) -> None:
    page.goto("/movies/")
    title, field = page.title(), page.get_by_label("A movie you like")
    field.fill("The Lighthouse Keeper")
    page.get_by_role("button", name="Recommend").click()
    page.get_by_role("heading", name="Like The Lighthouse Keeper").wait_for()
    page.locator("summary", has_text="Filters").click()
    page.get_by_label("from").fill("1900")
    page.get_by_label("from").blur()
    page.wait_for_url("**/movies/?movie=1&from=1900")
    assert cards(page)
    page.go_back()
    page.locator("#mv-results").wait_for(state="hidden")
    assert page.title() == title
    assert (field.input_value(), page.get_by_label("from").input_value()) == ("", "")
    page.go_forward()
    assert cards(page)
    assert field.input_value() == "The Lighthouse Keeper"
    assert page.get_by_label("from").input_value() == "1900"


def test_the_largest_id_works_in_the_address(page: Any, index: ModelVersion) -> None:
    Movie.objects.create(
        id=2**53, title="The Last of All", genres=["Drama"], description="A keeper guards a lighthouse."
    )
    page.goto(f"/movies/?movie={2**53}")
    page.get_by_role("heading", name="Like The Last of All").wait_for()
    page.reload()
    page.get_by_role("heading", name="Like The Last of All").wait_for()
    page.goto(f"/movies/?movie={2**53 + 1}")
    page.locator("#mv-start").wait_for()


def test_long_titles_without_spaces_do_not_widen_the_page(page: Any, index: ModelVersion) -> None:
    for movie in (71, 72):
        Movie.objects.create(id=movie, title="W" * 300, year=1900 + movie)
    page.set_viewport_size({"width": 360, "height": 740})
    page.goto(f"/movies/?title={'W' * 300}")
    page.get_by_role("heading", name="Which movie do you mean?").wait_for()
    assert page.locator(".mv-candidates a").count() == 2
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(over) == 0


def test_the_page_works_on_a_phone_in_the_dark_and_by_keyboard(page: Any, index: ModelVersion) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    page.emulate_media(color_scheme="dark")
    page.goto("/movies/?movie=8")
    assert HOSTILE in cards(page)
    page.locator("summary", has_text="Filters").click()
    over = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(over) == 0
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(11, 22, 27)"
    # The tab order, and a name for each control.
    page.get_by_role("radio", name="Like a movie").focus()
    tab_order = []
    for _ in range(4):
        tab_order.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        page.keyboard.press("Tab")
    assert tab_order == ["INPUT", "mv-title", "BUTTON", "SUMMARY"]
    unnamed = page.locator("main :is(button, a, input:not([type=hidden]), select, textarea)").evaluate_all(
        "all => all.filter(each => !each.computedName && !(each.labels || []).length && !each.innerText"
        " && !each.getAttribute('aria-label')).map(each => each.outerHTML)"
    )
    assert unnamed == []
