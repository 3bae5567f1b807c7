"""The alerts and the dashboard ask for figures that there are."""

import json
import re
from pathlib import Path

import pytest

from higgins.agent.figures import Figures
from tests.api.conftest import Caller

MONITORING = Path(__file__).parents[2] / "monitoring"


def asked(text: str) -> set[str]:
    return set(re.findall(r"\bhiggins_[a-z_]+", text))


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
async def test_every_figure_that_is_asked_for_is_told(api: Caller, name: str) -> None:
    told = (await api.by("admin").get("/metrics")).text
    there = set(re.findall(r"^# TYPE (\w+)", told, re.MULTILINE))
    there |= {f"{one.name}{'_total' * (one.type == 'counter')}" for one in Figures().registry.collect()}
    there |= {f"{one}_{part}" for one in there for part in ("bucket", "count", "sum")}
    wanted = asked((MONITORING / name).read_text())
    assert wanted
    assert wanted <= there


def test_the_dashboard_is_one() -> None:
    board = json.loads((MONITORING / "dashboard.json").read_text())
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"]) == 8
