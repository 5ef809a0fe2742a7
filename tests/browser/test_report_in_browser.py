"""The report in a real browser: nothing runs that must not, and everything can be reached."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from synthetic_run import BIDI, PAYLOAD

from mlagent_jax.evaluation.embed import visible

pytestmark = pytest.mark.browser

WIDTHS = (400, 1400)
TRAJECTORIES = 5 * 6 * 8 + 3 * 4 + 20 * 2  # evaluated, collected, and updates of PPO on two tasks


@pytest.fixture
def page(chromium, report):
    """The report, opened afresh; at the end the console is empty and nothing but the file was asked for."""
    yield from opened(chromium, report)


@pytest.fixture
def empty_page(chromium, empty_report):
    yield from opened(chromium, empty_report)


def opened(chromium, path: Path):
    resize(chromium, 1400)
    chromium.get("about:blank")
    chromium.get_log("browser"), chromium.get_log("performance")
    go(chromium, path)
    yield chromium
    assert chromium.execute_script("return window.hacked ?? null") is None
    assert chromium.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in chromium.get_log("performance")]
    requests = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url for url in requests if not url.startswith(("file://", "data:", "about:"))] == []
    chromium.execute_script("localStorage.clear()")


def go(page, path: Path, fragment: str = "") -> None:
    page.get("about:blank")  # so that a new fragment is a new visit
    page.get(path.as_uri() + fragment)


def resize(page, width: int, height: int = 900, scheme: str = "light") -> None:
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(page, selector: str):
    from selenium.webdriver.common.by import By

    return page.find_element(By.CSS_SELECTOR, selector)


def find_all(page, selector: str):
    from selenium.webdriver.common.by import By

    return page.find_elements(By.CSS_SELECTOR, selector)


def wait(page, condition, what: str):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(page, 10).until(lambda _: condition(), message=what)


def wait_for_title(page, words: str) -> None:
    wait(page, lambda: words in find(page, "#viewer").text, f"the viewer to show {words!r}")


def press(page, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(*keys).perform()


def choose(page, name: str, value: str) -> None:
    from selenium.webdriver.support.ui import Select

    values = [option.get_property("value") for option in find_all(page, f"#filters [name={name}] option")]
    Select(find(page, f"#filters [name={name}]")).select_by_index(values.index(value))


def current_step(page) -> str:
    return find(page, ".steps button[aria-current=true]").text


def test_opens_with_the_first_trajectory(page) -> None:
    wait_for_title(page, "Starter on ames, episode 0")
    assert find(page, "#count").text == f"{TRAJECTORIES} of {TRAJECTORIES} trajectories"
    assert len(find_all(page, "svg[data-readout]")) >= 6


def test_hostile_texts_are_shown_and_do_not_run(page, report) -> None:
    go(page, report, "#trajectory=sft/ames/1&step=1")
    wait_for_title(page, "SFT on ames, episode 1")
    for place in range(len(find_all(page, ".steps button"))):
        find(page, f'[data-step="{place}"]').click()
    find(page, '[data-step="0"]').click()
    text = find(page, "#viewer").text
    assert PAYLOAD in text
    assert visible(BIDI) in text
    assert find_all(page, "img, iframe") == []
    find(page, "#viewer summary").click()
    assert PAYLOAD in find(page, "#viewer .raw").text


def test_an_injected_handler_would_be_refused_by_the_policy(chromium, report) -> None:
    """The second line of defence: even markup that got into the page could not run."""
    go(chromium, report)
    chromium.execute_script(
        "document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.hacked = 1\">')"
    )
    wait(chromium, lambda: chromium.get_log("browser"), "the refusal on the console")
    assert chromium.execute_script("return window.hacked ?? null") is None


def test_filters_narrow_the_list(page) -> None:
    choose(page, "agent", "ppo")
    choose(page, "task", "digits8")
    assert find(page, "#count").text == f"{8 + 20} of {TRAJECTORIES} trajectories", "and updates of PPO"
    choose(page, "stage", "evaluate")
    assert find(page, "#count").text == f"8 of {TRAJECTORIES} trajectories"
    assert all(" digits8 " in item.text for item in find_all(page, "#episodes button"))
    choose(page, "outcome", "corner")
    count = int(find(page, "#count").text.split()[0])
    assert 0 < count < 8
    assert len(find_all(page, "#episodes button:has(.mini.corner)")) == count
    find(page, "#filters button[type=reset]").click()
    wait(
        page,
        lambda: find(page, "#count").text == f"{TRAJECTORIES} of {TRAJECTORIES} trajectories",
        "all of them again",
    )
    choose(page, "outcome", "infrastructure")
    assert find(page, "#count").text == f"1 of {TRAJECTORIES} trajectories"


def test_ordering_by_gain(page) -> None:
    choose(page, "stage", "evaluate")
    choose(page, "order", "best")
    gains = [item.text for item in find_all(page, "#episodes .gain")]
    values = [float(text.replace("−", "-").rstrip(" %")) for text in gains]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1]


def test_keys_move_through_steps_and_trajectories(page, report) -> None:
    from selenium.webdriver.common.keys import Keys

    go(page, report, "#trajectory=sft/ames/3&step=1")
    wait_for_title(page, "SFT on ames, episode 3")
    steps = len(find_all(page, ".steps button"))
    assert steps > 2
    press(page, Keys.ARROW_RIGHT)
    assert current_step(page) == "2"
    press(page, "j")
    assert current_step(page) == "3"
    press(page, "k", Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    assert current_step(page) == "1"
    press(page, Keys.END)
    assert current_step(page) == str(steps)
    assert page.current_url.endswith(f"#trajectory=sft/ames/3&step={steps}")
    press(page, "n")
    wait_for_title(page, "SFT on ames, episode 4")
    press(page, "p")
    wait_for_title(page, "SFT on ames, episode 3")


def test_keys_leave_form_fields_alone(page, report) -> None:
    from selenium.webdriver.common.keys import Keys

    go(page, report, "#trajectory=sft/ames/3&step=1")
    wait_for_title(page, "SFT on ames, episode 3")
    press(page, "f", "j", Keys.ARROW_RIGHT)
    assert page.execute_script("return document.activeElement.name") == "stage"
    assert current_step(page) == "1"


def test_addresses_lead_to_a_step_and_back(page, report) -> None:
    go(page, report, "#trajectory=ppo/ames/4&step=3")
    wait_for_title(page, "SFT + PPO on ames, episode 4")
    assert current_step(page) == "3"
    find_all(page, "#episodes button")[0].click()
    wait_for_title(page, "Starter on ames, episode 0")
    page.back()
    wait_for_title(page, "SFT + PPO on ames, episode 4")
    assert current_step(page) == "3"


def test_addresses_of_odd_names_and_other_stages(page, report) -> None:
    choose(page, "agent", "sft")
    choose(page, "task", visible("odd " + PAYLOAD + BIDI))
    find_all(page, "#episodes button")[1].click()
    wait_for_title(page, "episode 1")
    address = page.current_url
    page.get("about:blank")
    page.get(address)
    wait_for_title(page, "episode 1")
    assert PAYLOAD in find(page, "#viewer h3").text
    go(page, report, "#trajectory=expert/digits8/2&stage=collect")
    wait_for_title(page, "Expert on digits8, episode 2")
    assert "Primed with" in find(page, "#viewer").text


def test_rollouts_lead_to_the_states_they_came_from(page, report) -> None:
    go(page, report, "#trajectory=ppo/ames/20&stage=ppo&step=2")
    wait_for_title(page, "Actions sampled for update 20 on ames")
    assert PAYLOAD in find(page, "#viewer").text
    find(page, "#viewer .facts a").click()
    wait_for_title(page, "Expert on ames, episode 1")


def test_an_address_of_nothing_says_so(page, report) -> None:
    go(page, report, "#trajectory=sft/nowhere/%E0%A4%A&step=x")
    wait_for_title(page, "There is no trajectory sft/nowhere/")


def test_scores_lead_to_their_trajectories(page) -> None:
    find_all(page, ".matrix .avg")[7].click()  # second task, third agent
    wait_for_title(page, "Expert on digits8, episode 0")
    assert find(page, "#count").text == f"8 of {TRAJECTORIES} trajectories"


def test_diffs_are_coloured_by_kind(page, report) -> None:
    go(page, report, "#trajectory=sft/ames/4&step=1")
    wait_for_title(page, "SFT on ames, episode 4")
    find(page, ".steps button.success").click()
    kinds = {
        kind: [line.text for line in find_all(page, f"#viewer .diff .{kind}")]
        for kind in ("add", "del", "file")
    }
    assert kinds["add"] == ["+model = HistGradientBoostingRegressor()"]
    assert kinds["del"] == [
        "-model = LinearRegression()",
        "--- not a file name, but a removed line that begins with dashes",
    ]
    assert kinds["file"] == ["--- a/train.py", "+++ b/train.py"]


def test_themes_follow_the_system_and_the_button(page) -> None:
    def background() -> int:
        return page.execute_script(
            "return parseInt(getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0])"
        )

    assert background() > 200
    resize(page, 1400, scheme="dark")
    assert background() < 60
    find(page, "#theme").click()
    assert background() > 200, "light by choice"
    page.refresh()
    assert background() > 200, "the choice is remembered"


def test_charts_read_out_values_under_the_pointer(page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    chart = find(page, "svg[data-readout]")
    note = find(page, ".readout").text
    ActionChains(page).move_to_element(chart).perform()
    assert find(page, ".readout").text.startswith("tokens seen 4")
    ActionChains(page).move_to_element(find(page, "h1")).perform()
    assert find(page, ".readout").text == note


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_fits_its_width_and_can_be_read(page, report, width, scheme, tmp_path) -> None:
    resize(page, width, scheme=scheme)
    go(page, report, "#trajectory=sft/ames/4&step=2")
    wait_for_title(page, "SFT on ames, episode 4")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert find(page, "#viewer").rect["width"] > 0.6 * min(width, 900)
    assert find(page, ".matrix th[scope=row]").rect["width"] < 0.4 * width, "the fixed column leaves room"
    assert low_contrast(page) == []
    folder = Path(os.environ.get("MLAGENT_SCREENSHOTS", tmp_path))
    page.save_screenshot(str(folder / f"report-{width}-{scheme}.png"))


def low_contrast(page) -> list[str]:
    """Elements with text of their own whose contrast is below 4.5, the WCAG's AA for small text."""
    return page.execute_script(
        """
        const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
        const known = new Map();
        const channels = (colour) => {
          if (!known.has(colour)) {
            canvas.clearRect(0, 0, 1, 1);
            canvas.fillStyle = colour;
            canvas.fillRect(0, 0, 1, 1);
            known.set(colour, canvas.getImageData(0, 0, 1, 1).data);
          }
          return known.get(colour);
        };
        const luminance = (colour) => [...channels(colour)].slice(0, 3).map((byte) => byte / 255)
          .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4))
          .reduce((sum, value, at) => sum + value * [0.2126, 0.7152, 0.0722][at], 0);
        const behind = (element) => {
          for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (channels(colour)[3] === 255) return colour;
          }
          return "white";
        };
        const pairs = new Map();
        for (const element of document.querySelectorAll("main *, nav *")) {
          const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
          if (!own || element.closest("svg, select, noscript") || !element.checkVisibility()) continue;
          const key = [getComputedStyle(element).color, behind(element)].join(" on ");
          if (!pairs.has(key)) pairs.set(key, element);
        }
        return [...pairs].flatMap(([key, element]) => {
          const [text, ground] = key.split(" on ").map(luminance);
          const ratio = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
          return ratio < 4.5 ? [`${ratio.toFixed(2)} ${key}: ${element.textContent.slice(0, 30)}`] : [];
        });
        """
    )


def test_a_run_that_has_done_nothing(empty_page) -> None:
    text = find(empty_page, "main").text
    assert "The ppo stage has not logged an update yet." in text
    assert "No trajectory has been stored yet." in text
    find(empty_page, "#theme").click()
