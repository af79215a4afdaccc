"""The two programs of the guide, as they stand, on each broker."""

import subprocess
import sys
import uuid
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def fleet(broker_url, tmp_path):
    """The programs, in a namespace of the test's own."""
    namespace = f"qc-test-{uuid.uuid4().hex[:8]}"
    for name in ("fleet_node.py", "fleet_client.py"):
        text = (EXAMPLES / name).read_text()
        assert '"fleet"' in text
        (tmp_path / name).write_text(text.replace('"fleet"', f'"{namespace}"'))

    started = []

    def run(program, *arguments):
        started.append(
            subprocess.Popen(
                [sys.executable, str(tmp_path / program), broker_url, *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def test_the_programs_of_the_guide_do_what_it_says(fleet):
    nodes = {name: fleet("fleet_node.py", name) for name in ("web-1", "web-2")}
    for name, node in nodes.items():
        assert node.stdout.readline() == f"{name} is there\n"
    client = fleet("fleet_client.py")
    lines = client.communicate(timeout=60)[0].splitlines()
    assert client.returncode == 0, lines
    assert lines[0] == "nodes: web-1, web-2"
    assert sorted(lines[1:3]) == ["web-1 counts: True", "web-2 counts: True"]
    assert lines[3:5] == ["one by one: 2", "pause: {'web-1': 'paused', 'web-2': 'paused'}"]
    assert "the argument 'count' is wrong" in lines[5]
    assert lines[6] == "shutdown: {'web-1': 'gone', 'web-2': 'gone'}"
    for name, node in nodes.items():
        assert f"{name} has counted to" in node.communicate(timeout=30)[0]
        assert node.returncode == 0
