from __future__ import annotations

import os
import subprocess
import sys

import pytest

import deploykit as package

HEAVY = ("torch", "numpy", "cv2", "pydantic", "scipy", "coremltools", "onnx", "onnxruntime", "litert_torch")


def run_python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    return done.stdout


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv=['deploykit','--help']\n"
        "from deploykit.cli.main import main\n"
        "try: main()\nexcept SystemExit: pass\n"
        f"print('LOADED', [m for m in {HEAVY!r} if m in sys.modules])"
    )
    assert run_python(code).rstrip().endswith("LOADED []")


def test_importing_the_package_is_light():
    assert run_python(f"import sys, deploykit; print([m for m in {HEAVY!r} if m in sys.modules])").strip() == "[]"


def test_every_public_call_exists_and_is_documented():
    for name in ("load_recipe", "simplify", "verify_reparam", "export", "run", "bench", "load"):
        assert getattr(package, name).__doc__
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = package.nothing_of_that_name


def test_version(deploykit):
    result = deploykit("--version")
    assert (result.code, result.out.strip()) == (0, f"deploykit {package.__version__}")


def test_a_bug_stays_a_traceback_and_exits_70(deploykit, monkeypatch):
    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr("deploykit.recipe.bundled_recipes", broken)
    result = deploykit("recipes")
    assert result.code == 70
    assert "Traceback" in result.err
    assert "planted" in result.err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("export", "nosuch"), "There is no such recipe"),
        (("export", "sinet", "--target", "foo"), "onnx, coreml, tflite, coreai, all"),
        (("export", "sinet", "--target", "onnx,foo"), "found: foo"),
        (("export", "sinet", "--target", ""), "an empty name"),
        (("export", "sinet", "--size", "10"), "HEIGHTxWIDTH"),
        (("export", "sinet", "--size", "0x10"), "HEIGHTxWIDTH"),
        (("export", "sinet", "--target", "onnx", "--layout", "nhwc"), "--layout nhwc"),
        (("export", "sinet", "--target", "coreml", "--opset", "18"), "does not apply to coreml"),
        (("export", "sinet", "--target", "onnx", "--opset", "3"), "18, 19"),
        (("export", "sinet", "--target", "coreml", "--minimum-os", "iOS9"), "iOS15"),
        (("export", "sinet", "--precision", "int4"), "int4"),
        (("export", "sinet", "--variant", "x"), "phone-camera"),
        (("export", "sinet", "--checkpoint", "nowhere.pth"), "nowhere.pth"),
        (("export", "sinet", "--images", "nowhere"), "nowhere"),
        (("export", "sinet", "--output-kind", "heatmap"), "heatmap"),
        (("verify-reparam", "sinet", "--images", "nowhere"), "nowhere"),
        (("verify-reparam", "no.toml"), "no.toml"),
        (("run", "nowhere.onnx", "--input", "x.png"), "no manifest"),
        (("init", "nowhere.pth"), "nowhere.pth"),
    ],
)
def test_what_a_user_can_get_wrong_is_one_error_with_exit_code_2(deploykit, arguments, expected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = deploykit(*arguments)
    assert result.code == 2
    assert expected.lower() in result.err.lower()
    assert "Traceback" not in result.err
    assert result.out == ""
    assert list(tmp_path.iterdir()) == []


def test_recipes_as_json(deploykit):
    import json

    record = json.loads(deploykit("recipes", "--json").out)
    assert {"rcrnet", "sinet"} <= {one["name"] for one in record["body"]}


@pytest.mark.parametrize(("redirect", "codes"), [(">&-", {0}), ("| head -1", {0}), (">/dev/full", {2})])
def test_a_stdout_that_goes_away_is_no_bug(redirect, codes):
    program = f"{sys.executable} -c 'from deploykit.cli.main import main; main()' recipes {redirect}"
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode in codes
    assert "Traceback" not in done.stderr


def test_sigterm_leaves_nothing_half_written(small_recipe, tmp_path):
    program = (sys.executable, "-c", "from deploykit.cli.main import main; main()")
    command = [*program, "export", small_recipe, "--target", "onnx", "-o", "out"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "onnx: converting" in line:
                process.terminate()
                break
        process.stderr.read()
    assert process.returncode == 143
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
