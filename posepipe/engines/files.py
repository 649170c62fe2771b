"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ..pipeline.errors import EngineError


def write_whole(path: Path, content: bytes) -> None:
    """Write `content` beside `path`, then move it into place: readers and other writers never see half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "wb") as f:
            f.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def cannot_keep(what: str, where: Path, e: OSError) -> EngineError:
    """What is said when something that was made here does not fit on the disk, or may not be written."""
    hint = "free some space or make the folder writable, or set POSEPIPE_HOME to another"
    return EngineError(f"cannot keep {what}: {e.strerror or e}", where=str(where), hint=hint)
