"""Compiles the CRF into the package when a wheel is made, or the package is installed to be edited.

Two shared libraries from the same source, for every processor of the machine's make and for x86-64 with AVX2. They have
nothing of Python in them, so one wheel serves every version.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags

SOURCES = Path("pnp_core/masks/refine/_fast")
COMPILERS = ("c++", "g++", "clang++")
# Without contraction and reassociation of float operations all builds give the same bytes, and roundings are those of
# pydensecrf.
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-ffp-contract=off", "-fno-math-errno"]
FLAGS += ["-Wno-psabi"]  # gcc's remark on vectors as arguments; none leaves the library
# Files of their own: in a single one the linker may choose the AVX2 copy of an inline function for all.
BUILDS = {"plain": [], "avx2": ["-mavx2"]}


class CustomBuildHook(BuildHookInterface):
    """Hatchling's name for it."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and name the files and the platform of the wheel.

        Of a checkout that is installed to be edited they go where other packages are too: in the checkout, whoever
        cleans it would lose them, and nothing would make them anew.
        """
        self.folder = Path(tempfile.mkdtemp(prefix="pnp-crf-"))
        made = compile_all(Path(self.root) / SOURCES, self.folder)
        wanted = {str(file): (SOURCES / file.name).as_posix() for file in made}
        build_data["force_include"].update(wanted)
        build_data["force_include_editable"].update(self.build_config.get_force_include() | wanted)
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{_platform()}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Leave nothing behind."""
        shutil.rmtree(self.folder, ignore_errors=True)


def compile_all(sources: Path, folder: Path, flags: Sequence[str] = ()) -> list[Path]:
    """Every build that this machine's processors may need, into a folder."""
    builds = BUILDS if platform.machine().lower() in ("x86_64", "amd64") else {"plain": BUILDS["plain"]}
    named = f'-DCRF_SOURCES="{digest(sources)}"'
    compiler = find_compiler()
    running = {}
    for name, own in builds.items():
        made = folder / f"crf_{name}.so"
        command = [*compiler, *FLAGS, named, *own, *flags, "-shared", str(sources / "crf.cpp"), "-o", str(made)]
        running[made] = command, subprocess.Popen(command)  # noqa: S603
    codes = {made: process.wait() for made, (_, process) in running.items()}
    for made, (command, _) in running.items():
        if codes[made]:
            raise SystemExit(f"pnp-ovss: the C++ compiler ended with {codes[made]}: {shlex.join(command)}")
    return list(running)


def digest(sources: Path) -> str:
    """Of the C++; the library and pyproject.toml name it, because uv builds anew when the latter changes."""
    return hashlib.sha256(b"".join(file.read_bytes() for file in sorted(sources.glob("*.?pp")))).hexdigest()[:16]


def find_compiler() -> list[str]:
    """What CXX says, or the first C++ compiler on the path."""
    named = shlex.split(os.environ.get("CXX", ""))
    for command in [named] if named else [[name] for name in COMPILERS]:
        if shutil.which(command[0]):
            return command
    missing = f"CXX is '{named[0]}', which is not there" if named else f"none of {', '.join(COMPILERS)} is on the path"
    raise SystemExit(
        f"pnp-ovss needs a C++ compiler to be installed from source, and {missing}:"
        " install g++ (Debian, Ubuntu: apt-get install g++; macOS: xcode-select --install), or set CXX"
    )


def _platform() -> str:
    """Of this machine; wheels for several Linuxes would have to be made on an old one."""
    return next(tag.platform for tag in sys_tags() if not tag.platform.startswith(("manylinux", "musllinux")))
