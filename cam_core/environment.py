"""The process that computes: the packages behind a number, and memory that glibc keeps (without torch)."""

import ctypes
import importlib.metadata
import platform

PACKAGES = (
    *("torch", "torchvision", "torchmetrics", "lightning-fabric", "safetensors", "numpy", "scipy", "pandas"),
    *("pyarrow", "pillow", "papermill", "cam-core"),
)
# glibc gives every large activation's pages back and faults them in anew; told to keep them, a forward pass takes up to a third less.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}


def keep_pages() -> None:
    """ALLOCATOR for this very process, which has read its environment already; nothing where the C library is not glibc."""
    if platform.libc_ver()[0] == "glibc":
        for parameter, value in zip((-3, -1, -2), ALLOCATOR.values(), strict=True):  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
            ctypes.CDLL(None).mallopt(parameter, min(int(value), 2**31 - 1))


def versions() -> dict[str, str]:
    """Versions of the packages that can move a number, as installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
