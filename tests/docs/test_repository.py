"""What contributors and forges read: workflows, templates, citation and container agree with the package."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.site_pages import REPOSITORY

GITHUB = REPOSITORY / ".github"
SETUP = (REPOSITORY / "setup.py").read_text(encoding="utf-8")
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def read(*parts: str) -> Any:
    return yaml.safe_load(REPOSITORY.joinpath(*parts).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def jobs() -> dict[str, Any]:
    return read(".github", "workflows", "checks.yml")["jobs"]


def commands(job: dict[str, Any]) -> str:
    return "\n".join(step.get("run", "") for step in job["steps"])


def test_every_workflow_runs_on_something_and_may_only_read() -> None:
    files = sorted((GITHUB / "workflows").iterdir())
    assert files
    for file in files:
        workflow = yaml.safe_load(file.read_text(encoding="utf-8"))
        assert workflow["permissions"] == {"contents": "read"}
        assert {"push", "pull_request"} <= set(workflow[True])  # YAML 1.1 reads the key "on" as true
        for name, job in workflow["jobs"].items():
            assert {"runs-on", "timeout-minutes"} <= set(job), name
            assert all(("run" in step) != ("uses" in step) for step in job["steps"]), name


def test_tests_run_on_three_systems_and_on_every_python_that_is_promised(jobs: dict[str, Any]) -> None:
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert {name.split("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}
    assert matrix["python"] == re.findall(r"Python :: (3\.\d+)", SETUP)
    assert f'python_requires=">={matrix["python"][0]}"' in SETUP


def test_lint_minimum_versions_documentation_and_wheel_have_a_job(jobs: dict[str, Any]) -> None:
    assert "make lint" in commands(jobs["lint"])
    assert "--resolution lowest-direct" in commands(jobs["minimum"])
    assert "make typed\nmkdocs build --strict" in commands(jobs["docs"])
    assert "twine check --strict" in commands(jobs["wheel"])


def test_the_workflows_tests_are_those_of_make_test(jobs: dict[str, Any]) -> None:
    (options,) = re.findall(r"^test: lint\n\t\$\(BIN\)/python -m pytest (.*)$", MAKEFILE, re.MULTILINE)
    for name in ("tests", "minimum"):
        assert f"python -m pytest {options}".replace("'", '"') in commands(jobs[name])


def test_what_the_minimum_job_leaves_out_exists(jobs: dict[str, Any]) -> None:
    left_out = re.findall(r"--(?:ignore|deselect) ([^ :]+)(?:::(\w+))?", commands(jobs["minimum"]))
    assert left_out
    for path, name in left_out:
        assert (REPOSITORY / path).exists(), path
        assert not name or f"def {name}(" in (REPOSITORY / path).read_text(encoding="utf-8"), name


def test_a_report_of_a_fault_brings_the_doctors_output() -> None:
    fields = read(".github", "ISSUE_TEMPLATE", "fault.yml")["body"]
    (doctor,) = [field for field in fields if "`slicemamba doctor`" in field["attributes"]["label"]]
    assert doctor["validations"]["required"] is True


def test_the_citation_names_the_software_the_method_and_nnu_net() -> None:
    citation = read("CITATION.cff")
    assert citation["title"] == "nnunetv2_slicemamba"
    families = [[author["family-names"] for author in work["authors"]] for work in citation["references"]]
    assert [names[0] for names in families] == ["Fan", "Isensee"]
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for work, names in zip(citation["references"], families, strict=True):
        assert work["url" if "url" in work else "doi"] in readme
        assert all(name in readme for name in names)


def test_pre_commit_runs_a_pinned_ruff() -> None:
    (repository,) = read(".pre-commit-config.yaml")["repos"]
    assert re.fullmatch(r"v\d+\.\d+\.\d+", repository["rev"])
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]


def test_the_container_has_cuda_and_an_unprivileged_user() -> None:
    lines = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8").splitlines()
    assert re.fullmatch(r"FROM nvidia/cuda:[\d.]+-runtime-\S+", next(line for line in lines if line[:4] == "FROM"))
    users = [line.split()[1] for line in lines if line.startswith("USER ")]
    assert users
    assert "root" not in users
    install = next(number for number, line in enumerate(lines) if "pip install" in line)
    assert install > lines.index(f"USER {users[0]}")


def test_every_licence_of_what_is_shipped_is_stated() -> None:
    expression = re.findall(r'license_expression="([^"]+)"', SETUP)[0]
    data = Path(importlib.import_module("nnunetv2_slicemamba").__file__ or "").parent / "demo" / "data"
    texts = " ".join(file.read_text(encoding="utf-8") for file in data.glob("*/*.txt"))
    assert ("CC BY-SA 4.0" in texts) == ("CC-BY-SA-4.0" in expression)
    assert ("CC0" in texts) == ("CC0-1.0" in expression)
    assert expression.startswith("Apache-2.0")
