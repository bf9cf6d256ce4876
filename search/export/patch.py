"""An edit without its model: a patch (the kept factors) or a recipe (the composition alone)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, get_args

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from search.cuts.composition import Composition
from search.cuts.kinds.base import Factoring, Inputs
from search.cuts.kinds.triples import reach
from search.cuts.refs import MatrixRef
from search.durable import write_file, write_json
from search.export.base import Base, Placed
from search.export.dense import dense_changes
from search.export.format import Format, Work, Written
from search.export.stream import digest_of, read_tensor
from search.model import ModelSource
from search.published import model_name
from search.weights.edit import Editor
from search.weights.factor_file import Factors, multiplied
from search.weights.factors import FactorCache, content_key
from search.weights.matrices import all_matrices
from search.weights.memory import FactorStore
from search.weights.moments import MomentStore, NotedMoment
from search.weights.products import Products
from search.weights.whole import open_weights
from tasks.base import HeadChoice
from tasks.errors import InputError
from tasks.foreign import words_of

PATCH, RECIPE = "patch.safetensors", "recipe.json"
MOMENTS = "recipe"
"""In the place of a calibration's name, for the second moments in a recipe's folder."""

_DTYPES = ("float64", "float32", "float16", "bfloat16")
PATCH_FORMAT, RECIPE_FORMAT = "laser-patch-1", "laser-recipe-1"


@dataclass(frozen=True)
class Origin:
    """What an edit belongs to: `base` digests every tensor of the model, as Base.digest does.

    `tensors`: digests of the edited tensors after the edit, by name, where they are known.
    `inputs`: digests of what the cut matrices were given on calibration texts, by address, where
    their cuts were made from it.
    """

    format: str
    base_model: str
    revision: str | None
    head: HeadChoice
    dtype: str
    base: str
    composition: dict[str, Any]
    tensors: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def of(base: Base, kind: str, composition: Composition, store: FactorStore) -> Origin:
        """Describe `base`, of which every byte is read for its digest."""
        source = base.source
        return Origin(
            kind,
            model_name(source.path),
            source.revision,
            source.head,
            str(source.torch_dtype).removeprefix("torch."),
            base.digest,
            composition.to_dict(),
            inputs={str(ref): one.digest for ref, one in calibrated(composition, store).items()},
        )

    def open(self, model: str) -> Base:
        """The base at `model`, checked by digest. Raises InputError if it is another."""
        source = ModelSource(model, self.revision, self.head, self.dtype)  # type: ignore[arg-type]
        base = Base(source)
        if base.digest != self.base:
            raise InputError(
                f"{model} is not the model that was edited ({self.base_model}): its tensors have "
                f"the digest {base.digest[:12]}, not {self.base[:12]}; give the original model"
            )
        return base

    def place(self, base: Base) -> list[Placed]:
        """The interventions on `base`."""
        return base.place(Composition.from_dict(self.composition))


@dataclass
class _PatchRows:
    """The rows of factors that a patch holds: those from `first` on."""

    shape: tuple[int, int]
    spectrum: Tensor
    first: int
    U: Tensor
    V: Tensor

    def rows(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """U [stop - start, out] and V [stop - start, in]."""
        if start < stop and not self.first <= start < stop <= self.first + len(self.U):
            raise ValueError(f"the patch does not hold ranks {start} to {stop}")
        part = slice(start - self.first, stop - self.first) if start < stop else slice(0, 0)
        return self.U[part], self.V[part]


class PatchFactors:
    """The factors of a patch, by the content keys of the untouched matrices; never computed."""

    def __init__(self, rows: Mapping[str, _PatchRows], noted: Mapping[str, str]) -> None:
        self._rows = dict(rows)
        self.inputs: Mapping[MatrixRef, Inputs] = {
            MatrixRef.parse(ref): NotedMoment(digest) for ref, digest in noted.items()
        }

    def key(self, weight: Tensor, factoring: Factoring | None = None) -> str:
        """The content key of the factors of `weight` [out, in]."""
        return content_key(weight, factoring=factoring)

    def load(self, key: str, rank: int | None = None, *, holding: int | None = None) -> Factors:
        """The factors of `key`. Raises KeyError if the patch has none."""

        def damaged(error: Exception) -> None:
            raise error

        return Factors(self._rows[key], rank or 0, damaged)

    def ensure(
        self, weight: Tensor, key: str, origin: str, *, factoring: Factoring | None = None
    ) -> bool:
        """Refuse: a patch has all it needs for its own base. Raises InputError."""
        raise InputError(f"{origin} is not a matrix that the patch was made from")


def write_patch(base: Base, placed: list[Placed], store: FactorStore, out: Path) -> Origin:
    """Write patch.safetensors to `out`: rows of factors, spectra, and what they belong to."""
    composition = Composition(tuple(one.intervention for one in placed))
    origin = Origin.of(base, PATCH_FORMAT, composition, store)
    products = Products(store, base.source.path, 0)
    tensors: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    for one in placed:
        original = base.origin.read(one.matrix)
        kept = products.kept(one.intervention, original)
        full = min(original.shape)
        needed, _ = multiplied(kept, full) if kept else (range(0), False)
        if kept is None or not (needed or one.intervention.rule.needs_spectrum):
            continue  # pruned, emptied or whole: the base itself is all that is needed
        ranks = reach(kept, full) if needed else (0, 0)
        factors = products.factors(one.intervention, original, *ranks)
        U, V = factors.ranks(needed.start, needed.stop)
        name = str(one.matrix.ref)
        tensors |= {f"{name}.U": U.clone(), f"{name}.V": V.clone()}
        tensors[f"{name}.S"] = factors.spectrum.clone()
        rows[name] = {
            "key": content_key(original, factoring=products.factoring(one.intervention)),
            "first": needed.start,
        }
    origin = Origin(**{**asdict(origin), "tensors": edited_digests(base, placed, products)})
    facts = {"format": PATCH_FORMAT, "origin": json.dumps(asdict(origin)), "rows": json.dumps(rows)}
    write_file(out / PATCH, lambda path: save_file(tensors, path, facts))
    return origin


def write_recipe(base: Base, placed: list[Placed], store: FactorStore, out: Path) -> Origin:
    """Write recipe.json to `out`: the composition and what it belongs to.

    No factors are read. Second moments that cuts were made from lie beside it, in their own files.
    """
    composition = Composition(tuple(one.intervention for one in placed))
    origin = Origin.of(base, RECIPE_FORMAT, composition, store)
    moments = {one.digest: one for one in calibrated(composition, store).values()}
    for digest, one in moments.items():
        MomentStore(out).save(MOMENTS, digest, one.read(), 0)
    write_json(out / RECIPE, {k: v for k, v in asdict(origin).items() if k != "tensors"})
    return origin


def calibrated(composition: Composition, store: FactorStore) -> dict[MatrixRef, Inputs]:
    """What the matrices are given whose cuts are made from it. Raises InputError if unknown."""
    found = {}
    for cut in composition.interventions:
        if cut.made_by.needs_inputs:
            one = store.inputs.get(cut.matrix)
            cut.made_by.factoring_on(one)  # which refuses where there is none
            found[cut.matrix] = one
    return {ref: one for ref, one in found.items() if one is not None}


def recipe_factors(path: Path, origin: Origin, scratch: Path) -> FactorCache:
    """A cache in `scratch` for the recipe at `path`, with the second moments beside it."""
    store = MomentStore(path if path.is_dir() else path.parent)
    inputs: dict[MatrixRef, Inputs] = {}
    for ref, digest in origin.inputs.items():
        matrix = MatrixRef.parse(ref)
        found = store.find(MOMENTS, digest)
        if found is None or found.digest != digest:
            raise InputError(
                f"{path} lacks the second moment {digest[:12]} that {ref} was calibrated on, a "
                "file in its folder moments; copy the whole folder, or export it again"
            )
        inputs[matrix] = found
    return FactorCache(scratch, inputs=inputs)


def edited_digests(base: Base, placed: list[Placed], products: Products) -> dict[str, str]:
    """Digests that the edited tensors will have in a dense folder; nothing is written.

    Empty where the files hold a matrix in another form than the model.
    """
    if not all(one.tensor for one in placed):
        return {}
    cast = base.cast(placed)
    found = {}
    for name, change in dense_changes(base, placed, products, cast).items():
        stored = read_tensor(base.reader.folder / base.reader.files[name], name)
        found[name] = digest_of(change.make(stored)[name])
    return found


def read_edit(path: Path) -> tuple[Origin, FactorStore | None]:
    """A patch or recipe, by its folder or file; a recipe has no factors. Raises InputError."""
    file = path
    if path.is_dir():
        file = next((path / n for n in (PATCH, RECIPE) if (path / n).is_file()), path)
    if not file.is_file():
        raise InputError(
            f"{path} contains neither a patch nor a recipe; give a folder written by "
            "laser-search export --format patch or recipe"
        )
    try:
        if file.suffix == ".json":
            origin, store = _origin(file.read_text(encoding="utf-8")), None
        else:
            origin, store = _read_patch(file)
    except InputError:
        raise
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"{file} is not a patch or recipe, or is damaged ({words_of(error)}); export it again"
        ) from None
    if origin.format not in (PATCH_FORMAT, RECIPE_FORMAT):
        raise InputError(
            f"{file} has the format {origin.format!r}; use the version of laser-search that wrote "
            "it"
        )
    return origin, store


def _read_patch(file: Path) -> tuple[Origin, FactorStore]:
    rows = {}
    with open_weights(file) as stream:
        facts = stream.metadata()
        for name, row in json.loads(facts["rows"]).items():
            U, V, S = (stream.get_tensor(f"{name}.{part}") for part in "UVS")
            (count, height), (same, width), (whole,) = U.shape, V.shape, S.shape
            first = int(row["first"])
            if count != same or first < 0 or not first + count <= whole <= min(height, width):
                raise ValueError(f"the factors of {name} do not fit together")
            rows[row["key"]] = _PatchRows((height, width), S, first, U, V)
    origin = _origin(facts["origin"])
    return origin, PatchFactors(rows, origin.inputs)


def _origin(text: str) -> Origin:
    """What an edit says it belongs to. Raises ValueError and TypeError on another shape."""
    found = Origin(**json.loads(text))
    for name in ("format", "base_model", "base"):
        if not isinstance(getattr(found, name), str):
            raise ValueError(f"{name} is {getattr(found, name)!r}, expected text")
    for name, known in (("head", get_args(HeadChoice)), ("dtype", _DTYPES)):
        if (value := getattr(found, name)) not in known:
            raise ValueError(f"{name} is {value!r}, expected one of {', '.join(known)}")
    if not all(isinstance(x, dict) for x in (found.composition, found.tensors, found.inputs)):
        raise ValueError("composition, tensors and inputs are mappings")
    if not isinstance(found.revision, str | None):
        raise ValueError(f"revision is {found.revision!r}, expected text")
    return found


class Patch(Format):
    """The kept factors alone, for the base model that they belong to."""

    name = "patch"
    about = "the kept factors alone, for the base model that they belong to"
    same_bytes = True
    usage = (
        "# laser-search apply OUT --model BASE --out DENSE\n"
        'from transformers import CLASS\nmodel = CLASS.from_pretrained("DENSE")'
    )

    def size(self, work: Work) -> int:
        """See `Format.size`."""
        return sum(4 * sum(p.matrix.shape) * p.matrix.max_rank for p in work.placed)

    def write(self, work: Work, out: Path) -> Written:
        """See `Format.write`."""
        origin = write_patch(work.base, work.placed, work.store, out)
        rows = {str(i.matrix): "kept factors" for i in work.composition.interventions}
        notes = ["Needs the base model, byte for byte; another one is refused by its digest."]
        return Written(rows, notes, {"base tensors": origin.base, **origin.tensors})

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """The base with the composition applied, in memory."""
        return load_edit(folder, base, device, scratch)


class Recipe(Format):
    """The composition alone, for the base model."""

    name = "recipe"
    about = "the composition alone, for the base model"
    usage = (
        "# laser-search apply OUT --model BASE --out DENSE\n"
        'from transformers import CLASS\nmodel = CLASS.from_pretrained("DENSE")'
    )

    def size(self, work: Work) -> int:
        """See `Format.size`."""
        needed = calibrated(work.composition, work.store)
        widths = {one.digest: work.base.matrices[ref].shape[1] for ref, one in needed.items()}
        return 4096 + sum(8 * width**2 + 1024 for width in widths.values())

    def write(self, work: Work, out: Path) -> Written:
        """See `Format.write`."""
        origin = write_recipe(work.base, work.placed, work.store, out)
        rows = {str(i.matrix): "to be computed" for i in work.composition.interventions}
        notes = [
            "Needs the base model, byte for byte; another one is refused by its digest.",
            "The SVDs are computed again. Another machine may round them differently: products "
            "agree within 1e-6 of a matrix's norm in float32, before they are cast to the model's "
            "dtype.",
        ]
        return Written(rows, notes, {"base tensors": origin.base})

    def load(self, folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
        """The base with the composition applied, in memory."""
        return load_edit(folder, base, device, scratch)


def load_edit(folder: Path, base: ModelSource, device: str, scratch: Path) -> Any:
    """The base with a patch or recipe applied in memory; factors are computed in `scratch`."""
    origin, store = read_edit(folder)
    loaded = base.load(device)
    cache = recipe_factors(folder, origin, scratch / "factors") if store is None else store
    Editor(loaded, all_matrices(loaded), cache).apply(Composition.from_dict(origin.composition))
    return loaded
