"""Words and numbers of a card that cannot be: each is refused by its key and its value, with the word that is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from text_kit import BOX, MEAN_AND_STD, card, simcc_card

from posepipe.engines import card as cards
from posepipe.engines.assets import catalogue, read_card, user_card
from posepipe.engines.decoders import decoder_options
from posepipe.engines.engine import Contract
from posepipe.engines.network import topdown_card
from posepipe.pipeline.errors import PullError

CARD = simcc_card('sha256 = "00"\nbytes = 5\n') + (
    '[mine.net.source]\nkind = "https"\nurl = "https://example.org/net.onnx"\nbytes = 7\n'
    "[mine.net.tolerance]\nmedian_px = 0.3\np95_px = 1.5\n"
    "[mine.net.bf16]\nfp32_layers = [0, 1]\n"
)
MAPS = card({"maps": (-1, 17, 64, 48)}, 'kind = "heatmaps"\n', size=(192, 256), preprocess=MEAN_AND_STD + BOX)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ('kind = "model"', 'kind = "modle"', r"\[mine.net\] kind cannot be 'modle'\n  -> did you mean 'model'\?"),
        ('kind = "https"', 'kind = "htps"', r"\[mine.net\] source.kind cannot be 'htps'\n  -> did you mean 'https'\?"),
        ('layout = "nchw"', 'layout = "nchv"', r"\[mine.net\] preprocess.layout cannot be 'nchv'\n  -> did you mean 'nchw'\?"),
        ('dtype = "float32"\nmean', 'dtype = "floatt32"\nmean', r"preprocess.dtype cannot be 'floatt32'\n  -> did you mean 'float32'\?"),
        ('192], dtype = "float32"', '192], dtype = "flaot32"', r"inputs.input.dtype cannot be 'flaot32'\n  -> did you mean 'float32'\?"),
        ('512], dtype = "float32"', '512], dtype = "int46"', r"outputs.simcc_y.dtype cannot be 'int46'\n  -> did you mean 'int64'\?"),
        ('512], dtype = "float32"', '512], dtype = "complex"', r"simcc_y.dtype cannot be 'complex'\n  -> valid here: bool, float16, "),
        ('512], dtype = "float32"', '512], dtipe = "float32"', r"unknown field `dtipe` .*outputs.*\n  -> did you mean 'dtype'\?"),
        ("url =", "utl =", r"(unknown field `utl`.*source.*\n  -> did you mean 'url'\?|missing required field `url`)"),
        ("fp32_layers", "fp32_layer", r"(unknown field `fp32_layer` .*bf16|missing required field `fp32_layers`)"),
        ("fp32_layers = [0, 1]", "fp32_layers = [0, -1]", r"\[mine.net\] bf16.fp32_layers\[1\] is -1: Expected `int` >= 0"),
        ("[-1, 17, 512]", "[-1, 17, -2]", r"outputs.simcc_y.shape\[2\] is -2: Expected `int` >= -1"),
        ("[-1, 17, 512]", "[-1, 17, 0]", r"the shape of 'simcc_y' is \[-1, 17, 0\]\n  -> write -1 for any number"),
        ("[-1, 17, 512]", "[]", r"outputs.simcc_y.shape is \[\]: Expected `array` of length >= 1"),
        ("size = [192, 256]", "size = [-192, 256]", r"preprocess.size\[0\] is -192: Expected `int` >= 2"),
        ("size = [192, 256]", "size = [192, 2560000]", r"preprocess.size\[1\] is 2560000: Expected `int` <= 8192"),
        ("padding = 1.25", "padding = -1", r"preprocess.padding is -1: Expected `float` >= 0.5"),
        ("padding = 1.25", "padding = 0", r"preprocess.padding is 0: Expected `float` >= 0.5"),
        ("padding = 1.25", "padding = inf", r"preprocess.padding is inf: Expected a finite number"),
        ("padding = 1.25", 'padding = "wide"', r"preprocess.padding is 'wide': Expected `float`, got `str`"),
        ("mean = [123.675,", "mean = [nan,", r"preprocess.mean\[0\] is nan: Expected a finite number"),
        ("std = [58.395,", "std = [nan,", r"preprocess.std\[0\] is nan: Expected a finite number"),
        ("std = [58.395,", "std = [-inf,", r"preprocess.std\[0\] is -inf: Expected a finite number"),
        ("std = [58.395,", "std = [0,", r"std \[0.0, 57.12, 57.375\] cannot be\n  -> an even width and height, and std above 0"),
        ("std = [58.395,", "std = [-1,", r"std \[-1.0, 57.12, 57.375\] cannot be\n  -> an even width and height, and std above 0"),
        ("median_px = 0.3", "median_px = -0.3", r"tolerance.median_px is -0.3: Expected `float` > 0.0"),
        ("median_px = 0.3", "median_px = nan", r"tolerance.median_px is nan: Expected a finite number"),
        ("p95_px = 1.5", "p95_px = 0.1", r"\[tolerance\] has p95_px = 0.1 below median_px = 0.3\n  -> 95 % of the key points"),
        ("bytes = 5", "bytes = -5", r"files\[0\].bytes is -5: Expected `int` >= 0"),
        ("bytes = 7", "bytes = -5", r"source.bytes is -5: Expected `int` >= 0"),
    ],
)  # fmt: skip
def test_what_a_key_cannot_be(old: str, new: str, says: str) -> None:
    assert old in CARD
    with pytest.raises(PullError, match=says) as e:
        read_card(CARD.replace(old, new, 1), where="my/card.toml")
    assert e.value.where.startswith("my/card.toml")


@pytest.mark.parametrize(
    ("text", "old", "new", "says"),
    [
        (MAPS, "\n[mine.net.preprocess]", '\n[mine.net.measured]\na = 3\n[mine.net.preprocess]', r"measured.a is 3: Expected `str`"),
        (MAPS, 'kind = "model"', "kind = 3", r"\[mine.net\] kind is 3: Expected `str`, got `int`"),
        (MAPS, "[[mine.net.files]]", "[mine.net.files]", r"\[mine.net\] files is \{'name': 'net.onnx'\}: Expected `array`, got `object`"),
        (MAPS, "summary =", f'labels = "{"x" * 300}"\nsummary =', r"labels is 'x{99}\.\.\.: Expected `array`, got `str`"),
    ],
)  # fmt: skip
def test_what_is_of_another_kind(text: str, old: str, new: str, says: str) -> None:
    assert old in text
    with pytest.raises(PullError, match=says):
        read_card(text.replace(old, new, 1), where="my/card.toml")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ('refine = "drak"', r"\[mine.net.decoder\] refine cannot be 'drak'\n  -> did you mean 'dark'\?"),
        ('values = "logit"', r"\[mine.net.decoder\] values cannot be 'logit'\n  -> did you mean 'logits'\?"),
        ('layout = "ncwh"', r"\[mine.net.decoder\] layout cannot be 'ncwh'\n  -> did you mean 'nchw'\?"),
        ("refin = 3", r"\[mine.net.decoder\] .*unknown field `refin`\n  -> did you mean 'refine'\?"),
        ('output = "mapss"', r"\[mine.net.decoder\]: there is no output 'mapss'\n  -> did you mean 'maps'\?"),
        ("offset_px = nan", r"offset_px is nan: Expected a finite number"),
    ],
)
def test_what_the_decoder_cannot_read_names_the_cards_file(tmp_path: Path, option: str, says: str) -> None:
    (file := tmp_path / "card.toml").write_text(f"{MAPS}{option}\n")
    with pytest.raises(PullError, match=says) as e:
        topdown_card(str(file))
    assert e.value.where == str(file)


def test_an_unknown_decoder_names_the_cards_file(tmp_path: Path) -> None:
    (file := tmp_path / "card.toml").write_text(MAPS.replace('"heatmaps"', '"heatmap"'))
    with pytest.raises(PullError, match=r"card.toml: \[mine.net.decoder\]: there is no decoder 'heatmap'\n  -> did you mean 'heatmaps'\?"):
        topdown_card(str(file))


def test_every_type_of_a_card_is_one_of_numpys(tmp_path: Path) -> None:
    kinds: Any = cards.Dtype.__args__  # type: ignore[attr-defined]
    for kind in kinds:
        (tmp_path / "card.toml").write_text(CARD.replace('512], dtype = "float32"', f'512], dtype = "{kind}"'))
        made = user_card(tmp_path / "card.toml")
        assert Contract.of(made.inputs, made.outputs).outputs[1].dtype == np.dtype(kind)


def test_the_shipped_cards_fit_their_decoders_and_know_their_files() -> None:
    for one in catalogue().values():
        if one.decoder:
            decoder_options(one)
            assert Path(one.decoder.where).is_file()  # type: ignore[attr-defined]
