import gc
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pnp_core.errors import CompiledPartError, CrfInputError
from pnp_core.inputs.images import decode_image
from pnp_core.masks.config import CrfConfig
from pnp_core.masks.refine import fast_crf
from pnp_core.masks.refine.fast_crf import BUILDS, CHOICE, digest, load_library, refine_batch
from tests.pnp_core.masks.refine.test_crf import mean_field, refined
from tests.pnp_core.masks.refine.test_tensors import drawn_image, ragged_scores

ROOT = Path(__file__).parents[4]
PHOTOGRAPHS = sorted((ROOT / "pnp_core" / "_photographs").glob("*.jpg"))


def refine(scores: np.ndarray, image: np.ndarray, config: CrfConfig) -> np.ndarray:
    return refine_batch([scores], [image], config)[0]


def runnable() -> list[str]:
    """Builds that this processor can run."""
    return [build for build in BUILDS if build == "plain" or load_library("plain").has_avx2]


@pytest.fixture(params=runnable())
def build(request, monkeypatch):
    monkeypatch.setenv(CHOICE, request.param)
    return request.param


@pytest.mark.parametrize("labels", [2, 3, 5, 21])
def test_photographs_get_the_labels_of_pydensecrf(labels):
    differing = pixels = 0
    for path in PHOTOGRAPHS[:3]:
        image = np.ascontiguousarray(decode_image(path.read_bytes(), 10**8).pixels[::2, ::2])
        scores = ragged_scores(labels, *image.shape[:2], seed=labels)
        expected = refined("dense", scores, image, CrfConfig())
        found = refine(scores, image, CrfConfig())
        differing += int((found.argmax(0) != expected.argmax(0)).sum())
        pixels += expected[0].size
        assert (np.abs(found - expected) > 1e-3).mean() < 1e-5
    assert differing / pixels <= 1e-5


@given(
    height=st.integers(1, 64), width=st.integers(1, 64), labels=st.integers(1, 30), colours=st.sampled_from([1, 2, 7]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_any_size_and_number_of_labels_agrees_with_pydensecrf(height, width, labels, colours, seed):
    scores = np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)
    image = drawn_image(height, width, colours, seed)
    config = CrfConfig(iterations=3)
    found = refine(scores, image, config)
    np.testing.assert_allclose(found, refined("dense", scores, image, config), atol=2e-3)
    np.testing.assert_allclose(found.sum(0), 1, atol=1e-5)


@given(
    height=st.integers(1, 40), width=st.integers(1, 40), labels=st.integers(1, 30), colours=st.sampled_from([1, 2, 7]),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_every_build_gives_the_same_bytes(height, width, labels, colours, seed):
    scores = np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)
    image = drawn_image(height, width, colours, seed)
    found = []
    for build in runnable():
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(CHOICE, build)
            found.append(refine(scores, image, CrfConfig(iterations=2)).tobytes())
    assert len(set(found)) == 1


@given(height=st.integers(1, 12), width=st.integers(1, 12), labels=st.integers(2, 30), seed=st.integers(0, 1000))
def test_the_smallest_pictures_follow_the_mean_field_as_closely_as_pydensecrf(height, width, labels, seed):
    scores = np.random.default_rng(seed).random((labels, height, width), dtype=np.float32)
    image = drawn_image(height, width, 2, seed)
    config = CrfConfig(iterations=2)
    exact = mean_field(scores, image, config)
    found, dense = (np.abs(refined(name, scores, image, config) - exact).max() for name in ("fast", "dense"))
    assert found <= dense + 1e-3


@pytest.mark.slow
@settings(max_examples=1500)
@given(
    height=st.integers(1, 64), fours=st.integers(1, 16), labels=st.integers(1, 30), noise=st.booleans(),
    iterations=st.integers(1, 4), seed=st.integers(0, 10**6),
)  # fmt: skip
def test_noise_agrees_with_pydensecrf(height, fours, labels, noise, iterations, seed):
    # To other numbers of pixels pydensecrf adds up to 3 black ones in the corner, which join its lattice.
    width = 4 * fours
    rng = np.random.default_rng(seed)
    scores = rng.random((labels, height, width), dtype=np.float32)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8) if noise else drawn_image(height, width, 3, 0)
    config = CrfConfig(iterations=iterations)  # each multiplies the roundings of a pixel between two labels by 5 or so
    np.testing.assert_allclose(refine(scores, image, config), refined("dense", scores, image, config), atol=1e-3)


@pytest.mark.parametrize(
    "widths",
    [
        {"bilateral_srgb": 0.5, "bilateral_sxy": 2},  # vertices take numbers of nearly 60 bits
        {"bilateral_srgb": 40, "gaussian_sxy": 0.7},
        {"gaussian_compat": 0, "bilateral_compat": 3, "iterations": 1},
        {"gaussian_compat": 3, "bilateral_compat": 0},
    ],
)
def test_other_parameters_agree_with_pydensecrf(widths, build):
    image = decode_image(PHOTOGRAPHS[2].read_bytes(), 10**8).pixels[:96, :120].copy()
    scores, config = ragged_scores(4, 96, 120, seed=0), CrfConfig(**widths)
    np.testing.assert_allclose(refine(scores, image, config), refined("dense", scores, image, config), atol=1e-3)


@pytest.mark.parametrize("spread", [1, 80, 1e4, 3e38])
def test_scores_far_apart_are_as_certain_as_they_can_be(spread):
    scores = np.zeros((2, 4, 5), np.float32)
    scores[1], scores[0] = spread / 2, -spread / 2
    found = refine(scores, np.zeros((4, 5, 3), np.uint8), CrfConfig())
    assert np.isfinite(found).all()
    assert (found[1] > 0.7).all()


def test_the_same_bytes_for_any_number_of_threads():
    shapes = [(3, 90, 120), (2, 1, 40), (3, 41, 57), (1, 5, 5), (9, 90, 120), (21, 40, 64), (5, 64, 1), (3, 90, 120)]
    scores = [ragged_scores(*shape, seed=n) for n, shape in enumerate(shapes)]
    images = [drawn_image(*shape[1:], colours=4, seed=n) for n, shape in enumerate(shapes)]
    alone = [refine(s, p, CrfConfig()).tobytes() for s, p in zip(scores, images, strict=True)]
    for threads in (1, 2, 7):
        found = refine_batch(scores, images, CrfConfig(), threads)
        assert [one.tobytes() for one in found] == alone


def test_other_threads_go_on_meanwhile():
    scores, image = ragged_scores(9, 300, 300, seed=0), drawn_image(300, 300, 7, seed=0)
    worker = Thread(target=refine, args=(scores, image, CrfConfig(iterations=40)))
    worker.start()
    turns = 0
    while worker.is_alive():
        worker.join(0.001)
        turns += 1
    assert turns > 10


def test_arrays_of_any_order_and_precision_are_taken():
    scores = np.random.default_rng(0).random((9, 11, 3))  # channels last, 64 bits
    image = drawn_image(18, 11, 3, seed=0)[::2]
    image.setflags(write=False)
    found = refine(scores.transpose(2, 0, 1), image, CrfConfig())
    ordered = np.ascontiguousarray(scores.transpose(2, 0, 1), dtype=np.float32)
    np.testing.assert_array_equal(found, refine(ordered, image.copy(), CrfConfig()))
    assert found.dtype == np.float32
    half = refine(ordered.astype(np.float16), image, CrfConfig())
    np.testing.assert_allclose(half, found, atol=0.05)


def test_the_kernels_of_positions_that_are_kept_have_a_limit(monkeypatch):
    monkeypatch.setattr(fast_crf, "KEPT", 1000)
    scores, image = ragged_scores(2, 20, 30, seed=0), drawn_image(20, 30, 3, seed=0)
    first = refine(scores, image, CrfConfig())
    assert list(fast_crf._kept)[-1][1] == (20, 30)
    refine(ragged_scores(2, 30, 20, seed=0), drawn_image(30, 20, 3, seed=0), CrfConfig())
    assert [size for _, size, *_ in fast_crf._kept] == [(30, 20)]
    refine(ragged_scores(2, 40, 40, seed=0), drawn_image(40, 40, 3, seed=0), CrfConfig())  # larger than the limit
    assert not fast_crf._kept
    gc.collect()
    np.testing.assert_array_equal(refine(scores, image, CrfConfig()), first)


BAD = [
    ((2, 3, 4), (4, 3, 3), r"need 3 x 4 pixels of RGB bytes, not \(4, 3, 3\) uint8"),
    ((2, 3, 4), (3, 4), r"need 3 x 4 pixels of RGB bytes, not \(3, 4\) uint8"),
    ((2, 3, 4), (3, 4, 4), r"need 3 x 4 pixels of RGB bytes, not \(3, 4, 4\) uint8"),
    ((0, 3, 4), (3, 4, 3), "at least one of each"),
    ((2, 0, 4), (0, 4, 3), "at least one of each"),
    ((3, 4), (3, 4, 3), "must have channels, rows and columns"),
    ((70_000, 2, 2), (2, 2, 3), "more than 65535 channels"),
]


@pytest.mark.parametrize(("shape", "image", "message"), BAD)
def test_scores_and_picture_that_do_not_fit_are_told(shape, image, message):
    with pytest.raises(CrfInputError, match=message):
        refine_batch([np.zeros(shape, np.float32)], [np.zeros(image, np.uint8)], CrfConfig())


def test_as_many_labels_as_there_may_be_are_taken():
    scores = np.zeros((65_535, 1, 2), np.float32)
    found = refine(scores, np.zeros((1, 2, 3), np.uint8), CrfConfig(iterations=1))
    np.testing.assert_allclose(found, 1 / 65_535, rtol=1e-4)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labels", [1, 2])
def test_scores_that_are_no_numbers_are_told(value, labels):
    scores = np.zeros((labels, 3, 4), np.float32)
    scores[0, 1, 1] = value
    with pytest.raises(CrfInputError, match="NaN or infinite"):
        refine(scores, np.zeros((3, 4, 3), np.uint8), CrfConfig())


@pytest.mark.parametrize("dtype", [np.int64, np.complex64, object, "U3"])
def test_scores_of_another_kind_are_told(dtype):
    with pytest.raises(CrfInputError, match="must be real numbers, not"):
        refine_batch([np.zeros((2, 3, 4)).astype(dtype)], [np.zeros((3, 4, 3), np.uint8)], CrfConfig())


@pytest.mark.parametrize("dtype", [np.int8, np.float32, np.uint16])
def test_pictures_of_another_kind_are_told(dtype):
    with pytest.raises(CrfInputError, match=f"not .* {np.dtype(dtype)}"):
        refine_batch([np.zeros((2, 3, 4), np.float32)], [np.zeros((3, 4, 3), dtype)], CrfConfig())


@pytest.mark.parametrize("bandwidth", [{"bilateral_srgb": 1e-6}, {"gaussian_sxy": 1e-6}, {"gaussian_sxy": 1e-45}])
def test_bandwidths_too_small_for_the_lattice_are_told(bandwidth):
    with pytest.raises(CrfInputError, match="too many standard deviations"):
        refine(np.zeros((2, 50, 50), np.float32), np.zeros((50, 50, 3), np.uint8), CrfConfig(**bandwidth))


@pytest.mark.parametrize("size", [(2**31, 1), (20_000, 20_000), (2**40, 2**40)])
def test_sizes_over_32_bits_are_told(size):
    with pytest.raises(CrfInputError, match="too large"):
        load_library("plain").smoothness(size, CrfConfig())


def test_pictures_without_scores_are_told():
    with pytest.raises(CrfInputError, match="scores of 0 pictures and 1 pictures"):
        refine_batch([], [np.zeros((3, 4, 3), np.uint8)], CrfConfig())


def test_no_picture_is_no_result():
    assert refine_batch([], [], CrfConfig(), threads=3) == []


def test_no_thread_is_told():
    with pytest.raises(CrfInputError, match="at least 1 thread, not 0"):
        refine_batch([], [], CrfConfig(), threads=0)


def test_a_bad_picture_of_a_batch_is_told_with_any_number_of_threads():
    good, bad = np.zeros((2, 3, 4), np.float32), np.full((2, 3, 4), np.nan, np.float32)
    with pytest.raises(CrfInputError, match="NaN"):
        refine_batch([good, bad, good], [np.zeros((3, 4, 3), np.uint8)] * 3, CrfConfig(), threads=2)


def test_too_little_memory_is_told():
    script = (
        "import resource, numpy as np\n"
        "from pnp_core.masks.config import CrfConfig\n"
        "from pnp_core.masks.refine.fast_crf import refine_batch\n"
        "scores, picture = np.zeros((9, 700, 700), np.float32), np.zeros((700, 700, 3), np.uint8)\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 50_000_000, resource.RLIM_INFINITY))\n"
        "refine_batch([scores], [picture], CrfConfig())\n"
    )
    if not Path("/proc/self/statm").exists():
        pytest.skip("memory can only be limited on Linux")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 1, done.stderr
    assert "CrfInputError: scores" in done.stderr.splitlines()[-1]
    assert "more memory than there is" in done.stderr.splitlines()[-1]


def test_a_library_that_is_missing_is_told(tmp_path):
    with pytest.raises(CompiledPartError, match=r"'crf_plain\.so' is not installed with pnp-ovss"):
        load_library("plain", tmp_path)


@pytest.mark.parametrize("content", [b"", b"no library", b"\x7fELF" + bytes(300)])
def test_a_library_that_is_none_is_told(tmp_path, content):
    (tmp_path / "crf_plain.so").write_bytes(content)
    with pytest.raises(CompiledPartError, match="cannot be loaded"):
        load_library("plain", tmp_path)


def test_a_library_of_something_else_is_told(tmp_path):
    other = next(Path(entry) for entry in _loaded() if "libstdc++" in entry or "libm" in entry)
    shutil.copy(other, tmp_path / "crf_plain.so")
    with pytest.raises(CompiledPartError, match="cannot be loaded"):
        load_library("plain", tmp_path)


def _loaded() -> list[str]:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("which libraries there are is only told on Linux")
    return sorted({line.split()[-1] for line in maps.read_text().splitlines() if line.count("/")})


def test_a_library_of_older_sources_is_told(monkeypatch, tmp_path):
    load_library("plain")
    installed = next(entry for entry in _loaded() if entry.endswith("_fast/crf_plain.so"))
    shutil.copy(installed, tmp_path)
    monkeypatch.setattr(fast_crf, "digest", lambda: "of later ones")
    with pytest.raises(CompiledPartError, match="made of other sources than are here: install it again"):
        load_library("plain", tmp_path)


def test_an_unknown_build_is_told(monkeypatch):
    monkeypatch.setenv(CHOICE, "avx9")
    with pytest.raises(CompiledPartError, match=r"no build 'avx9' .* available: plain, avx2"):
        refine(np.zeros((2, 3, 4), np.float32), np.zeros((3, 4, 3), np.uint8), CrfConfig())


def test_installed_checkouts_are_made_anew_when_the_sources_change():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    hook = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["custom"]
    assert hook["sources"] == digest(), f'write sources = "{digest()}" into pyproject.toml'


@pytest.mark.ops
@pytest.mark.parametrize("kind", ["address,undefined", "thread"])
@pytest.mark.parametrize("build", BUILDS)
def test_sanitizers_find_nothing(tmp_path, kind, build):
    compiler = shlex.split(os.environ.get("CXX", "")) or [shutil.which("c++") or pytest.skip("no C++ compiler")]
    sanitized = [f"-fsanitize={kind}", "-fno-sanitize-recover=all", "-pthread"]
    (tmp_path / "nothing.cpp").write_text("int main() { return 0; }")
    trial = [*compiler, *sanitized, tmp_path / "nothing.cpp", "-o", tmp_path / "nothing"]
    if subprocess.run(trial, capture_output=True, check=False).returncode or _fails(tmp_path / "nothing"):
        pytest.skip(f"this compiler or system has no sanitizers ({kind})")
    flags = ["-std=c++17", "-O1", "-g", "-ffp-contract=off", "-Wno-psabi", '-DCRF_SOURCES="of a test"']
    flags += ["-mavx2"] if build == "avx2" else []
    sources = [ROOT / "pnp_core/masks/refine/_fast/crf.cpp", Path(__file__).parent / "drive_crf.cpp"]
    made = subprocess.run(
        [*compiler, *flags, *sanitized, *sources, "-o", tmp_path / "drive"], capture_output=True, text=True, check=False
    )
    if made.returncode and build == "avx2" and "mavx2" in made.stderr:
        pytest.skip("not a compiler for x86-64")
    assert made.returncode == 0, made.stderr
    done = subprocess.run([tmp_path / "drive", build], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("a processor without AVX2")
    assert done.returncode == 0, done.stderr


def _fails(program: Path) -> bool:
    return subprocess.run([program], capture_output=True, check=False).returncode != 0


def _uv() -> Path:
    beside = Path(sys.executable).parent / "uv"
    found = beside if beside.exists() else shutil.which("uv")
    return Path(found or pytest.skip("uv is not on the path"))


@pytest.mark.ops
def test_wheels_made_of_the_source_distribution_refine_pictures(tmp_path):
    done = subprocess.run(
        [_uv(), "build", "--out-dir", tmp_path, ROOT], capture_output=True, text=True, check=False
    )  # the source distribution, and from it the wheel
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert re.search(r"-py3-none-(?!any)\w+\.whl$", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        compiled = [one for one in archive.infolist() if one.filename.endswith(".so")]
        archive.extractall(tmp_path / "site")
    assert {one.filename.rsplit("_", 1)[1] for one in compiled} >= {"plain.so"}
    assert sum(one.file_size for one in compiled) < 1_000_000
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); sys.path = [p for p in sys.path if not p.endswith(sys.argv[2])]\n"
        "import numpy as np\n"
        "from pnp_core.masks.config import CrfConfig\n"
        "from pnp_core.masks.refine import fast_crf\n"
        "assert fast_crf.__file__.startswith(sys.argv[1])\n"
        "scores, image = np.zeros((2, 9, 9), np.float32), np.zeros((9, 9, 3), np.uint8)\n"
        "print(fast_crf.refine_batch([scores], [image], CrfConfig())[0].sum())"
    )
    command = [sys.executable, "-c", script, tmp_path / "site", ROOT]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout.strip() == "81.0", ran.stderr


@pytest.mark.ops
def test_without_a_compiler_there_is_one_line_that_says_so(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").symlink_to(_uv())
    environment = {name: value for name, value in os.environ.items() if name != "CXX"}
    for named, message in [({}, "none of c++, g++, clang++ is on the path"), ({"CXX": "c+++"}, "CXX is 'c+++', which")]:
        done = subprocess.run(
            [tmp_path / "bin" / "uv", "build", "--wheel", "--python", sys.executable, "--out-dir", tmp_path, ROOT],
            env={**environment, "PATH": str(tmp_path / "bin"), **named}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode != 0
        (line,) = [line for line in done.stderr.splitlines() if "needs a C++ compiler" in line]
        assert message in line
        assert "apt-get install g++" in line
        assert "Traceback" not in done.stderr
