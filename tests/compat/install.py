"""Installs the foreign clients into the ignored cache: Kafka's jars, a Python environment, the compiled Java
client.

Each part leaves a stamp of what it was made from, so a second run does nothing and needs no network.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CACHE = ROOT / ".cache" / "compat"
JARS = CACHE / "jars"
CLASSES = CACHE / "classes"
VENV = CACHE / "venv"
PACKAGES = CACHE / "python"


def _run(command: List[str]) -> bool:
    return subprocess.run(command, cwd=HERE, stdin=subprocess.DEVNULL).returncode == 0


def _stale(name: str, sources: List[Path]) -> str:
    """The stamp to leave when the part must be made, or nothing when the one there was made from these sources."""
    stamp = hashlib.sha1(b"".join(source.read_bytes() for source in sources)).hexdigest()
    path = CACHE / f"{name}.stamp"
    return "" if path.exists() and path.read_text() == stamp else stamp


def _done(name: str, stamp: str) -> None:
    (CACHE / f"{name}.stamp").write_text(stamp)


def install_jars() -> None:
    """Kafka's clients, tools and broker. Maven's own store is tried first, so a filled one needs no network."""
    stamp = _stale("jars", [HERE / "pom.xml"])
    if not stamp:
        return
    shutil.rmtree(JARS, ignore_errors=True)
    copy = ["mvn", "-q", "-B", "dependency:copy-dependencies", f"-DoutputDirectory={JARS}", "-DincludeScope=runtime"]
    offline = subprocess.run(copy + ["-o"], cwd=HERE, stdin=subprocess.DEVNULL, capture_output=True)
    if offline.returncode != 0 and not _run(copy):
        raise SystemExit("maven could not bring Kafka's jars")
    _done("jars", stamp)


def install_java_client() -> None:
    """Compiles the Java client against the jars."""
    source = HERE / "clients" / "RoundTrip.java"
    stamp = _stale("classes", [source, HERE / "pom.xml"])
    if stamp:
        CLASSES.mkdir(parents=True, exist_ok=True)
        if not _run(["javac", "-d", str(CLASSES), "-cp", f"{JARS}/*", str(source)]):
            raise SystemExit("javac could not compile the Java client")
        _done("classes", stamp)


def install_python() -> None:
    """kafka-python and confluent-kafka in a virtual environment, or in a plain folder where Python lacks venv."""
    requirements = HERE / "requirements.txt"
    stamp = _stale("python", [requirements])
    if not stamp:
        return
    pip = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", str(requirements)]
    shutil.rmtree(VENV, ignore_errors=True)
    in_venv = _run([sys.executable, "-m", "venv", str(VENV)])
    if in_venv:
        good = _run([str(VENV / "bin" / "python")] + pip)
    else:
        shutil.rmtree(VENV, ignore_errors=True)
        good = _run([sys.executable] + pip + ["--target", str(PACKAGES)])
    if not good:
        raise SystemExit("pip could not bring the Python clients")
    _done("python", stamp)


def ensure() -> None:
    """Everything, quickly when it is there already."""
    CACHE.mkdir(parents=True, exist_ok=True)
    install_jars()
    install_java_client()
    install_python()


def python() -> str:
    """The interpreter that has the Python clients."""
    inside = VENV / "bin" / "python"
    return str(inside) if inside.exists() else sys.executable


def environment() -> dict:
    """The environment for client programs: nothing of the caller's JVM options, our packages where there is no venv."""
    variables = {k: v for k, v in os.environ.items() if k not in ("KAFKA_OPTS", "KAFKA_HEAP_OPTS", "CLASSPATH")}
    if not VENV.exists():
        variables["PYTHONPATH"] = str(PACKAGES)
    return variables


def java(main_class: str, *arguments: str, heap: str = "512m") -> List[str]:
    """The command that runs a main class from the jars; only warnings reach standard error."""
    level = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
    return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", level, "-cp", f"{CLASSES}:{JARS}/*",
            main_class, *arguments]


if __name__ == "__main__":
    ensure()
