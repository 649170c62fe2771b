"""Where a running studio answers questions from the same machine: `posepipe ps`, `top`, `topic`, `stop`.

One Unix socket in the abstract name space, `@posepipe/<user id>/<pid>`: nothing in the file system, gone with the process. Only
the same user and root are answered (the kernel says who asks). A question and an answer are one line of JSON each.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from posepipe.pipeline.errors import RunError

_PREFIX = "posepipe"
_CREDENTIALS = struct.Struct("3i")
_ANSWER_WITHIN_S = 5.0
_QUESTION_BYTES = 4096

Answer = Callable[[dict[str, Any]], Any]


class Desk:
    """The studio's side: answers on a thread of its own, one question a connection.

    answers: what can be asked, by the word `do` of the question.
    """

    def __init__(self, answers: dict[str, Answer]) -> None:
        self._answers = answers
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(f"\0{_PREFIX}/{os.getuid()}/{os.getpid()}")
        self._socket.listen(8)
        self._thread = threading.Thread(target=self._serve, name="posepipe:desk", daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                asking, _ = self._socket.accept()
            except OSError:  # closed
                return
            with asking:
                asking.settimeout(_ANSWER_WITHIN_S)
                try:
                    self._answer(asking)
                except (OSError, ValueError):
                    continue  # who asks has gone, or did not ask in our words

    def _answer(self, asking: socket.socket) -> None:
        _, user, _ = _CREDENTIALS.unpack(asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
        if user not in (0, os.getuid()):
            return
        question = json.loads(asking.makefile().readline(_QUESTION_BYTES))
        answer = self._answers.get(question.get("do"))
        if answer is None:
            said: Any = {"error": f"this studio does not know {question.get('do')!r}", "hint": "is it of another version?"}
        else:
            try:
                said = {"answer": answer(question)}
            except RunError as e:
                said = {"error": e.what, "hint": e.hint}
        asking.sendall(json.dumps(said).encode() + b"\n")

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._socket.close()


def studios() -> list[int]:
    """Process ids of the studios of this user that run on this machine."""
    mine = f"@{_PREFIX}/{os.getuid()}/"
    try:
        lines = Path("/proc/net/unix").read_text().splitlines()
    except OSError:
        return []
    names = {line.rpartition(" ")[2] for line in lines}
    return sorted(int(name.removeprefix(mine)) for name in names if name.startswith(mine) and name.removeprefix(mine).isdigit())


def ask(pid: int, question: dict[str, Any]) -> Any:
    """Ask the studio of that process. RunError when it does not answer, or cannot do what is asked."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.settimeout(_ANSWER_WITHIN_S)
        try:
            line.connect(f"\0{_PREFIX}/{os.getuid()}/{pid}")
            line.sendall(json.dumps(question).encode() + b"\n")
            said = json.loads(line.makefile().readline())
        except (OSError, ValueError):
            raise RunError(f"the studio of process {pid} does not answer", hint="it may have just ended: posepipe ps") from None
    if "error" in said:
        raise RunError(said["error"], hint=said["hint"])
    return said["answer"]
