"""From any Hugging Face model to its weight matrices, each with an address and a view."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from search.cuts.refs import GROUPS, MatrixRef
from search.weights.fallback import guess
from search.weights.layouts import Layout, layout_of
from search.weights.roles import Role
from search.weights.stacks import LinearMap, Stack, find_stacks, outside_maps
from search.weights.views import View
from tasks.errors import InputError


@dataclass(frozen=True)
class Matrix:
    """One weight matrix of a model: its address, and where its bytes are.

    `parameter` is the name in ``model.named_parameters()``, `module` that of the module which owns
    it, `block` that of the block around it, empty outside of blocks. `shape` is (out, in), `dtype`
    the parameter's. `rule` says what named the matrix: a row of the table, the structural fallback,
    or why it has no type. `searchable` is False for what stays out of the default space: routers,
    modules that no rule knows, shared weights, what is outside the blocks. `shared` says who else
    uses the parameter, or is empty.
    """

    ref: MatrixRef
    parameter: str
    shape: tuple[int, int]
    dtype: torch.dtype
    module: str
    rule: str
    searchable: bool
    view: View = field(default_factory=View)
    block: str = ""
    shared: str = ""

    @property
    def max_rank(self) -> int:
        """min(out, in)."""
        return min(self.shape)

    def read(self, parameter: Tensor) -> Tensor:
        """A contiguous copy [out, in] of the matrix, in `parameter`'s dtype and on its device."""
        view = self.view.of(parameter.detach())
        return view.clone(memory_format=torch.contiguous_format).view(self.shape)

    def write(self, parameter: Tensor, value: Tensor) -> None:
        """Put `value` [out, in], cast to `parameter`'s dtype, in the matrix's rows.

        Mutates `parameter` in place, exactly those rows; its other bytes stay. Raises ValueError on
        another shape.
        """
        if tuple(value.shape) != self.shape:
            raise ValueError(f"{self.ref} is {self.shape}, not {tuple(value.shape)}")
        view = self.view.of(parameter.detach())
        view.copy_(value.view(view.shape) if value.is_contiguous() else value.reshape(view.shape))


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Every weight that acts as a linear map in the blocks of `model`, sorted by address.

    Only names, shapes and dtypes are read, so `model` may live on the meta device. The family's row
    in `search.weights.layouts` names the matrices; then the structural fallback; what neither knows
    is listed under its module's own name, out of the default space. A parameter that several
    modules share is listed once. Raises InputError if the model has no blocks, or its weights are
    quantised or sharded.
    """
    stacks = find_stacks(model)
    if not stacks:
        raise InputError(
            f"{type(model).__name__} has no stack of blocks with linear maps; "
            "expected a transformer such as GPT-2, Llama, BERT or T5"
        )
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    listed: set[int] = set()
    found = [matrix for stack in stacks for matrix in _in_stack(stack, names, listed)]
    return sorted(_distinct(found), key=lambda matrix: matrix.ref)


def find_outside(model: nn.Module) -> list[Matrix]:
    """The linear layers in none of the blocks of `model`: poolers, heads, projections; sorted.

    They are addressed by their module, without that of the base model: ``pooler.dense``,
    ``classifier``, ``lm_head``. None is searchable: a space has those alone that it names. As
    `find_matrices`, this reads names, shapes and dtypes alone, and lists a shared parameter once.
    """
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    found: dict[int, Matrix] = {}
    for linear in outside_maps(model, find_stacks(model)):
        identity = id(linear.parameter)
        if identity in found:
            continue
        first, *aliases = names[identity]  # by which ``named_parameters()`` has it
        shared = f"also used as {', '.join(aliases)}" if aliases else ""
        view = View(transposed=linear.transposed)
        found[identity] = Matrix(
            ref=MatrixRef.outside(linear.local),
            parameter=first,
            shape=view.shape(linear.parameter.shape),
            dtype=linear.parameter.dtype,
            module=linear.module,
            rule="outside the blocks" + (f"; {shared}" if shared else ""),
            searchable=False,
            view=view,
            shared=shared,
        )
    return sorted(found.values(), key=lambda matrix: matrix.ref)


def all_matrices(model: nn.Module) -> list[Matrix]:
    """Those in the blocks of `model`, then those outside. Raises InputError."""
    return [*find_matrices(model), *find_outside(model)]


def _in_stack(stack: Stack, names: dict[int, list[str]], listed: set[int]) -> Iterator[Matrix]:
    """The matrices of one stack whose parameters are not yet in `listed`, which grows."""
    layout = layout_of(stack.model_type)
    uses = stack.uses(layout)
    for layer, block in enumerate(stack.blocks):
        roles = _roles(layout, block.maps)
        for linear, (rule, role) in zip(block.maps, roles, strict=True):
            identity = id(linear.parameter)
            if identity in listed:
                continue
            listed.add(identity)
            aliases = [name for name in names[identity] if name != linear.name]
            shared = f"also used as {', '.join(aliases)}" if aliases else ""
            if uses > 1:
                shared = f"one set of weights serves {uses} layers"
            for matrix in _pieces(stack, layer, linear, rule, role):
                yield replace(
                    matrix,
                    block=block.name,
                    shared=shared,
                    searchable=matrix.searchable and not shared,
                    rule=f"{matrix.rule}; {shared}" if shared else matrix.rule,
                )


def _roles(layout: Layout | None, maps: list[LinearMap]) -> list[tuple[str, Role | None]]:
    """(rule, role) of each map of one block: the row of the table first, then the fallback."""
    guesses = guess({linear.local: linear.shape for linear in maps})
    answers: list[tuple[str, Role | None]] = []
    for linear in maps:
        role = layout.role(linear.local) if layout else None
        guessed = guesses.get(linear.local)
        if role is not None and layout is not None:
            answers.append((f"table row {layout.name}", role))
        elif guessed is not None:
            role = replace(guessed.role, order="alternate") if linear.alternate else guessed.role
            answers.append((f"structural fallback: {guessed.reason}", role))
        else:
            answers.append(("no rule knows this module", None))
    return answers


def _pieces(
    stack: Stack, layer: int, linear: LinearMap, rule: str, role: Role | None
) -> Iterator[Matrix]:
    """The matrices inside one parameter: parts of a fused weight, experts of a stack."""
    shape = linear.parameter.shape
    experts: list[int | None] = list(range(shape[0])) if len(shape) == 3 else [None]
    transposed = linear.transposed or (role is not None and role.transposed)
    rows = View(transposed=transposed).shape(shape)[0]
    spans = role.spans(rows, stack.config) if role is not None and role.types else None
    if role is not None and not role.types:
        rule = f"{rule}: {role.note}"
    elif role is not None and spans is None:
        rule = f"{rule} knows it as fused, but {rows} rows do not fit the configuration"
    for expert in experts:
        pieces = [(_own_ref(stack, layer, linear.local, expert), View())]
        if role is not None and spans is not None:
            index = expert if expert is not None else role.expert_of(linear.local)
            pieces = [
                (MatrixRef(layer, kind, stack.name, role.cross, index), view)
                for kind, view in spans
            ]
        for ref, part in pieces:
            view = replace(part, expert=expert, transposed=transposed)
            yield Matrix(
                ref=ref,
                parameter=linear.name,
                shape=view.shape(shape),
                dtype=linear.parameter.dtype,
                module=linear.module,
                rule=rule,
                searchable=spans is not None,
                view=view,
            )


def _own_ref(stack: Stack, layer: int, local: str, expert: int | None) -> MatrixRef:
    """The address of a matrix without a type: its own module name, made fit to be parsed."""
    if not local[0].isalpha() or local in GROUPS["all"] or local.startswith(("cross.", "experts.")):
        local = f"module.{local}"
    return MatrixRef(layer, local, stack.name, expert=expert)


def _distinct(matrices: list[Matrix]) -> list[Matrix]:
    """Give matrices that share one address their own module names, so that none is lost."""
    count = Counter(matrix.ref for matrix in matrices)
    return [_renamed(matrix) if count[matrix.ref] > 1 else matrix for matrix in matrices]


def _renamed(matrix: Matrix) -> Matrix:
    local = matrix.parameter.removeprefix(f"{matrix.block}.").removesuffix(".weight")
    fused = f".{matrix.ref.type}" if matrix.view.width else ""
    return replace(
        matrix,
        ref=replace(matrix.ref, type=f"module.{local}{fused}", cross=False),
        rule=f"{matrix.rule}; {matrix.ref} would name more than one matrix",
        searchable=False,
    )
