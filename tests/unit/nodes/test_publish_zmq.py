"""What subscribers receive, to the byte: wire format 1 (docs/stream.md)."""

from __future__ import annotations

import struct
import threading
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from node_kit import CAMERAS, T0_NS, Studio, bodies, caps, packet, poses

from posepipe.calib.body import load_body
from posepipe.nodes._actions import Act
from posepipe.nodes.publish_zmq import PublishZmq, message
from posepipe.pipeline.errors import GraphError, PublishError
from posepipe.pipeline.node import Caps
from posepipe.pipeline.packet import Actions, Sync
from posepipe.pipeline.skeleton import COCO17

JOINTS = 17


def sent(
    body: Any, *, acts: list[Act | None] | None = None, seq: int = 0, t_ns: int = T0_NS, t_publish_ns: int = T0_NS + 1
) -> dict[str, Any]:
    """As a subscriber unpacks it."""
    acts = [None] * len(body.ids) if acts is None else acts
    raw = msgpack.packb(message(packet(body, seq=seq, t_ns=t_ns), acts, t_publish_ns=t_publish_ns))
    return dict(msgpack.unpackb(raw))


def test_the_keys_of_a_message() -> None:
    sync = Sync(1234, (0, 1, 3), (2,), (0.25, -0.25, None, 0.0), (1.5, None, None, 0.0), (1.0, 0.967, 0.0, None))
    body = poses(np.zeros((2, JOINTS, 3)), skeleton="coco17", ids=(3, 8), sync=sync)
    got = sent(body, seq=41, t_ns=T0_NS + 5, t_publish_ns=T0_NS + 9)
    assert list(got) == ["v", "seq", "t_capture_ns", "t_publish_ns", "sync", "tier", "people"]
    assert (got["v"], got["seq"], got["t_capture_ns"], got["t_publish_ns"]) == (1, 41, T0_NS + 5, T0_NS + 9)
    assert got["sync"] == {
        "skew_ns": 1234,
        "views": [0, 1, 3],
        "missing": [2],
        "offset_ms": [0.25, -0.25, None, 0.0],
        "drift_ppm": [1.5, None, None, 0.0],
        "complete": [1.0, 0.967, 0.0, None],
    }
    assert got["tier"] == "algebraic"
    assert [list(person) for person in got["people"]] == [["id", "xyz_m", "conf", "sigma_m", "reproj_px", "action", "body"]] * 2
    assert [person["id"] for person in got["people"]] == [3, 8]
    assert [(person["action"], person["body"]) for person in got["people"]] == [(None, None)] * 2


def test_the_bytes_of_a_person() -> None:
    """float32, little end first, joint by joint: written out by hand."""
    xyz = np.arange(JOINTS * 3, dtype=np.float32).reshape(1, JOINTS, 3) / 7
    body = poses(xyz, skeleton="coco17", conf=np.linspace(0, 1, JOINTS, dtype=np.float32)[None])
    (person,) = sent(body)["people"]
    assert person["xyz_m"] == b"".join(struct.pack("<3f", *row) for row in xyz[0].tolist())
    assert person["conf"] == struct.pack(f"<{JOINTS}f", *body.conf[0].tolist())
    assert person["sigma_m"] == struct.pack(f"<{JOINTS}f", *body.sigma_m[0].tolist())
    assert (len(person["xyz_m"]), len(person["conf"]), len(person["sigma_m"])) == (204, 68, 68)
    assert type(person["reproj_px"]) is float


def test_the_types_on_the_wire() -> None:
    """MessagePack's own type bytes: bin for arrays, str for text, no extension anywhere, so that every language can read it."""
    raw = msgpack.packb(message(packet(poses(np.zeros((1, JOINTS, 3)), skeleton="coco17")), [None], t_publish_ns=T0_NS))
    got = msgpack.unpackb(raw, strict_map_key=True, ext_hook=lambda code, data: pytest.fail(f"extension {code}"))
    assert all(isinstance(got["people"][0][key], bytes) for key in ("xyz_m", "conf", "sigma_m"))
    assert raw[0] == 0x87, "a map of seven"
    assert b"\xa5xyz_m\xc4\xcc" in raw, "bin 8 of 204 bytes"


def test_nobody_is_an_empty_list() -> None:
    assert sent(poses(np.zeros((0, JOINTS, 3)), skeleton="coco17"))["people"] == []


def test_an_unseen_joint_is_nan_with_confidence_zero() -> None:
    xyz = np.zeros((1, JOINTS, 3), np.float32)
    xyz[0, 4] = np.nan
    (person,) = sent(poses(xyz, skeleton="coco17"))["people"]
    read = np.frombuffer(person["xyz_m"], "<f4").reshape(JOINTS, 3)
    assert np.isnan(read[4]).all()
    assert np.isfinite(np.delete(read, 4, axis=0)).all()
    assert np.frombuffer(person["conf"], "<f4")[4] == 0


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(0, 4), st.just(JOINTS), st.just(3)), elements=st.floats(width=32)),
    st.integers(0, 2**62),
    st.integers(0, 2**40),
)
def test_what_is_read_is_what_was_sent(xyz: np.ndarray[Any, Any], t_ns: int, seq: int) -> None:
    got = sent(poses(xyz, skeleton="coco17"), t_ns=t_ns, seq=seq)
    assert (got["t_capture_ns"], got["seq"], len(got["people"])) == (t_ns, seq, len(xyz))
    for person, want in zip(got["people"], xyz, strict=True):
        assert person["xyz_m"] == want.astype("<f4").tobytes()


def test_arrays_that_are_views_are_sent_in_order() -> None:
    xyz = np.asfortranarray(np.random.default_rng(0).standard_normal((2, JOINTS, 3)).astype(np.float32))
    people = sent(poses(xyz[::-1], skeleton="coco17"))["people"]
    assert np.array_equal(np.frombuffer(people[0]["xyz_m"], "<f4").reshape(JOINTS, 3), xyz[1])


def test_the_bytes_of_an_action() -> None:
    body = poses(np.zeros((3, JOINTS, 3)), skeleton="coco17")
    p = np.array([0.25, 0.5, 0.25], np.float32)
    people = sent(body, acts=[Act(1, p), None, Act(2, p)])["people"]
    assert [person["action"] for person in people] == [
        {"label": 1, "p": struct.pack("<3f", 0.25, 0.5, 0.25)},
        None,
        {"label": 2, "p": struct.pack("<3f", 0.25, 0.5, 0.25)},
    ]
    assert type(people[0]["action"]["label"]) is int


def test_the_bytes_of_a_body() -> None:
    given_bodies = bodies(2)
    with_bodies = poses(np.zeros((2, JOINTS, 3)), skeleton="coco17", bodies=given_bodies)
    people = sent(with_bodies)["people"]
    assert [list(person["body"]) for person in people] == [["model", "pose", "shape", "root_m"]] * 2
    assert [len(people[0]["body"][key]) for key in ("pose", "shape", "root_m")] == [24 * 6 * 4, 16 * 4, 3 * 4]
    for i, person in enumerate(people):
        assert person["body"]["model"] == "posepipe.adult"
        assert person["body"]["pose"] == struct.pack("<144f", *given_bodies.pose[i].reshape(-1).tolist())
        assert person["body"]["root_m"] == struct.pack("<3f", *given_bodies.root_m[i].tolist())


def test_who_has_no_body_has_nil() -> None:
    some = bodies(3)
    some.root_m[1] = np.nan
    people = sent(poses(np.zeros((3, JOINTS, 3)), skeleton="coco17", bodies=some))["people"]
    assert [person["body"] is None for person in people] == [False, True, False]


def test_a_subscriber_poses_the_body_with_what_it_gets() -> None:
    """As docs/stream.md says it."""
    made = bodies(1)
    (person,) = sent(poses(np.zeros((1, JOINTS, 3)), skeleton="coco17", bodies=made))["people"]
    b = {key: np.frombuffer(person["body"][key], "<f4") for key in ("pose", "shape", "root_m")}
    posed = load_body().pose(b["shape"], b["pose"].reshape(1, -1, 6), b["root_m"][None])
    want = load_body().pose(made.shape[0], made.pose[:1], made.root_m[:1])
    np.testing.assert_array_equal(posed.joints_m("coco17"), want.joints_m("coco17"))
    np.testing.assert_allclose(posed.joints_m("smpl24")[0, 0], made.root_m[0], atol=1e-6)


# the hello, without a network -------------------------------------------------------------------------------------------------


def opened(bind: str = "inproc://test", **other: Any) -> PublishZmq:
    node = PublishZmq(PublishZmq.Settings(bind=bind))
    node.open(Studio().context(**{"caps": caps("poses", skeleton="coco17"), **other}))
    return node


def test_hello_carries_what_a_late_subscriber_needs() -> None:
    node = opened(graph_sha256="ab" * 32)
    hello = msgpack.unpackb(node._hello)
    node.close()
    assert hello == {
        "v": 1,
        "studio": "hall",
        "skeleton": "coco17",
        "joints": list(COCO17.joints),
        "bones": [list(b) for b in COCO17.bones],
        "units": "m",
        "axes": "x-right y-forward z-up right-handed",
        "cameras": list(CAMERAS),
        "actions": [],
        "graph_sha256": "ab" * 32,
    }
    assert (node._hello_topic, node._topic) == (b"hello/hall", b"skeleton/hall")


def test_hello_names_the_actions_in_the_order_of_their_numbers() -> None:
    node = opened(caps={**caps("poses", skeleton="coco17"), **caps("actions", actions=("walking", "boxing"))})
    hello = msgpack.unpackb(node._hello)
    node.close()
    assert hello["actions"] == ["walking", "boxing", "unknown"]


def test_a_step_sends_everybody_s_own_action() -> None:
    node = opened(caps={**caps("poses", skeleton="coco17"), **caps("actions", actions=("walking", "boxing"))})
    body = packet(poses(np.zeros((2, JOINTS, 3)), skeleton="coco17", ids=(4, 9)))
    said = Actions(np.array([9]), np.array([1]), np.array([[0.25, 0.75]], np.float32))
    people = [msgpack.unpackb(node._packed(body, actions))["people"] for actions in (said, None)]
    node.close()
    assert [person["action"] for person in people[0]] == [None, {"label": 1, "p": struct.pack("<3f", 0.25, 0.75, 0)}]
    assert [person["action"] for person in people[1]] == [None, None]


def test_actions_without_labels_are_refused_before_start() -> None:
    with pytest.raises(GraphError, match=r"what comes at 'actions' has no labels\n  -> take it from classify\.action"):
        PublishZmq.check(PublishZmq.Settings(), {"poses": Caps(skeleton="coco17"), "actions": Caps()})
    PublishZmq.check(PublishZmq.Settings(), {"poses": Caps(skeleton="coco17"), "actions": Caps(actions=("walking",))})


def test_hello_is_due_at_once_and_then_once_a_second() -> None:
    node = opened()
    assert node.wake_ns() == 0
    assert node.on_time(T0_NS) == []
    assert node.wake_ns() == T0_NS + 1_000_000_000
    node.close()


def test_subscribers_may_be_asked_for_before_it_is_open_while_it_closes_and_afterwards() -> None:
    """A worker's heart beats all the time, on a thread of its own."""
    for _ in range(20):
        node = PublishZmq(PublishZmq.Settings(bind="inproc://test"))
        assert node.subscribers() == 0
        answers: list[int | BaseException] = []
        over = threading.Event()

        def ask(node: PublishZmq = node, answers: list[int | BaseException] = answers, over: threading.Event = over) -> None:
            while not over.is_set():
                try:
                    answers.append(node.subscribers())
                except BaseException as e:
                    answers.append(e)

        asking = threading.Thread(target=ask)
        asking.start()
        node.open(Studio().context(caps=caps("poses", skeleton="coco17")))
        for k in range(20):
            node.on_time(T0_NS + k)
        node.close()
        over.set()
        asking.join()
        assert set(answers) == {0}
        assert node.subscribers() == 0


@pytest.mark.parametrize(
    "bind", ["nonsense", "tcp://127.0.0.1:99999", "tcp://127.0.0.1", "http://127.0.0.1:80", "tcp://127.0.0.1:port", "tcp://"]
)
def test_an_address_that_is_none_is_refused_before_start(bind: str) -> None:
    with pytest.raises(GraphError) as caught:
        PublishZmq.check(PublishZmq.Settings(bind=bind), {})
    assert str(caught.value) == (
        f"bind is {bind!r}, which is no ZeroMQ address\n  -> for example tcp://127.0.0.1:5570 (ports end at 65535)"
    )


@pytest.mark.parametrize(
    "bind", ["tcp://127.0.0.1:5570", "tcp://*:5570", "tcp://[::1]:65535", "tcp://127.0.0.1:*", "ipc:///tmp/hall", "inproc://a"]
)
def test_addresses_that_are_some(bind: str) -> None:
    PublishZmq.check(PublishZmq.Settings(bind=bind), {})


def refused(bind: str, skeleton: str = "coco17") -> str:
    node = PublishZmq(PublishZmq.Settings(bind=bind))
    try:
        with pytest.raises((PublishError, GraphError)) as caught:
            node.open(Studio().context(caps=caps("poses", skeleton=skeleton)))
    finally:
        node.close()
    return str(caught.value)


def test_an_address_that_is_not_of_this_machine() -> None:
    assert refused("tcp://192.0.2.1:5570") == (
        "node node: cannot bind 'tcp://192.0.2.1:5570': Cannot assign requested address\n"
        "  -> for example tcp://127.0.0.1:5570, or tcp://*:5570 for other machines"
    )


def test_an_unknown_skeleton_is_refused_and_the_node_still_closes() -> None:
    assert refused("inproc://test", "coco77") == "unknown skeleton layout 'coco77'\n  -> did you mean 'coco17'?"
