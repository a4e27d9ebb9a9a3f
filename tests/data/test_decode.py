import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from simjax.core import InputError
from simjax.data import Dataset, load, resize
from simjax.data._decode import (
    Format,
    ReadOptions,
    UnreadableImageError,
    common_format,
    decode_images,
    unreadable_images,
)


def encoded(image: Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def decode(source, size, channels, **options) -> np.ndarray:
    return decode_images([source], Format(size, channels, **options))[0]


def format_of(sources, size=None, channels=None) -> Format:
    return common_format(sources, ReadOptions(size, channels))[0]


def test_png_images_are_exact(random):
    colour = random.integers(0, 256, (5, 7, 3), np.uint8)
    assert np.array_equal(decode(encoded(Image.fromarray(colour)), (5, 7), 3), colour)
    grey = colour[..., 0]
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), (5, 7), 1), grey[..., None])
    assert np.array_equal(decode(encoded(Image.fromarray(grey)), (5, 7), 3), np.stack([grey] * 3, -1))


def test_colour_to_grey_is_luminance():
    red = np.full((2, 2, 3), (255, 0, 0), np.uint8)
    assert (decode(encoded(Image.fromarray(red)), (2, 2), 1) == round(0.299 * 255)).all()


def test_1_bit_images_become_0_and_255():
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1")
    assert decode(encoded(bits), (2, 2), 1)[..., 0].tolist() == [[0, 255], [255, 0]]


def png(width: int, height: int, bits: int, color_type: int, rows: bytes) -> bytes:
    """Return a PNG file with a header and rows that need not match."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, color_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def sixteen_bit_colour_png(pixels) -> bytes:
    """Encode a PNG with 16 bits in each channel, which Pillow can read but not write."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return png(width, height, 16, {3: 2, 4: 6}[channels], rows)


def test_12_bit_images_give_a_warning_with_their_range_and_are_mapped_by_it(random):
    pixels = random.integers(0, 4096, (5, 7))
    pixels[0, :2] = 3, 4090
    as_grey = encoded(Image.fromarray(pixels.astype(np.uint16)))
    as_integers = encoded(Image.fromarray(pixels.astype(np.int32)), "tiff")
    as_floats = encoded(Image.fromarray((pixels / 2**17).astype(np.float32)), "tiff")
    colours = np.stack([pixels, 4095 - pixels, pixels // 2], axis=2)
    as_colours = sixteen_bit_colour_png(colours)
    expected = np.clip(np.rint((pixels - 3) * (255 / 4087)), 0, 255)
    for source, low, high, factor in (
        (as_grey, 3, pixels.max(), 1),
        (as_integers, 3, pixels.max(), 1),
        (as_floats, 3 / 2**17, pixels.max() / 2**17, 2**17),
        (as_colours, colours.min(), colours.max(), 1),
    ):
        with pytest.warns(UserWarning, match="pixels from") as warned:
            dark = decode(source, (5, 7), 3)
        assert len(warned) == 1
        assert f"pixels from {low:g} to {high:g} were read" in str(warned[0].message)
        assert f"`input_range=({low:g}, {high:g})`" in str(warned[0].message)
        assert dark.max() <= 16
        bright = decode(source, (5, 7), 3, input_range=(3 / factor, 4090 / factor))
        assert np.abs(bright[..., 0] - expected).max() <= 1
    full = encoded(Image.fromarray(np.array([[0, 40_000]], np.uint16)))
    assert decode(full, (1, 2), 1).ravel().tolist() == [0, 156]


def test_an_unused_input_range_gives_a_warning_and_pixels_outside_the_assumed_range_are_an_error(random):
    with pytest.warns(UserWarning, match="no image has more than 8 bits, so `input_range` changes nothing"):
        decode(encoded(Image.fromarray(random.integers(0, 256, (4, 4), np.uint8))), (4, 4), 1, input_range=(0.0, 9.0))
    source = encoded(Image.fromarray(np.array([[-1000, 3000]], np.int32)), "tiff")
    with pytest.raises(UnreadableImageError, match=r"outside 0..65535.*`input_range=\(-1000, 3000\)` maps them"):
        decode(source, (1, 2), 1)
    assert decode(source, (1, 2), 1, input_range=(-1000.0, 3000.0)).ravel().tolist() == [0, 255]


def test_a_range_that_is_no_input_range_is_not_advised():
    constant = Image.fromarray(np.full((2, 2), 70_000, np.int32))
    with pytest.raises(UnreadableImageError, match=r"outside 0..65535, in an image of mode I$"):
        decode(encoded(constant, "tiff"), (2, 2), 1)
    infinite = Image.fromarray(np.array([[0, np.inf]], np.float32))
    with pytest.raises(UnreadableImageError, match=r"outside 0..1, in an image of mode F$"):
        decode(encoded(infinite, "tiff"), (1, 2), 1)
    with pytest.warns(UserWarning, match="the images are dark or have little contrast$"):
        decode(encoded(Image.fromarray(np.full((2, 2), 300, np.uint16))), (2, 2), 1)


def test_a_large_image_is_read_if_max_pixels_allows_it(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 200)
    large, limit = encoded(Image.new("L", (40, 30), 9)), Image.MAX_IMAGE_PIXELS
    for options in ({}, {"max_pixels": 1199}):
        with pytest.raises(UnreadableImageError, match="1,200 pixels, more than .*; `max_pixels=1200` allows it"):
            decode(large, (3, 4), 1, **options)
    assert (decode(large, (3, 4), 1, max_pixels=1200) == 9).all()
    assert limit == Image.MAX_IMAGE_PIXELS


def test_16_bit_images_are_scaled_to_bytes():
    deep = Image.fromarray(np.array([[0, 257, 257 * 100, 65535]], np.uint16))
    assert decode(encoded(deep), (1, 4), 1).ravel().tolist() == [0, 1, 100, 255]
    assert decode(encoded(deep, "tiff"), (1, 4), 3)[0, :, 2].tolist() == [0, 1, 100, 255]


def test_floating_point_pixels_must_be_in_0_to_1():
    assert decode(
        encoded(Image.fromarray(np.array([[0, 0.2, 1]], np.float32)), "tiff"), (1, 3), 1
    ).ravel().tolist() == [
        0,
        51,
        255,
    ]
    for bad in (2.0, np.nan):
        with pytest.raises(UnreadableImageError, match="outside 0..1|NaN among"):
            decode(encoded(Image.fromarray(np.array([[0, bad]], np.float32)), "tiff"), (1, 2), 1)


def test_transparent_pixels_are_white():
    rgba = np.array([[[10, 20, 30, 255], [10, 20, 30, 0]]], np.uint8)
    assert decode(encoded(Image.fromarray(rgba)), (1, 2), 3).tolist() == [[[10, 20, 30], [255, 255, 255]]]
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 0, 200])
    palette.putdata([0, 1])
    assert decode(encoded(palette), (1, 2), 3).tolist() == [[[200, 0, 0], [0, 0, 200]]]
    assert decode(encoded(palette, transparency=0), (1, 2), 3).tolist() == [[[255, 255, 255], [0, 0, 200]]]


def test_the_exif_orientation_is_applied():
    wide = np.zeros((16, 32), np.uint8)
    wide[:, :16] = 255  # bright on the left
    exif = Image.Exif()
    exif[0x0112] = 6  # the left side is the top of the upright image
    source = encoded(Image.fromarray(wide), "png", exif=exif)
    upright = decode(source, (32, 16), 1)
    assert upright[:16].min() == 255
    assert upright[16:].max() == 0
    assert format_of([source]) == Format((32, 16), 1)


def test_another_aspect_ratio_is_padded_cropped_or_stretched():
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    source = encoded(Image.fromarray(wide))
    assert (decode(source, (8, 8), 1, aspect="crop") == 200).all()
    padded = decode(source, (24, 24), 1)[..., 0]
    assert np.array_equal(padded, np.tile(wide[:1], (24, 1)))  # border pixels are repeated
    stretched = decode(source, (8, 12), 1, aspect="stretch")[..., 0]
    assert np.array_equal(stretched, np.asarray(Image.fromarray(wide).resize((12, 8), Image.Resampling.BICUBIC)))
    tall = np.arange(36, dtype=np.uint8).reshape(9, 4)
    assert np.array_equal(decode(encoded(Image.fromarray(tall)), (9, 9), 3)[:, 2:6, 1], tall)


def test_the_default_size_has_the_median_aspect_ratio():
    exif = Image.Exif()
    exif[0x0112] = 6
    faces = [encoded(Image.new("L", (92, 112)))] * 3
    sideways = encoded(Image.new("L", (112, 92)), exif=exif)
    assert common_format([*faces, sideways], ReadOptions()) == (
        Format((35, 29), 1),
        "images of 112x92 pixels (height x width) are resized to 35x29; those of another aspect ratio are padded",
    )
    wide = [encoded(Image.new("L", (300, 20)))] * 5
    found, resizing = common_format([*faces, *wide], ReadOptions(aspect="crop"))
    assert (found.size, found.aspect) == ((16, 64), "crop")
    assert resizing is not None
    assert resizing.startswith("images of 20x300 to 112x92 pixels")
    assert common_format([encoded(Image.new("L", (40, 64)))], ReadOptions()) == (Format((64, 40), 1), None)


def test_shrinking_is_antialiased():
    stripes = np.tile(np.array([0, 255], np.uint8), (64, 32))  # every second column: 127.5 on average
    assert np.abs(decode(encoded(Image.fromarray(stripes)), (8, 8), 1).astype(int) - 127)[:, 1:-1].max() <= 3


def test_a_large_jpeg_is_resized_accurately(random):
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
def test_the_common_format_of_images(shapes, size, channels):
    sources = [encoded(Image.fromarray(np.zeros(shape, np.uint8))) for shape in shapes]
    assert format_of(sources) == Format(size, channels)
    assert format_of(sources, (9, 9)) == Format((9, 9), channels)
    assert format_of(sources, None, 3) == Format(size, 3)


def test_an_image_with_a_grey_palette_is_greyscale():
    image = Image.new("P", (4, 4))
    image.putpalette([0, 0, 0, 90, 90, 90])
    assert format_of([encoded(image)]).channels == 1
    image.putpalette([0, 0, 0, 90, 90, 91])
    assert format_of([encoded(image)]).channels == 3


def test_the_first_unreadable_image_is_reported_and_all_are_found(random):
    good = encoded(Image.fromarray(random.integers(0, 256, (40, 40), np.uint8)))
    sources = [good] * 50
    sources[33], sources[47] = good[: len(good) // 2], b"no image"
    with pytest.raises(UnreadableImageError) as caught:
        decode_images(sources, Format((40, 40), 1))
    assert caught.value.index == 33
    failures = unreadable_images(sources)
    assert [failure.index for failure in failures] == [33, 47]
    assert "no image format" in str(failures[1])


def test_a_file_for_which_a_decoder_has_any_error_is_unreadable():
    dds = encoded(Image.new("RGB", (8, 8)), "dds")
    unknown_pixels = dds[:76] + struct.pack("<II", 32, 4) + b"????" + dds[88:]  # Pillow raises NotImplementedError
    too_wide = png(80_000_000, 1, 8, 0, bytes(80_000_001))  # and MemoryError
    good = encoded(Image.new("L", (8, 8)))
    failures = unreadable_images([unknown_pixels, good, too_wide])
    assert [failure.index for failure in failures] == [0, 2]
    assert "Unimplemented pixel format" in str(failures[0])
    assert str(failures[1]) == "it is too large to be decoded"


def test_an_image_whose_reader_would_start_a_program_is_unreadable(monkeypatch, tmp_path):
    from PIL import EpsImagePlugin

    started = []
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *arguments: started.append(arguments))
    (tmp_path / "eps.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n%%EOF\n")
    (failure,) = unreadable_images([tmp_path / "eps.png"])
    assert str(failure) == "no image format that Pillow knows"
    assert started == []


def test_a_pipe_and_a_missing_file_are_unreadable_without_their_path(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    failures = unreadable_images([tmp_path / "pipe.png", tmp_path / "none.png", tmp_path / f"{'x' * 300}.png"])
    assert list(map(str, failures)) == [
        "It is a pipe, a socket or a device, not a file",
        "No such file or directory",
        "File name too long",
    ]


@pytest.fixture
def colours(random) -> Dataset:
    images = random.integers(0, 256, (5, 6, 6, 3), np.uint8)
    return Dataset(images, np.arange(5, dtype=np.int32), tuple("abcde"))


def test_resizing_to_the_same_format_returns_the_same_object(colours):
    assert resize(colours, (6, 6), 3) is colours


def test_resizing_repeats_one_channel_and_converts_three_to_luminance(colours):
    grey = resize(colours, (6, 6), 1)
    exact = colours.images @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey.images[..., 0] - exact).max() <= 0.51
    assert np.array_equal(resize(grey, (6, 6), 3).images, np.repeat(grey.images, 3, axis=3))


def test_resizing_preserves_constant_images_and_labels():
    flat = Dataset(np.full((2, 8, 8, 1), 77, np.uint8), np.array([1, 0], np.int32), ("a", "b"))
    large = resize(flat, (13, 11), 3)
    assert large.images.shape == (2, 13, 11, 3)
    assert (large.images == 77).all()
    assert large.labels is flat.labels


def test_resizing_to_another_aspect_ratio_pads_or_crops(colours):
    wide = resize(colours, (6, 10), 3)
    assert np.array_equal(wide.images[:, :, 2:8], colours.images)
    assert (wide.images[:, :, :2] == colours.images[:, :, :1]).all()
    assert np.array_equal(resize(wide, (6, 6), 3, "crop").images, colours.images)


def test_resizing_equals_pillows_antialiased_bicubic():
    digits = load("digits", "test")
    for size in (4, 28):
        found = resize(digits, (size, size), 1).images
        for before, after in zip(digits.images[:20, ..., 0], found[:20, ..., 0], strict=True):
            expected = Image.fromarray(before).resize((size, size), Image.Resampling.BICUBIC)
            assert np.array_equal(after, np.asarray(expected))


@pytest.mark.parametrize(("size", "channels"), [((0, 4), 1), ((4, 4), 2), ((4, 4), 0)])
def test_resizing_to_impossible_formats_is_an_error(colours, size, channels):
    with pytest.raises(InputError, match="expected"):
        resize(colours, size, channels)
