"""Where a model comes from: its folder, its head, its skeleton and its weights."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from search.weights.resolution import weight_files
from tasks.base import Head, HeadChoice
from tasks.errors import InputError, nearest
from tasks.foreign import quietly, reading
from tasks.hub import hub

if TYPE_CHECKING:  # a configuration is read without it
    import torch
    from torch import nn

DType = Literal["auto", "float32", "float16", "bfloat16"]

_SUFFIXES: tuple[tuple[str, Head], ...] = (
    ("ForSequenceClassification", "classifier"),
    ("ForMaskedLM", "masked"),
    ("ForCausalLM", "causal"),
    ("LMHeadModel", "causal"),
)
_SEQ2SEQ = ("ForConditionalGeneration", "WithLMHeadModel", "MTModel", "EncoderDecoderModel")
"""Endings of encoder-decoders; models of images and text use the first one too."""
_STORED = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
_WANTED += ["*.tiktoken", "*.bpe"]
_TOKENIZER = (
    *("tokenizer.json", "tokenizer_config.json", "vocab.txt", "vocab.json", "merges.txt"),
    *(".model", ".tiktoken", ".bpe", ".spm"),
)


def saved_heads(architectures: list[str], *, encoder_decoder: bool = False) -> list[Head]:
    """The heads that a checkpoint was saved with, by the names of its classes."""
    found: list[Head] = []
    for name in architectures:
        if encoder_decoder and name.endswith(_SEQ2SEQ):
            found.append("seq2seq")
        else:
            found += [head for suffix, head in _SUFFIXES if name.endswith(suffix)]
    return found


def find_head(architectures: list[str], where: str, *, encoder_decoder: bool = False) -> Head:
    """Return the head that a checkpoint was saved with. Raises InputError if there is none."""
    for head in saved_heads(architectures, encoder_decoder=encoder_decoder):
        return head
    raise InputError(
        f"{where} was saved as {', '.join(architectures) or 'nothing'}, which has none of the "
        f"heads {', '.join(get_args(Head))}; choose one with head:"
    )


@dataclass(frozen=True)
class ModelSource:
    """A Hugging Face checkpoint by local folder or hub id.

    `dtype` ``auto`` is the checkpoint's own. `trust_remote_code` runs code from the checkpoint and
    is off unless the user turns it on. `chat_template`: prompts are messages in the tokenizer's
    chat template. `mapped`: on a CPU, weights stay in their files, see `stays_mapped`. Nothing is
    read before a property is used.
    """

    path: str
    revision: str | None = None
    head_choice: HeadChoice = "auto"
    dtype: DType = "auto"
    trust_remote_code: bool = False
    chat_template: bool = False
    mapped: bool = False

    @cached_property
    def folder(self) -> Path:
        """The checkpoint's local folder; a hub id is downloaded (no pickled weights).

        Raises InputError if there is neither a folder nor a hub repository of that name.
        """
        local = Path(self.path).expanduser()
        if local.is_dir():
            if not (local / "config.json").is_file():
                raise InputError(
                    f"{local} has no config.json; give a folder written by save_pretrained"
                )
            return local.resolve()
        if local.is_file():
            raise InputError(_no_folder(local))
        parts = self.path.split("/")
        if local.is_absolute() or self.path.startswith(("./", "../", "~")) or len(parts) > 2:
            raise InputError(f"model {self.path} does not exist{_neighbour(local)}")
        return self._download()

    def _download(self) -> Path:
        from huggingface_hub import snapshot_download

        code = ["*.py"] if self.trust_remote_code else []
        with hub() as unreachable, quietly("huggingface_hub"):
            try:
                found = snapshot_download(
                    self.path,
                    revision=self.revision,
                    allow_patterns=_WANTED + code,
                    ignore_patterns=["consolidated*"],  # the same weights in another form
                )
            except Exception as error:  # the hub raises many kinds; each means "not available"
                near = _neighbour(Path(self.path))
                if unreachable:
                    raise InputError(
                        f"model {self.path!r} is neither a local folder nor in the hub's cache, "
                        f"and {unreachable}{near}; connect to the network, or give a folder"
                    ) from error
                raise InputError(
                    f"model {self.path!r} is not a local folder and could not be loaded from the "
                    f"hub ({type(error).__name__}){near}; check the name, the revision and the "
                    "network"
                ) from error
        return Path(found)

    @cached_property
    def config(self) -> Any:
        """The model's configuration."""
        from transformers import AutoConfig

        file = self.folder / "config.json"
        _check_dtype(file)
        with reading(str(file), "fix the value, or download the file again"):
            return AutoConfig.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, local_files_only=True
            )

    @property
    def model_type(self) -> str:
        """What the configuration calls the family: ``llama``, ``roberta``."""
        return str(getattr(self.config, "model_type", ""))

    @cached_property
    def head(self) -> Head:
        """The head to load: as chosen, or as the checkpoint was saved.

        Raises InputError if there is none, or if it takes no chat template.
        """
        head = self._find_head()
        if self.chat_template and head != "causal":
            raise InputError(
                f"chat_template is on, but {self.path} has a {head} head, which takes no messages; "
                "leave it out"
            )
        return head

    def _find_head(self) -> Head:
        names = _class_names(self.config, self.folder)
        encoder_decoder = bool(getattr(self.config, "is_encoder_decoder", False))
        if self.head_choice == "auto":
            return find_head(names, self.path, encoder_decoder=encoder_decoder)
        saved = saved_heads(names, encoder_decoder=encoder_decoder)
        if saved and self.head_choice not in saved:
            raise InputError(
                f"head {self.head_choice!r} of {self.path} would be untrained: it was saved as "
                f"{', '.join(names)}; use head: {' or '.join(sorted(set(saved)))}, or auto"
            )
        return self.head_choice

    @property
    def _auto_class(self) -> Any:
        import transformers

        return {
            "causal": transformers.AutoModelForCausalLM,
            "masked": transformers.AutoModelForMaskedLM,
            "classifier": transformers.AutoModelForSequenceClassification,
            "seq2seq": transformers.AutoModelForSeq2SeqLM,
        }[self.head]

    @cached_property
    def torch_dtype(self) -> torch.dtype:
        """The dtype that the weights are loaded in.

        For ``auto`` what transformers does: the configuration's, else that of the checkpoint's
        first floating-point weight.
        """
        declared = self.dtype if self.dtype != "auto" else getattr(self.config, "dtype", None)
        if isinstance(declared, str):
            return _floating(declared)
        return declared or self._stored_dtype()

    def _stored_dtype(self) -> torch.dtype:
        import torch

        from search.weights.whole import open_weights

        for name in sorted(set(self.weight_files.values())):
            with open_weights(self.folder / name) as stream:
                for tensor in stream.keys():  # noqa: SIM118  # no mapping
                    found = _STORED.get(stream.get_slice(tensor).get_dtype())
                    if found is not None:
                        stored: torch.dtype = getattr(torch, found)
                        return stored
        return torch.float32

    @property
    def stays_mapped(self) -> bool:
        """Whether weights on a CPU are pages of their files, which all processes share.

        Only what is edited gets memory of its own. Not where `dtype` is another than they have.
        """
        return self.mapped and self.torch_dtype == self._stored_dtype()

    @property
    def weight_files(self) -> dict[str, str]:
        """Name of each stored tensor -> its file in `folder`; see `weight_files`."""
        return weight_files(self.folder)

    def skeleton(self) -> nn.Module:
        """The model on the meta device: names, shapes and dtypes, no memory. Raises InputError.

        A folder whose weights could not be loaded is refused here already.
        """
        import torch

        _ = self.weight_files
        auto, dtype = self._auto_class, self.torch_dtype
        what = f"the model of {self.folder / 'config.json'}"
        remedy = "fix the value, install what it needs, or download the file again"
        with (
            reading(what, remedy, f"cannot be built with head {self.head!r}"),
            torch.device("meta"),
        ):
            model: nn.Module = auto.from_config(
                self.config, dtype=dtype, trust_remote_code=self.trust_remote_code
            )
        _keep_wide(model, self.torch_dtype)
        return model

    def load(self, device: str | torch.device = "cpu") -> nn.Module:
        """The model with its weights, in evaluation mode, without gradients.

        `device` ``spread``: over all GPUs that this process sees, block by block. Raises InputError
        if the weights are not safetensors, or lack a part that the head needs: a freshly
        initialised head would give numbers that mean nothing.
        """
        from transformers.utils import logging

        logging.disable_progress_bar()  # a worker has no terminal, and the commands have their own
        self.check_weights()
        if device == "spread":
            _require_accelerate()
        auto, dtype = self._auto_class, self.torch_dtype
        remedy = "download the model again, or save it again with save_pretrained"
        with reading(f"the model in {self.folder}", remedy):
            model, info = auto.from_pretrained(
                self.folder,
                dtype=dtype,
                trust_remote_code=self.trust_remote_code,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **({"device_map": "auto"} if device == "spread" else {}),
            )
        missing = sorted(info.get("missing_keys", ()))
        mismatched = sorted(str(key) for key in info.get("mismatched_keys", ()))
        if missing or mismatched:
            raise InputError(
                f"{self.path} lacks weights that head {self.head!r} needs "
                f"({', '.join((missing + mismatched)[:3])}); choose the head it was trained with"
            )
        if device == "spread":
            _check_spread(model, self.path)
        else:
            model = model.to(device)
        if not self.stays_mapped:
            _own(model)
        loaded: nn.Module = model.eval().requires_grad_(False)
        return loaded

    def tokenizer(self) -> Any:
        """The tokenizer that belongs to the checkpoint. Raises InputError if there is none."""
        from transformers import AutoTokenizer

        found = sorted(p.name for p in self.folder.iterdir() if p.name.endswith(_TOKENIZER))
        if not found:
            raise InputError(
                f"{self.folder} has no tokenizer (no tokenizer.json, vocab.txt, *.model); copy "
                "the files of the model that it was made from into it"
            )
        what = f"the tokenizer in {self.folder} ({', '.join(found[:4])})"
        with reading(what, "download these files again"):
            tokenizer = AutoTokenizer.from_pretrained(
                self.folder, trust_remote_code=self.trust_remote_code, local_files_only=True
            )
            tokenizer("a")  # settings of another shape fail only here
            return tokenizer

    def check_weights(self) -> None:
        """Raises InputError unless every file of weights is there and whole; headers alone."""
        from search.weights.checkpoint import CheckpointReader

        CheckpointReader(self.folder).check()


def _require_accelerate() -> None:
    """Raises InputError if the package that spreads a model is not installed."""
    if find_spec("accelerate") is None:
        raise InputError(
            "a model over several GPUs needs the package accelerate, which is not installed; "
            "install laser-search[large]"
        )


def _no_folder(file: Path) -> str:
    """What to do with a file where a model's folder belongs."""
    if file.suffix == ".gguf":
        return (
            f"model {file} is a GGUF file, whose weights are quantised for another program; give "
            "the folder of the model that it was made from"
        )
    if file.suffix == ".safetensors" and (file.parent / "config.json").is_file():
        return f"model {file} is a file of weights; give its folder, {file.parent}"
    return (
        f"model {file} is a file; give a folder with config.json, model.safetensors and the "
        "tokenizer's files, as save_pretrained writes it"
    )


def _check_dtype(file: Path) -> None:
    """Raises InputError if a config.json is no mapping, or names a dtype that there is not."""
    import torch

    with reading(str(file), "fix it, or download the file again"):
        facts = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(facts, dict):
        raise InputError(f"{file} does not contain a mapping; download the file again")
    for key in ("dtype", "torch_dtype"):
        name = facts.get(key)
        if name is not None and not isinstance(getattr(torch, str(name), None), torch.dtype):
            raise InputError(
                f"{file}: {key} is {name!r}, which is not a dtype; expected one such as float32, "
                "float16 or bfloat16"
            )


def _class_names(config: Any, folder: Path) -> list[str]:
    """The classes that a configuration says it was saved as. Raises InputError on another shape."""
    names = getattr(config, "architectures", None) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"{folder / 'config.json'}: architectures is {names!r}, expected a list of names such "
            'as ["LlamaForCausalLM"]'
        )
    return names


def _own(model: nn.Module) -> None:
    """Give a model on the CPU memory of its own, in place.

    Transformers maps the files of weights: what is written over one would change a model that was
    loaded from it, and a shorter one would end the process. Tied weights stay tied.
    """
    copies: dict[tuple[Any, ...], torch.Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.device.type != "cpu":
            continue
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        if key not in copies:
            copies[key] = tensor.data.clone()
        tensor.data = copies[key]


def _check_spread(model: nn.Module, where: str) -> None:
    """Raises InputError if a part was left out of memory: trials would load it again and again."""
    import torch

    for name, parameter in model.named_parameters():
        if parameter.is_meta:
            raise InputError(
                f"{where} does not fit on {torch.cuda.device_count()} GPUs ({name} did not fit); "
                "raise cluster.gpus_per_trial or load it with a smaller model.dtype"
            )


def own_device() -> str:
    """The device of a process that runs a model by itself: its GPU if it has one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _keep_wide(model: Any, dtype: torch.dtype) -> None:
    """Give the parameters that transformers loads in float32 whatever is asked that dtype.

    T5's ``wo`` in float16, for instance. Mutates the dtypes of `model`, on the meta device.
    """
    import torch

    half = dtype in (torch.float16, torch.bfloat16)
    names = set(model._keep_in_fp32_modules_strict or ()) if half else set()
    if dtype == torch.float16:
        names |= set(model._keep_in_fp32_modules or ())
    wide = re.compile("|".join(rf"(^|\.){name}(\.|$)" for name in sorted(names)) or r"(?!)")
    for name, parameter in model.named_parameters():
        if wide.search(name):
            parameter.data = parameter.data.float()


def _floating(name: str) -> torch.dtype:
    import torch

    found = getattr(torch, name, None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise InputError(
            f"dtype {name!r} is not a dtype for loading a model; expected one of "
            f"{', '.join(get_args(DType))}{nearest(name, get_args(DType))}"
        )
    return found


def _neighbour(path: Path) -> str:
    """Name the most alike entry beside a path that does not exist."""
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return ""
    return nearest(path.name, names)
