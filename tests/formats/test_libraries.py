"""Lines that the libraries write themselves, read by the agent."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from ansible_collections.smolcluster.logging.plugins.module_utils.trial import utc

LOGGING = """
import logging, sys
logging.basicConfig(stream=sys.stdout, level=1, force=True, {options})
log = logging.getLogger("train")
"""
WORK = """
log.debug("step %d", 1); log.info("step 2"); log.warning("slow"); log.error("bad")
try:
    try:
        {}["x"]
    except KeyError as error:
        raise RuntimeError("outer") from error
except RuntimeError:
    log.exception("failed")
log.critical("over")
"""
LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "ERROR", "CRITICAL"]
PROGRAMS = {
    "logging default": (LOGGING.format(options="") + WORK, "python", 0),
    "logging with a time": (
        LOGGING.format(options="format='%(asctime)s - %(name)s - %(levelname)s - %(message)s'") + WORK, "python", 3,
    ),
    "logging in brackets": (
        LOGGING.format(options="format='[%(asctime)s] [%(process)d] [%(levelname)s] %(message)s'") + WORK, "python", 3,
    ),
    "logging with an offset": (
        LOGGING.format(options="format='%(asctime)s [%(levelname)s] %(message)s', datefmt='%Y-%m-%dT%H:%M:%S%z'")
        + WORK,
        "python", 0.1,
    ),
    "logging of examples": (
        LOGGING.format(
            options="format='%(asctime)s - %(levelname)s - %(name)s - %(message)s', datefmt='%m/%d/%Y %H:%M:%S'"
        ) + WORK,
        "accelerate", 0.1,
    ),
    "loguru": (
        "from loguru import logger as log\nimport sys\nlog.remove(); log.add(sys.stdout, level=1)\n"
        + WORK.replace('"step %d", 1', '"step 1"'), "loguru", 3,
    ),
    "loguru serialized": (
        "from loguru import logger as log\nimport sys\nlog.remove(); log.add(sys.stdout, level=1, serialize=True)\n"
        + WORK.replace('"step %d", 1', '"step 1"'), "json", 6,
    ),
    "structlog": ("import structlog\nlog = structlog.get_logger()\n" + WORK, "structlog", 0.1),
    "structlog JSON": (
        "import structlog\nstructlog.configure(processors=[structlog.processors.add_log_level,"
        "structlog.processors.TimeStamper(fmt='iso'),structlog.processors.format_exc_info,"
        "structlog.processors.JSONRenderer()])\nlog = structlog.get_logger()\n" + WORK, "json", 6,
    ),
    "structlog logfmt": (
        "import structlog\nstructlog.configure(processors=[structlog.processors.add_log_level,"
        "structlog.processors.TimeStamper(fmt='iso'),structlog.processors.format_exc_info,"
        "structlog.processors.LogfmtRenderer()])\nlog = structlog.get_logger()\n" + WORK, "logfmt", 6,
    ),
    "python-json-logger": (
        "import logging, sys\nfrom pythonjsonlogger.json import JsonFormatter\n"
        "handler = logging.StreamHandler(sys.stdout)\n"
        "handler.setFormatter(JsonFormatter('%(asctime)s %(levelname)s %(name)s %(message)s'))\n"
        "log = logging.getLogger('train'); log.addHandler(handler); log.setLevel(1)\n" + WORK, "json", 3,
    ),
    "absl": (
        "from absl import logging as log\nlog.use_absl_handler()\nlog.set_verbosity(log.DEBUG)\n"
        + WORK.replace('log.critical("over")', "log.error('over')"), "glog", 6,
    ),
}  # fmt: skip


def printed(code: str, zone: str) -> tuple[str, float, float]:
    """What a program prints, and when it began and ended."""
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=60,
        check=True,
        env={"TZ": zone, "COLUMNS": "80"},
    )
    return done.stdout.decode(), began, time.time()


@pytest.mark.parametrize("chosen", ["its own", "auto"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_library(reader, name, chosen):
    code, preset, digits = PROGRAMS[name]
    zone = "Asia/Kolkata"
    text, began, ended = printed(code, zone)
    found = reader.log(text, preset if chosen == "its own" else "auto", zone)
    # absl writes the letter of INFO for DEBUG, too.
    levels = ["INFO", *LEVELS[1:-1], "ERROR"] if name == "absl" else LEVELS
    if name == "absl":  # a line about itself, without a time
        assert found[0].text.startswith("WARNING: Logging before")
        text = text.split("\n", 1)[1]
        del found[0]
    assert [entry.level for entry in found] == levels
    assert "\n".join(entry.text for entry in found) == text.removesuffix("\n")
    assert all(part in found[4].text for part in ("KeyError", "RuntimeError", "Traceback (most recent call last)"))
    for entry in found:
        moment = datetime.fromisoformat(utc(entry.time)).timestamp()
        assert began - 1.1 <= moment <= ended + 60, entry
    if digits:
        assert any(
            not float(f"{datetime.fromisoformat(utc(entry.time)).timestamp():.6f}").is_integer() for entry in found
        ) is (digits >= 1)


def test_tqdm(reader):
    code = (
        "import sys, logging\nfrom tqdm import tqdm\nlogging.basicConfig(stream=sys.stdout, level=1,"
        "format='%(asctime)s | %(levelname)s | rank:1 | %(message)s')\n"
        "for n in tqdm(range(3), file=sys.stdout, mininterval=0):\n    sys.stdout.flush()\n"
        "    if n == 1: logging.error('inside')\n"
    )
    found = reader.log(printed(code, "UTC")[0], "auto", "UTC")
    errors = [entry for entry in found if entry.level == "ERROR"]
    assert [(entry.rank, entry.text.endswith("inside")) for entry in errors] == [("1", True)]
    assert found[-1].text.startswith("100%|")


def test_rich(reader):
    code = (
        "import logging\nfrom rich.console import Console\nfrom rich.logging import RichHandler\n"
        "logging.basicConfig(level=1, format='%(message)s', handlers=[RichHandler(console=Console(width=80))])\n"
        "log = logging.getLogger('train')\nlog.info('one')\nlog.warning('two ' * 40)\nlog.error('three')\n"
    )
    text, began, ended = printed(code, "UTC")
    found = reader.log(text, "auto", "UTC")
    assert [entry.level for entry in found] == ["INFO", "WARNING", "ERROR"]
    assert "\n".join(entry.text for entry in found) == text.removesuffix("\n")
    assert datetime.fromisoformat(utc(found[0].time)) >= datetime.fromtimestamp(began - 1, UTC)
    assert ended > began
