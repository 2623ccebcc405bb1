"""The page in Chromium against a real server: what a person does with it, also without a mouse.

Accessibility is checked by axe-core, which `make .venv/axe` fetches where there is npm, or whose
axe.min.js `$TELLFRAME_AXE` names; without it, these checks are skipped.
`$TELLFRAME_SCREENSHOTS` names a folder for pictures of the page.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest

from tellframe.bundle import DEFAULT, GRAPH, SHIPPED
from tellframe.report.words import clock, file_size
from web_server import run_web_server

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="needs playwright, of the group serve-tests"
)
CHROMIUM = os.environ.get("TELLFRAME_CHROMIUM") or shutil.which("chromium")
if not CHROMIUM:
    pytest.skip("needs Chromium (Debian: chromium)", allow_module_level=True)
AXE = Path(__file__).parents[2] / ".venv/axe/node_modules/axe-core/axe.min.js"
expect = sync_api.expect
expect.set_options(timeout=30_000)
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)


@pytest.fixture
def open_page(browser):
    """Return what opens the page of a server; it must not complain, nor ask another host."""
    contexts, trouble = [], []

    def open_it(server, first="#pick", **options):
        context = browser.new_context(accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: trouble.append(str(error)))
        page.on(
            "console",
            lambda message: (
                trouble.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        hosts = (server.url, "blob:", "data:")
        page.on(
            "request",
            lambda request: None if request.url.startswith(hosts) else trouble.append(request.url),
        )
        page.goto(server.url)
        expect(page.locator(first)).to_be_visible()
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert trouble == []


def forget_all(server):
    for job in server.get("/v1/jobs").json["jobs"]:
        server.ask("DELETE", job["links"]["self"])


def drop(page, *paths):
    with page.expect_file_chooser() as chooser:
        page.click("#pick")
    chooser.value.set_files([str(path) for path in paths])


def card(page, name):
    return page.locator("article", has=page.get_by_role("heading", name=name, exact=True))


def video_time(page):
    return page.evaluate("document.querySelector('video').currentTime")


def shoot(page, name):
    folder = os.environ.get("TELLFRAME_SCREENSHOTS")
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


def violations(page):
    """Return what axe-core finds serious or worse."""
    script = Path(os.environ.get("TELLFRAME_AXE") or AXE)
    if not script.is_file():
        pytest.skip(f"needs axe-core, and there is no {script}: run make .venv/axe, with npm")
    page.evaluate(script.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [
        (entry["id"], [node["html"] for node in entry["nodes"]])
        for entry in found
        if entry["impact"] in ("serious", "critical")
    ]


def test_from_the_drop_to_the_verdict_and_away(server, open_page, samples):
    forget_all(server)
    page = open_page(server, viewport={"width": 1280, "height": 900})
    # Uploads go by, so that what they show is recorded as it comes.
    page.evaluate(
        """() => {
            window.seen = new Set();
            new MutationObserver(() => {
                for (const step of document.querySelectorAll('.step')) seen.add(step.textContent);
            }).observe(document.body, {childList: true, subtree: true, characterData: true});
        }"""
    )
    drop(page, samples / "two_people.mp4")
    found = card(page, "two_people.mp4")
    expect(found.locator(".verdict .title")).to_have_text("Likely fake")
    (job,) = server.get("/v1/jobs").json["jobs"]
    verdict = server.get(job["links"]["self"]).json["verdict"]
    percent = f"{100 * verdict['probability']:.1f} %"
    expect(found.locator(".verdict")).to_contain_text(percent)
    steps = page.evaluate("[...seen]")
    assert "Uploading" in steps
    assert len(steps) > 1  # which ones of the analysis, depends on how fast it is
    expect(page.locator("#status")).to_have_text("two_people.mp4: Likely fake.")

    # The timeline seeks, by mouse and by keyboard, and so do the pictures.
    expect(found.locator(".box")).to_have_count(2)
    expect(found.locator(".box:not(.FAKE)")).to_contain_text("Person 1")
    expect(found.locator(".box.FAKE")).to_contain_text("Person 2")
    timeline = found.get_by_role("slider", name="Timeline of person 2")
    width = timeline.bounding_box()["width"]
    timeline.click(position={"x": 0.75 * width, "y": 30})
    assert video_time(page) == pytest.approx(3.0, abs=0.05)
    timeline.press("Home")
    assert video_time(page) == pytest.approx(0.2, abs=0.05)
    timeline.press("ArrowRight")
    assert video_time(page) == pytest.approx(0.6, abs=0.05)
    moments = verdict["people"][1]["moments"]
    nearest = min(moments, key=lambda moment: abs(moment["time"] - 0.6))
    shown = f"P(fake) {100 * nearest['probability']:.1f} %"
    assert shown in timeline.get_attribute("aria-valuetext")
    pictures = found.get_by_role("button", name="Face of person 2")
    pictures.first.click()
    most = max(moments, key=lambda moment: moment["probability"])
    assert video_time(page) == pytest.approx(most["time"], abs=0.05)

    # The heat map, on and off.
    image = pictures.first.locator("img")
    crop = image.get_attribute("src")
    found.get_by_role("switch", name="Heat map").check()
    assert image.get_attribute("src") != crop
    expect(found.locator(".legend")).to_be_visible()
    shoot(page, "light-heat")
    found.get_by_role("switch", name="Heat map").uncheck()
    assert image.get_attribute("src") == crop
    shoot(page, "light")

    found.get_by_text("File, method, SHA-256").click()
    expect(found.get_by_role("link", name="model card")).to_have_attribute("href", "/model-card")
    expect(found.locator(".facts code").first).to_have_text(re.compile("^[0-9a-f]{64}$"))
    for words, ending in (("Report", ".html"), ("JSON", ".json")):
        with page.expect_download() as download:
            found.get_by_role("button", name=f"Download {words}").click()
        assert download.value.suggested_filename == f"two_people-tellframe{ending}"
        text = Path(download.value.path()).read_text(encoding="utf-8")
        assert "two_people.mp4" in text
    assert json.loads(text)["label"] == "FAKE"

    # After a reload the result is there, and the video once it is chosen again.
    page.reload()
    expect(found.locator(".bar")).to_contain_text(percent)
    found.get_by_role("button", name="Show", exact=True).click()
    expect(found).to_contain_text("The server deletes videos after the analysis.")
    with page.expect_file_chooser() as chooser:
        found.get_by_role("button", name="Choose the file").click()
    chooser.value.set_files(str(samples / "fake.mp4"))
    expect(found).to_contain_text("This is another file.")
    with page.expect_file_chooser() as chooser:
        found.get_by_role("button", name="Choose the file").click()
    chooser.value.set_files(str(samples / "two_people.mp4"))
    expect(found.locator(".box")).to_have_count(2)

    found.get_by_role("button", name="Delete").click()
    found.get_by_role("button", name="Delete").click()
    expect(page.locator("article")).to_have_count(0)
    assert server.get("/v1/jobs").json == {"jobs": []}


def test_several_videos_and_accessibility(server, open_page, samples, make_video, tmp_path):
    forget_all(server)
    page = open_page(server, viewport={"width": 1440, "height": 900})
    faceless = make_video(tmp_path / "no_face.mp4", 25, size=(320, 240))
    drop(page, samples / "fake.mp4", samples / "two_people.mp4", faceless)
    expect(page.locator(".verdict")).to_have_count(3)
    expect(page.locator(".thumb")).to_have_count(18)
    left, right = (page.locator("article").nth(i).bounding_box() for i in (0, 1))
    assert left["y"] == right["y"]
    inconclusive = card(page, "no_face.mp4").locator(".verdict")
    expect(inconclusive).to_contain_text("No face was found in the sampled frames.")
    expect(inconclusive).to_contain_text("What would help")
    shoot(page, "several")
    assert violations(page) == []


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dark", {"color_scheme": "dark", "viewport": {"width": 1280, "height": 900}}),
        ("phone", {"viewport": {"width": 360, "height": 740}, "has_touch": True}),
    ],
)
def test_dark_mode_and_phone_width(server, open_page, samples, name, options):
    forget_all(server)
    page = open_page(server, **options)
    drop(page, samples / "two_people.mp4")
    found = card(page, "two_people.mp4")
    expect(found.locator(".thumb")).to_have_count(12)
    found.get_by_text("File, method, SHA-256").click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(page, name)
    assert violations(page) == []


def refuse(route):
    """Answer a request as a server whose disk is busy."""
    problem = {"code": "storage_busy", "title": "The disk is busy", "detail": "Ask again."}
    route.fulfill(status=503, body=json.dumps({**problem, "status": 503}))


@pytest.mark.parametrize("folded", [False, True])
def test_a_verdict_stays_where_its_pictures_do_not_come(server, open_page, samples, clips, folded):
    forget_all(server)
    if folded:
        server.wait(server.post(clips["two_people"], "two_people.mp4").json["id"])
    page = open_page(server)
    page.route("**/moments", refuse)
    found = card(page, "two_people.mp4")
    if folded:
        found.get_by_role("button", name="Show", exact=True).click()
    else:
        drop(page, samples / "two_people.mp4")
    expect(found).to_contain_text("could not be loaded: The disk is busy.")
    expect(found.locator(".verdict .title")).to_have_text("Likely fake")
    expect(found.locator(".facts")).to_have_count(1)
    expect(found.get_by_role("alert")).to_have_count(0)
    for words in ("Download Report", "Download JSON", "Delete"):
        expect(found.get_by_role("button", name=words)).to_be_visible()
    expect(found.get_by_role("button", name="Hide", exact=True)).to_have_count(int(folded))


def test_a_result_that_cannot_be_shown_or_deleted_is_kept(server, open_page, clips):
    forget_all(server)
    job = server.wait(server.post(clips["real"], "real.mp4").json["id"])
    page = open_page(server)
    page.route(f"**{job['links']['self']}", refuse)
    found = card(page, "real.mp4")
    found.get_by_role("button", name="Show", exact=True).click()
    expect(found.locator(".work").get_by_role("alert")).to_contain_text("The disk is busy")
    remove = found.get_by_role("button", name="Remove")
    remove.click()
    expect(remove).to_have_text("Delete for good?")
    remove.click()
    expect(found.locator(".bar")).to_contain_text("Not deleted: The disk is busy. Ask again.")
    expect(remove).to_have_text("Remove")

    page.unroute(f"**{job['links']['self']}")
    found.get_by_role("button", name="Hide", exact=True).click()
    found.get_by_role("button", name="Show", exact=True).click()
    expect(found.locator(".verdict .title")).to_have_text("No sign of a fake found")
    page.route(f"**{job['links']['self']}", refuse)
    for _ in range(2):
        found.get_by_role("button", name="Delete").click()
    expect(found.locator(".bar")).to_contain_text("Not deleted")
    expect(found.locator(".verdict .title")).to_be_visible()
    expect(found.get_by_role("button", name="Download Report")).to_be_visible()
    assert len(server.get("/v1/jobs").json["jobs"]) == 1


def test_a_job_that_cannot_be_cancelled_is_followed(run_server, open_page, samples):
    server = run_server().wait_ready()
    page = open_page(server)
    pids = server.freeze_workers()
    page.route("**/v1/jobs/*", refuse)
    drop(page, samples / "real.mp4")
    found = card(page, "real.mp4")
    expect(found.locator(".step")).not_to_have_text(re.compile("Upl|Arr|Wait"))
    found.get_by_role("button", name="Cancel").click()
    expect(found.locator(".bar")).to_contain_text("Not deleted: The disk is busy.")
    page.unroute("**/v1/jobs/*")
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    expect(found.locator(".verdict .title")).to_have_text("No sign of a fake found")
    server.end()


def test_the_model_card_can_be_read(server, open_page):
    page = open_page(server, viewport={"width": 390, "height": 800})
    page.get_by_text("What a verdict can and cannot say").click()
    page.get_by_role("link", name="model card").click()
    expect(page.get_by_role("heading", name="Known limits")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    shoot(page, "card")
    assert violations(page) == []


def test_of_another_model_no_card_is_shown(run_server, open_page, samples, tmp_path):
    bundle = tmp_path / "mine"
    shutil.copytree(SHIPPED / DEFAULT, bundle)
    graph = bundle / GRAPH
    graph.write_bytes(graph.read_bytes() + b"\x32\x01x")  # a comment, in protobuf
    description = json.loads((bundle / "bundle.json").read_text(encoding="utf-8"))
    description["sha256"] = hashlib.sha256(graph.read_bytes()).hexdigest()
    (bundle / "bundle.json").write_text(json.dumps(description), encoding="utf-8")
    server = run_server("--model", str(bundle)).wait_ready()
    page = open_page(server)
    page.get_by_text("What a verdict can and cannot say").click()
    expect(page.get_by_role("link", name="OpenAPI document")).to_be_visible()
    drop(page, samples / "real.mp4")
    found = card(page, "real.mp4")
    found.get_by_text("File, method, SHA-256").click()
    expect(found.locator(".facts")).to_contain_text("frame_lite0")
    expect(page.get_by_role("link", name="model card")).to_have_count(0)
    server.end()


def test_a_server_that_keeps_videos_does_not_say_that_it_deletes_them(run_server, open_page, clips):
    server = run_server("--keep-uploads").wait_ready()
    server.wait(server.post(clips["real"], "real.mp4").json["id"])
    page = open_page(server)
    found = card(page, "real.mp4")
    found.get_by_role("button", name="Show", exact=True).click()
    expect(found).to_contain_text("The server keeps videos, but does not play them.")
    expect(found).not_to_contain_text("deletes")
    server.end()


def test_a_link_is_fetched_where_the_server_allows_it(run_server, server, open_page, clips):
    expect(open_page(server).locator("#link")).to_be_hidden()
    fetching = run_server("--allow-urls", "--allow-private-addresses").wait_ready()
    page = open_page(fetching, viewport={"width": 1280, "height": 900})
    field = page.get_by_label("or give the direct link of a video file")
    with run_web_server(clips["two_people"]) as web:
        field.fill("http://me:secret@example.org/a.mp4")
        field.press("Enter")
        expect(page.locator("#trouble")).to_contain_text("This address is not fetched from")
        expect(field).to_be_focused()
        field.fill(f"{web.url}/page")
        page.get_by_role("button", name="Fetch").click()
        alert = card(page, f"{web.url}/page").get_by_role("alert")
        expect(alert).to_contain_text("give the direct link of the file")
        expect(page.locator("#trouble")).to_be_hidden()
        url = f"{web.url}/video/two_people.mp4"
        field.fill(url)
        field.press("Enter")
        found = card(page, url)
        expect(found.locator(".verdict .title")).to_be_visible()
        expect(field).to_have_value("")
        with page.expect_download() as download:
            found.get_by_role("button", name="Download Report").click()
        assert download.value.suggested_filename == "two_people-tellframe.html"
        field.fill(f"{web.url}/drip")
        field.press("Enter")
        dripping = card(page, f"{web.url}/drip")
        expect(dripping).to_contain_text("Fetching the video: ")
        shoot(page, "link")
        dripping.get_by_role("button", name="Cancel").click()
        assert web.gone.wait(10)
        fetching.end()
    assert violations(page) == []


def test_what_is_refused_says_why(server, open_page, tmp_path, clips):
    forget_all(server)
    page = open_page(server)
    large, text, cut = (tmp_path / name for name in ("large.mp4", "text.mp4", "cut.mp4"))
    large.write_bytes(clips["fake"] + bytes(2 * 2**20))
    text.write_text("Dear Sir or Madam,")
    cut.write_bytes(clips["fake"][:1000])
    drop(page, large, text, cut)
    expect(card(page, "large.mp4").get_by_role("alert")).to_contain_text("this server takes 2.1 MB")
    expect(card(page, "text.mp4").get_by_role("alert")).to_contain_text("This is not a video")
    expect(card(page, "cut.mp4").get_by_role("alert")).to_contain_text("cannot be decoded")
    shoot(page, "refused")
    assert len(server.get("/v1/jobs").json["jobs"]) == 1


def test_a_full_queue_and_a_restart_are_waited_for(run_server, open_page, samples, variant):
    server = run_server("--queue", "1").wait_ready()
    page = open_page(server)
    server.freeze_workers()
    server.wait(server.post(variant(21)).json["id"], "running")
    waiting = server.post(variant(22)).json
    drop(page, samples / "real.mp4")
    found = card(page, "real.mp4")
    expect(found).to_contain_text("Too many videos are waiting")
    expect(found).to_contain_text("Trying again in")
    server.ask("DELETE", waiting["links"]["self"])
    expect(found).to_contain_text("Waiting: place 1 in the queue")
    server.end(signal.SIGKILL)
    expect(found).to_contain_text("The server does not answer")
    server.start()
    expect(found.locator(".verdict .title")).to_have_text("No sign of a fake found")
    server.end()


def test_all_videos_are_uploaded_while_the_first_wait(run_server, open_page, variant):
    server = run_server().wait_ready()
    page = open_page(server)
    server.freeze_workers()
    page.route("**/v1/jobs?name=*", lambda route: None)  # on their way, until unrouted
    with page.expect_file_chooser() as chooser:
        page.click("#pick")
    names = [f"{number}.mp4" for number in range(1, 6)]
    chooser.value.set_files(
        [
            {"name": name, "mimeType": "video/mp4", "buffer": variant(30 + number)}
            for number, name in enumerate(names)
        ]
    )
    for name in names[2:]:
        expect(card(page, name).locator(".step")).to_have_text("Waiting to be uploaded")
    card(page, names[3]).get_by_role("button", name="Cancel").click()
    expect(page.locator("article")).to_have_count(4)
    page.unroute("**/v1/jobs?name=*")
    for name in (names[2], names[4]):
        expect(card(page, name).locator(".step")).to_have_text(
            re.compile(r"Waiting: place \d in the queue")
        )
    sent = [job["name"] for job in server.get("/v1/jobs").json["jobs"]]
    assert sorted(sent) == [names[0], names[1], names[2], names[4]]
    server.end(signal.SIGKILL)


def test_what_is_promised_of_videos_is_true(server, open_page):
    page = open_page(server)
    rules = page.locator("#rules")
    expect(rules).to_contain_text("Videos go to this server alone.")
    expect(rules).to_contain_text("results after 24 hours.")
    spans = {
        1: "1 second",
        59.9: "59 seconds",
        60: "1 minute",
        90: "90 seconds",
        119.5: "119 seconds",
        659: "10 minutes",
        3600: "1 hour",
        5400: "90 minutes",
        86400: "24 hours",
        88199: "1,469 minutes",
    }
    found = page.evaluate(
        """async (spans) => {
            const {duration} = await import('/assets/words.js');
            return spans.map(duration);
        }""",
        list(spans),
    )
    assert found == list(spans.values())


def test_seconds_and_sizes_are_written_as_in_the_report(server, open_page):
    page = open_page(server)
    times = [0.0, 0.049, *(step / 20 for step in range(1, 80)), 59.95, 3599.949, 3599.95, 3661.25]
    sizes = [999, 1000, 65_536, 1_234_567, 2_147_483_648]
    found = page.evaluate(
        """async ([times, sizes]) => {
            const {clock, size} = await import('/assets/words.js');
            return [times.map(clock), sizes.map(size)];
        }""",
        [times, sizes],
    )
    assert found[0] == [clock(time) for time in times]
    assert found[1] == [file_size(count).partition(" (")[0] for count in sizes]


def test_the_stage_has_the_shape_in_which_the_browser_shows_the_video(server, open_page, clips):
    page = open_page(server)
    page.route("**/clip.mp4", lambda route: route.fulfill(body=clips["real"]))
    shapes = page.evaluate(
        """async () => {
            const {Player} = await import('/assets/player.js');
            const player = new Player(() => {});
            const verdict = {people: [], media: {rotation: 0, width: 720, height: 576}};
            player.setPeople(verdict, {});
            const shapes = [player.node.style.aspectRatio];
            player.show(new File([await (await fetch('/clip.mp4')).blob()], 'clip.mp4'));
            await new Promise((resolve) => player.video.addEventListener('loadeddata', resolve));
            player.setPeople(verdict, {});
            return [...shapes, player.node.style.aspectRatio];
        }"""
    )
    assert shapes == ["720 / 576", "480 / 480"]


def test_a_token_is_asked_for(run_server, open_page, samples):
    server = run_server(TELLFRAME_TOKENS="sesame-sesame-sesame").wait_ready()
    page = open_page(server, first="#token")
    page.fill("#token", "open")
    page.get_by_role("button", name="Continue").click()
    expect(page.locator("#access-trouble")).to_have_text("This token is not valid.")
    page.fill("#token", "sesame-sesame-sesame")
    page.keyboard.press("Enter")
    drop(page, samples / "fake.mp4")
    expect(card(page, "fake.mp4").locator(".thumb")).to_have_count(6)
    server.end()
