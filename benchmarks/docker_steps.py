"""Does what the Dockerfile says come out right, where there is no Docker?

    python benchmarks/docker_steps.py

Executes the steps of the Dockerfile, as root on Linux: each stage is an overlay on the root of this machine that holds this Python
in /usr/local, as the base image does; COPY takes what `.dockerignore` lets through; RUN runs in the overlay by `chroot`. Then the
ENTRYPOINT is started as the USER, without any capability; its HEALTHCHECK is run until it succeeds, one flow is asked for over
HTTP, and SIGTERM must end it with code 0. Nothing outside the overlays, which live in memory, is changed. Packages come by pip's
settings of this machine; an index that is named in the Dockerfile and out of reach is passed over by pip.
"""

from __future__ import annotations

import argparse
import ctypes
import fnmatch
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import numpy as np
from PIL import Image

from featherflow.flow import read_flow

ROOT = Path(__file__).resolve().parents[1]
CLONE_NEWNS, MS_REC, MS_PRIVATE = 0x20000, 0x4000, 0x40000
START = 120  # s within which the service must answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dockerfile", type=Path, nargs="?", default=ROOT / "Dockerfile")
    dockerfile = parser.parse_args().dockerfile
    if sys.platform != "linux" or os.geteuid() != 0:
        raise SystemExit("The steps are executed by root on Linux only.")
    libc = ctypes.CDLL(None, use_errno=True)
    # Mounts of this process are nobody else's, and go with it.
    if libc.unshare(CLONE_NEWNS) or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None):
        raise SystemExit(f"No mounts of its own: {os.strerror(ctypes.get_errno())}.")
    with tempfile.TemporaryDirectory() as folder:
        mount("-t", "tmpfs", "tmpfs", folder)
        try:
            image = BuiltImage(Path(folder))
            for name, text in instructions(dockerfile):
                image.do(name, text)
            serve(image)
        finally:
            subprocess.run(["umount", "--recursive", "--lazy", folder], check=True)


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Names and texts of the steps, lines joined, comments left out."""
    lines = [line for line in dockerfile.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines() if line.strip()]


class BuiltImage:
    """The stages and what the last one has been told."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.stages: dict[str, Path] = {}
        self._base = self._with_python()

    def _with_python(self) -> Path:
        """The layer that stands for the base image: this Python, without packages but pip, in /usr/local."""
        layer = self.folder / "base"
        without = shutil.ignore_patterns("site-packages", "__pycache__", "test")
        shutil.copytree(sys.base_prefix, layer / "usr/local", ignore=without, symlinks=True)
        (layer / "usr/local/lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages").mkdir()
        return layer

    def do(self, name: str, text: str) -> None:
        """One step."""
        print(f"{name} {text}", flush=True)
        getattr(self, f"_{name.lower()}")(text)

    def _from(self, text: str) -> None:
        base, _, stage = text.partition(" AS ")
        if not base.startswith(f"python:{sys.version_info.major}.{sys.version_info.minor}-"):
            raise SystemExit(f"The base is {base}, and this is Python {sys.version_info.major}.{sys.version_info.minor}.")
        place = self.folder / (stage or uuid.uuid4().hex)
        for part in ("upper", "work", "root"):
            (place / part).mkdir(parents=True)
        layers = f"lowerdir={self._base}:/,upperdir={place / 'upper'},workdir={place / 'work'}"
        mount("-t", "overlay", "overlay", "-o", layers, str(place / "root"))
        self.root = self.stages[stage] = place / "root"
        for name in ("proc", "dev"):
            mount("--rbind", f"/{name}", str(self.root / name))
        # The image's own /tmp is empty, and what pip would find in the caller's home is not there.
        mount("-t", "tmpfs", "tmpfs", str(self.root / "tmp"))
        mount("-t", "tmpfs", "tmpfs", str(self.root / "root"))
        self.environment = {"PATH": "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
        self.environment |= {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
        self.directory, self.user = "/", ""
        self._run("ldconfig && ln -sf python3 /usr/local/bin/python && python -m ensurepip --default-pip >/dev/null 2>&1")

    def _workdir(self, text: str) -> None:
        self.directory = text
        (self.root / text.lstrip("/")).mkdir(parents=True, exist_ok=True)

    def _copy(self, text: str) -> None:
        words = text.split()
        of = self.stages[words.pop(0).removeprefix("--from=")] if words[0].startswith("--from=") else None
        *sources, target = words
        place = self.root / os.path.join(self.directory, target).lstrip("/")
        for source in sources:
            found = ROOT / source if of is None else of / source.lstrip("/")
            if of is None and not allowed(source):
                raise SystemExit(f"{source} is not let through by .dockerignore.")
            if found.is_dir():  # its content, not the folder itself
                shutil.copytree(found, place, symlinks=True, dirs_exist_ok=True, ignore=None if of else without_ignored)
            else:
                shutil.copy2(found, place / found.name if target.endswith("/") else place)

    def _env(self, text: str) -> None:
        for name, value in re.findall(r"(\w+)=(\S+)", text):
            self.environment[name] = re.sub(r"\$(\w+)", lambda match: self.environment[match[1]], value)

    def _user(self, text: str) -> None:
        self.user = text

    def _expose(self, text: str) -> None:
        self.port = int(text)

    def _healthcheck(self, text: str) -> None:
        self.check = json.loads(text.partition("CMD ")[2])

    def _entrypoint(self, text: str) -> None:
        self.entrypoint = json.loads(text)

    def _run(self, text: str) -> None:
        subprocess.run(self.command(["/bin/sh", "-c", text]), env=self.environment, check=True)

    def command(self, words: list[str]) -> list[str]:
        """A command as the image runs it: in its root and folder, as its user, who has no privileges unless it is root."""
        script = f'cd {self.directory} && exec "$@"'
        inside = ["chroot", str(self.root)]
        if self.user:
            user, _, group = self.user.partition(":")
            drop = ["--clear-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs"]
            inside += ["setpriv", f"--reuid={user}", f"--regid={group or user}", *drop]
        return [*inside, "/bin/sh", "-c", script, "sh", *words]


def serve(image: BuiltImage) -> None:
    """The service of the image, from its start to its end."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", image.port))  # OSError: the port is in use
    process = subprocess.Popen(image.command(image.entrypoint), env=image.environment)
    try:
        status = Path(f"/proc/{process.pid}/status")
        began = time.monotonic()
        while subprocess.run(image.command(image.check), env=image.environment, capture_output=True).returncode:
            if process.poll() is not None or time.monotonic() - began > START:
                raise SystemExit(f"The service does not answer; its exit code is {process.poll()}.")
            time.sleep(0.5)
        facts = dict(line.split(":\t", 1) for line in status.read_text().splitlines())
        uids, capabilities = set(facts["Uid"].split()), int(facts["CapEff"], 16) | int(facts["CapBnd"], 16)
        print(f"The service answers after {time.monotonic() - began:.1f} s; users {uids}, capabilities {capabilities:x}.")
        if uids != {image.user.partition(":")[0]} or capabilities:
            raise SystemExit("It has privileges.")
        flow = asked(f"http://127.0.0.1:{image.port}/v1/flow")
        inner = flow[16:-16, 16:-16].mean(axis=(0, 1))
        print(f"A flow of 3 px to the right was estimated as ({inner[0]:.2f}, {inner[1]:.2f}) px.")
        if np.abs(inner - (3, 0)).max() > 0.5:
            raise SystemExit("The flow is wrong.")
        process.send_signal(signal.SIGTERM)
        code = process.wait(30)
        print(f"SIGTERM ended it with code {code}.")
        if code:
            raise SystemExit(1)
    finally:
        process.kill()
        process.wait()


def asked(address: str) -> np.ndarray:
    """The flow of two frames of which everything moves 3 px to the right."""
    low = np.random.default_rng(0).uniform(0, 255, (20, 28, 3)).astype(np.uint8)
    wide = Image.fromarray(low).resize((224, 160), Image.Resampling.BICUBIC)
    edge, body = uuid.uuid4().hex, io.BytesIO()
    for name, left in (("frame1", 16), ("frame2", 13)):
        body.write(f'--{edge}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}.png"\r\n\r\n'.encode())
        wide.crop((left, 16, left + 192, 144)).save(body, "PNG")
        body.write(b"\r\n")
    body.write(f"--{edge}--\r\n".encode())
    request = urllib.request.Request(address, body.getvalue(), {"Content-Type": f"multipart/form-data; boundary={edge}"})
    with tempfile.NamedTemporaryFile(suffix=".flo") as file, urllib.request.urlopen(request, timeout=60) as answer:
        file.write(answer.read())
        file.flush()
        return read_flow(file.name)


def allowed(name: str) -> bool:
    """Whether `.dockerignore` lets a file or folder of the top through; of its rules, those that are used are known."""
    rules = (ROOT / ".dockerignore").read_text().split()
    verdict = True
    for rule in rules:
        if fnmatch.fnmatch(name, rule.lstrip("!")):
            verdict = rule.startswith("!")
    return verdict


def without_ignored(_: str, names: list[str]) -> set[str]:
    """Of the content of a folder, what a rule for all depths leaves out."""
    rules = [rule[3:] for rule in (ROOT / ".dockerignore").read_text().split() if rule.startswith("**/")]
    return {name for name in names for rule in rules if fnmatch.fnmatch(name, rule)}


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    main()
