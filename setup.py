"""Installation of the extension; two top-level folders are mapped into the package."""

import re
import runpy
from pathlib import Path

from setuptools import find_packages, setup

PACKAGE = "nnunetv2_slicemamba"
HERE = Path(__file__).parent
# run, not imported: the package's dependencies are not there yet
VERSION = runpy.run_path(str(HERE / PACKAGE / "common" / "version.py"))

# pages and pictures of the clone are not on a package index: a link to them becomes its text, a picture goes
README = (HERE / "README.md").read_text(encoding="utf-8")
README = re.sub(r"!\[[^\]]*\]\((?!https:)[^)]*\)\n*", "", README)
README = re.sub(r"\[([^\]]+)\]\((?!https:)[^)]*\)", r"\1", README)

postgresql = ["psycopg[binary]>=3.1"]
export = ["onnx>=1.16", "onnxscript>=0.2", "onnxruntime>=1.18"]
pretrain = ["timm>=1.0.9", "torchvision", "tensorboard", "webdataset>=0.2.86"]
docs = ["mkdocs>=1.6,<2", "mkdocs-material>=9.5", "mkdocstrings[python]>=1,<2"]
test = [
    *docs,
    *export,
    *postgresql,
    *pretrain,
    "pytest>=8,<9",  # pytest-xdist 3.8 does not honour xdist_group with pytest 9
    "pytest-xdist>=3.5",
    "pytest-timeout>=2.3",
    "hypothesis>=6.100",
    "playwright>=1.45",
    "ruff>=0.17,<0.18",  # another minor version formats and complains otherwise; .pre-commit-config.yaml has the same
    "mypy>=1.11",
    "import-linter>=2.7,<3",
]

setup(
    name="nnunetv2-slicemamba",
    version=VERSION["__version__"],
    description="SliceMamba with its architecture search, as an extension of nnU-Net v2",
    long_description=README,
    long_description_content_type="text/markdown",
    author="The nnunetv2_slicemamba contributors",
    project_urls={
        "Publication": "https://arxiv.org/abs/2407.08481",
        "nnU-Net": "https://github.com/MIC-DKFZ/nnUNet",
    },
    keywords=[
        "medical image segmentation",
        "nnU-Net",
        "Mamba",
        "state-space model",
        "neural architecture search",
        "deep learning",
        "PyTorch",
    ],
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Environment :: Console",
        "Environment :: GPU :: NVIDIA CUDA",
        "Intended Audience :: Developers",
        "Intended Audience :: Healthcare Industry",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    # the code; the nuclei and the hippocampus crops of the demo
    license_expression="Apache-2.0 AND CC0-1.0 AND CC-BY-SA-4.0",
    license_files=[
        "LICENSE",
        *(f"{PACKAGE}/demo/data/{name}" for name in ("hippocampus3d/LICENSE.txt", "nuclei2d/README.txt")),
    ],
    python_requires=">=3.10",
    packages=[
        *find_packages(include=[PACKAGE, f"{PACKAGE}.*"]),
        *(f"{PACKAGE}.{name}" for name in ("ext_trainer", "trainers", "search")),
        *(f"{PACKAGE}.search.{name}" for name in find_packages("search")),
    ],
    package_dir={
        PACKAGE: PACKAGE,
        f"{PACKAGE}.trainers": "trainers",
        f"{PACKAGE}.search": "search",
    },
    package_data={
        PACKAGE: ["ops/cuda/*.cu", "ops/cuda/*.cuh", "demo/data/**/*", "report/templates/**/*"],
        f"{PACKAGE}.search.figures": ["templates/*"],
        "": ["py.typed"],
    },
    install_requires=[
        VERSION["NNUNET_REQUIREMENT"],
        "torch>=2.6",
        "blosc2>=4.14.1; python_version >= '3.11'",  # older ones run code that a preprocessed array names
        "numpy>=1.24",
        "batchgenerators>=0.25.1",
        "dynamic-network-architectures>=0.4.4,<0.5",
        "SimpleITK>=2.2.1",
        "scipy>=1.10",
        "scikit-image>=0.20",
        "optuna>=4.0",
        "typer>=0.16",
        "rich>=13",
        "matplotlib>=3.7",
        "numba>=0.60; python_version < '3.15'",
        "monai>=1.3",
        "h5py>=3.8",
        "jinja2>=3.1",
        "Pillow>=10.1",
        "filelock>=3.12",
        "nibabel>=5",
        "tifffile>=2023.1.23",
        "submitit>=1.5,<2",
    ],
    extras_require={
        "mamba": ["mamba-ssm>=2.2", "causal-conv1d>=1.4"],
        "postgresql": postgresql,
        "export": export,
        "pretrain": pretrain,
        "docs": docs,
        "test": test,
    },
    entry_points={"console_scripts": ["slicemamba=nnunetv2_slicemamba.cli:main"]},
)
