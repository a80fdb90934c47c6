"""Workflows for CI: valid YAML, commands that exist, and never written over something."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer

from deploykit.ci_files import Provider, workflow, write_workflow
from deploykit.cli.main import app, run_command
from deploykit.errors import UsageError
from deploykit.gate_measuring.run import RULES

ROOT = Path(__file__).parents[1]
COMMAND = re.compile(r"\bdeploykit (export|gate)((?: --?[a-z-]+(?: [^-\s;|\\]+)?)*)")
yaml = pytest.importorskip("yaml")


@pytest.mark.parametrize("provider", list(Provider))
def test_a_workflow_is_written_once_and_over_only_when_told(provider: Provider, tmp_path: Path) -> None:
    path = write_workflow(provider, tmp_path)
    assert path.read_text("utf-8") == workflow(provider)
    path.write_text("mine", "utf-8")
    with pytest.raises(UsageError, match="exists already"):
        write_workflow(provider, tmp_path)
    assert path.read_text("utf-8") == "mine"
    write_workflow(provider, tmp_path, overwrite=True)
    assert path.read_text("utf-8") == workflow(provider)
    assert len(list(path.parent.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / ".github").write_text("", "utf-8")
    with pytest.raises(UsageError, match="cannot be written"):
        write_workflow(Provider.GITHUB, tmp_path)


def test_the_command_says_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for code in (0, 2):
        monkeypatch.setattr("sys.argv", ["deploykit", "ci", "init", "github"])
        with pytest.raises(SystemExit) as ended:
            run_command()
        assert (ended.value.code or 0) == code
    printed = capsys.readouterr()
    assert printed.out == ".github/workflows/deploykit-gate.yml\n"
    assert "--force" in printed.err


def scripts(text: str) -> list[str]:
    """Return every shell script in a YAML text."""
    found: list[str] = []

    def walk(value: object, key: str = "") -> None:
        if isinstance(value, dict):
            for name, inner in value.items():
                walk(inner, str(name))
        elif isinstance(value, list):
            for inner in value:
                walk(inner, key)
        elif key in ("run", "script", "after_script", "entry") and isinstance(value, str):
            found.append(value)

    walk(yaml.safe_load(text))
    return found


FILES = {
    "github": lambda: workflow(Provider.GITHUB),
    "gitlab": lambda: workflow(Provider.GITLAB),
    "action": lambda: (ROOT / "action.yml").read_text("utf-8"),
    "hook": lambda: (ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"),
}


@pytest.mark.parametrize("name", FILES)
def test_scripts_are_valid_shell_and_name_options_that_exist(name: str) -> None:
    found = scripts(FILES[name]())
    assert any("deploykit gate" in one for one in found)
    root = typer.main.get_command(app)
    context = root.make_context("deploykit", ["recipes"], resilient_parsing=True)
    for script in found:
        subprocess.run(["bash", "-n", "-c", script], check=True)
        # Expressions of the provider in a script would let a branch's name write code.
        assert "${{" not in script
        for command, rest in COMMAND.findall(script):
            options = {one for parameter in root.get_command(context, command).params for one in parameter.opts}
            assert set(re.findall(r"--[a-z-]+", rest)) <= options
        assert set(re.findall(r"--only (\S+)", script)) <= set(RULES)


def test_the_github_workflow_keeps_files_by_hash_and_comments_only_where_it_may() -> None:
    job = yaml.safe_load(workflow(Provider.GITHUB))["jobs"]["gate"]
    caches = [one["with"] for one in job["steps"] if str(one.get("uses", "")).startswith("actions/cache")]
    assert [one["path"] for one in caches] == ["artifacts", ".deploykit"]
    assert all("hashFiles(" in one["key"] for one in caches)
    (comment,) = (one for one in job["steps"] if "gh pr comment" in one.get("run", ""))
    assert "head.repo.full_name == github.repository" in comment["if"]
