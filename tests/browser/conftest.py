"""A headless Chromium, and reports for it to open."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "evaluation"))  # for synthetic_run

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


# Of a module, not a session: its processes come and go, and other tests count theirs.
@pytest.fixture(scope="module")
def chromium(tmp_path_factory) -> Iterator:
    """A driver with a profile of its own; skips where Chromium is absent, unless MLAGENT_REQUIRE names it."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        webdriver = None
    if not (browser and driver and webdriver):
        absent = (
            "chromium, chromedriver (Debian packages chromium and chromium-driver) and selenium are needed"
        )
        if "chromium" in os.environ.get("MLAGENT_REQUIRE", ""):
            pytest.fail(absent)
        pytest.skip(absent)
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(driver)  # named, so that selenium looks for none on the network
    session = webdriver.Chrome(options=options, service=service)
    session.set_script_timeout(120)  # of seconds: a busy machine is slow, which is no failure
    yield session
    session.quit()


@pytest.fixture(scope="session")
def report(tmp_path_factory) -> Path:
    """The report of a whole run with hostile texts."""
    from synthetic_run import write_workdir

    from mlagent_jax.evaluation.report import write_report

    workdir = tmp_path_factory.mktemp("report") / "a run"
    write_workdir(workdir)
    return write_report(workdir, workdir / "report.html")


@pytest.fixture(scope="session")
def empty_report(tmp_path_factory) -> Path:
    """The report of a run that has done nothing yet."""
    from mlagent_jax.evaluation.report import write_report

    workdir = tmp_path_factory.mktemp("empty")
    return write_report(workdir, workdir / "report.html")
