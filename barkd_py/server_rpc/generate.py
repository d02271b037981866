"""Rewrites the committed gRPC stubs from the .proto files: ``python -m barkd_py.server_rpc.generate``.

protoc writes absolute imports (``import core_pb2``) and two checks that pin the libraries to the generator's
own versions. Both are changed here: the modules live in a package, and the generated code uses nothing but
the serialized descriptor and the builder, which every protobuf of the supported range reads alike. The range
that is really supported stands in one place, pyproject.toml, and the tests run with it.
"""

import re
import sys
from importlib import resources
from importlib.metadata import version
from pathlib import Path

PROTOS = Path(__file__).parent / "protos"
NAMES = ("core", "bark_server", "mailbox_server")

_IMPORT = re.compile(r"^import (\w+_pb2) as (\w+)$", re.MULTILINE)
_PROTOBUF_CHECK = re.compile(
    r"^from google\.protobuf import runtime_version.*\n|^_runtime_version\.Validate\w+\((?:\n .*)*\n\)\n",
    re.MULTILINE,
)
_GRPC_CHECK = re.compile(
    r"^import warnings\n|^GRPC_GENERATED_VERSION = (?:.*\n)+?(?=\n\nclass )", re.MULTILINE
)
_HEADER_VERSION = re.compile(r"^# Protobuf Python Version: .*\n", re.MULTILINE)


def relocate(source: str) -> str:
    """One generated module, made a member of this package and free of the generator's version checks."""
    source = _IMPORT.sub(r"from . import \1 as \2", source)
    source = _PROTOBUF_CHECK.sub("", source)
    source = _GRPC_CHECK.sub("", source)
    return _HEADER_VERSION.sub("", source)


def generate(target: Path = PROTOS) -> None:
    from grpc_tools import protoc  # a development dependency: the stubs are committed

    well_known = resources.files("grpc_tools").joinpath("_proto")
    status = protoc.main(
        [
            "protoc",
            f"--proto_path={PROTOS}",
            f"--proto_path={well_known}",
            f"--python_out={target}",
            f"--pyi_out={target}",
            f"--grpc_python_out={target}",
            *(f"{name}.proto" for name in NAMES),
        ]
    )
    if status != 0:
        sys.exit(f"protoc failed with status {status}")
    (target / "core_pb2_grpc.py").unlink()  # core has no service
    for path in sorted(target.glob("*_pb2*.py*")):
        path.write_text(f"# grpcio-tools {version('grpcio-tools')}\n{relocate(path.read_text())}")


if __name__ == "__main__":
    generate()
