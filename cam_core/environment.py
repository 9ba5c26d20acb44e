"""The environment of a process: versions of packages, and memory that glibc keeps. Does not load torch."""

import ctypes
import importlib.metadata
import platform

PACKAGES = (
    *("torch", "torchvision", "torchmetrics", "lightning-fabric", "safetensors", "numpy", "scipy", "pandas"),
    *("pyarrow", "pillow", "papermill", "onnxruntime", "cam-core"),
)
# glibc returns the memory of every large activation and allocates it again; keeping it makes a forward pass up to a third faster.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}


def keep_pages() -> None:
    """Apply ALLOCATOR to this process, which has already read its environment; does nothing if the C library is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        for parameter, value in zip((-3, -1, -2), ALLOCATOR.values(), strict=True):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            ctypes.CDLL(None).mallopt(parameter, min(int(value), 2**31 - 1))


def give_back_pages() -> None:
    """Return what was freed to the system now, whatever `keep_pages` keeps: after a step that needs much memory once."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def versions() -> dict[str, str]:
    """The installed versions of the packages that can change a number."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
