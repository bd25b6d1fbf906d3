"""Photo: the face that is animated in place of the sender's own (`--source PHOTO`)."""

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from avcall.errors import PhotoError
from avcall.types import FaceCrop, U8Image
from models.priors import PriorExtractor
from sender.track import crop_photo

MAX_PHOTO_SIDE_PX = 4096


def load_photo(path: Path) -> FaceCrop:
    """The one face of a photo, cropped. Raises PhotoError in one line."""
    rgb = _read_photo(path)
    with PriorExtractor(tracking=False, max_faces=2) as extractor:
        crop, count = crop_photo(rgb, extractor)
    if crop is None:
        what = "no face" if count == 0 else "two faces or more"
        raise PhotoError(
            f"--source {path} shows {what}; give a photo of exactly one face, seen from the front"
        )
    return crop


def _read_photo(path: Path) -> U8Image:
    """The photo upright, (height, width, 3); its size is checked before any pixel is decoded."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit below is stricter
            photo = Image.open(path)
        with photo:
            if max(photo.size) > MAX_PHOTO_SIDE_PX:
                raise PhotoError(
                    f"--source {path} is {photo.width}x{photo.height}; "
                    f"at most {MAX_PHOTO_SIDE_PX} pixels a side"
                )
            return np.array(ImageOps.exif_transpose(photo).convert("RGB"), dtype=np.uint8)
    except PhotoError:
        raise
    except Exception as error:  # the decoders of damaged files raise whatever they trip over
        reason = getattr(error, "strerror", None) or "no picture inside"
        raise PhotoError(
            f"--source {path} cannot be read ({reason}); give a JPEG or PNG of one face"
        ) from error
