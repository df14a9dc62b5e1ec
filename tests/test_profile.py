"""`edgehmn profile`, and its reports."""

import copy
import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from edgehmn.errors import UsageError
from edgehmn.estimate import estimate
from edgehmn.report import Use, profile_result
from edgehmn.report.html import as_html
from edgehmn.report.text import as_csv, as_markdown, as_text, bar, figure
from edgehmn.targets.schema import load_target
from edgehmn.workload import Learning, Operation, Workload
from tests.command_line import Result

TARGETS = ("stm32h743", "rp2350", "raspberry-pi-5", "nrf52840")
HOSTILE = "=<script>alert(1)</script>|`\"'&"


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    names = [f"layer {i // 3} {'qkv'[i % 3]}" for i in range(90)]
    operations = tuple(Operation(n, "fc", 20_000, 20_000, 100, 128) for n in names)
    operations += (Operation(HOSTILE, "attention", 5_000, 0, 100, 10),)
    w = Workload(HOSTILE, "token", operations, 1_686_544, 200_000, 300_000, Learning(35_000, 33_000, 7900, 94_000))
    return profile_result(w, [estimate(w, load_target(name)) for name in TARGETS], Use())


def test_command(tiny_export: Path, tmp_path: Path, run_cli: Callable[..., Result]) -> None:
    files = [tmp_path / f"x.{end}" for end in ("html", "csv", "md")]
    arguments = ("--target", "stm32h743,rp2350", "--target", "rp2350")
    outputs = [v for pair in zip(("--html", "--csv", "--markdown"), files, strict=True) for v in pair]
    r = run_cli("profile", tiny_export, *arguments, *outputs, "--json").result
    assert [t["name"] for t in r["targets"]] == ["stm32h743", "rp2350"] and r["layers"]
    keys = (
        "latency_ms_per_token", "latency_ms_per_learned_token", "energy_mj_per_token", "energy_mj_per_learned_token",
        "plasticity_share_of_energy", "adapters_share_of_energy",
    )  # fmt: skip
    for t in r["targets"]:
        assert t["tier"] and t["sources"] and t["memory"]["fits"]
        for key in keys:
            low, high = t["interval_90"][key]
            assert low < t[key] < high
    assert all(path.stat().st_size > 500 for path in files)
    text = run_cli("profile", tiny_export, "--target", "rp2350")
    assert "plasticity" in text.out and "adapters and memories" in text.out and "90 %" in text.out and "█" in text.out


@pytest.mark.parametrize("name", ["encoder.tflite", "encoder.onnx"])
def test_networks(tiny_export: Path, name: str, run_cli: Callable[..., Result]) -> None:
    t = run_cli("profile", tiny_export / name, "--target", "stm32l4r5", "--json").result["targets"][0]
    assert t["latency_ms_per_inference"] > 0 and "latency_ms_per_learned_token" not in t


def test_usage(tiny_export: Path, tmp_path: Path, run_cli: Callable[..., Result]) -> None:
    for arguments in (
        (tiny_export,),
        (tiny_export, "--target", "toaster"),
        (tmp_path / "none.tflite", "--target", "rp2350"),
        (tiny_export, "--anchor"),
        (tiny_export, "--target", "rp2350", "--runtime-profile", "X-CUBE-AI"),
    ):
        assert run_cli("profile", *arguments).code == UsageError.exit_code, arguments


def test_measured_here(tiny_export: Path, run_cli: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgehmn.measure.host.SECONDS", 0.2)
    m = run_cli("profile", tiny_export, "--measured", "--json").result["measured"]
    low, high = m["token_ms"]["quartiles"]
    assert 0 < low <= m["token_ms"]["median"] <= high
    assert m["energy"] is None or m["energy"]["mj"] > 0, "never zero"
    assert m["energy"] is not None or m["energy_unavailable"]
    for name in ("encoder.tflite", "encoder.onnx"):
        done = run_cli("profile", tiny_export / name, "--measured", "--json")
        assert done.code in (0, 10) and (done.code == 10 or done.result["measured"]["inference_ms"]["median"] > 0)


def test_csv(result: dict[str, Any]) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(result))))
    assert len(lines) == len(TARGETS) * (1 + 91)
    total = next(row for row in lines if row["target"] == "rp2350" and not row["layer"])
    assert float(total["latency_ms_per_token_low"]) < float(total["latency_ms_per_token"])
    assert not any(value.startswith(("=", "+", "@")) for row in lines for value in row.values())


def test_markdown(result: dict[str, Any]) -> None:
    text = as_markdown(result)
    tables = [block for block in text.split("\n\n") if block.startswith("|")]
    for table in tables:
        bars = {len(re.findall(r"(?<!\\)\|", row)) for row in table.splitlines()}
        assert len(bars) == 1, table
    assert "<script>" not in text


def test_text(result: dict[str, Any]) -> None:
    text = as_text(result)
    assert "does not fit: flash" in text and "others" in text and "idle" in text and "asleep" in text


def test_figures() -> None:
    assert [figure(v) for v in (0.0, 1234.4, 0.01234, 3.14159, float("inf"))] == ["0", "1,234", "0.0123", "3.14", "-"]
    assert bar(1, 2, 8) == "████" and bar(0, 0) == ""


class Page(HTMLParser):
    """Everything that a page could load, and whether its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.scripts, self.depth = 0, 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script" or any(name.startswith("on") for name, _ in attrs)
        self.loads += [v or "" for name, v in attrs if name in ("src", "href", "srcset", "data")]


def test_html_holds_all_that_it_shows(result: dict[str, Any]) -> None:
    page = Page()
    text = as_html(result)
    page.feed(text)
    assert page.scripts == 0 and page.loads == ["data:,"]
    assert "url(" not in text and "@import" not in text and "prefers-color-scheme" in text


def browse(folder: Path, page: Path, *options: str) -> str:
    """What headless Chromium writes to its two outputs."""
    browser = shutil.which("chromium")
    if browser is None:
        pytest.skip("not run here: chromium is not installed (apt install chromium)")
    quiet = ("--disable-background-networking", "--disable-component-update", "--no-first-run", "--disable-sync")
    done = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr", *quiet,
         f"--user-data-dir={folder / 'user'}", *options, page.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.stdout + done.stderr


SIZES = {"wide": "1100,1400", "phone": "390,1400"}


@pytest.mark.parametrize("size", SIZES)
def test_html_in_a_browser(result: dict[str, Any], tmp_path: Path, size: str) -> None:
    """No message on the console, no request."""
    path, log, shot = tmp_path / "x.html", tmp_path / "net.json", tmp_path / "x.png"
    path.write_text(as_html(result), "utf-8")
    said = browse(tmp_path, path, f"--window-size={SIZES[size]}", f"--log-net-log={log}", f"--screenshot={shot}")
    assert shot.stat().st_size > 5000, said
    assert "CONSOLE" not in said
    asked = re.findall(r'"url":"(https?://[^"]+)"', log.read_text("utf-8", "replace"))
    assert not [url for url in asked if "google" not in url], "the browser's own calls home are not the page's"


# A page that shows another in frames as wide as a phone and a desktop, and writes down how it looks there.
FRAMES = """<!doctype html><title>frames</title><pre id=out></pre><script>
function look(frame) {
  const page = frame.contentDocument, root = page.documentElement, style = frame.contentWindow.getComputedStyle;
  const all = [...page.querySelectorAll("body *")];
  const small = all.filter(e => e.childNodes[0]?.nodeType == 3 && e.textContent.trim());
  const sizes = small.map(e => parseFloat(style(e).fontSize) * (e.ownerSVGElement
    ? e.ownerSVGElement.getBoundingClientRect().width / e.ownerSVGElement.viewBox.baseVal.width : 1));
  document.getElementById("out").textContent += JSON.stringify({width: root.clientWidth, scroll: root.scrollWidth,
    back: style(page.body).backgroundColor, ink: style(page.body).color, faint: style(page.querySelector("p")).color,
    smallest: Math.min(...sizes), largest: Math.max(...sizes), texts: small.length,
    touching: [...page.querySelectorAll("svg")].map(touching).reduce((a, b) => a + b),
    hidden: [...page.querySelectorAll(".wide")].filter(t => t.scrollWidth > t.parentElement.clientWidth).length,
  }) + "\\n";
}
function touching(svg) {
  const boxes = [...svg.querySelectorAll("text")].map(e => e.getBoundingClientRect());
  return boxes.filter((a, i) => boxes.some((b, j) => j < i && Math.abs(a.top - b.top) < 2
    && a.left < b.right + 3 && b.left < a.right + 3)).length;
}
</script>
<iframe src=x.html width=390 height=800 onload="look(this)"></iframe>
<iframe src=x.html width=1100 height=800 onload="look(this)"></iframe>"""


def luminance(colour: str) -> float:
    parts = [int(v) / 255 for v in re.findall(r"\d+", colour)[:3]]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """Of WCAG: 4.5 is enough for text."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_html_is_readable(result: dict[str, Any], tmp_path: Path, scheme: str) -> None:
    """On a phone and on a desktop: nothing is wider than the page, letters are large enough and stand out, and none
    touch, over seven decades."""
    result = copy.deepcopy(result)
    result["targets"][0]["interval_90"]["latency_ms_per_token"][1] = 9999.0
    result["targets"][1]["interval_90"]["latency_ms_per_token"][0] = 0.002
    (tmp_path / "x.html").write_text(as_html(result), "utf-8")
    frames = tmp_path / "frames.html"
    frames.write_text(FRAMES, "utf-8")
    settings = f"--blink-settings=preferredColorScheme={0 if scheme == 'dark' else 1}"
    said = browse(
        tmp_path, frames, settings, "--allow-file-access-from-files", "--dump-dom", "--virtual-time-budget=3000"
    )
    looks = [json.loads(line) for line in re.findall(r"\{\"width.*\}", said)]
    assert sorted(look["width"] for look in looks) == [390, 1100], said
    for look in looks:
        assert look["scroll"] <= look["width"] and look["texts"] > 100
        assert look["smallest"] >= 11 and look["largest"] <= 23, "pixels"
        assert look["touching"] == 0
        assert look["hidden"] == 0, "tables that must be scrolled to see what a token costs"
        assert (luminance(look["back"]) < 0.1) == (scheme == "dark")
        assert min(contrast(look[key], look["back"]) for key in ("ink", "faint")) >= 4.5
