"""The last step of a start: asks the front door, as any client would, whether the whole mesh is ready.

Run as `python -m loremesh_cli.mesh.front_door PORT`; its status is 0 when the answer was yes within a minute.
"""

import http.client
import json
import sys
import time

from loremesh_cli.mesh.ports import LOOPBACK

PATIENCE_SECONDS = 60.0
PAUSE_SECONDS = 0.2


def ask(port: int) -> tuple[bool, str]:
    """Return whether the mesh behind the gateway is ready, and the gateway's whole answer (JSON, if it gave one)."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        connection.request("GET", "/ready")
        response = connection.getresponse()
        return response.status == http.client.OK, response.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return False, str(error)
    finally:
        connection.close()


def message_of(answer: str) -> str:
    """Return the sentence in a refusal, or the whole of it when it is of another kind."""
    try:
        return str(json.loads(answer)["message"])
    except (ValueError, KeyError, TypeError):
        return answer


def main() -> int:
    """Ask until the answer is yes or patience ends; print the last answer if it was no."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < deadline:
        ready, answer = ask(int(sys.argv[1]))
        if ready:
            return 0
        time.sleep(PAUSE_SECONDS)
    print(message_of(answer), file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
