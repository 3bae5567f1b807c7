"""The alerts and the dashboard ask for figures that there are, and operators can read of each alert."""

import json
import re
from pathlib import Path

import pytest

from higgins.agent.figures import Figures
from tests.api.conftest import Caller

ROOT = Path(__file__).parents[2]
MONITORING = ROOT / "monitoring"


def asked(text: str) -> set[str]:
    return set(re.findall(r"\bhiggins_[a-z_]+", text))


async def told(api: Caller) -> set[str]:
    """The names of all figures, of the API and of the agent."""
    text = (await api.by("admin").get("/metrics")).text
    figures = {f"{one.name}{'_total' * (one.type == 'counter')}" for one in Figures().registry.collect()}
    return figures | {
        name for name in re.findall(r"^# TYPE (\w+)", text, re.MULTILINE) if not name.endswith("_created")
    }


@pytest.mark.parametrize("name", ["alerts.yaml", "dashboard.json"])
async def test_every_figure_that_is_asked_for_is_told(api: Caller, name: str) -> None:
    there = await told(api)
    there |= {f"{one}_{part}" for one in there for part in ("bucket", "count", "sum")}
    wanted = asked((MONITORING / name).read_text())
    assert wanted
    assert wanted <= there


async def test_every_figure_is_on_the_dashboard(api: Caller) -> None:
    shown = asked((MONITORING / "dashboard.json").read_text())
    shown |= {name.removesuffix("_bucket").removesuffix("_count").removesuffix("_sum") for name in shown}
    assert await told(api) <= shown


def test_panels_of_the_dashboard_have_numbers_and_places_of_their_own() -> None:
    panels = json.loads((MONITORING / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)


def test_the_operators_guide_tells_what_to_do_about_every_alert() -> None:
    alerts = re.findall(r"alert: (\w+)", (MONITORING / "alerts.yaml").read_text())
    assert re.findall(r"^\| `(Higgins\w+)` \|", (ROOT / "docs" / "operator.md").read_text(), re.MULTILINE) == alerts
