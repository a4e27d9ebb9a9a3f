import io

import numpy as np
import pytest
from PIL import Image

from simjax.data._decode import Format, UnreadableImageError, common_format, decode_images, unreadable_images


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(source, size, channels) -> np.ndarray:
    return decode_images([source], Format(size, channels))[0]


def test_png_is_exact(random):
    colour = random.integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(colour)), (5, 7), 3), colour)
    grey = colour[..., 0]
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), (5, 7), 1), grey[..., None])
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), (5, 7), 3), np.stack([grey] * 3, -1))


def test_colour_to_grey_is_luminance():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert (decode(encoded(Image.fromarray(red)), (2, 2), 1) == round(0.299 * 255)).all()


def test_one_bit_becomes_0_and_255():
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert decode(encoded(bits), (2, 2), 1)[..., 0].tolist() == [[0, 255], [255, 0]]


def test_sixteen_bit_keeps_its_high_byte():
    deep = Image.fromarray(np.array([[0, 257, 257 * 100, 65535]], np.uint16))
    assert decode(encoded(deep), (1, 4), 1).ravel().tolist() == [0, 1, 100, 255]
    assert decode(encoded(deep, "tiff"), (1, 4), 3)[0, :, 2].tolist() == [0, 1, 100, 255]


def test_floating_point_in_0_to_1_and_nothing_else():
    assert decode(
        encoded(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), "tiff"), (1, 3), 1
    ).ravel().tolist() == [
        0,
        51,
        255,
    ]
    for bad in (2.0, np.nan):
        with pytest.raises(UnreadableImageError, match="outside 0..1"):
            decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "tiff"), (1, 2), 1)


def test_transparency_shows_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert decode(encoded(Image.fromarray(rgba)), (1, 2), 3).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.putdata([0, 1])
    assert decode(encoded(palette), (1, 2), 3).tolist() == [[[200, 0, 0], [0, 0, 200]]]
    assert decode(encoded(palette, transparency=0), (1, 2), 3).tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_orientation_is_applied():
    wide = np.zeros((16, 32), np.uint8)
    wide[:, :16] = 255  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: left comes to the top
    source = encoded(Image.fromarray(wide), "png", exif=exif)
    upright = decode(source, (32, 16), 1)
    assert upright[:16].min() == 255
    assert upright[16:].max() == 0
    assert common_format([source], None, None) == Format((32, 16), 1)


def test_another_aspect_is_cut_at_the_centre():
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    assert (decode(encoded(Image.fromarray(wide)), (8, 8), 1) == 200).all()


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # every second column: 127.5 on average
    assert np.abs(decode(encoded(Image.fromarray(stripes)), (8, 8), 1).astype(int) - 127)[:, 1:-1].max() <= 3


def test_a_large_jpeg_shrinks_to_what_it_shows(random):
    coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), np.uint8)).resize((512, 512), Image.Resampling.BICUBIC)
    wanted = np.asarray(coarse.resize((16, 16), Image.Resampling.BICUBIC)).astype(int)
    assert np.abs(decode(encoded(coarse, "jpeg", quality=95), (16, 16), 3) - wanted).mean() < 3


@pytest.mark.parametrize(
    ("shapes", "size", "channels"),
    [
        (((5, 7), (5, 7)), (5, 7), 1),
        (((5, 7), (5, 7, 3)), (5, 7), 3),
        (((5, 7), (7, 5)), (32, 32), 1),
        (((64, 64), (64, 64)), (64, 64), 1),
        (((65, 64), (65, 64)), (32, 32), 1),
    ],
)
def test_the_format_that_images_have_in_common(shapes, size, channels):
    sources = [encoded(Image.fromarray(np.zeros(shape, np.uint8))) for shape in shapes]
    assert common_format(sources, None, None) == Format(size, channels)
    assert common_format(sources, (9, 9), None) == Format((9, 9), channels)
    assert common_format(sources, None, 3) == Format(size, 3)


def test_a_grey_palette_is_grey():
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 90, 90, 90])
    assert common_format([encoded(image)], None, None).channels == 1
    image.putpalette([0, 0, 0, 90, 90, 91])
    assert common_format([encoded(image)], None, None).channels == 3


def test_the_first_broken_image_is_named_and_all_are_found(random):
    good = encoded(Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)))
    sources = [good] * 50
    sources[33], sources[47] = good[: len(good) // 2], b"no image"
    with pytest.raises(UnreadableImageError) as caught:
        decode_images(sources, Format((40, 40), 1))
    assert caught.value.index == 33
    failures = unreadable_images(sources)
    assert [failure.index for failure in failures] == [33, 47]
    assert "no image format" in str(failures[1])
