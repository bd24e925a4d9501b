"""`sluice doctor` against what is whole and what is broken; each problem says what to do."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra.doctor import Examination, _database, _disk, _skew, _store, examine
from infra.provision import provision_dev
from infra.settings import Role, Settings
from orchestrator.records import database
from orchestrator.records.migrate import migrate
from tests.support.temporal import free_port

pytestmark = pytest.mark.stack


def whole(tmp_path, temporal_server, **more):
    settings = Settings(
        dev=True,
        data_dir=tmp_path / "data",
        temporal_address=temporal_server.address,
        temporal_namespace=temporal_server.namespace,
        **more,
    )
    settings.data_dir.mkdir(mode=0o700)
    (settings.data_dir / "store").mkdir(mode=0o700)
    provision_dev(settings)
    migrate(f"sqlite:///{settings.data_dir / 'records.db'}")
    return settings


def problems(seen):
    found = {f.check: f for f in seen.findings if f.level == "problem"}
    assert all(f.do for f in found.values()), "a problem without a word on what to do"
    return found


async def test_a_whole_deployment_has_no_problem(tmp_path, temporal_server):
    seen = await examine(whole(tmp_path, temporal_server), Role.STACK)
    assert problems(seen) == {}
    assert seen.healthy
    checks = {f.check for f in seen.findings if f.level == "ok"}
    assert checks >= {
        "database", "database schema", "disk", "temporal", "temporal namespace", "temporal search attributes", "store",
        "key service round trip", "custody public file",
    }  # fmt: skip


async def test_what_is_broken_is_named_with_what_to_do(tmp_path, temporal_server):
    settings = whole(tmp_path, temporal_server)
    engine = database.connect(settings.effective_database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v0000'")
    engine.dispose()
    settings.effective_custody_public_file.write_text("{}")
    broken = settings.model_copy(
        update={
            "temporal_address": f"127.0.0.1:{free_port()}",
            "store_uri": "s3://nowhere/x",
            "s3_endpoint_url": f"http://127.0.0.1:{free_port()}",
        }
    )
    os.environ |= {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}
    try:
        seen = await examine(broken, Role.API)
    finally:
        del os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
    assert not seen.healthy
    assert set(problems(seen)) >= {"database schema", "temporal", "store", "custody public file"}


async def test_a_namespace_that_is_not_there(tmp_path, temporal_server):
    settings = whole(tmp_path, temporal_server)
    seen = await examine(settings.model_copy(update={"temporal_namespace": "elsewhere"}), Role.RELEASES)
    assert "elsewhere" in problems(seen)["temporal"].found


async def test_a_public_file_that_is_not_custodys(tmp_path, temporal_server):
    settings = whole(tmp_path, temporal_server)
    other = whole(tmp_path / "other", temporal_server) if (tmp_path / "other").mkdir() is None else None
    assert other is not None
    settings.effective_custody_public_file.write_bytes(other.effective_custody_public_file.read_bytes())
    seen = await examine(settings, Role.CUSTODY)
    assert "other keys" in problems(seen)["custody public file"].found


def test_tables_that_were_changed_by_hand(tmp_path):
    settings = Settings(dev=True, data_dir=tmp_path)
    migrate(f"sqlite:///{tmp_path / 'records.db'}")
    engine = database.connect(settings.effective_database_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE wait")
    engine.dispose()
    seen = Examination()
    _database(seen, settings)
    assert "database tables" in problems(seen)


def test_a_database_that_does_not_answer(tmp_path):
    seen = Examination()
    url = f"postgresql://nobody@127.0.0.1:{free_port()}/x"
    _database(seen, Settings(dev=True, data_dir=tmp_path, database_url=url))
    assert "does not answer" in problems(seen)["database"].found


def test_before_the_first_start_it_says_what_to_run_and_makes_nothing(tmp_path):
    settings = Settings(dev=True, data_dir=tmp_path)
    seen = Examination()
    _database(seen, settings)
    _store(seen, settings)
    assert "is not there" in problems(seen)["database"].found
    assert "sluice migrate" in problems(seen)["database"].do
    assert [f.level for f in seen.findings if f.check == "store"] == ["warning"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("seconds", "level"), [(1.0, "ok"), (-4.9, "ok"), (6.0, "problem"), (-3600.0, "problem")]
)
def test_clocks(seconds, level):
    seen = Examination()
    _skew(seen, "clock", seconds)
    assert seen.findings[0].level == level


def test_a_full_disk(tmp_path, monkeypatch):
    usage = SimpleNamespace(total=100 << 30, used=100 << 30, free=1000)
    monkeypatch.setattr("infra.doctor.shutil.disk_usage", lambda _folder: usage)
    seen = Examination()
    _disk(seen, Settings(data_dir=tmp_path / "not" / "there"))
    assert "disk" in problems(seen)


def test_the_command_says_it_as_json_and_by_its_exit_code(tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "SLUICE_DATA_DIR": str(tmp_path),
        "SLUICE_TEMPORAL_ADDRESS": f"127.0.0.1:{free_port()}",
        "SLUICE_CODEC_KEYS_FILE": str(tmp_path / "none"),
    }
    sluice = Path(sys.executable).with_name("sluice")
    asked = [str(sluice), "doctor", "--role", "worker-releases", "--json"]
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    report = json.loads(done.stdout)
    assert not report["healthy"]
    assert {"secrets", "database", "temporal"} <= {f["check"] for f in report["findings"]}
    wrong = subprocess.run(
        [*asked, "--role", "cook"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2
    assert "cook" in wrong.stderr
