"""Workflows that run the gate on every change: what GitHub and GitLab are told, as text."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from deploykit.atomic import replacing
from deploykit.errors import UsageError


class Provider(StrEnum):
    """Whose CI runs the gate."""

    GITHUB = "github"
    GITLAB = "gitlab"


# What decides the files: recipes, weights, own code and the versions that are installed.
_SOURCES = ("**/*.toml", "**/*.pt", "**/*.pth", "**/*.safetensors", "**/*.py", "**/requirements*.txt")

GITHUB = """\
# Written by deploykit ci init github. Exports what deploykit.toml names, and holds it to its budgets.
name: deploykit gate

on:
  pull_request:
  push:
    branches: [main]

permissions:
  contents: read
  pull-requests: write

concurrency:
  group: deploykit-gate-${{{{ github.ref }}}}
  cancel-in-progress: true

jobs:
  gate:
    runs-on: ubuntu-latest
    timeout-minutes: 60
    steps:
      - uses: actions/checkout@v4
      - uses: actions/setup-python@v5
        with:
          python-version: "3.11"
      - name: Install
        run: python -m pip install 'deploykit[all]'
      - name: Versions decide the files too
        run: python -m pip freeze > .deploykit-versions
      - name: The exported files, while nothing that makes them changes
        id: files
        uses: actions/cache@v4
        with:
          path: artifacts
          key: deploykit-files-${{{{ hashFiles('.deploykit-versions', {github_sources}) }}}}
      - name: The files of the baseline, by their hash
        uses: actions/cache@v4
        with:
          path: .deploykit
          key: deploykit-baseline-${{{{ hashFiles('gate-baseline.json') }}}}
      - name: Export
        if: steps.files.outputs.cache-hit != 'true'
        run: deploykit export --target all
      - name: Gate
        run: deploykit gate --junit gate.xml --summary gate.md
      - name: Summary
        if: always()
        run: if [ -f gate.md ]; then cat gate.md >> "$GITHUB_STEP_SUMMARY"; fi
      - name: Comment the table on the change
        if: >-
          always() && github.event_name == 'pull_request'
          && github.event.pull_request.head.repo.full_name == github.repository
        env:
          GH_TOKEN: ${{{{ github.token }}}}
          NUMBER: ${{{{ github.event.pull_request.number }}}}
        run: >-
          if [ -f gate.md ]; then
          gh pr comment "$NUMBER" --body-file gate.md --edit-last --create-if-none; fi
"""

GITLAB = """\
# Written by deploykit ci init gitlab. Exports what deploykit.toml names, and holds it to its budgets.
# Add it to .gitlab-ci.yml with: include: {{local: .gitlab/deploykit-gate.yml}}
# For the comment on a merge request, give the project a masked variable DEPLOYKIT_GITLAB_TOKEN, a token with api scope.
deploykit-gate:
  image: python:3.11
  timeout: 1 hour
  rules:
    - if: $CI_PIPELINE_SOURCE == "merge_request_event"
    - if: $CI_COMMIT_BRANCH == $CI_DEFAULT_BRANCH
  cache:
    - key:
        files: [deploykit.toml, gate-baseline.json]
      paths: [.deploykit/]
  script:
    - python -m pip install 'deploykit[all]'
    - deploykit export --target all
    - deploykit gate --junit gate.xml --summary gate.md
  after_script:
    - >-
      if [ -f gate.md ] && [ -n "$DEPLOYKIT_GITLAB_TOKEN" ] && [ -n "$CI_MERGE_REQUEST_IID" ]; then
      curl --fail --silent --show-error --output /dev/null
      --header "PRIVATE-TOKEN: $DEPLOYKIT_GITLAB_TOKEN" --data-urlencode "body@gate.md"
      "$CI_API_V4_URL/projects/$CI_PROJECT_ID/merge_requests/$CI_MERGE_REQUEST_IID/notes"; fi
  artifacts:
    when: always
    paths: [gate.md]
    reports:
      junit: gate.xml
"""
FILES = {
    Provider.GITHUB: (Path(".github") / "workflows" / "deploykit-gate.yml", GITHUB),
    Provider.GITLAB: (Path(".gitlab") / "deploykit-gate.yml", GITLAB),
}


def workflow(provider: Provider) -> str:
    """Return the text of the workflow."""
    return FILES[provider][1].format(github_sources=", ".join(f"'{one}'" for one in _SOURCES))


def write_workflow(provider: Provider, folder: Path, *, overwrite: bool = False) -> Path:
    """Write the workflow below ``folder`` and return its path, whole or not at all.

    Raises UsageError where it exists already, unless ``overwrite``, or cannot be written.
    """
    path = folder / FILES[provider][0]
    if path.exists() and not overwrite:
        raise UsageError(
            "The workflow exists already.", where=str(FILES[provider][0]), next_step="write over it with --force"
        )
    try:
        with replacing(path) as temporary:
            temporary.write_text(workflow(provider), "utf-8")
    except OSError as error:
        raise UsageError(
            "The workflow cannot be written.",
            where=str(FILES[provider][0]),
            found=error.strerror or str(error),
            expected="a folder that can be written",
        ) from error
    return path
