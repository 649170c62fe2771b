"""Cards: what they may say, what is refused and how, and where their files come from."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from engine_kit import Answer
from text_kit import simcc_card

from posepipe.engines import assets, index, pull
from posepipe.engines.assets import Download, MirrorOnly, catalogue, find, read_card, user_card
from posepipe.engines.decoders import family
from posepipe.engines.network import detector_card, topdown_card
from posepipe.pipeline.errors import ChecksumError, EngineError, PullError
from posepipe.pipeline.skeleton import skeleton

NET = b"a network" * 50
SHA = hashlib.sha256(NET).hexdigest()

CARD = (
    simcc_card(f'sha256 = "{SHA}"\nbytes = {len(NET)}\n')
    + '[mine.net.source]\nkind = "https"\nurl = "https://example.org/files/net.onnx"\n[mine.net.tolerance]\nmedian_px = 0.3\np95_px = 1.5\n'
)


def test_a_whole_card() -> None:
    card = read_card(CARD, where="here")["mine.net"]
    assert card.preprocess is not None
    assert (card.preprocess.shape, card.preprocess.fit, card.preprocess.colour) == ((3, 256, 192), "affine", "rgb")
    assert card.tolerance is not None
    assert (card.tolerance.median_px, card.tolerance.p95_px) == (0.3, 1.5)
    assert isinstance(card.source, Download)
    assert card.source.filename == "net.onnx"
    assert family(card).gives == "joints"


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("licence", "license", r"\[mine.net\] Object missing required field `licence`|did you mean 'licence'\?"),
        ('skeleton = "coco17"', 'skeletton = "coco17"', r"unknown field `skeletton`\n  -> did you mean 'skeleton'\?"),
        ('layout = "nchw"', 'lay_out = "nchw"', r"unknown field `lay_out`.*preprocess.*\n  -> did you mean 'layout'\?"),
        ('layout = "nchw"', 'layout = "nchv"', r"nchv.*\n  -> did you mean 'nchw'\?"),
        ('fit = "affine"', 'fit = "afine"', r"afine.*\n  -> did you mean 'affine'\?"),
        ("bytes =", "bites =", r"unknown field `bites`.*files.*\n  -> did you mean 'bytes'\?"),
        ("url =", "address =", r"\[mine.net\].*(missing required field `url`|unknown field `address`)"),
        ('kind = "https"', 'kind = "http"', r"http.*\n  -> did you mean 'https'\?"),
        ("median_px", "median", r"(unknown field `median`|missing required field `median_px`)"),
        ("shape = [-1, 3, 256, 192]", "shape = [-1, 1, 256, 192]", r"the input 'input' is float32 \[-1, 1, 256, 192\], \[preprocess\] makes"),
        ("shape = [-1, 3, 256, 192]", "shape = [-1, 3, 256]", r"the input 'input' is float32 \[-1, 3, 256\], \[preprocess\] makes"),
        ('layout = "nchw"', 'layout = "nhwc"', r"\[preprocess\] makes float32 \[-1, 256, 192, 3\]\n  -> correct size, layout or dtype"),
        ('dtype = "float32"\nmean', 'dtype = "int32"\nmean', "mean and std need dtype float32, not int32"),
        ("size = [192, 256]", "size = [191, 256]", r"size \[191, 256\] and std"),
        ("57.375]", "0]", r"std \[58.395, 57.12, 0.0\] cannot be"),
        (f'sha256 = "{SHA}"', "", r"the file 'net.onnx' has no sha256\n  -> add its sha256 and bytes, or not_run"),
        ("[mine.net.inputs]", "[mine.net.inputs]\nmore = {shape = [-1, 1], dtype = \"float32\"}", "has one input, the card names 2"),
        ('kind = "https"\nurl = "https://example.org/files/net.onnx"', 'kind = "mirror"', r"missing required field `publisher`"),
        ("[mine.net]", "[mine.net", r"not a card: .*line"),
    ],
)  # fmt: skip
def test_a_mistake_is_refused_with_the_nearest(old: str, new: str, says: str) -> None:
    assert old in CARD
    with pytest.raises(PullError, match=says) as e:
        read_card(CARD.replace(old, new, 1), where="my/card.toml")
    assert e.value.where.startswith("my/card.toml")


def test_a_shipped_card_needs_a_source() -> None:
    text = CARD.replace('[mine.net.source]\nkind = "https"\nurl = "https://example.org/files/net.onnx"\n', "")
    with pytest.raises(PullError, match=r"here: \[mine.net\] has no source"):
        read_card(text, where="here")


def test_one_source_may_serve_all_entries() -> None:
    text = '[source]\nkind = "mirror"\npublisher = "https://example.org"\n' + CARD.replace(
        '[mine.net.source]\nkind = "https"\nurl = "https://example.org/files/net.onnx"\n', ""
    )
    assert read_card(text, where="here")["mine.net"].source == MirrorOnly("https://example.org")


def test_the_shipped_cards_are_whole() -> None:
    for name, card in catalogue().items():
        if card.kind != "model":
            continue
        if not card.decoder:  # learned weights, which are read as they are
            assert card.preprocess is None, name
            assert card.measured, name
            continue
        assert (card.preprocess is None) == (family(card).gives == "volume"), name
        if family(card).gives == "joints":
            skeleton(card.skeleton)
            assert not card.detector or family(catalogue()[card.detector]).gives == "people"
        assert card.measured or card.not_run or family(card).gives == "parts", f"{name} neither has figures nor says that it was not run"


# where files come from


def _serve(monkeypatch: pytest.MonkeyPatch, content: bytes, *, length: bool = True) -> list[str]:
    asked: list[str] = []

    def get(url: str, headers: dict[str, str]) -> Answer:
        asked.append(url)
        return Answer(content, url=url, **({"Content_Length": str(len(content))} if length else {}))

    monkeypatch.setattr(index, "_get", get)
    monkeypatch.setattr(index.time, "sleep", lambda _s: None)
    return asked


def _known(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    known = read_card(text, where="here")
    monkeypatch.setattr(assets, "catalogue", lambda: known)
    monkeypatch.setattr(pull, "catalogue", lambda: known)


def test_a_file_at_its_publishers_address(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(monkeypatch, CARD)
    asked = _serve(monkeypatch, NET)
    assert (pull.fetch("mine.net") / "net.onnx").read_bytes() == NET
    assert asked == ["https://example.org/files/net.onnx"]


def test_a_file_of_another_sum_is_not_kept(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(monkeypatch, CARD)
    _serve(monkeypatch, NET[:-1] + b"?")
    with pytest.raises(ChecksumError, match=r"net\.onnx has SHA-256"):
        pull.fetch("mine.net")
    assert not (cache / "assets" / "mine.net" / "net.onnx").exists()


def test_another_export_of_the_same_network_is_accepted(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = b"another export"
    _known(monkeypatch, CARD.replace("bytes =", f'also = ["{hashlib.sha256(other).hexdigest()}"]\nbytes =', 1))
    _serve(monkeypatch, other)
    assert (pull.fetch("mine.net") / "net.onnx").read_bytes() == other
    assert assets.asset("mine.net").present()


ZIPPED = CARD.replace(
    f'sha256 = "{SHA}"\nbytes = {len(NET)}', 'member = "*end2end.onnx"').replace("files/net.onnx", "files/net.zip").replace(
    'licence = "MIT"', 'licence = "MIT"\nnot_run = "weights not run here"')  # fmt: skip


def _zip(names: tuple[str, ...]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name in names:
            z.writestr(name, NET)
    return out.getvalue()


def test_an_archive_without_a_sum_says_what_came(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(monkeypatch, ZIPPED)
    packed = _zip(("2023/deploy.json", "2023/net/end2end.onnx"))
    _serve(monkeypatch, packed)
    said: list[str] = []
    assert (pull.fetch("mine.net", progress=lambda what, *_: said.append(what)) / "net.onnx").read_bytes() == NET
    assert any(hashlib.sha256(packed).hexdigest() in what and "names no sum" in what for what in said)


@pytest.mark.parametrize("names", [("a/deploy.json",), ("a/end2end.onnx", "b/end2end.onnx")])
def test_an_archive_that_does_not_hold_the_one_file_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch, names: Any) -> None:
    _known(monkeypatch, ZIPPED)
    _serve(monkeypatch, _zip(names))
    with pytest.raises(PullError, match=rf"net.zip does not hold .*{len(names) if len(names) > 1 else 0} files match"):
        pull.fetch("mine.net")


def test_an_archive_without_a_sum_is_found_in_the_mirror_by_its_name(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(monkeypatch, ZIPPED)
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "net.zip").write_bytes(_zip(("x/end2end.onnx",)))
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "m"))
    assert (pull.fetch("mine.net") / "net.onnx").read_bytes() == NET


def test_a_server_that_does_not_say_how_much_it_sends(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _known(monkeypatch, CARD)
    _serve(monkeypatch, NET, length=False)
    with pytest.raises(PullError, match=r"does not say how much it sends\n  -> run `posepipe pull mine.net` again, or .*curl"):
        pull.fetch("mine.net")


def test_what_only_a_mirror_has(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = CARD.replace('kind = "https"\nurl = "https://example.org/files/net.onnx"', 'kind = "mirror"\npublisher = "https://example.org"')
    _known(monkeypatch, text)
    with pytest.raises(PullError, match=rf"nowhere to be downloaded.*\n  -> .*POSEPIPE_MIRROR.*{SHA} \(https://example.org\)"):
        pull.fetch("mine.net")
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "under another name").write_bytes(NET)
    monkeypatch.setenv("POSEPIPE_MIRROR", str(tmp_path / "m"))
    assert (pull.fetch("mine.net") / "net.onnx").read_bytes() == NET


# a user's own card

OWN = CARD.replace('[mine.net.source]\nkind = "https"\nurl = "https://example.org/files/net.onnx"\n', "").replace(
    f'sha256 = "{SHA}"\nbytes = {len(NET)}', ""
)


def test_a_card_of_ones_own_needs_no_source_and_no_sum(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(OWN)
    card = user_card(tmp_path / "card.toml")
    assert card.folder == tmp_path
    with pytest.raises(PullError, match=r"the card names 'net.onnx', which is not beside it\n  -> put it there"):
        card.path("net.onnx")
    (tmp_path / "net.onnx").write_bytes(NET)
    assert find(str(tmp_path / "card.toml")).path("net.onnx") == tmp_path / "net.onnx"


def test_a_card_of_ones_own_that_is_not_there_or_holds_several(tmp_path: Path) -> None:
    with pytest.raises(PullError, match=r"card.toml: the card cannot be read: .*\n  -> the path of a card is relative to the studio file"):
        user_card(tmp_path / "card.toml")
    (tmp_path / "card.toml").write_text(OWN + OWN.replace("mine.net", "mine.other"))
    with pytest.raises(PullError, match=r"describes one network, this one 2: mine\.net, mine\.other"):
        user_card(tmp_path / "card.toml")


def test_the_catalogue_lists_what_was_not_run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from posepipe.launch.pulling import pull as listed

    monkeypatch.setenv("COLUMNS", "300")
    listed((), listing=True)
    line = next(one for one in capsys.readouterr().out.splitlines() if one.startswith("rtmpose.m"))
    assert "(weights not run here)" in line


def test_a_network_of_another_kind_is_refused() -> None:
    with pytest.raises(EngineError, match=r"there is no network 'yolox.nano' for this"):
        topdown_card("yolox.nano")
    with pytest.raises(EngineError, match=r"there is no network 'movenet.thundr' for this\n  -> did you mean 'movenet.thunder'\?"):
        topdown_card("movenet.thundr")
    with pytest.raises(EngineError, match=r"there is no network 'yolox.nan' for this\n  -> did you mean 'yolox.nano'\?"):
        detector_card("yolox.nan")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("triangulation.paper-algebraic", "`posepipe import triangulation weights.pth --kind algebraic`"),
        ("openpose.body25", "`use: heatmap.paf`: `posepipe import openpose FILE.caffemodel`"),
        ("openpose.light", ""),
        ("yolox.nano", ""),
    ],
)
def test_a_network_that_is_imported_says_how(cache: Path, name: str, hint: str) -> None:
    with pytest.raises(EngineError, match=f"there is no network '{name}' for this") as e:
        topdown_card(name)
    assert (hint in e.value.hint) if hint else ("import" not in e.value.hint)


def test_a_network_that_was_imported_has_a_name(cache: Path) -> None:
    (folder := cache / "imported" / "mine.net").mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    (folder / "net.onnx").write_bytes(NET)
    card = topdown_card("mine.net")
    assert (card.name, card.path("net.onnx")) == ("mine.net", folder / "net.onnx")
    with pytest.raises(EngineError, match="the network gives the joints of one person, wanted are people in a picture"):
        detector_card("mine.net")
    for name in ("", "..", "../imported/mine.net"):
        assert assets.imported_card(name) is None
