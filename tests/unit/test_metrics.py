"""Metrics: what is counted where, the text format, the endpoint, and that what monitoring names exists."""

import json
import logging
import re
import shutil
import socket
import subprocess
import urllib.error
import urllib.request

import pytest
import yaml

from fake.drive import GIB, a_volume, do, restored, snapshot_request
from fake.engines import PATIENCE
from harness.genesis import free_ports
from harness.releases import REPO
from harness.wait import wait_for
from vdisk.engine.meter import BOUNDS, Histogram, Meter
from vdisk.engine.operation import operation_from_intent
from vdisk.lifecycle.volume_create import CreateVolume
from vdisk.model.errors import AlreadyExists
from vdisk.model.layout import Layout
from vdisk.model.shape import Shape, shape_from_dict
from vdisk.service.checks import Wish
from vdisk.service.telemetry import FIGURES
from vdisk.web.exporter import Exporter

LOG = logging.getLogger("vdisk.test")
MONITORING = REPO / "deploy/monitoring"
_LINE = re.compile(r'([a-z_]+)(\{(?:[a-z_]+="[^"\n]*",?)*\})? (-?[0-9.e+-]+)')


def parsed(text):
    """Return (name with labels → value) of a text, and (name → type)."""
    values, types = {}, {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types, "one family is there twice"
            types[name] = kind
        elif not line.startswith("#"):
            match = _LINE.fullmatch(line)
            assert match, line
            values[match[1] + (match[2] or "")] = float(match[3])
    return values, types


def test_a_histogram_counts_up_to_and_including_its_bounds():
    histogram = Histogram()
    for seconds in (0.0, 0.001, 0.0011, 299.0, 301.0):
        histogram.observe(seconds)
    assert histogram.counts[0] == 2
    assert histogram.counts[1] == 1
    assert histogram.counts[-2:] == [1, 1]
    assert len(histogram.counts) == len(BOUNDS) + 1
    meter = Meter()
    meter.step("x", "y", 0.5)
    meter.read().steps["x", "y"].observe(1.0)
    assert sum(meter.read().steps["x", "y"].counts) == 1, "a reading is a copy"


def test_operations_are_counted_by_kind_and_result(fake, mgr):
    where = fake.where()
    create = CreateVolume(where, "pvc-1", "00000000-0000-4000-8000-000000000001", GIB, Layout())
    mgr.service.run(create, PATIENCE)
    mgr.service.run(create, PATIENCE)
    with pytest.raises(AlreadyExists):
        mgr.service.run(
            CreateVolume(where, "pvc-1", "00000000-0000-4000-8000-000000000002", 2 * GIB, Layout()), PATIENCE
        )
    mgr.quiet()
    values, types = parsed(mgr.services.telemetry.metrics())
    kind = 'kind="volume create"'
    assert values[f'vdisk_operations_total{{{kind},result="done"}}'] == 1
    assert values[f'vdisk_operations_total{{{kind},result="unchanged"}}'] == 1
    assert values[f'vdisk_operations_total{{{kind},result="already_exists"}}'] == 1
    assert values[f'vdisk_step_seconds_count{{{kind},step="create-image"}}'] == 1
    assert values[f'vdisk_step_seconds_bucket{{{kind},step="create-image",le="+Inf"}}'] == 1
    assert values[f"vdisk_operation_answer_seconds_count{{{kind}}}"] >= 1
    assert types["vdisk_operations_total"] == "counter"
    assert types["vdisk_step_seconds"] == "histogram"


def test_every_figure_of_status_is_a_metric_with_the_same_value(fake, mgr):
    a_volume(fake)
    mgr.known = (3, Shape({0: 2, 2: 1}, 7, 3, 5 * GIB))
    status = mgr.services.telemetry.status()
    values, _ = parsed(mgr.services.telemetry.metrics())
    for path, (name, _, _) in FIGURES.items():
        outer, _, inner = path.partition(".")
        assert values[name] == (status[outer][inner] if inner else status[outer]), path
    assert values["vdisk_findings"] == 3
    assert [values[f'vdisk_image_depth_bucket{{le="{le}"}}'] for le in ("0", "1", "2", "8", "+Inf")] == [2, 2, 3, 3, 3]
    assert (values["vdisk_image_depth_sum"], values["vdisk_image_depth_count"]) == (2, 3)


def test_an_operation_that_had_answered_before_a_failover_is_not_timed_again(fake, start):
    first = start()
    operation = first.engine.submit(snapshot_request(fake, a_volume(fake).image))
    first.answered(operation)
    operation.answered = True
    assert operation_from_intent("x", operation.to_intent()).counted
    operation.answered = False
    assert not operation_from_intent("x", operation.to_intent()).counted


def test_a_check_learns_the_shape_of_its_pool(fake, mgr):
    seen = []
    object.__setattr__(mgr.checks, "_on_found", lambda where, summary: seen.append(summary))
    do(fake, restored(fake))
    mgr.checks.check(fake.where(), Wish(), PATIENCE)
    shape = shape_from_dict(seen[-1]["shape"])
    assert shape.images == sum(shape.depths.values()) >= 2
    assert shape.depths[0] >= 1
    assert shape.depths.get(1, 0) >= 1
    assert shape.size >= 2 * GIB
    assert shape == shape_from_dict(json.loads(json.dumps(shape.to_dict())))
    for unreadable in (None, 3, {}, {"depths": {"a": 1}}, {"depths": [], "snapshots": 0, "images": 0, "size": 0}):
        assert shape_from_dict(unreadable) == Shape()


# -- the endpoint ----------------------------------------------------------------------------------------------------


class Place:
    """The options of an exporter, and what it announced."""

    def __init__(self):
        self.address = "127.0.0.1"
        self.port = 0
        self.said = []
        self.exporter = Exporter(
            lambda: self.address, lambda: self.port, lambda: "vdisk_x 1\n", "text/plain", self.said.append, LOG
        )


@pytest.fixture
def place(monkeypatch):
    monkeypatch.setattr("vdisk.web.exporter._POLL", 0.02)
    made = Place()
    yield made
    made.exporter.stop()


def get(port, path="/metrics", method="GET"):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        return answer.status, answer.read().decode()


def test_the_endpoint_is_where_the_options_say(place):
    place.exporter.apply()
    assert place.exporter._thread is None, "off by default: not even a thread"
    for port in free_ports(2):
        place.port = port
        place.exporter.apply()
        wait_for(lambda port=port: get(port), PATIENCE, "the endpoint answers", ignore=(OSError,))
        assert get(port) == (200, "vdisk_x 1\n")
        assert get(port, method="HEAD") == (200, "")
        assert place.said[-1] == f"http://127.0.0.1:{port}/metrics"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        get(place.port, "/etc/passwd")
    last, place.port = place.port, 0
    place.exporter.apply()
    wait_for(lambda: place.said[-1] == "", PATIENCE, "it says that it is gone")
    with pytest.raises(OSError, match="refused"):
        get(last)


def test_an_address_that_is_taken_is_a_problem_that_is_named_and_passes(place, monkeypatch):
    monkeypatch.setattr("vdisk.web.exporter._RETRY", 0.05)
    other = Place()
    (port,) = free_ports(1)
    other.port = place.port = port
    try:
        other.exporter.apply()
        wait_for(lambda: get(port), PATIENCE, "the endpoint answers", ignore=(OSError,))
        place.exporter.apply()
        wait_for(lambda: place.exporter.problem, PATIENCE, "the problem is noticed")
        assert str(port) in place.exporter.problem
    finally:
        other.exporter.stop()
    wait_for(lambda: place.said, PATIENCE, "the other one takes over")
    assert get(port)[0] == 200
    place.exporter.stop()
    with pytest.raises(OSError, match="refused"):
        get(port)


def test_a_client_that_says_nothing_or_leaves_does_not_end_it(place, monkeypatch):
    monkeypatch.setattr("vdisk.web.exporter._TIMEOUT", 0.1)
    (place.port,) = free_ports(1)
    place.exporter.apply()
    wait_for(lambda: get(place.port), PATIENCE, "the endpoint answers", ignore=(OSError,))
    # Its patience with clients is so short that one on a busy machine may have to try again.
    with socket.create_connection(("127.0.0.1", place.port)):
        wait_for(lambda: get(place.port), PATIENCE, "another client is answered", ignore=(OSError,))
    with socket.create_connection(("127.0.0.1", place.port)) as rude:
        rude.sendall(b"\0\1\2 nonsense\r\n\r\n")
    wait_for(lambda: get(place.port), PATIENCE, "it still answers", ignore=(OSError,))


# -- what monitoring names -------------------------------------------------------------------------------------------


def names_in(text):
    return set(re.findall(r"\bvdisk_[a-z_]+", text))


@pytest.fixture
def families(mgr):
    """Every name that an expression may use."""
    _, types = parsed(mgr.services.telemetry.metrics())
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {name + part for name, kind in types.items() for part in parts.get(kind, ("",))}


def test_every_metric_that_the_alerts_and_the_dashboard_name_exists(families):
    rules = yaml.safe_load((MONITORING / "alerts.yaml").read_text())
    expressions = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(expressions) > 5
    assert len(shown) > 10
    for expression in [*expressions, *shown, *(item["query"] for item in board["templating"]["list"])]:
        assert names_in(expression) <= families, expression
    told = {name.removesuffix("_bucket") for name in names_in("\n".join(shown))}
    metrics = {name for name in families if not name.endswith(("_bucket", "_sum", "_count"))}
    assert metrics <= told, "the dashboard shows all of them"


def test_every_metric_is_described(families):
    text = (REPO / "doc/metrics.md").read_text()
    for name in families:
        assert f"`{re.sub('_(bucket|sum|count)$', '', name)}`" in text, name


def test_promtool_finds_the_rules_and_expressions_in_order(tmp_path):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    board = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    plain = [text.replace("$__rate_interval", "5m").replace("$job", ".*") for text in shown]
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(plain)]
    (tmp_path / "panels.yaml").write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    for path in (MONITORING / "alerts.yaml", tmp_path / "panels.yaml"):
        done = subprocess.run([tool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_finds_the_text_in_order(fake, mgr):
    tool = shutil.which("promtool")
    if tool is None:
        pytest.skip("promtool is not installed")
    mgr.service.run(snapshot_request(fake, a_volume(fake).image), PATIENCE)
    text = mgr.services.telemetry.metrics()
    done = subprocess.run([tool, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
