"""Eager attention in every Python process of a run of tests with `--attention eager`.

Python imports a module of this name when it starts, if its folder is in PYTHONPATH, where
tests/conftest.py puts it: so the option reaches the processes that tests start too. Models that ask
for a kind of attention by name get what they ask for.
"""

import sys
from importlib.abc import MetaPathFinder
from importlib.util import find_spec

MODULE = "transformers.modeling_utils"


def choose_eager(module):
    model = module.PreTrainedModel
    chosen = model.get_correct_attn_implementation

    def choose(self, requested, *rest, **options):
        return chosen(self, requested or "eager", *rest, **options)

    model.get_correct_attn_implementation = choose


class Eager(MetaPathFinder):
    """Changes transformers when it is imported, which most processes never do."""

    def find_spec(self, name, path, target=None):
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        load = spec.loader.exec_module

        def load_and_choose(module):
            load(module)
            choose_eager(module)

        spec.loader.exec_module = load_and_choose
        return spec


if MODULE in sys.modules:
    choose_eager(sys.modules[MODULE])
else:
    sys.meta_path.insert(0, Eager())
