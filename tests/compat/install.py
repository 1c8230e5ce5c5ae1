"""Installs the foreign clients into the ignored cache: jars of Kafka and of older Java clients, with the Java client
compiled against each; a Python environment; Node's packages; the Go client.

Each part leaves a stamp of what it was made from, so a second run does nothing and needs no network. Versions are
pinned in pom.xml and JAVA_CLIENTS, requirements.txt, package-lock.json and go.sum.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import List, Optional

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
CLIENTS = HERE / "clients"
CACHE = ROOT / ".cache" / "compat"
JARS = CACHE / "jars"
VENV = CACHE / "venv"
PACKAGES = CACHE / "python"
NODE = CACHE / "node"
GO = CACHE / "go"
# The broker and the tools are of this version, so its client comes with their jars.
KAFKA = "4.3.1"
JAVA_CLIENTS = ["0.11.0.3", "2.8.2", "3.9.1", KAFKA]
HABITS = {"0.11.0.3": "v0_11", KAFKA: "v4"}


def _run(command: List[str], cwd: Path = HERE, env: Optional[dict] = None) -> bool:
    try:
        return subprocess.run(command, cwd=cwd, env=env, stdin=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not installed; README.md lists what the tests need") from None


def _stale(name: str, sources: List[Path], more: str = "") -> str:
    """The stamp to leave when the part must be made, or nothing when the one there was made from these sources."""
    stamp = hashlib.sha1(b"".join(source.read_bytes() for source in sources) + more.encode()).hexdigest()
    path = CACHE / f"{name}.stamp"
    return "" if path.exists() and path.read_text() == stamp else stamp


def _done(name: str, stamp: str) -> None:
    (CACHE / f"{name}.stamp").write_text(stamp)


def jars(version: str) -> Path:
    """The folder of a Java client's jars."""
    return JARS if version == KAFKA else CACHE / f"jars-{version}"


def classes(version: str) -> Path:
    """The folder of our classes compiled against a version."""
    return CACHE / f"classes-{version}"


def install_jars(version: str) -> None:
    """One version's jars. Maven's own store is tried first, so a filled one needs no network."""
    pom = HERE / "pom.xml" if version == KAFKA else CLIENTS / "pom.xml"
    stamp = _stale(f"jars-{version}", [pom], version)
    if not stamp:
        return
    folder = jars(version)
    shutil.rmtree(folder, ignore_errors=True)
    copy = ["mvn", "-q", "-B", "-f", str(pom), f"-Dkafka.version={version}", "dependency:copy-dependencies",
            f"-DoutputDirectory={folder}", "-DincludeScope=runtime"]
    try:
        filled = subprocess.run(copy + ["-o"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0
    except FileNotFoundError:
        filled = False
    if not filled and not _run(copy):
        raise SystemExit(f"maven could not bring the jars of {version}")
    _done(f"jars-{version}", stamp)


def install_java_client(version: str) -> None:
    """Compiles the Java client against the jars of one version."""
    sources = [CLIENTS / "RoundTrip.java"]
    # The oldest client has another way to poll.
    if version != JAVA_CLIENTS[0]:
        sources.append(CLIENTS / "GroupMember.java")
    # The host of the tools is for the version that has them; crowds and readers in racks are of the newest client.
    if version == KAFKA:
        sources += [CLIENTS / name for name in ("ToolHost.java", "CrowdMember.java", "RackReader.java")]
    # The habits are for both ends of the versions; what differs between them stands in a folder of its own.
    if version in HABITS:
        sources += sorted((CLIENTS / "habits").glob("*.java")) + sorted((CLIENTS / "habits" / HABITS[version]).glob("*.java"))
    stamp = _stale(f"classes-{version}", [*sources, CLIENTS / "pom.xml", HERE / "pom.xml"], version)
    if stamp:
        classes(version).mkdir(parents=True, exist_ok=True)
        if not _run(["javac", "-Xlint:-deprecation", "-d", str(classes(version)), "-cp", f"{jars(version)}/*", *map(str, sources)]):
            raise SystemExit(f"javac could not compile the Java client against {version}")
        _done(f"classes-{version}", stamp)


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


def install_node() -> None:
    """kafkajs and its codecs. No install script runs: the native codecs come compiled, or not at all."""
    sources = [CLIENTS / "kafkajs" / name for name in ("package.json", "package-lock.json")]
    stamp = _stale("node", sources)
    if not stamp:
        return
    shutil.rmtree(NODE, ignore_errors=True)
    NODE.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, NODE)
    if not _run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"], cwd=NODE):
        raise SystemExit("npm could not bring kafkajs")
    _done("node", stamp)


def install_go() -> None:
    """Builds the franz-go client; its modules and the compiler's cache lie in our cache too."""
    folder = CLIENTS / "franz_go"
    stamp = _stale("go", [folder / name for name in ("main.go", "member.go", "rack.go", "habits.go", "go.mod", "go.sum")])
    if not stamp:
        return
    env = os.environ | {"GOMODCACHE": str(GO / "mod"), "GOCACHE": str(GO / "build"), "GOTOOLCHAIN": "local",
                        "GOFLAGS": "-modcacherw -buildvcs=false -mod=readonly", "GO111MODULE": "on", "GOWORK": "off"}
    if not _run(["go", "build", "-o", str(GO / "client"), "."], cwd=folder, env=env):
        raise SystemExit("go could not build the franz-go client")
    _done("go", stamp)


def ensure() -> None:
    """Everything, quickly when it is there already."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for version in JAVA_CLIENTS:
        install_jars(version)
        install_java_client(version)
    install_python()
    install_node()
    install_go()


def python() -> str:
    """The interpreter that has the Python clients."""
    inside = VENV / "bin" / "python"
    return str(inside) if inside.exists() else sys.executable


def environment() -> dict:
    """The environment for client programs: nothing of the caller's JVM options, our packages where there is no venv."""
    variables = {k: v for k, v in os.environ.items() if k not in ("KAFKA_OPTS", "KAFKA_HEAP_OPTS", "CLASSPATH")}
    if not VENV.exists():
        variables["PYTHONPATH"] = str(PACKAGES)
    return variables | {"NODE_PATH": str(NODE / "node_modules"), "KAFKAJS_NO_PARTITIONER_WARNING": "1"}


def java(main_class: str, *arguments: str, heap: str = "512m", version: str = KAFKA, brief: bool = False,
         **properties) -> List[str]:
    """The command that runs a main class from the jars of a version; only warnings reach standard error.

    A brief run is compiled by the first compiler alone, which takes half the CPU of starting."""
    settings = {"org.slf4j.simpleLogger.defaultLogLevel": "warn"} | properties
    compiler = ["-XX:TieredStopAtLevel=1"] if brief else []
    return ["java", f"-Xmx{heap}", "-XX:+UseSerialGC", *compiler, *(f"-D{key}={value}" for key, value in settings.items()),
            "-cp", f"{classes(version)}:{jars(version)}/*", main_class, *arguments]


if __name__ == "__main__":
    ensure()
