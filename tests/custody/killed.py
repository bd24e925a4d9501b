"""A custody that makes a copy and is killed on the way: `python -m tests.custody.killed FOLDER RELEASE WHAT ARGUMENT`.

It tells on its output that it is half way, and then waits for its end. The world is that of `tests/custody/world.py`.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path

from activities.copies.making import CopyingCustody
from activities.copies.sealing import CopyPlaces
from activities.custody.base import Asked
from activities.custody.keys import load_or_make
from activities.custody.memory import CustodyMemory
from artifacts.custody.local import LocalKeyring
from artifacts.progress import Progress
from artifacts.stores.directory import DirectoryStore
from orchestrator.records.database import connect


def halfway(progress: Progress) -> None:
    """Say so once half of the bytes are stored, and wait to be killed."""
    if progress.bytes_done * 2 >= progress.bytes_total:
        print("half way", flush=True)
        time.sleep(600)


def main(folder: Path, now: str, what: str, argument: str) -> None:
    """Begin the copy that the argument describes."""
    provider = LocalKeyring.open(folder / "keyring", b"a passphrase")
    custody = CopyingCustody(
        connect(f"sqlite:///{folder}/records.db"),
        CustodyMemory(f"sqlite:///{folder}/memory.db"),
        provider,
        load_or_make(folder / "keys.json", provider, "sluice.example/log"),
        lambda: datetime.fromisoformat(now),
        places=CopyPlaces(
            open_store=lambda uri: DirectoryStore(Path(uri.removeprefix("dir:"))),
            stores=(f"dir:{folder / 'store'}",),
            state_dir=folder / "copies",
            part_size=16384,
        ),
    )
    given = json.loads(argument)
    if what == "reseal":
        custody.reseal(given["release"], given["rotation"], given["artifact"], halfway)
    else:
        asked = Asked(
            given["release"], given["step"], given["attempt"], datetime.fromisoformat(given["at"]), {}
        )
        custody.make_copies(asked, halfway)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
