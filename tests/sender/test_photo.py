from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from avcall.errors import PhotoError
from avcall.sample import source_clip
from avcall.types import U8Image
from sender.capture import read_video
from sender.photo import load_photo

pytestmark = pytest.mark.filterwarnings("ignore:SymbolDatabase.GetPrototype:UserWarning")
ORIENTATION = 0x0112  # the Exif tag
QUARTER_TURN = 8  # the camera stood on its side: turn 90 degrees to the left to see it upright


@pytest.fixture(scope="module")
def face() -> U8Image:
    frame = next(read_video(source_clip()))
    return np.asarray(cv2.resize(frame.rgb, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC), np.uint8)


def saved(path: Path, rgb: U8Image, **options: object) -> Path:
    Image.fromarray(rgb).save(path, **options)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(PhotoError) as error:
        load_photo(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg", "photo.webp"])
def test_a_photo_of_one_face(tmp_path: Path, face: U8Image, name: str) -> None:
    crop = load_photo(saved(tmp_path / name, face))
    assert crop.rgb.shape == (256, 256, 3) and crop.priors.landmarks is not None


def test_a_photo_from_a_phone_is_turned_upright(tmp_path: Path, face: U8Image) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = QUARTER_TURN
    on_its_side = np.ascontiguousarray(np.rot90(face, -1))
    crop = load_photo(saved(tmp_path / "phone.jpg", on_its_side, exif=exif))
    eyes, mouth = crop.priors.landmarks[[33, 263]], crop.priors.landmarks[13]
    assert (eyes[:, 1] < mouth[1]).all()


def test_two_faces_or_none(tmp_path: Path, face: U8Image) -> None:
    assert "shows two faces or more; give" in refusal(saved(tmp_path / "two.png", np.hstack([face, face])))
    assert "shows no face; give" in refusal(saved(tmp_path / "none.png", np.full_like(face, 90)))


def test_what_is_no_photo(tmp_path: Path, face: U8Image) -> None:
    assert "No such file or directory" in refusal(tmp_path / "missing.png")
    text = tmp_path / "text.png"
    text.write_text("not a picture")
    assert "no picture inside" in refusal(text)
    whole = saved(tmp_path / "whole.png", face).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read" in refusal(cut)
    assert "Is a directory" in refusal(tmp_path)


def test_a_photo_that_is_too_large_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    Image.new("1", (4097, 8)).save(path)
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("it was decoded"))
    assert "is 4097x8; at most 4096 pixels a side" in refusal(path)


def test_a_decompression_bomb_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    Image.new("1", (20_000, 10_000)).save(path)
    assert "cannot be read" in refusal(path) or "at most 4096" in refusal(path)
