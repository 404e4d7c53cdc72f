"""What a compose model and the settings make of data, files and secrets."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reconciler.config import DatasetSetting, Settings
from reconciler.errors import BadInput
from reconciler.project import compose, definition
from reconciler.project.definition import Definition, Found
from reconciler.records.release import Dataset, Kind, Mount, Strategy

ROOT = Path("/srv/shop")
FILES: Mapping[str, Found] = {
    "/srv/shop/app.toml": Found("file", b"a = 1\n", 0o640),
    "/srv/shop/conf.d": Found(
        "directory", files={"a.conf": Found("file", b"a"), "sub/b.conf": Found("file", b"b")}
    ),
    "/srv/shop/huge": Found("directory", simple=False),
    "/srv/shop/uploads": Found("directory"),
    "/srv/shop/socket": Found("other"),
    "/srv/elsewhere": Found("directory"),
    "/etc/localtime": Found("file", b"tz"),
    "/srv/shop": Found("directory"),
    "/srv": Found("directory"),
}


def volume(source: str | None, target: str, **more: Any) -> dict[str, Any]:
    named = {"source": source} if source is not None else {}
    return {"type": "volume", **named, "target": target, "volume": {}, **more}


def bind(source: str, target: str, **more: Any) -> dict[str, Any]:
    return {"type": "bind", "source": source, "target": target, "bind": {}, **more}


def mounts(*found: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """A model of one service `web` with these mounts."""
    used = {
        m["source"]: {"name": f"shop_{m['source']}"}
        for m in found
        if m["type"] == "volume" and "source" in m
    }
    body = {"image": "shop-web", "volumes": list(found)}
    return {"name": "shop", "services": {"web": body}, "volumes": used, **more}


def define(
    model: Mapping[str, Any],
    settings: Settings | None = None,
    image_volumes: Mapping[str, Sequence[str]] | None = None,
) -> Definition:
    return definition.define(
        model,
        settings or Settings(),
        roots=[ROOT],
        look=lambda path: FILES.get(str(path), Found("missing")),
        image_volumes=image_volumes or {},
        detect=lambda image, target: "postgres" if "postgres" in image + target else "directory",
    )


@pytest.mark.parametrize(
    ("service", "volume_note", "driver"),
    [
        ({}, {}, "sqlite"),
        ({"x-lockstep": {"driver": "redis"}}, {}, "redis"),
        ({"x-lockstep": {"driver": "directory"}}, {}, "directory"),
        ({}, {"x-lockstep": {"driver": "directory"}}, "directory"),
        ({"image": "postgres:15"}, {}, "postgres"),
    ],
)
def test_content_tells_the_driver_only_where_nothing_else_does(
    service: dict[str, Any], volume_note: dict[str, Any], driver: str
) -> None:
    model = mounts(volume("files", "/data"))
    model["services"]["web"].update(service)
    model["volumes"]["files"] = {**(model["volumes"]["files"] or {}), **volume_note}
    found = definition.define(
        model,
        Settings(),
        roots=[ROOT],
        look=lambda _: Found("missing"),
        image_volumes={},
        detect=lambda image, _: "postgres" if "postgres" in image else "directory",
        looks_like=lambda name, source: {("files", "shop_files"): "sqlite"}[name, source or ""],
    )
    assert found.datasets["files"].driver == driver


def test_a_named_volume_is_forked() -> None:
    found = define(mounts(volume("db", "/var/lib/postgresql/data")))
    assert found.datasets == {
        "db": Dataset(
            name="db",
            kind=Kind.VOLUME,
            driver="postgres",
            strategy=Strategy.FORK,
            source="shop_db",
            mounts=(Mount(service="web", target="/var/lib/postgresql/data"),),
        )
    }


def test_a_volume_of_two_services_is_one_dataset() -> None:
    model = mounts(volume("up", "/up"))
    model["services"]["worker"] = {"volumes": [volume("up", "/in", read_only=True)]}
    (dataset,) = define(model).datasets.values()
    assert dataset.mounts == (
        Mount(service="web", target="/up"),
        Mount(service="worker", target="/in", read_only=True),
    )


def test_the_writing_service_decides_the_driver() -> None:
    model = mounts(volume("db", "/backup", read_only=True))
    model["services"]["db"] = {"image": "postgres:15", "volumes": [volume("db", "/data")]}
    assert define(model).datasets["db"].driver == "postgres"


@pytest.mark.parametrize(
    ("note", "setting", "expected"),
    [
        ({}, {}, ("directory", Strategy.FORK, False)),
        ({"driver": "redis"}, {}, ("redis", Strategy.FORK, False)),
        ({"driver": "redis"}, {"driver": "postgres"}, ("postgres", Strategy.FORK, False)),
        ({"strategy": "in-place"}, {}, ("directory", Strategy.IN_PLACE, False)),
        ({"strategy": "in-place"}, {"strategy": "fork"}, ("directory", Strategy.FORK, False)),
        ({"shared": True}, {}, ("directory", Strategy.IN_PLACE, True)),
        ({"shared": True}, {"shared": False}, ("directory", Strategy.FORK, False)),
    ],
)
def test_the_stacks_word_comes_before_the_files(
    note: dict[str, Any], setting: dict[str, Any], expected: tuple[str, Strategy, bool]
) -> None:
    model = mounts(volume("up", "/up"))
    model["volumes"]["up"]["x-lockstep"] = note
    settings = Settings(datasets={"up": DatasetSetting(**setting)})
    dataset = define(model, settings).datasets["up"]
    assert (dataset.driver, dataset.strategy, dataset.shared) == expected


@pytest.mark.parametrize(
    ("body", "kind", "source"),
    [
        ({"name": "real", "external": True}, Kind.EXTERNAL, "real"),
        ({"name": "shop_up", "driver_opts": {"type": "nfs"}}, Kind.VOLUME, "shop_up"),
        ({"name": "shop_up", "driver": "rexray"}, Kind.VOLUME, "shop_up"),
    ],
)
def test_what_is_elsewhere_is_worked_on_in_place(body: Any, kind: Kind, source: str) -> None:
    model = mounts(volume("up", "/up"))
    model["volumes"]["up"] = body
    dataset = define(model).datasets["up"]
    assert (dataset.kind, dataset.source, dataset.strategy) == (kind, source, Strategy.IN_PLACE)


def test_a_tmpfs_volume_is_no_data() -> None:
    model = mounts(volume("scratch", "/scratch"))
    model["volumes"]["scratch"]["driver_opts"] = {"type": "tmpfs", "device": "tmpfs"}
    assert define(model).datasets == {}


def test_a_volume_without_a_name_is_refused_with_the_line_to_add() -> None:
    with pytest.raises(BadInput) as refusal:
        define(mounts(volume(None, "/var/cache")))
    assert "- web-var-cache:/var/cache" in str(refusal.value)
    with pytest.raises(BadInput, match="web-data:/data"):
        define(mounts(), image_volumes={"web": ["/data"]})


@pytest.mark.parametrize("mount", [volume("v", "/data/"), bind("/srv/shop/uploads", "/data")])
def test_an_images_own_volume_is_covered_by_a_mount(mount: dict[str, Any]) -> None:
    define(mounts(mount), image_volumes={"web": ["/data"]})


def test_an_images_own_volume_is_covered_by_a_tmpfs() -> None:
    model = mounts()
    model["services"]["web"]["tmpfs"] = ["/data:size=1m"]
    assert define(model, image_volumes={"web": ["/data"]}).datasets == {}


def test_a_volume_without_a_name_is_a_dataset_when_config_names_it() -> None:
    settings = Settings(datasets={"seen": DatasetSetting(service="web", target="/data/")})
    for found in (
        define(mounts(volume(None, "/data")), settings),
        define(mounts(), settings, {"web": ["/data"]}),
    ):
        assert found.datasets["seen"].kind is Kind.ANONYMOUS
        assert found.datasets["seen"].mounts == (Mount(service="web", target="/data"),)


def test_a_volume_that_no_service_mounts_is_shared() -> None:
    settings = Settings(datasets={"queue": DatasetSetting(volume="other_redis", driver="redis")})
    assert define(mounts(), settings).datasets["queue"] == Dataset(
        name="queue",
        kind=Kind.EXTERNAL,
        driver="redis",
        strategy=Strategy.IN_PLACE,
        shared=True,
        source="other_redis",
    )


def test_a_setting_for_a_dataset_that_is_not_there_is_refused() -> None:
    settings = Settings(datasets={"dbb": DatasetSetting(driver="postgres")})
    with pytest.raises(BadInput, match="it has db"):
        define(mounts(volume("db", "/db")), settings)
    gone = Settings(datasets=settings.datasets, dropped=("dbb",))
    assert define(mounts(volume("db", "/db")), gone).dropped == ("dbb",)


def test_a_writable_directory_is_worked_on_in_place_unless_it_may_be_forked() -> None:
    model = mounts(bind("/srv/shop/uploads", "/up"), bind("/srv/new/place", "/new"))
    found = define(model).datasets
    assert set(found) == {"uploads", "srv-new-place"}
    assert found["uploads"].kind is Kind.BIND
    assert found["uploads"].source == "/srv/shop/uploads"
    assert found["uploads"].strategy is Strategy.IN_PLACE
    settings = Settings(datasets={"uploads": DatasetSetting(strategy=Strategy.FORK)})
    assert define(model, settings).datasets["uploads"].strategy is Strategy.FORK


@pytest.mark.parametrize("source", ["/srv/shop", "/srv"])
def test_the_projects_own_folder_is_no_dataset(source: str) -> None:
    with pytest.raises(BadInput, match="holds the project itself"):
        define(mounts(bind(source, "/code")))


def test_files_of_the_project_are_kept_by_content() -> None:
    found = define(
        mounts(
            bind("/srv/shop/app.toml", "/etc/app.toml", read_only=True),
            bind("/srv/shop/conf.d", "/etc/conf.d", read_only=True),
        )
    )
    assert {path: config.path for path, config in found.configs.items()} == {
        "app.toml": "/srv/shop/app.toml",
        "conf.d/a.conf": "/srv/shop/conf.d/a.conf",
        "conf.d/sub/b.conf": "/srv/shop/conf.d/sub/b.conf",
    }
    assert found.configs["app.toml"].mode == 0o640
    assert found.contents[found.configs["app.toml"].sha256] == b"a = 1\n"
    assert found.datasets == {}
    assert found.warnings == ()


@pytest.mark.parametrize(
    ("mount", "warns"),
    [
        (bind("/srv/shop/huge", "/h", read_only=True), True),
        (bind("/srv/shop/socket", "/s", read_only=True), True),
        (bind("/srv/shop/missing", "/m", read_only=True), True),
        (bind("/etc/localtime", "/etc/localtime", read_only=True), False),
        (bind("/var/run/docker.sock", "/var/run/docker.sock"), False),
        (bind("/", "/host", read_only=True), False),
        (bind("/srv/elsewhere", "/e", read_only=True), False),
    ],
)
def test_other_binds_stay_as_they_are(mount: dict[str, Any], warns: bool) -> None:
    found = define(mounts(mount))
    assert (found.configs, found.datasets) == ({}, {})
    assert bool(found.warnings) is warns
    assert found.model["services"]["web"]["volumes"] == [mount]


def test_a_writable_file_of_the_project_is_kept_by_content_with_a_warning() -> None:
    found = define(mounts(bind("/srv/shop/app.toml", "/etc/app.toml")))
    assert set(found.configs) == {"app.toml"}
    assert "add :ro" in found.warnings[0]


def test_top_level_configs_and_secrets() -> None:
    model = mounts(
        configs={
            "app": {"name": "shop_app", "file": "/srv/shop/app.toml"},
            "said": {"name": "shop_said", "environment": "GREETING"},
            "hidden": {"name": "shop_hidden", "environment": "TOKEN"},
        },
        secrets={
            "key": {"name": "shop_key", "file": "/srv/shop/key"},
            "token": {"name": "shop_token", "environment": "TOKEN"},
        },
    )
    settings = Settings(environment={"GREETING": "cost: $5"}, secrets={"TOKEN": "x"})
    found = define(model, settings)
    assert set(found.configs) == {"app.toml"}
    assert found.model["configs"]["said"]["content"] == "cost: $$5"
    assert found.model["configs"]["hidden"]["content"] == compose.placeholder("TOKEN")
    assert found.secrets == ("TOKEN", "file:/srv/shop/key")
    assert compose.secret_file(found.secrets[1]) == "/srv/shop/key"
    with pytest.raises(BadInput, match=r"environment\.GREETING"):
        define(model, Settings(secrets={"TOKEN": "x"}))
    with pytest.raises(BadInput, match=r"secrets\.TOKEN"):
        define(mounts(secrets=model["secrets"]))


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"post_start": [{"command": "x"}]}, "post_start"),
        ({"pre_stop": [{"command": "x"}]}, "pre_stop"),
        ({"provider": {"type": "x"}}, "provider"),
        ({"read_only": True, "configs": [{"source": "said"}]}, "read_only"),
        (
            {"configs": [{"source": "said", "target": "/d/x"}], "volumes": [volume("v", "/d")]},
            "/d/x",
        ),
        ({"x-lockstep": {"gate": {"command": [compose.placeholder("PW")]}}}, "secret PW"),
    ],
)
def test_what_lockstep_would_not_carry_out_is_refused(body: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        define({"name": "shop", "services": {"web": body}, "configs": {"said": {"content": "x"}}})


def test_nothing_that_is_proved_may_wait_for_what_starts_after_the_commit() -> None:
    late = {"x-lockstep": {"start": "after-commit"}}
    needs = {"depends_on": {"worker": {"condition": "service_started"}}}
    with pytest.raises(BadInput, match="could not be proved"):
        define({"services": {"web": needs, "worker": late}})
    define({"services": {"web": {**needs, **late}, "worker": late}})


def test_plain_passwords_are_warned_of() -> None:
    environment = {
        "DB_PASSWORD": "swordfish",
        "API_KEY": compose.placeholder("KEY"),
        "DB_PASSWORD_FILE": "/run/secrets/x",
        "TOKEN": "",
    }
    found = define({"services": {"web": {"environment": environment}}}, Settings())
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("DB_PASSWORD of service web")


def test_a_renamed_dataset_is_checked() -> None:
    def model(was_a: str, was_b: str) -> dict[str, Any]:
        found = mounts(volume("a", "/a"), volume("b", "/b"))
        found["volumes"]["a"]["x-lockstep"] = {"was": was_a}
        found["volumes"]["b"]["x-lockstep"] = {"was": was_b}
        return found

    assert define(model("old", "older")).datasets["a"].was == "old"
    with pytest.raises(BadInput, match="is still there"):
        define(model("old", "a"))
    with pytest.raises(BadInput, match="both say"):
        define(model("old", "old"))


def test_the_model_given_is_not_changed() -> None:
    model = mounts(volume("db", "/db"), configs={"c": {"environment": "X"}})
    define(model, Settings(environment={"X": "1"}))
    assert model["configs"] == {"c": {"environment": "X"}}


DATASETS = st.dictionaries(
    st.sampled_from("abcdef"),
    st.builds(
        Dataset,
        name=st.just("x"),
        kind=st.just(Kind.VOLUME),
        driver=st.just("directory"),
        shared=st.booleans(),
        was=st.none() | st.sampled_from("uvwabc"),
    ),
)


@given(DATASETS, DATASETS, st.sets(st.sampled_from("abcdef")))
def test_every_dataset_is_kept_renamed_dropped_or_a_problem(
    before: dict[str, Dataset], datasets: dict[str, Dataset], dropped: set[str]
) -> None:
    after = Definition({}, datasets, {}, {}, (), tuple(dropped), ())
    problems = definition.changed(before, after, release="prod-001")
    vanished = {p.dataset for p in problems if p.dataset in before}
    renamed = {d.was for d in datasets.values()}
    accounted = (set(before) & set(datasets)) | (set(before) & renamed) | (set(before) & dropped)
    assert vanished | accounted == set(before)
    assert not vanished & accounted
    for problem in problems:
        if problem.refused:
            assert problem.dataset in before
            assert not before[problem.dataset].shared
    new = {p.dataset for p in problems} - set(before)
    assert new <= set(datasets) - set(before)
    assert before or not new


@given(st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=20), max_size=5))
def test_contents_are_named_by_their_hash(files: dict[str, bytes]) -> None:
    folder = Found("directory", files={name: Found("file", body) for name, body in files.items()})
    found = definition.define(
        mounts(bind("/srv/shop/c", "/c", read_only=True)),
        Settings(),
        roots=[ROOT],
        look=lambda _: folder,
        image_volumes={},
        detect=lambda *_: "directory",
    )
    for digest, content in found.contents.items():
        assert hashlib.sha256(content).hexdigest() == digest
    assert {c.sha256 for c in found.configs.values()} == set(found.contents)
