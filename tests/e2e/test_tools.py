"""The care plan and the palette room, in Chromium: what was chosen there stands in the owner's mail at last."""

import re
from dataclasses import replace

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.conftest import Desk, Server
from tests.e2e.forms import INTERIOR_DESIGN, PET_CARE, Place, Visit, check_mails, fill, send

pytestmark = [pytest.mark.e2e, pytest.mark.browser]

PLACES = pytest.mark.parametrize("place", ["path", "domain"])
ANIMAL = {"pet_kind": "Cat", "age": "old", "energy": "low", "alone": "whole", "coat": "long"}
ROOM = {"walls": "lichen", "floor": "slate", "sofa": "tobacco", "light": "lamps"}
# The palette is the tool's to fill in, and so is all about the pet.
CAT = replace(PET_CARE, typed={**PET_CARE.typed, "pet_name": "Mog"}, chosen={"pet_kind": "Cat"})


def choose(page: Page, choice: dict[str, str]) -> None:
    """By the labels, as a visitor does: the buttons themselves may be drawn otherwise."""
    for name, value in choice.items():
        page.locator(f"label:has(input[name={name}][value='{value}'])").click()


def choose_by_keyboard(page: Page, choice: dict[str, str]) -> None:
    """From group to group with Tab, within one with the arrows; at last Enter on the button that goes on."""
    left = dict(choice)
    for _ in range(60):
        page.keyboard.press("Tab")
        name = page.evaluate("document.activeElement.name")
        if name in left:
            wanted = left.pop(name)
            for _ in range(10):
                if page.evaluate("document.activeElement.value") == wanted:
                    break
                page.keyboard.press("ArrowRight")
            assert page.evaluate("document.activeElement.value") == wanted
        if not left and page.evaluate("document.activeElement.type") == "submit":
            page.keyboard.press("Enter")
            return
    raise AssertionError(f"not reached: {left}")


def expect_chosen(page: Page, choice: dict[str, str]) -> None:
    for name, value in choice.items():
        expect(page.locator(f"input[name={name}][value='{value}']")).to_be_checked()


def answer(page: Page) -> str:
    """What a tool shows; without what is said to screen readers, which comes later."""
    script = "(main) => { main.querySelector('[role=status]').style.display = 'none'; return main.innerText; }"
    return str(page.locator("main").evaluate(script))


def filled_in(page: Page, name: str) -> str:
    """What the tool has put into a field of the form."""
    field = page.locator(f"form[data-doorbell] [name={name}]").first
    expect(field).not_to_have_value("")
    return field.input_value()


@PLACES
def test_care_plan_comes_with_the_signup(desk: Desk, real_sites: Server, place: Place) -> None:
    page, wrong = desk.page()
    base, email = CAT.base(real_sites, place), CAT.visitor(f"plan-{place}")
    page.goto(base + CAT.tool)
    before = page.locator("main").inner_text()
    choose(page, ANIMAL)
    page.locator("form[method=get] [name=pet_name]").fill("Mog")
    shown = page.locator("main").inner_text()
    assert shown != before  # another week for another animal
    page.locator("main button[type=submit]").click()
    expect(page).to_have_url(re.compile(re.escape(base + CAT.form)))
    assert (filled_in(page, "pet_kind"), filled_in(page, "pet_name")) == ("Cat", "Mog")
    plan = filled_in(page, "plan")
    price = re.search(r"£\d+", plan)
    assert price and price[0] in shown
    fill(page, CAT, email)
    send(page).click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    check_mails(real_sites, CAT, email, also=plan)
    assert wrong == []


@PLACES
def test_palette_comes_with_the_signup(desk: Desk, real_sites: Server, place: Place) -> None:
    visit, email = INTERIOR_DESIGN, INTERIOR_DESIGN.visitor(f"palette-{place}")
    page, wrong = desk.page()
    page.goto(visit.base(real_sites, place) + visit.tool)
    before = page.locator("[data-hints]").inner_text()
    choose(page, ROOM)
    assert page.locator("[data-hints]").inner_text() != before  # what goes with what
    page.locator("form[method=get] button[type=submit]").click()
    palette = filled_in(page, "palette")
    assert all(word in palette.lower() for word in ("lichen walls", "slate floor", "tobacco sofa", "lamplight"))
    fill(page, visit, email)
    send(page).click()
    expect(page.locator("[data-doorbell-status=success]")).to_be_visible()
    check_mails(real_sites, visit, email, also=palette)
    assert wrong == []


@pytest.mark.parametrize(("visit", "choice"), [(CAT, ANIMAL), (INTERIOR_DESIGN, ROOM)], ids=["plan", "palette"])
def test_address_restores_what_was_chosen(desk: Desk, real_sites: Server, visit: Visit, choice: dict[str, str]) -> None:
    page, wrong = desk.page()
    page.goto(visit.base(real_sites, "path") + visit.tool)
    choose(page, choice)
    shown = answer(page)
    other, also_wrong = desk.page()
    other.goto(page.url)
    expect_chosen(other, choice)
    assert answer(other) == shown
    assert wrong == also_wrong == []


@pytest.mark.parametrize(("visit", "choice"), [(CAT, ANIMAL), (INTERIOR_DESIGN, ROOM)], ids=["plan", "palette"])
def test_tool_by_keyboard_alone(desk: Desk, real_sites: Server, visit: Visit, choice: dict[str, str]) -> None:
    page, wrong = desk.page()
    page.goto(visit.base(real_sites, "path") + visit.tool)
    choose_by_keyboard(page, choice)
    expect(page).to_have_url(re.compile(re.escape(visit.base(real_sites, "path") + visit.form)))
    assert filled_in(page, "plan" if visit is CAT else "palette")
    assert wrong == []


def test_link_to_the_palette_can_be_copied(desk: Desk, real_sites: Server) -> None:
    page, wrong = desk.page()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto(INTERIOR_DESIGN.base(real_sites, "path") + INTERIOR_DESIGN.tool)
    choose(page, ROOM)
    page.locator("[data-copy]").click()
    expect(page.locator("[data-said]")).to_contain_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == page.url
    assert wrong == []


@pytest.mark.parametrize(("visit", "field"), [(CAT, "plan"), (INTERIOR_DESIGN, "palette")], ids=["plan", "palette"])
def test_address_that_was_tampered_with_fills_in_nothing(
    desk: Desk, real_sites: Server, visit: Visit, field: str
) -> None:
    page, wrong = desk.page()
    base = visit.base(real_sites, "path")
    query = "?pet_kind=Dragon&plan=Wire+us+money&palette=Wire+us+money&walls=<b>&floor=oak&sofa=__proto__&light=noon"
    for path in (visit.tool, visit.form):
        page.goto(base + path + query)
        assert "Wire us" not in page.locator("main").inner_text()
    expect(page.locator(f"form[data-doorbell] [name={field}]").first).to_have_value("")
    assert wrong == []


def test_palette_comes_along_without_javascript(desk: Desk, real_sites: Server) -> None:
    visit, email = INTERIOR_DESIGN, INTERIOR_DESIGN.visitor("palette-plain")
    base = visit.base(real_sites, "path")
    page, wrong = desk.page(javascript=False)
    page.goto(base + visit.tool)
    wall = "getComputedStyle(document.querySelector('form .room')).getPropertyValue('--wall')"
    before = page.evaluate(wall)
    choose(page, ROOM)
    assert page.evaluate(wall) != before  # the room is painted all the same
    page.get_by_role("link", name="Quince: start with it").click()
    expect(page.get_by_text("You come from the palette Quince")).to_be_visible()
    fill(page, visit, email)
    page.get_by_role("button", name="Send with Quince").click()
    expect(page).to_have_url(base + "thank-you/")
    check_mails(real_sites, visit, email, also="Quince: quince walls, walnut floor, moss sofa")
    assert wrong == []


def test_care_plan_can_be_read_off_without_javascript(desk: Desk, real_sites: Server) -> None:
    """The questions need a script; the table that they go by does not, and what is found there goes into the form."""
    email = CAT.visitor("plan-plain")
    base = CAT.base(real_sites, "path")
    page, wrong = desk.page(javascript=False)
    page.goto(base + CAT.tool)
    row = page.get_by_role("row").filter(has=page.get_by_role("rowheader", name="Cat"))
    plan = row.get_by_role("cell").last.inner_text()
    page.locator("main button[type=submit]").click()
    expect(page).to_have_url(re.compile(re.escape(base + CAT.form)))
    fill(page, CAT, email)
    page.locator("[name=plan]").fill(f"Cat: {plan}")
    send(page).click()
    expect(page).to_have_url(base + "thank-you/")
    check_mails(real_sites, CAT, email, also=f"Cat: {plan}")
    assert wrong == []
