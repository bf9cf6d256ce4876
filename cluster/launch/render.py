"""From a request to the file of a platform: Slurm script, RayJob manifest or Ray cluster YAML."""

from __future__ import annotations

import json
import secrets
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import jinja2

from cluster.launch.request import Platform, Request
from cluster.preemption import RESUME_CODE
from cluster.shipping import pack_wheel
from search.durable import write_text
from tasks.errors import InputError
from tasks.printable import printable
from tasks.secrets import has_secret

SUFFIX: dict[str, str] = {
    "slurm": ".slurm.sh",
    "kuberay": ".kuberay.yaml",
    "ray-up": ".ray-up.yaml",
}


def render(platform: Platform, request: Request, beside: Path | None = None) -> str:
    """The text of the platform's file. `beside`: the folder of what it copies (ray-up)."""
    if platform == "slurm":
        return _slurm(request)
    if platform == "kuberay":
        return _kuberay(request)
    return _ray_up(request, beside or Path(request.name))


def default_file(platform: Platform, study: Path) -> Path:
    """Where the platform's file goes unless the user says otherwise: beside study.yaml."""
    return study.with_name(study.stem + SUFFIX[platform])


def write(platform: Platform, request: Request, path: Path) -> list[str]:
    """Write the file and what belongs to it; returns the lines that say what to run.

    Raises OSError as the file system does, InputError on a name that the platform would not take.
    """
    if platform == "ray-up" and path.suffix != ".yaml":
        raise InputError(f"--to {path} does not end in .yaml, which ray up requires")
    beside = path.with_suffix("")
    text, private = render(platform, request, beside), holds_secret(platform, request)
    try:
        write_text(path, text, private=private)
    except UnicodeEncodeError:
        raise InputError(
            f"{path} cannot be written, because a path in it is not UTF-8 text; rename the study's "
            "file and folder"
        ) from None
    if platform == "slurm":
        path.chmod(0o700 if private else 0o755)
        return [f"sbatch {_word(path)}"]
    if platform == "kuberay":
        return [
            f"kubectl apply -f {_word(path)}",
            f"kubectl get rayjob {request.name} --watch",
        ]
    _pack(beside)
    return list(_commands(request, path).values())


def holds_secret(platform: Platform, request: Request) -> bool:
    """Whether the platform's file has a password or key of the user's in it."""
    given = [*request.setup, *(f"{name}={value}" for name, value in request.options.items())]
    if platform == "kuberay":
        given.append(request.study.read_text(encoding="utf-8"))
    return any(map(has_secret, given))


def secret_note(platform: Platform, path: Path) -> str:
    """What to do instead of writing a secret into the file at `path`."""
    stores = {
        "slurm": "a file of mode 0600 that --setup reads, such as ~/.pgpass",
        "kuberay": "a Kubernetes secret, whose values --option secret=NAME makes environment "
        "variables such as PGPASSWORD",
        "ray-up": "the machines' own role or a file of mode 0600 there, such as ~/.pgpass",
    }
    return f"{path} holds a secret, so only you can read it; better keep it in {stores[platform]}"


def _word(path: Path) -> str:
    """A path as a word of a command line, never an option."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def submit(path: Path) -> str:
    """Hand a Slurm script to sbatch; returns what it says. Raises InputError if it refuses."""
    try:
        done = subprocess.run(
            ["sbatch", str(path.absolute())], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        raise InputError(
            f"sbatch is not installed on this machine; submit {path} from one that has Slurm"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise InputError(f"sbatch refused {path}: {reason}")
    return done.stdout.strip()


def _fill(template: str, /, **values: object) -> str:
    templates = jinja2.Environment(  # shell and YAML, quoted by filters; not HTML
        loader=jinja2.PackageLoader("cluster.launch", "."),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701
    )
    templates.filters["quote"] = shlex.quote
    templates.filters["comment"] = printable  # a line break would end it
    templates.policies["json.dumps_function"] = _json
    return templates.get_template(template).render(**values)


def _json(value: object, **_: object) -> str:
    """JSON is YAML, but for control characters; what jinja2 escapes for HTML stays as it is."""
    return printable(json.dumps(value, ensure_ascii=False))


def _slurm(request: Request) -> str:
    return _fill(
        "slurm.sh.j2",
        name=request.name,
        nodes=request.nodes,
        gpus=request.gpus,
        cpus=request.cpus,
        grace_s=request.grace_s,
        resume_code=RESUME_CODE,
        options=[f"{k}={v}" if v else k for k, v in request.options.items()],
        setup=request.setup,
        bin=str(Path(sys.executable).parent),
        study=str(request.study.resolve()),
        out=str(Path(request.out).resolve()),
    )


def _kuberay(request: Request) -> str:
    out = f"{request.options['mount']}/{request.name}"
    words = ["laser-search", "launch", "/study/study.yaml", "--out", out]
    return _fill(
        "kuberay.yaml.j2",
        **request.options,
        name=request.name,
        nodes=request.nodes,
        gpus=request.gpus,
        cpus=request.cpus or 4,
        grace_s=request.grace_s,
        text=(text := request.study.read_text(encoding="utf-8")),
        private=has_secret(text),
        entrypoint=shlex.join([*words, "--address", "auto", "--resume"]),
        ray_version=metadata.version("ray"),
    )


def _ray_up(request: Request, beside: Path) -> str:
    options = request.options
    hosts = [host for host in options["hosts"].split(",") if host]
    ami = f", ImageId: {_json(options['ami'])}" if options["ami"] else ""
    mounts = {
        "~/laser-search/study.yaml": str(request.study.resolve()),
        "~/laser-search/program": str((beside / "program").resolve()),
        "~/.ray/auth_token": str((beside / "auth_token").resolve()),
    }
    start = "RAY_AUTH_MODE=token ray start --disable-usage-stats"
    limits = f" --num-cpus={request.cpus}" if request.cpus else ""
    return _fill(
        "ray-up.yaml.j2",
        name=request.name,
        nodes=len(hosts) or request.nodes,
        hosts=hosts,
        user=options["user"],
        region=options["region"],
        instance=options["instance"],
        ami=ami,
        mounts=mounts,
        install=options["install"] or "pip install ~/laser-search/program/*.whl",
        start_head=f"{start} --head --port=6379 --include-dashboard=false"
        f" --autoscaling-config=~/ray_bootstrap_config.yaml{limits}",
        start_worker=f"{start} --address=$RAY_HEAD_IP:6379{limits}",
        **_commands(request, beside.with_name(beside.name + ".yaml")),
    )


def _commands(request: Request, path: Path) -> dict[str, str]:
    """What to run with a Ray cluster YAML, in the order of a study's life."""
    file, folder = _word(Path(path.name)), f"laser-search/{request.name}"
    study = (
        f"RAY_AUTH_MODE=token laser-search launch ~/laser-search/study.yaml --out ~/{folder} "
        "--address auto --resume"
    )
    return {
        "up": f"ray up -y {file}",
        "run": f"ray exec --tmux {file} {shlex.quote(study)}",
        "stop": f"ray exec {file} {shlex.quote(f'laser-search stop ~/{folder}')}",
        "fetch": f"ray rsync-down {file} {shlex.quote(f'~/{folder}/')} {request.name}/",
        "down": f"ray down -y {file}",
    }


def _pack(beside: Path) -> None:
    """The program as a wheel with its dependencies, and a new token for Ray."""
    program = beside / "program"
    program.mkdir(parents=True, exist_ok=True)
    for old in program.glob("*.whl"):
        old.unlink()
    pack_wheel(program, requires=metadata.requires("laser-search") or [])
    token = beside / "auth_token"
    if not token.exists():  # a running cluster keeps the one that it has
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
