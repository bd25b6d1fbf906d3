"""`avcall bench` from end to end with fake codecs: exit codes, bad input, resume, the report's files."""

import dataclasses
import html
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avcall.bench import clip as clip_module
from avcall.bench import plan as plan_module
from avcall.bench import runner
from avcall.bench.plan import BenchConfig, Plan
from avcall.bench.results import SCHEMA
from avcall.bench.runner import run_bench
from avcall.errors import ConfigError, InputError
from tests.bench_fakes import FakeCodec, FakeJudge, fake_anchor, fake_plan
from tests.clips import tone, write_clip
from tests.fakes import FakeTracker


@pytest.fixture
def films(tmp_path: Path) -> list[Path]:
    """Two clips of 1.2 s."""
    return [write_clip(tmp_path / f"{name}.mkv", range(0, 1200, 40), tone(440, 1200)) for name in "ab"]


@pytest.fixture(autouse=True)
def _fakes(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCodec.encoded = 0
    use_plan(monkeypatch, fake_plan(FakeCodec("avcall-fake", 37.0), steered=[fake_anchor()]))
    monkeypatch.setattr(runner, "Judge", lambda *_: FakeJudge())
    monkeypatch.setattr(clip_module, "FaceTracker", FakeTracker)


def use_plan(monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.setattr(runner, "make_plan", lambda *_: plan)


def run(films: list[Path], out: Path, **settings: Any) -> tuple[int, str]:
    console = Console(width=200, record=True, force_terminal=False)
    with console.capture() as captured:
        code = run_bench(console, BenchConfig(clips=tuple(films), out=out, jobs=2, **settings))
    return code, captured.get()


def test_a_whole_run_writes_its_files_and_returns_0(films: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, text = run(films, out)
    assert code == 0
    for title in ("Rates", "Pictures at the same bits", "Bits that the others need", "Crossover"):
        assert title in text
    assert "H.266 as a call could use it needs, of avcall's payload bits:" in text
    assert "not computed: FID: no --inception file" in text
    results = json.loads((out / "results.json").read_text())
    assert results["schema"] == SCHEMA
    assert [clip["name"] for clip in results["clips"]] == ["a", "b"]
    assert results["default"] == ["avcall-fake", "q37"]
    assert {v["accounting"] for v in results["verdicts"]} == {"motion", "payload", "wire"}
    assert results["settings"]["encoders"]["ffmpeg"].startswith("ffmpeg version")
    point = results["clips"][0]["points"][0]
    assert point["rates"]["payload"]["kbps"] > point["rates"]["motion"]["kbps"]
    assert results["settings"]["seconds"] is None and results["settings"]["versions"]["numpy"]
    curves = {path.name for path in (out / "curves").iterdir()}
    assert curves == {"psnr.png", "st_lpips_vgg.png", "fd_effnet.png", "lmd.png"}


def test_the_page_opens_by_itself_and_links_the_films(films: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(films, out)
    page = (out / "report.html").read_text()
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert page.count("data:image/png;base64,") >= 3 and page.count("data:image/jpeg;base64,") == 2
    assert 'href="films/a.mp4"' in page and (out / "films" / "a.mp4").is_file()
    assert "fake --quality" in page and "$" not in page.split("<pre>")[0]


def test_a_second_run_measures_nothing(films: list[Path], tmp_path: Path) -> None:
    run(films, tmp_path / "out")
    before = (tmp_path / "out" / "results.json").read_text()
    FakeCodec.encoded = 0
    assert run(films, tmp_path / "out")[0] == 0
    assert FakeCodec.encoded == 0
    assert (tmp_path / "out" / "results.json").read_text() == before


def test_bad_clips_are_lines_of_the_table_and_exit_code_1(films: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film")
    short = write_clip(tmp_path / "short.mkv", range(0, 600, 40))
    code, text = run([broken, films[0], tmp_path / "gone.mp4", short], tmp_path / "out")
    assert code == 1
    assert "Left out" in text
    for words in ("broken.mp4 cannot be read", "no such file", "only 0.6 s with a face"):
        assert words in " ".join(text.split())
    page = (tmp_path / "out" / "report.html").read_text()
    assert html.escape("only 0.6 s with a face") in page
    assert len(json.loads((tmp_path / "out" / "results.json").read_text())["left_out"]) == 3


def test_no_usable_clip_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no clip could be used: no such file"):
        run([tmp_path / "gone.mp4"], tmp_path / "out")


def test_a_missing_encoder_is_left_out_with_its_remedy(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = fake_plan(FakeCodec("avcall-fake", 37.0))
    remedy = "no libvvenc; get one that has: pip install imageio-ffmpeg==0.8.1"
    use_plan(monkeypatch, dataclasses.replace(plan, missing=(("h266-lowdelay", remedy),)))
    code, text = run(films[:1], tmp_path / "out")
    assert code == 1
    assert "h266-lowdelay" in text and "pip install imageio-ffmpeg==0.8.1" in text


def test_an_interrupt_keeps_what_is_done(
    films: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Interrupted(FakeCodec):
        def encode(self, clip: Any) -> Any:
            raise KeyboardInterrupt

    kept = FakeCodec("avcall-fake", 37.0)
    use_plan(monkeypatch, fake_plan(kept, Interrupted("avcall-fake", 50.0)))
    code, text = run(films, tmp_path / "out")
    assert code == 130
    assert "the same command goes on from here" in text
    use_plan(monkeypatch, fake_plan(kept))
    FakeCodec.encoded = 0
    assert run(films[:1], tmp_path / "out")[0] == 0
    assert FakeCodec.encoded == 0


def test_clips_of_the_same_name_stay_apart(films: list[Path], tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    twin = films[1].rename(tmp_path / "other" / "a.mkv")
    run([films[0], twin], tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [clip["name"] for clip in results["clips"]] == ["a", "a-2"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"codecs": ("avcall", "mpeg2")}, "--codecs mpeg2 is unknown; choose from avcall, h266, hevc, av1"),
        ({"clips": ()}, "no clip to compare on"),
        ({"preset": "faster"}, "would hobble H.266"),
        ({"seconds": 0.5}, "at least one second"),
        ({"every": 0}, "--every is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        BenchConfig(**{"clips": (Path("a.mp4"),), "out": Path("out")} | settings)


def test_the_plan_holds_every_motion_mode_keyframe_and_anchor() -> None:
    plan = plan_module.make_plan(BenchConfig(clips=(Path("a"),), out=Path("o")), lambda: None, None)  # type: ignore[arg-type,return-value]
    fixed = {(codec.name, codec.setting) for codec in plan.fixed}
    assert {name for name, _ in fixed} == {"unmoved-keyframe", "avcall-coded", "avcall-fp16"}
    assert len(fixed) == 1 + 2 * 3
    assert plan.default is not None and (plan.default.name, plan.default.setting) in fixed
    names = [one.anchor.name for one in plan.steered]
    assert names == ["h266-lowdelay", "h266-randomaccess", "hevc-randomaccess", "av1-randomaccess"]
    assert plan.missing == ()


def test_without_an_ffmpeg_every_anchor_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> None:
        raise InputError("no FFmpeg; pip install imageio-ffmpeg==0.8.1")

    monkeypatch.setattr(plan_module, "find_ffmpeg", none)
    config = BenchConfig(clips=(Path("a"),), out=Path("o"), codecs=("h266",))
    plan = plan_module.make_plan(config, lambda: None, None)  # type: ignore[arg-type,return-value]
    assert [name for name, _ in plan.missing] == ["h266-lowdelay", "h266-randomaccess"]
    assert plan.default is None and plan.steered == ()
