"""Is the process of this container ready? `python -I -S ready.py PORT`: exit code 0 when `/readyz` answers 200. Standard library alone."""

import http.client
import sys


def main() -> int:
    """Ask once."""
    connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        if answer.status == http.client.OK:
            return 0
        sys.stderr.write(answer.read(500).decode("ascii", "replace") + "\n")
    except OSError as error:
        sys.stderr.write(f"{type(error).__name__}\n")
    finally:
        connection.close()
    return 1


if __name__ == "__main__":
    sys.exit(main())
