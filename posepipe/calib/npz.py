"""Files of numpy arrays that are damaged say so in many ways."""

from __future__ import annotations

import tokenize
import zipfile
import zlib

DAMAGED: tuple[type[Exception], ...] = (
    OSError,
    ValueError,
    EOFError,
    RuntimeError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    tokenize.TokenError,
)
"""What `np.load` and reading an array raise for an .npz with a wrong byte: where a name, a length, a version or a header was hit, the error is not
one of the zip's own."""
