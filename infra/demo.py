"""`make demo`: for now, shows that the parts the stack stands on are installed and answer."""

import shutil
import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Ask each embedded server for its version; 1 when one is missing."""
    bin_dir = Path(sys.executable).parent
    for command in ([str(bin_dir / "temporal"), "--version"], [str(bin_dir / "bao"), "version"]):
        if shutil.which(command[0]) is None:
            print(f"missing: {command[0]}")
            return 1
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())  # noqa: S603
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
