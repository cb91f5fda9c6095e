"""The health checks of the containers and of `make run`; exit code 0 is healthy, 2 is an unknown check.

python -m docker.health web     the readiness probe answers 200
python -m docker.health live    the liveness probe answers 200, whether PostgreSQL is there or not
python -m docker.health beat    the scheduler wrote its schedule lately
"""

from __future__ import annotations

import http.client
import os
import sys
import time

from config import env

# beat writes its schedule every three minutes while it is alive and scheduling.
SCHEDULE_SECONDS = 600


def host_header(allowed: list[str]) -> str:
    """A host name that is let through, whatever an operator put into ALLOWED_HOSTS."""
    for name in ("127.0.0.1", "localhost"):
        if name in allowed or "*" in allowed:
            return name
    return allowed[0].lstrip(".")


def web() -> str:
    """What keeps the web server from answering predictions, or nothing."""
    return probe("/healthz/ready")


def live() -> str:
    """What is wrong with the web server itself, or nothing."""
    return probe("/healthz/live", seconds=20)


def probe(path: str, seconds: float = 5) -> str:
    """What a probe of the web server says, or nothing where it says 200."""
    host = os.environ.get("HOST") or "127.0.0.1"
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - a name for every interface
    port = int(os.environ.get("PORT") or 8000)
    headers = {"Host": host_header(env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]"))}
    connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        said = answer.read(500).decode("utf-8", "replace")
        return "" if answer.status == 200 else f"{answer.status} {said}"
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__
    finally:
        connection.close()


def beat() -> str:
    """What is wrong with the scheduler, or nothing."""
    # The dbm module in use decides about the file's ending.
    found = [path.stat().st_mtime for path in env.var_dir().glob("celerybeat-schedule*")]
    if not found:
        return "there is no schedule yet"
    age = time.time() - max(found)
    return "" if age < SCHEDULE_SECONDS else f"the schedule was last written {age:.0f} s ago"


CHECKS = {"web": web, "live": live, "beat": beat}


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in CHECKS:
        sys.stderr.write(f"usage: python -m docker.health {'|'.join(CHECKS)}\n")
        return 2
    wrong = CHECKS[arguments[0]]()
    sys.stdout.write(f"{wrong or 'healthy'}\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
