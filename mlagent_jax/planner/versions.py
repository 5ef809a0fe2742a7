"""The versions that a plan was made with; another compiler may give another plan."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("jax", "jaxlib", "flax", "optax")
_COMPILERS = {"tpu": ("libtpu",), "cuda": ("jax-cuda12-plugin", "jax-cuda12-pjrt", "nvidia-cudnn-cu12")}


def versions(platform: str) -> dict[str, str]:
    """Versions of the packages that decide what is compiled for a platform, "tpu" or "cuda".

    Empty for a package that is not installed.
    """
    return {package: _version(package) for package in (*_PACKAGES, *_COMPILERS[platform])}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
