"""The viewer as a person meets it: it opens, turns, trains, flies, compares, and outlives what goes wrong."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from pathlib import Path

from browser.conftest import SAMPLE, Page, Program, wait_for

from anchorfield.app.run import Run
