"""Pickles of arrays, by numpy, chumpy or scipy, read without any of the three putting them together.

Reading a pickle can run code, and numpy's own way of rebuilding an array believes what it is told of the memory behind it. So only names on a short list
are taken, and these become objects of this file, which keep what was saved until an array is asked for.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from posepipe.pipeline.packet import I64

_PLAIN = re.compile(r"[biu][1248]|f[248]")


class Foreign(pickle.UnpicklingError):
    """A name in a pickle that is not on the list."""


def read_pickle(file: IO[bytes]) -> Any:
    """What is in a pickle, of Python 2 or 3: its plain values as they are, arrays as what `dense` takes.

    Foreign for one with anything else in it; one that is damaged raises nearly anything.
    """
    return _Reader(file, encoding="latin1").load()


def dense(value: Any) -> NDArray[Any]:
    """The array that was saved. TypeError, ValueError, KeyError, IndexError or AttributeError for what is none, or does not fit together."""
    return value.dense() if isinstance(value, _Stored) else np.asarray(value)


class _Stored:
    """What an object of another package was saved as; of most of them nothing is needed."""

    state: Any = None

    def __init__(self, *args: Any) -> None:
        """Takes, and leaves alone, whatever the other class was made with."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def dense(self) -> NDArray[Any]:
        """Its numbers."""
        raise TypeError("an object that is computed, not kept")


class _Dtype(_Stored):
    """numpy's type of numbers."""

    def __init__(self, code: Any, *_: Any) -> None:
        self.code = code

    def of(self) -> np.dtype[Any]:
        """A type of plain numbers of the order that was saved."""
        if not isinstance(self.code, str) or not _PLAIN.fullmatch(self.code):
            raise TypeError("an array of other things than numbers")
        order = self.state[1] if self.state else "="
        return np.dtype((order if order in ("<", ">") else "=") + self.code)


class _Array(_Stored):
    """numpy's array: version, shape, type, whether by columns, bytes."""

    def dense(self) -> NDArray[Any]:
        _, shape, dtype, by_columns, content = self.state
        return _array(content, dtype, shape, "F" if by_columns else "C")


class _Buffer(_Stored):
    """The same in pickles of protocol 5."""

    def __init__(self, *args: Any) -> None:
        self.args = args

    def dense(self) -> NDArray[Any]:
        content, dtype, shape, order, *axes = self.args
        found = _array(content, dtype, shape, "F" if order == "F" else "C")
        return found.transpose(axes[0]) if order == "K" and axes and axes[0] is not None else found


class _Chumpy(_Stored):
    """chumpy's array of values, `x`."""

    def dense(self) -> NDArray[Any]:
        return dense(self.state["x"])


class _Select(_Stored):
    """chumpy's choice `idxs` from an array `a`, in a shape."""

    def dense(self) -> NDArray[Any]:
        chosen = dense(self.state["a"]).ravel()[dense(self.state["idxs"]).astype(np.int64)]
        return chosen.reshape(self.state.get("preferred_shape", chosen.shape))


class _Columns(_Stored):
    """scipy's matrix compressed by columns."""

    def dense(self) -> NDArray[Any]:
        data, indices, bounds = (dense(self.state[key]) for key in ("data", "indices", "indptr"))
        rows, columns = self.turned(self.state["_shape"] if "_shape" in self.state else self.state["shape"])
        counts: I64 = (bounds[1:] - bounds[:-1]).astype(np.int64)
        found = np.zeros((int(rows), int(columns)))
        np.add.at(found, (indices.astype(np.int64), np.repeat(np.arange(len(counts)), counts)), data.astype(np.float64))
        return np.asarray(self.turned(found))

    def turned(self, pair: Any) -> Any:
        """Shape or matrix, from how it is meant to how it is compressed, and back."""
        return pair


class _Rows(_Columns):
    """scipy's matrix compressed by rows."""

    def turned(self, pair: Any) -> Any:
        return pair[::-1] if isinstance(pair, tuple) else pair.T


def _array(content: Any, dtype: Any, shape: Any, order: Any) -> NDArray[Any]:
    data = content.encode("latin1") if isinstance(content, str) else content
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, _Dtype):
        raise TypeError("an array of other things than numbers")
    return np.frombuffer(data, dtype.of()).reshape(shape, order=order)


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, content: Any) -> Any:
    found = _Array()
    found.state = (1, (), dtype, False, content)
    return found


def _new(cls: type, *_: Any) -> Any:
    """copyreg's, for the objects of a pickle of protocol 0 or 1."""
    return object.__new__(cls)


def _encoded(text: str, _: str) -> bytes:
    """How Python 3 keeps bytes in pickles of protocol 2."""
    return text.encode("latin1")


def _empty() -> bytes:
    """How Python 3 keeps no bytes there."""
    return b""


_KNOWN: dict[tuple[str, str], Any] = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _reconstruct for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Buffer for core in ("core", "_core")},
    **{("numpy", name): _Array for name in ("ndarray", "matrix")},
    ("numpy.matrixlib.defmatrix", "matrix"): _Array,
    ("numpy", "dtype"): _Dtype,
    **{(module, "_reconstructor"): _new for module in ("copy_reg", "copyreg")},
    **{(module, name): what for module in ("__builtin__", "builtins") for name, what in (("object", object), ("set", set), ("bytes", _empty))},
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): OrderedDict,
    ("chumpy", "Ch"): _Chumpy,
    ("chumpy.ch", "Ch"): _Chumpy,
    ("chumpy.reordering", "Select"): _Select,
    **{(f"scipy.sparse.{module}", f"{kind}_matrix"): what for kind, what in (("csc", _Columns), ("csr", _Rows)) for module in (kind, f"_{kind}")},
}  # fmt: skip


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module.partition(".")[0] in ("chumpy", "scipy"):
            return _Stored
        raise Foreign(f"{module}.{name}")
