"""Files for other platforms: as they were agreed on, and sound to their platforms' own tools."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from cluster.launch import render
from cluster.launch.request import Request, read_options
from cluster.shipping import PACKAGES, pack_wheel, root
from tasks.errors import InputError

GOLDEN = Path(__file__).parent / "golden"
CASES = {
    "slurm": (["partition=gpu", "time=24:00:00", "exclusive"], ("module load cuda",)),
    "kuberay": (["image=registry.example/laser:1", "volume=studies"], ()),
    "ray-up": (["region=eu-west-1"], ()),
}


def request_of(platform, folder: Path) -> Request:
    study = folder / "my study.yaml"
    study.write_text("model: {path: some/model}\n# Größe $HOME 'quoted'\n", encoding="utf-8")
    words, setup = CASES[platform]
    options = read_options(platform, words)
    return Request(study, str(folder / "My study; v2"), 4, 8, 0, 120, options, setup)


def stable(text: str, folder: Path) -> str:
    """Without what differs by machine."""
    text = text.replace(str(folder), "/FOLDER")
    bin_folder = str(Path(render.sys.executable).parent)
    return text.replace(bin_folder, "/BIN").replace(render.metadata.version("ray"), "RAY")


@pytest.mark.parametrize("platform", CASES)
def test_as_agreed(platform, tmp_path: Path) -> None:
    text = stable(
        render.render(platform, request_of(platform, tmp_path), tmp_path / "s.ray-up"), tmp_path
    )
    golden = GOLDEN / f"{platform}.txt"
    assert text == golden.read_text(encoding="utf-8")


def test_shellcheck_finds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "job.sh"
    render.write("slurm", request_of("slurm", tmp_path), path)
    checker = shutil.which("shellcheck", path=str(Path(render.sys.executable).parent))
    assert checker, "shellcheck is not installed; it comes with the extra laser-search[test]"
    done = subprocess.run(
        [checker, "--severity=style", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert path.stat().st_mode & 0o111


def test_kuberay_carries_the_study_and_resumes(tmp_path: Path) -> None:
    request = request_of("kuberay", tmp_path)
    config_map, job = yaml.safe_load_all(render.render("kuberay", request))
    assert config_map["data"]["study.yaml"] == request.study.read_text(encoding="utf-8")
    spec = job["spec"]
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert spec["entrypoint"].endswith("--out /shared/my-study-v2 --address auto --resume")
    worker = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    assert (worker["replicas"], worker["minReplicas"], worker["maxReplicas"]) == (4, 4, 4)
    limits = worker["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 8
    for group in (spec["rayClusterSpec"]["headGroupSpec"], worker):
        pod = group["template"]["spec"]
        mounted = {m["name"] for m in pod["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pod["volumes"]}


@pytest.mark.parametrize("words", [[], ["hosts=10.0.0.1,10.0.0.2", "user=me"]])
def test_ray_itself_takes_the_cluster(words, tmp_path: Path) -> None:
    request = request_of("ray-up", tmp_path)
    request = Request(request.study, request.out, 4, 8, 0, 120, read_options("ray-up", words))
    path = tmp_path / "c.ray-up.yaml"
    lines = render.write("ray-up", request, path)
    found = yaml.safe_load(path.read_text(encoding="utf-8"))
    schema = Path(ray.autoscaler.__file__).with_name("ray-schema.json")
    jsonschema.validate(found, json.loads(schema.read_text()))
    validate_config(prepare_config(found))
    mounted = found["file_mounts"].values()
    assert mounted, "the token, at least, is to be copied to the nodes"
    assert all(Path(source).exists() for source in mounted)
    assert (tmp_path / "c.ray-up" / "auth_token").stat().st_mode & 0o777 == 0o600
    assert lines[0] == "ray up -y c.ray-up.yaml"
    assert found["max_workers"] == (1 if words else 3)


@pytest.mark.parametrize(
    ("platform", "words", "said"),
    [
        ("kuberay", ["image=x"], "needs --option volume"),
        ("kuberay", ["image=x", "volum=y"], "did you mean 'volume'"),
        ("kuberay", ["image"], "NAME=VALUE"),
        ("slurm", ["partition=a\n#SBATCH --uid=0"], "contains a character"),
        ("slurm", ["Not An Option=1"], "not understood"),
    ],
)
def test_bad_options_are_one_sentence(platform, words, said) -> None:
    with pytest.raises(InputError, match=said):
        read_options(platform, words)


def test_submit_says_what_is_wrong(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="sbatch is not installed"):
        render.submit(tmp_path / "job.sh")
    sbatch = tmp_path / "sbatch"
    sbatch.write_text("#!/bin/sh\necho 'invalid partition' >&2; exit 1\n")
    sbatch.chmod(0o755)
    with pytest.raises(InputError, match=r"refused .*: invalid partition"):
        render.submit(tmp_path / "job.sh")


def test_the_wheel_holds_the_program_and_is_the_same_twice(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first, second = pack_wheel(tmp_path / "a"), pack_wheel(tmp_path / "b")
    assert (first.name, first.read_bytes()) == (second.name, second.read_bytes())
    with zipfile.ZipFile(first) as wheel:
        names = set(wheel.namelist())
        metadata = next(name for name in names if name.endswith("METADATA"))
        assert b"Requires-Dist" not in wheel.read(metadata)
    own = {
        path.relative_to(root()).as_posix()
        for package in PACKAGES
        for path in (root() / package).rglob("*")
        if path.suffix in (".py", ".j2", ".jsonl", ".safetensors")
    }
    assert own and own <= names
