"""Stands for ``adb`` and a phone behind it: hardware that this project does not have.

Run as a program. Scripts run in a real shell, whose /data/local/tmp is a folder of the test and whose commands
(getprop, dumpsys, benchmark_model) replay public texts. What happens is read from ``plan.json`` beside this call's
folder, and every call is written to ``calls.log``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

HOME = os.environ.get("STAND_IN_ADB", ".")
PHONE = f"{HOME}/phone"


def main(words: list[str]) -> int:
    plan: dict[str, Any] = json.loads(read("plan.json"))
    with open(f"{HOME}/calls.log", "a", encoding="utf-8") as log:  # noqa: PTH123 - pathlib would double the start
        log.write(json.dumps(words) + "\n")
    if words == ["devices"]:
        lines = "".join(f"{serial}\t{state}\n" for serial, state in plan["devices"].items())
        sys.stdout.write(f"List of devices attached\n{lines}\n")
        return 0
    if words[:1] == ["-s"]:
        serial, words = words[1], words[2:]
        if plan["devices"].get(serial) != "device" or os.access(f"{HOME}/gone", os.F_OK):
            sys.stderr.write(plan.get("gone_text") or f"error: device '{serial}' not found\n")
            return 1
    if words[0] == "push":
        return push(plan, words[1], words[2])
    return shell(plan, words[1])


def push(plan: dict[str, Any], source: str, target: str) -> int:
    if plan.get("full"):
        sys.stdout.write(plan["full"].format(source=source, target=target))
        return int(plan.get("full_returns", 1))
    sys.stdout.write(f"{source}: 1 file pushed, 0 skipped. 1.9 MB/s (1 bytes in 0.001s)\n")
    sys.stdout.flush()
    return become("cp", source, target.replace("/data/local/tmp", PHONE))


def shell(plan: dict[str, Any], script: str) -> int:
    if "./benchmark_model" in script:
        number = int(read("runs") or "0")
        write("runs", str(number + 1))
        event = plan.get("events", {}).get(str(number))
        if event == "lost":
            write("gone", "")
            return 255
        if event == "hangs":
            time.sleep(60)
        if event == "interrupt":
            interrupt(plan["test_pid"])
    script = script.replace("/data/local/tmp", PHONE).replace("./benchmark_model", f"{HOME}/tool")
    os.environ["PATH"] = f"{HOME}/bin:{os.environ['PATH']}"
    return become("sh", "-c", script)


def interrupt(test: int) -> None:
    """Let a program run on the phone, then press Ctrl-C: it reaches the whole program, as from a terminal."""
    child = os.fork()
    if child == 0:
        os.setsid()
        for number in range(3):
            os.close(number)
        become("sleep", "60")
    write(f"phone/{next(os.scandir(PHONE)).name}/pid", str(child))
    write("sleeper", str(child))
    os.kill(test, 2)
    time.sleep(60)


def become(*words: str) -> int:
    os.execvp(words[0], words)
    return 0


def read(name: str) -> str:
    try:
        with open(f"{HOME}/{name}", encoding="utf-8") as file:  # noqa: PTH123
            return file.read()
    except FileNotFoundError:
        return ""


def write(name: str, text: str) -> None:
    with open(f"{HOME}/{name}", "w", encoding="utf-8") as file:  # noqa: PTH123
        file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
