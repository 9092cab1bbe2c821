"""The page in a real browser: what visitors do, in one story on one server."""

import importlib.util
import inspect
import os
from pathlib import Path

import pytest
from PIL import Image

from nada_jax.demo.job import Job
from nada_jax.demo.portraits import BOX, FACE, MIDDLE
from nada_jax.demo.visitors import COOKIE
from nada_jax.weights.registry import ASSETS
from tests.demo.browser import BROWSER, FLAGS, open_tab

pytestmark = pytest.mark.skipif(
    not BROWSER or importlib.util.find_spec("playwright") is None,
    reason="no browser: needs chromium of the system and requirements-test.txt",
)
PATIENCE = 100_000  # milliseconds: other tests may have the cores


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where screenshots are kept."""
    named = os.environ.get("NADA_JAX_SCREENSHOTS")
    path = Path(named) if named else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="module")
def chromium():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=BROWSER, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def open_page(chromium, page):
    """open_page() -> the page as a new visitor sees it."""

    def open_(**named):
        context = chromium.new_context(viewport={"width": 1280, "height": 900}, **named)
        found = context.new_page()
        found.set_default_timeout(PATIENCE)
        found.goto(page.url)
        return found

    return open_


def press(tab, name):
    tab.click(f"#{name}-start")


def status(tab, name, words):
    """Waits until the tab's line has these words."""
    return tab.wait_for_selector(f"#{name}-status :text({words!r})")


def fill(tab, selector, value):
    field = tab.locator(f"{selector} input[type=number]")
    field.fill(str(value))
    field.press("Tab")


def choose(tab, selector, label):
    tab.locator(selector).get_by_label(label, exact=True).check()


def a_training_begins_and_sampling_goes_on(ann):
    open_tab(ann, "adapt")
    fill(ann, "#adapt-steps", 2)
    press(ann, "adapt")
    ann.wait_for_selector("#adapt-cancel:not([disabled])")
    open_tab(ann, "sample")
    fill(ann, "#sample-count", 2)
    press(ann, "sample")
    ann.wait_for_selector("#sample-result img")
    shown = ann.locator("#sample-result img")
    assert shown.count() == 2
    assert shown.first.get_attribute("alt") == "Seed 22, the source itself"
    assert shown.first.evaluate("image => image.naturalWidth") == 256


def an_impossible_number_is_answered_beside_the_button(ann):
    fill(ann, "#sample-seed", -3)
    press(ann, "sample")
    status(ann, "sample", "First seed is -3; expected a whole number in 0..")
    assert ann.locator("#sample-result img").count() == 2  # what was there stays


def an_edit_goes_on_when_the_page_is_reloaded_and_is_cancelled(ann):
    def slow(job, *values, report=Job.report):
        report(job, *values)
        job.wait(0.1)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "report", slow)
        open_tab(ann, "edit")
        fill(ann, "#edit-steps", 1000)
        press(ann, "edit")
        status(ann, "edit", "step")
        ann.reload()
        open_tab(ann, "edit")
        status(ann, "edit", "step")
        ann.click("#edit-cancel")
        status(ann, "edit", "cancelled")
    open_tab(ann, "sample")  # what had ended before is found again, too
    assert ann.locator("#sample-result img").count() == 2


def an_edit_shows_before_and_after(ann):
    open_tab(ann, "edit")
    fill(ann, "#edit-steps", 2)
    ann.fill("#edit-text textarea, #edit-text input", "a person with <b>red</b> hair")
    press(ann, "edit")
    ann.wait_for_selector("#edit-result img")
    assert (
        ann.locator("#edit-result figcaption")
        .nth(1)
        .inner_text()
        .startswith("a person with <b>red</b> hair")
    )


def an_adaptation_joins_the_presets(ann):
    open_tab(ann, "adapt")
    status(ann, "adapt", "done in")
    assert ann.locator("#adapt-grid img").count()
    open_tab(ann, "stylise")
    ann.locator("#stylise-presets").get_by_label("pencil sketch").wait_for()


def the_examples_are_there_in_every_order_of_tabs(ann):
    for tab, names in (
        ("stylise", ["stylise"]),
        ("transfer", ["transfer-content", "transfer-style"]),
        ("edit", ["edit"]),
        ("stylise", ["stylise"]),
    ):
        open_tab(ann, tab)
        if tab == "edit":
            choose(ann, "#edit-subject", "an image")
        for name in names:
            ann.wait_for_selector(f"#{name}-examples img", state="visible")
            assert ann.locator(f"#{name}-examples img").count() > 4


def what_is_no_image_is_refused(ann, tmp_path):
    path = tmp_path / "x.png"
    path.write_text("no image")
    ann.set_input_files("#stylise-image input[type=file]", path)
    ann.wait_for_selector(":text('it is no image')")


def a_photograph_without_a_face_offers_the_box(ann, tmp_path):
    path = tmp_path / "wall.png"
    Image.new("RGB", (96, 64), "grey").save(path)
    ann.reload()
    open_tab(ann, "stylise")
    ann.set_input_files("#stylise-image input[type=file]", path)
    ann.wait_for_selector("#stylise-image img")
    choose(ann, "#stylise-place", FACE)
    choose(ann, "#stylise-presets", "pencil sketch (yours)")
    press(ann, "stylise")
    status(ann, "stylise", "no face is found")
    ann.wait_for_selector("#stylise-box", state="visible")
    assert ann.locator("#stylise-place").get_by_label(BOX, exact=True).is_checked()
    ann.wait_for_selector("#stylise-box img")


def an_avatar_is_stylised(ann):
    ann.reload()
    open_tab(ann, "stylise")
    ann.set_input_files("#stylise-image input[type=file]", ASSETS / "avatars" / "avatar_03.png")
    ann.wait_for_selector("#stylise-image img")
    choose(ann, "#stylise-presets", "pencil sketch (yours)")
    choose(ann, "#stylise-place", MIDDLE)
    ann.get_by_role("button", name="How its latents are found").locator("visible=true").click()
    fill(ann, "#stylise-search-steps", 2)
    press(ann, "stylise")
    ann.wait_for_selector("#stylise-result img")
    assert ann.locator("#stylise-result figure").count() == 3
    ann.wait_for_selector("#stylise-slider img")
    ann.wait_for_selector("#stylise-which label")  # at once, on a first visit


def visitors_do_not_see_each_other(ann, open_page, page):
    bob = open_page()
    theirs = ann.locator("#stylise-result img").first.get_attribute("src")
    assert ann.request.get(f"{page.url}/{theirs}").status == 200
    assert bob.request.get(f"{page.url}/{theirs}").status == 404
    open_tab(bob, "stylise")
    assert not bob.locator("#stylise-result img").count()
    assert not bob.locator("#stylise-presets").get_by_label("pencil sketch").count()
    (cookie,) = bob.context.cookies()
    assert (cookie["name"], cookie["httpOnly"]) == (COOKIE, True)
    bob.context.close()


STEPS = (
    a_training_begins_and_sampling_goes_on,
    an_impossible_number_is_answered_beside_the_button,
    an_edit_goes_on_when_the_page_is_reloaded_and_is_cancelled,
    an_edit_shows_before_and_after,
    an_adaptation_joins_the_presets,
    the_examples_are_there_in_every_order_of_tabs,
    what_is_no_image_is_refused,
    a_photograph_without_a_face_offers_the_box,
    an_avatar_is_stylised,
    visitors_do_not_see_each_other,
)


def test_what_visitors_do(open_page, page, folder, tmp_path):
    """One test: each step begins where the one before it has ended."""
    from playwright.sync_api import TimeoutError

    ann = open_page()
    given = {"ann": ann, "open_page": open_page, "page": page, "tmp_path": tmp_path}
    for step in STEPS:
        try:
            step(**{name: given[name] for name in inspect.signature(step).parameters})
        except TimeoutError as late:
            told = f"{step.__name__}: {late}\n{what_is_seen(ann)}\n{what_is_done(page)}"
            raise AssertionError(told) from late
        finally:
            ann.screenshot(path=folder / f"{step.__name__}.png")


def what_is_seen(tab):
    """The lines of status of the page."""
    return "\n".join(tab.locator("[id$=-status]").all_inner_texts())


def what_is_done(page):
    """All jobs of the server."""
    jobs = page.site.jobs._jobs.values()
    lines = [f"{x.tab} {x.state}: {x.note} {x.error} ({x.seconds:.0f} s)" for x in jobs]
    return "\n".join(lines)
