"""The dashboard as people see it: it shows changes of operations, and the true state of its connections."""

import re
import shlex
import signal

from playwright.sync_api import Browser, Locator, Page, expect

from progress_broker.settings import Settings
from progress_workers import Operation
from tests.e2e.browser import visited
from tests.e2e.conftest import StartReplica
from tests.e2e.harness import OPS, Api, run
from tests.servers import ApiReplica, RealRedis, wait_until

MARKUP = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&amp;"


def row(page: Page, operation: str) -> Locator:
    return page.locator(f'#operations li.row[data-operation-id="{operation}"]')


def bar(of: Locator) -> Locator:
    """Return the main bar of an operation; its parts have bars too."""
    return of.locator(".row-bar [role=progressbar]")


def confirm_cancel(page: Page) -> None:
    """Confirm the dialog before a cancel."""
    page.get_by_role("dialog").get_by_role("button", name="Cancel it").click()


def listen(page: Page) -> None:
    """Record all announcements from now on, because each replaces the previous one."""
    page.evaluate("""() => {
      const announcements = document.getElementById('announcements');
      globalThis.said = [];
      const hear = new MutationObserver(() => globalThis.said.push(announcements.textContent));
      hear.observe(announcements, { childList: true });
    }""")


def await_said(page: Page, text: str) -> None:
    wait_until(lambda: any(text in said for said in page.evaluate("() => globalThis.said")), f"{text!r} is said")


def test_an_operation_appears_moves_and_ends(api: Api, page: Page) -> None:
    expect(page.locator("#connection")).to_have_attribute("data-state", "live")
    operation = api.create(kind="import", title="Import customers")
    mine = row(page, operation)
    expect(mine).to_have_attribute("data-status", "pending")
    expect(mine.get_by_role("link", name="Import customers")).to_be_visible()
    for current in (10, 42, 77):
        stages = [
            {"name": "extract", "status": "succeeded", "percent": 100},
            {"name": "load", "status": "running", "current": current, "total": 100, "percent": current},
        ]
        progress = {"current": current, "total": 100, "unit": "rows", "percent": current, "message": f"at {current}"}
        api.publish(operation, "progress", progress | {"stages": stages})
        expect(bar(mine)).to_have_attribute("aria-valuenow", str(current))
        expect(mine).to_contain_text(f"at {current}")
        expect(mine).to_contain_text(f"{current} of 100 rows")
        parts = mine.locator(".stages > li")
        expect(parts).to_have_count(2)
        expect(parts.nth(0)).to_have_attribute("data-status", "succeeded")
        expect(parts.nth(1).get_by_role("progressbar")).to_have_attribute("aria-valuenow", str(current))
    expect(mine).to_have_attribute("data-status", "running")
    expect(mine).to_have_attribute("data-connection", "live")
    api.finish(operation)
    expect(mine).to_have_attribute("data-status", "succeeded")
    expect(mine).to_have_attribute("data-connection", "ended")
    expect(page.locator("#announcements")).to_contain_text("Import customers: succeeded")


def test_a_failure_says_why(api: Api, page: Page) -> None:
    operation = api.create(title="Doomed")
    error = {"type": "ValueError", "message": "row 7 has no name"}
    api.publish(operation, "end", {"status": "failed", "error": error})
    expect(row(page, operation)).to_have_attribute("data-status", "failed")
    expect(row(page, operation)).to_contain_text("row 7 has no name")


def test_the_details_follow_the_log(api: Api, page: Page) -> None:
    operation = api.create(title="Talkative", owner="alice", tags=["eu"], metadata={"customer": 42})
    api.log(operation, "said before anybody looked")
    row(page, operation).get_by_role("link").click()
    detail, lines = page.locator("#detail"), page.locator("#log > li")
    expect(detail).to_have_attribute("data-operation-id", operation)
    expect(lines).to_have_count(1)
    expect(lines.first).to_contain_text("said before anybody looked")
    api.publish(operation, "log", {"level": "warning", "message": "live", "stage": "parse"})
    expect(lines.nth(1)).to_have_attribute("data-level", "warning")
    expect(lines.nth(1)).to_contain_text("live")
    expect(lines.nth(1)).to_contain_text("parse")
    expect(detail).to_contain_text("alice")
    pool = {"active": 1, "max": 2, "queue_depth": 3, "workers": [{"id": 1, "status": "processing", "item": "chunk-7"}]}
    api.publish(operation, "progress", {"current": 3, "workers": pool, "metrics": {"entities_total": 42}})
    expect(detail).to_contain_text("chunk-7")
    expect(detail).to_contain_text("entities_total")
    expect(page.locator("#detail-metadata [data-fact=customer]")).to_have_text("42")
    api.publish(operation, "metadata", {"customer": None, "file": "may.csv"})
    expect(page.locator("#detail-metadata [data-fact=file]")).to_have_text("may.csv")
    expect(page.locator("#detail-metadata [data-fact=customer]")).to_have_count(0)
    api.finish(operation, {"rows": 7})
    expect(page.locator("#detail-result")).to_contain_text('"rows": 7')
    page.keyboard.press("Escape")
    expect(detail).to_be_hidden()
    page.go_back()
    expect(detail).to_have_attribute("data-operation-id", operation)
    expect(lines).to_have_count(2)


def test_a_long_log_keeps_its_tail(api: Api, page: Page) -> None:
    operation = api.create(title="Long")
    page.goto(f"{api.url}/#operation={operation}")
    expect(page.locator("#detail")).to_have_attribute("data-operation-id", operation)
    for batch in range(6):
        api.log(operation, *(f"line {batch * 50 + line}." for line in range(50)))
        expect(page.locator("#log > li").last).to_contain_text(f"line {batch * 50 + 49}.")
    expect(page.locator("#log > li")).to_have_count(200)


def test_cancelling(api: Api, page: Page) -> None:
    operation = api.create(title="Unwanted")
    api.publish(operation, "status", {"status": "running"})
    mine = row(page, operation)
    button = mine.locator("button[data-action=cancel]")
    button.click()
    confirm_cancel(page)
    expect(mine).to_have_attribute("data-status", "cancelling")
    expect(button).to_be_disabled()
    assert api.show(operation)["cancel_requested"] is True
    api.publish(operation, "end", {"status": "cancelled", "error": {"type": "cancelled", "message": "enough"}})
    expect(mine).to_have_attribute("data-status", "cancelled")


def test_a_cancel_is_asked_about_and_what_is_pressed_twice_changes_nothing(api: Api, page: Page) -> None:
    operation = api.create(title="Precious")
    api.publish(operation, "status", {"status": "running"})
    child = api.create(title="Child", parent=operation)
    mine, question = row(page, operation), page.get_by_role("dialog", name="Cancel “Precious”?")
    button = mine.locator("button[data-action=cancel]")
    expect(row(page, child)).to_be_visible()
    button.dblclick()
    expect(question).to_contain_text("and the worker of its child to stop")
    page.keyboard.press("Escape")
    for _ in range(3):
        expect(question).to_be_hidden()
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        expect(question).to_be_visible()
        page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    expect(question.get_by_role("button", name="Keep it running")).to_be_focused()
    mine.get_by_role("link").evaluate("link => link.click()")
    expect(page.locator("#detail")).to_be_visible()
    page.keyboard.press("Escape")
    expect(question).to_be_hidden()
    expect(page.locator("#detail")).to_be_visible()
    assert not any(api.show(id)["cancel_requested"] for id in (operation, child))
    button.focus()
    for key in ("Enter", "Tab", "Enter"):
        page.keyboard.press(key)
    expect(mine).to_have_attribute("data-status", "cancelling")
    assert api.show(operation)["cancel_requested"] is True


def test_a_question_about_what_has_ended_is_taken_back(api: Api, page: Page) -> None:
    operation = api.create(title="Brief")
    row(page, operation).locator("button[data-action=cancel]").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    api.finish(operation)
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_a_worker_that_falls_silent_comes_back_and_is_replaced(api: Api, page: Page, e2e_redis: RealRedis) -> None:
    operation = api.create(title="Quiet", lease_s=0.3)
    mine = row(page, operation)
    expect(mine).to_have_attribute("data-status", "pending")
    listen(page)
    api.publish(operation, "progress", {"percent": 40})
    expect(mine).to_have_attribute("data-status", "stalled")
    expect(mine).to_contain_text(re.compile(r"No heartbeat from its worker since \d\d:\d\d:\d\d\."))
    await_said(page, "Quiet: stalled, no heartbeat from its worker")
    mine.get_by_role("link").click()
    expect(page.locator("#detail-worker")).to_contain_text("No heartbeat from its worker since")
    settings = Settings(_env_file=None, redis_url=e2e_redis.url)
    first = Operation.attach(operation, settings=settings)
    expect(mine).to_have_attribute("data-status", "running")
    await_said(page, "Quiet: running again")
    expect(mine).not_to_contain_text("No heartbeat")
    expect(page.locator("#detail-worker")).to_be_hidden()
    expect(bar(mine)).to_have_attribute("aria-valuenow", "40")
    expect(page.locator("#detail-attempt")).to_be_hidden()
    with Operation.attach(operation, new_attempt=True, worker="host-8:77", settings=settings) as second:
        expect(mine).to_contain_text("attempt 2")
        expect(page.locator("#detail-attempt")).to_have_text("attempt 2")
        expect(page.locator("[data-fact=worker]")).to_have_text("host-8:77")
        expect(bar(mine)).to_have_attribute("data-known", "no")
        second.update(percent=70)
        expect(bar(mine)).to_have_attribute("aria-valuenow", "70")
    expect(mine).to_have_attribute("data-status", "succeeded")
    assert first.cancelled


def test_a_worker_that_ignores_a_cancel_is_told_of_and_can_be_left_behind(
    start_replica: StartReplica, e2e_redis: RealRedis, browser: Browser
) -> None:
    replica = start_replica(e2e_redis.url, force_cancel_after_s=1.5)
    with Api(replica.url) as api, visited(browser, replica.url, network_may_fail=True) as page:
        operation = api.create(title="Deaf", lease_s=None)
        api.publish(operation, "progress", {"percent": 40})
        page.goto(f"{replica.url}/#operation={operation}")
        mine, detail = row(page, operation), page.locator("#detail")
        expect(mine).to_have_attribute("data-connection", "live")
        listen(page)
        page.route(re.compile(r"/v1/operations\?"), lambda _: None)  # none is answered: it must notice by itself
        body = {"reason": "too slow", "by": "ann@desk-3"}
        api.http.post(f"{OPS}/{operation}/cancel", json=body).raise_for_status()
        expect(mine).to_have_attribute("data-status", "cancelling")
        for place in (mine, detail):
            expect(place.locator(".worker")).to_have_text(
                re.compile(r"^Asked to stop at [\d:]+ by ann@desk-3: too slow$")
            )
            expect(place.locator("[data-action=force]")).to_be_hidden()
        for place in (mine, detail):
            expect(place.locator(".worker")).to_contain_text("Ignored by its worker since")
            expect(place.get_by_role("button", name="End by force Deaf")).to_be_visible()
        await_said(page, "Deaf: its worker ignores the request to stop")
        assert api.show(operation)["status"] == "cancelling"

        mine.locator("[data-action=force]").dblclick()  # a double press changes nothing
        force = detail.locator("[data-action=force]")
        force.focus()
        for key in ("Enter", "Enter"):
            page.keyboard.press(key)
        for place in (mine, detail):
            expect(place.locator("[data-action=force]")).to_be_visible()
        expect(force).to_be_focused()
        page.keyboard.press("Enter")
        expect(detail.get_by_role("button", name="Keep waiting")).to_be_focused()
        page.keyboard.press("Escape")
        expect(force).to_be_focused()
        expect(detail).to_be_visible()
        assert api.show(operation)["status"] == "cancelling"
        for key in ("Enter", "Shift+Tab", "Enter"):
            page.keyboard.press(key)
        expect(mine).to_have_attribute("data-status", "cancelled")
        expect(detail.locator(".worker-line")).to_be_hidden()
        expect(detail.locator("[data-fact='cancel requested']")).to_contain_text("by ann@desk-3: too slow")
        assert api.show(operation)["error"]["message"] == "ended by force on the dashboard"


def test_what_it_is_told_is_shown_as_text(api: Api, page: Page) -> None:
    operation = api.create(title=MARKUP, kind=MARKUP, owner=MARKUP, tags=[MARKUP])
    progress = {
        "message": MARKUP,
        "unit": MARKUP,
        "current": 1,
        "stages": [{"name": MARKUP, "status": "running"}],
        "workers": {"workers": [{"id": MARKUP, "status": MARKUP, "item": MARKUP}]},
        "metrics": {MARKUP: MARKUP},
    }
    api.publish(operation, "progress", progress)
    api.publish(operation, "log", {"level": "error", "message": MARKUP, "stage": MARKUP})
    mine = row(page, operation)
    expect(mine.get_by_role("link")).to_have_text(MARKUP)
    expect(mine).to_contain_text(MARKUP)
    mine.get_by_role("link").click()
    expect(page.locator("#log > li .text")).to_have_text(MARKUP)
    expect(page.locator("#detail-title")).to_have_text(MARKUP)
    api.publish(operation, "metadata", {MARKUP: MARKUP})
    expect(page.locator("#detail-metadata dt")).to_have_text(MARKUP)
    cause = {"type": "KeyError", "message": MARKUP, "traceback": MARKUP}
    error = {"type": MARKUP, "message": MARKUP, "traceback": "  File a\n    b()", "cause": cause}
    api.publish(operation, "end", {"status": "failed", "error": error, "result": MARKUP})
    expect(page.locator("#detail-error")).to_contain_text(MARKUP)
    expect(page.locator("#detail-error")).to_contain_text(f"  File a\n    b()\nCaused by KeyError: {MARKUP}")
    expect(page.locator("main img, main script, main iframe")).to_have_count(0)


def test_foreign_progress_of_any_shape_breaks_nothing(api: Api, page: Page) -> None:
    operation = api.create(title="Odd")
    page.goto(f"{api.url}/#operation={operation}")
    shown = page.locator("#detail-message")
    for n, odd in enumerate(
        (
            {"metrics": {"a": None, "b": [1], "c": {"d": 1}, "e": True}},
            {"stages": []},
            {"stages": [{"name": ""}]},
            {"workers": {}},
            {"workers": {"workers": []}},
            {"percent": 0, "current": 1e300, "total": 1e-300, "rate": 0, "eta_ms": 1e300},
            {"current": 5, "total": 0},
        )
    ):
        api.publish(operation, "progress", odd | {"message": f"message {n}"})
        expect(shown).to_have_text(f"message {n}")


def test_the_filter(api: Api, page: Page) -> None:
    running, finished = api.create(title="At work"), api.create(title="Done")
    api.publish(running, "status", {"status": "running"})
    api.finish(finished)
    choose = page.locator("#filter")
    expect(row(page, running)).to_be_visible()
    expect(row(page, finished)).to_be_visible()
    choose.locator("input[value=running]").check()
    expect(row(page, finished)).to_have_count(0)
    expect(row(page, running)).to_be_visible()
    choose.locator("input[value=finished]").check()
    expect(row(page, running)).to_have_count(0)
    expect(row(page, finished)).to_be_visible()
    api.finish(running)
    expect(row(page, running)).to_be_visible()
    choose.locator("input[value=all]").check()
    expect(row(page, finished)).to_be_visible()


def test_an_address_of_nothing_says_so(api: Api, browser: Browser) -> None:
    for address in ("nowhere", "%", "%3Cimg%20src%3Dx%3E"):
        with visited(browser, f"{api.url}/#operation={address}", network_may_fail=True) as page:
            expect(page.locator("#connection")).to_have_attribute("data-state", "live")
            if address != "%":
                expect(page.locator("#detail-problem")).to_be_visible()


def test_light_and_dark(api: Api, browser: Browser) -> None:
    api.create()
    brightness = {}
    for scheme in ("light", "dark"):
        with visited(browser, api.url, color_scheme=scheme) as page:
            expect(page.locator("#operations li.row").first).to_be_visible()
            brightness[scheme] = [_brightness(page, "backgroundColor"), _brightness(page, "color")]
    (light_page, light_text), (dark_page, dark_text) = brightness["light"], brightness["dark"]
    assert light_page > 200 > 100 > light_text
    assert dark_page < 60 < 180 < dark_text


def _brightness(page: Page, property: str) -> float:
    """Return 0 for black to 255 for white."""
    colour = page.evaluate("(name) => getComputedStyle(document.body)[name]", property)
    red, green, blue = (int(part) for part in re.findall(r"\d+", colour)[:3])
    return (red + green + blue) / 3


def test_nothing_yet_a_first_operation_by_the_command_shown(
    start_replica: StartReplica, e2e_redis: RealRedis, browser: Browser
) -> None:
    replica = start_replica(e2e_redis.url, prefix="empty")
    with visited(browser, replica.url) as page, Api(replica.url) as api:
        expect(page.locator("#empty-title")).to_have_text("No operations yet")
        command = page.locator("#empty-command").text_content() or ""
        assert f"{replica.url}{OPS}" in command
        assert run([*shlex.split(command), "-sS", "--fail"]).returncode == 0
        expect(page.locator("#operations li.row")).to_have_count(1)
        expect(page.locator("#empty")).to_be_hidden()
        assert api.http.get(OPS).json()["operations"][0]["title"] == "My first operation"


def test_it_says_when_the_server_is_away_and_when_it_is_back(
    start_replica: StartReplica, e2e_redis: RealRedis, browser: Browser
) -> None:
    replica: ApiReplica = start_replica(e2e_redis.url, prefix="away")
    with Api(replica.url) as api, visited(browser, replica.url, network_may_fail=True) as page:
        operation = api.create(title="Import")
        api.publish(operation, "progress", {"percent": 40})
        mine, connection = row(page, operation), page.locator("#connection")
        expect(mine).to_have_attribute("data-connection", "live")
        expect(connection).to_have_attribute("data-state", "live")
        replica.stop(signal.SIGKILL)
        expect(mine).to_have_attribute("data-connection", "reconnecting")
        expect(connection).to_have_attribute("data-state", "unreachable")
        expect(connection).to_contain_text("has been unreachable since")
        expect(bar(mine)).to_have_attribute("aria-valuenow", "40")
        replica.start().await_ready()
        expect(connection).to_have_attribute("data-state", "live")
        expect(mine).to_have_attribute("data-connection", "live")
        api.publish(operation, "progress", {"percent": 60})
        expect(bar(mine)).to_have_attribute("aria-valuenow", "60")
