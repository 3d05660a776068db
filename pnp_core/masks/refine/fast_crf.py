"""Fully connected CRF with Gaussian edges (Kraehenbuehl and Koltun 2011), compiled, for many pictures on a CPU.

The same mean field as `dense`: symmetric normalisation, Potts compatibility, features and roundings of pydensecrf. Held
against it in `tests/pnp_core/masks/refine`. The C++ is in `_fast`, built when the package is installed
(`hatch_build.py`), once for every x86-64 processor and once for those with AVX2; both give the same bytes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from threading import Lock

import numpy as np
from jaxtyping import Float, UInt8

from pnp_core.errors import CompiledPartError, CrfInputError
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import Refiner

PLACE = Path(*__name__.split(".")[:-1], "_fast")
"""Folder of the library, below one that packages are in; not always the one that this package is in, see
`hatch_build.py`."""
BUILDS = ("plain", "avx2")
"""Builds of the library: for every processor of its make, and for those with AVX2."""
CHOICE = "PNP_OVSS_CRF_BUILD"
"""Environment variable that names the build to use, in place of the fastest that the processor can run."""
LABELS = 2**16 - 1
"""Most labels."""
KEPT = 2**23
"""Pixels of the smoothness kernels that are kept for further pictures of their sizes; each takes about 28 bytes."""
_TOO_FINE, _NO_NUMBERS, _NO_MEMORY, _TOO_LARGE = 1, 2, 3, 4
_Size = tuple[int, int]


def open_refiner(config: CrfConfig, device: str, threads: int) -> Refiner:
    """Mean-field inference from unaries -log softmax(scores) on the original RGB, by the CPU; see `refine_batch`."""
    library()  # before anything is started
    return lambda scores, images: refine_batch(scores, images, config, threads)


def refine_batch(
    scores: Sequence[np.ndarray], images: Sequence[np.ndarray], config: CrfConfig, threads: int = 1
) -> list[np.ndarray]:
    """Refine several pictures, of any sizes and numbers of labels, so many at a time.

    Results are the same byte for byte for any number of threads.

    Args:
        scores: of each picture (C, H, W), finite.
        images: (H, W, 3) uint8 RGB.
        threads: >= 1.

    Returns:
        Of each picture probabilities (C, H, W), float32.

    Raises:
        CrfInputError: sizes do not agree, there is no channel or no pixel, scores are NaN or infinite or no numbers,
            there are too many channels or pixels, or bandwidths are too small for them.
        CompiledPartError: the library cannot be loaded.
    """
    if len(scores) != len(images):
        raise CrfInputError(f"the CRF got scores of {len(scores)} pictures and {len(images)} pictures")
    if threads < 1:
        raise CrfInputError(f"the CRF needs at least 1 thread, not {threads}")
    compiled = library()

    def work(number: int) -> np.ndarray:
        return _refine_one(compiled, scores[number], images[number], config)

    if threads == 1 or len(scores) < 2:
        return [work(number) for number in range(len(scores))]
    with ThreadPoolExecutor(min(threads, len(scores))) as pool:
        return list(pool.map(work, range(len(scores))))


def library() -> Library:
    """The build that the environment names, or the fastest that the processor can run.

    Raises:
        CompiledPartError: it cannot be loaded.
    """
    wanted = os.environ.get(CHOICE, "")
    if wanted:
        return load_library(wanted)
    return load_library("avx2" if load_library("plain").has_avx2 else "plain")


@lru_cache
def load_library(build: str, folder: Path | None = None) -> Library:
    """One of the `BUILDS`, of a folder or where it is installed.

    Raises:
        CompiledPartError: it cannot be loaded, or the processor cannot run it.
    """
    if build not in BUILDS:
        raise CompiledPartError(f"no build '{build}' of the compiled CRF ({CHOICE}); available: {', '.join(BUILDS)}")
    name = f"crf_{build}.so"
    places = [folder] if folder else [Path(entry) / PLACE for entry in sys.path]
    found = Library(next((place / name for place in places if (place / name).is_file()), places[0] / name))
    if build == "avx2" and not found.has_avx2:
        raise CompiledPartError(f"this processor has no AVX2, which the build 'avx2' of the CRF needs ({CHOICE})")
    return found


@lru_cache
def digest(sources: Path = Path(__file__).parent / "_fast") -> str:
    """Of the C++ beside this module, as `hatch_build.py` takes it."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(sources.glob("*.?pp")))).hexdigest()[:16]


class Library:
    """The compiled functions, with types.

    Attributes:
        has_avx2: whether the processor has it.
    """

    def __init__(self, path: Path) -> None:
        again = (
            "install it again (of a checkout: uv sync --reinstall-package pnp-ovss) where there is a C++ compiler, or"
            " choose the CRF 'dense'"
        )
        if not path.is_file():
            raise CompiledPartError(f"the compiled CRF '{path.name}' is not installed with pnp-ovss: {again}")
        try:
            functions = ctypes.CDLL(str(path))
            functions.crf_sources.restype = ctypes.c_char_p
            made_of = functions.crf_sources().decode()
        except (OSError, AttributeError) as error:
            raise CompiledPartError(f"the compiled CRF '{path}' cannot be loaded ({error}): {again}") from error
        if made_of != digest():
            raise CompiledPartError(f"the compiled CRF '{path}' was made of other sources than are here: {again}")
        integer, number, address = ctypes.c_int64, ctypes.c_float, ctypes.c_void_p
        self._smoothness = functions.crf_smoothness
        self._smoothness.argtypes = [integer, integer, number, number, ctypes.POINTER(address)]
        self._refine = functions.crf_refine
        self._refine.argtypes = [address, *[integer] * 3, address, address, address, integer, address]
        self._forget = functions.crf_forget
        self._forget.argtypes = [address]
        self._forget.restype = None
        self.has_avx2 = bool(functions.crf_has_avx2())

    def smoothness(self, size: _Size, config: CrfConfig) -> Smoothness:
        """The kernel of positions for pictures of height and width."""
        found = ctypes.c_void_p()
        outcome = self._smoothness(*size, config.gaussian_sxy, config.gaussian_compat, ctypes.byref(found))
        _check(outcome, (1, *size), config)
        return Smoothness(self, found, self._forget)

    def refine(
        self,
        smoothness: Smoothness,
        scores: Float[np.ndarray, "C H W"],
        image: UInt8[np.ndarray, "H W 3"],
        config: CrfConfig,
    ) -> Float[np.ndarray, "C H W"]:
        """Probabilities of one picture; arrays are contiguous, and of sizes that agree."""
        found = np.empty_like(scores)
        bilateral = np.array([config.bilateral_sxy, config.bilateral_srgb, config.bilateral_compat], np.float32)
        arrays = scores.ctypes.data, image.ctypes.data, bilateral.ctypes.data
        outcome = self._refine(smoothness.address, *scores.shape, *arrays, config.iterations, found.ctypes.data)
        _check(outcome, scores.shape, config)
        return found


class Smoothness:
    """A kernel of positions in the library's memory, given back when nobody uses it any more."""

    def __init__(self, owner: Library, address: ctypes.c_void_p, forget: ctypes._NamedFuncPointer) -> None:
        self.owner = owner
        self.address = address
        weakref.finalize(self, forget, address)


def _check(outcome: int, shape: tuple[int, ...], config: CrfConfig) -> None:
    """Raise what the library found wrong."""
    if not outcome:
        return
    place = f"scores {shape} for the CRF"
    if outcome == _TOO_FINE:
        widths = config.gaussian_sxy, config.bilateral_sxy, config.bilateral_srgb
        raise CrfInputError(
            f"{place}: features of bandwidths {widths[0]:g}, {widths[1]:g} and {widths[2]:g} are too many standard"
            " deviations for the CRF's lattice: take larger bandwidths"
        )
    if outcome == _NO_NUMBERS:
        raise CrfInputError(f"{place} are NaN or infinite")
    if outcome == _NO_MEMORY:
        raise CrfInputError(f"{place} need more memory than there is: set a smaller masks.max_side")
    if outcome == _TOO_LARGE:
        raise CrfInputError(f"{place} are too large: set a smaller masks.max_side")
    raise CompiledPartError(f"the compiled CRF failed on {place}, which it never should: choose the CRF `dense`")


_kept: OrderedDict[tuple[Library, _Size, float, float], Smoothness] = OrderedDict()
_keeping = Lock()


def _smoothness(compiled: Library, size: _Size, config: CrfConfig) -> Smoothness:
    """The kernel of positions, which is the same for all pictures of a size; the last ones used are kept."""
    key = (compiled, size, config.gaussian_sxy, config.gaussian_compat)
    with _keeping:
        if key in _kept:
            _kept.move_to_end(key)
            return _kept[key]
    made = compiled.smoothness(size, config)  # by several threads at once perhaps: it is the same
    with _keeping:
        _kept[key] = made
        while sum(height * width for _, (height, width), *_ in _kept) > KEPT:
            _kept.popitem(last=False)
    return made


def _refine_one(compiled: Library, scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    _check_input(scores, image)
    height, width = image.shape[:2]
    near = _smoothness(compiled, (height, width), config)
    ordered = np.ascontiguousarray(scores, dtype=np.float32)
    return compiled.refine(near, ordered, np.ascontiguousarray(image), config)


def _check_input(scores: np.ndarray, image: np.ndarray) -> None:
    place = f"scores {scores.shape} for the CRF"
    if scores.ndim != 3 or 0 in scores.shape:
        raise CrfInputError(f"{place} must have channels, rows and columns, at least one of each")
    if not np.issubdtype(scores.dtype, np.floating):
        raise CrfInputError(f"{place} must be real numbers, not {scores.dtype}")
    if len(scores) > LABELS:
        raise CrfInputError(f"{place} have more than {LABELS} channels")
    if image.shape != (*scores.shape[1:], 3) or image.dtype != np.uint8:
        height, width = scores.shape[1:]
        raise CrfInputError(f"{place} need {height} x {width} pixels of RGB bytes, not {image.shape} {image.dtype}")
